"""What libraries may print: what matters, where the user has not asked for more."""

from __future__ import annotations

import logging
import os
import sys

_SETTINGS = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# Where nobody looks on, tqdm writes a plain line a minute, from the first minute on.
_PLAIN = {
    "TQDM_DELAY": "60",
    "TQDM_MININTERVAL": "60",
    "TQDM_BAR_FORMAT": "{desc}: {n_fmt} of {total_fmt} after {elapsed}\n",
}
_CHATTY = ("httpx", "httpcore", "urllib3", "huggingface_hub", "alembic", "mlflow")


def environment() -> None:
    """Set the variables that libraries read when they are loaded, and workers inherit."""
    for name, value in (_SETTINGS | ({} if sys.stderr.isatty() else _PLAIN)).items():
        os.environ.setdefault(name, value)


def loggers() -> None:
    """Leave out what libraries log of every request and every migration."""
    for name in _CHATTY:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
