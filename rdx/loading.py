"""Loading models by Transformers: quietly, and no checkpoint that lacks weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rdx.assets import TRUST

# Transformers would ask the Hub, from a thread of its own, to convert weights to safetensors.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")


def pretrained(
    kind: Any, folder: str, fresh: Callable[[Any, str], bool] | None = None, **options: Any
) -> Any:
    """Load a model of a folder.

    Parameters
    ----------
    kind
        A class of Transformers with `from_pretrained`.
    fresh
        Whether the weights of a name may be drawn anew; None = no weights may.

    Raises
    ------
    ValueError
        If the folder lacks weights that may not.
    """
    with quiet():
        model, report = kind.from_pretrained(folder, output_loading_info=True, **TRUST, **options)
    lacking = sorted(n for n in report["missing_keys"] if fresh is None or not fresh(model, n))
    if lacking:
        raise ValueError(
            f"model={folder}: its weights lack {len(lacking)} tensors of {type(model).__name__}, "
            f"e.g. {lacking[0]}, which would be random; take a whole checkpoint of this "
            "architecture"
        )
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and load reports of Transformers where nobody watches.

    What the reports say of weights is checked by `pretrained`; a verbosity that the user has set
    stays.
    """
    from transformers.utils import logging

    if sys.stderr.isatty() or "TRANSFORMERS_VERBOSITY" in os.environ:
        yield
        return
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
