"""Silence libraries, but for what matters and what the user has asked for."""

from __future__ import annotations

import logging
import os
import re
import sys

# Libraries that tell every request or step at the level of information, which Hydra shows.
CHATTY = "filelock fontTools git httpcore httpx huggingface_hub matplotlib urllib3".split()
RETRIES = "urllib3.connectionpool"  # warns at every one; what fails in the end, rdx tells itself
# Read by the libraries when they are imported, also in processes that this one starts.
DEFAULTS = {
    "HF_HUB_VERBOSITY": "error",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait for each other sleep instead of spinning: beside other work, even a browser,
    # spinning made training several times slower (benchmarks/README.md).
    "OMP_WAIT_POLICY": "PASSIVE",
}
# Where nobody watches, bars of libraries show after a minute, and then once a minute.
UNATTENDED = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DELAY": "60",
    "TQDM_MININTERVAL": "60",
}
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_ABSENT = re.compile(r"^(\S+) *\| *MISSING\b", re.MULTILINE)


def environment() -> None:
    """Set the variables that libraries read when they are loaded; those of the user stay."""
    more = {} if sys.stderr.isatty() else UNATTENDED
    for name, value in (DEFAULTS | more).items():
        os.environ.setdefault(name, value)


def loggers() -> None:
    """Leave out what libraries log of every request and step; levels that are set stay."""
    for name, level in (dict.fromkeys(CHATTY, logging.WARNING) | {RETRIES: logging.ERROR}).items():
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(level)
    logging.getLogger("transformers.modeling_utils").addFilter(matters)


def matters(record: logging.LogRecord) -> bool:
    """Whether to show a line of Transformers; a report of loaded weights becomes one line.

    Weights of the checkpoint that the model does not have, because layers or a head were cut off,
    are no news; weights of the model that the checkpoint does not have are.
    """
    text = _STYLE.sub("", record.getMessage())
    if "LOAD REPORT" not in text or re.search(r"\| *(MISMATCH|CONVERSION)\b", text):
        return True
    absent = _ABSENT.findall(text)
    if not absent:
        return False
    source = text.partition("from: ")[2].partition("\n")[0]
    record.msg = f"{source}: new weights, since the checkpoint has none: {', '.join(absent)}"
    record.args = ()
    return True
