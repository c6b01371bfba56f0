"""Load models by Transformers; refuse those whose weights are not all the folder's."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from transformers.utils import logging as transformers_logging

from rdx.assets import TRUST
from rdx.faults import Mendable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Transformers would ask the Hub, from a thread of its own, to convert weights to safetensors.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
transformers_logging.disable_progress_bar()  # of reading and writing weights, which takes seconds

SAID = 600  # characters of a library's message that are passed on
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


class ModelError(Mendable, ValueError):
    """A model that cannot be what it is asked to be; the message names the key and the cure."""


class ModelClass(Protocol):
    """A class of models, or one that chooses it by the configuration, as AutoModel does."""

    def from_pretrained(self, *arguments: Any, **options: Any) -> Any:
        """Load a model."""


@dataclass(frozen=True)
class Report:
    """How the weights of a folder fit a model.

    Attributes
    ----------
    missing
        Weights of the model that the folder lacks: they were drawn anew.
    unused
        Weights of the folder that the model has no place for.
    mismatched
        Weights that have a shape in the folder and another in the model: they were drawn anew.
    """

    missing: frozenset[str]
    unused: frozenset[str]
    mismatched: Mapping[str, Shapes]


def pretrained(
    kind: ModelClass,
    folder: str,
    fresh: Callable[[PreTrainedModel, str], bool] | None = None,
    **options: object,
) -> PreTrainedModel:
    """Load a model from a folder.

    Parameters
    ----------
    kind
        A class of Transformers.
    fresh
        Whether the weights of a name may be drawn anew; None = no weights may.

    Raises
    ------
    ModelError
        If it cannot be loaded, or not all of its weights are those of the folder.
    """
    model, report = load(kind, folder, f"model={folder}", **options)
    refuse(model, report, f"model={folder}", fresh)
    return model


def load(
    kind: ModelClass, folder: str, name: str, **options: object
) -> tuple[PreTrainedModel, Report]:
    """Load what a folder has of a model; `refuse` judges the report.

    `name` begins the message of errors.

    Raises
    ------
    ModelError
        If Transformers cannot load it.
    """
    with explained(name), _unreported():
        model, report = kind.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **TRUST, **options
        )
    return model, Report(
        frozenset(report["missing_keys"]),
        frozenset(report["unexpected_keys"]),
        {key: (tuple(file), tuple(own)) for key, file, own in report["mismatched_keys"]},
    )


def refuse(
    model: PreTrainedModel,
    report: Report,
    name: str,
    fresh: Callable[[PreTrainedModel, str], bool] | None = None,
    cut: Callable[[str], bool] | None = None,
) -> None:
    """Raise ModelError unless the model is the folder's.

    Weights of the folder beside the encoder (another task's head) may be left unused; weights
    inside it may not, except those that `cut` says were cut off.
    """
    kind = type(model).__name__
    missing = sorted(n for n in report.missing if fresh is None or not fresh(model, n))
    if missing:
        raise ModelError(
            f"{name}: its weights lack {len(missing)} tensors of {kind}, e.g. {missing[0]}, which "
            f"would be random; {_cure(model, missing[0], report.unused)}"
        )
    if report.mismatched:
        key, (file, own) = min(report.mismatched.items())
        raise ModelError(
            f"{name}: {len(report.mismatched)} of its tensors have another shape than {kind} by "
            f"its config.json, e.g. {key}: {list(file)}, not {list(own)}; take weights and "
            "config.json that were saved together"
        )
    unused = sorted(k for k in report.unused if _inside(model, k) and not (cut and cut(k)))
    if unused:
        raise ModelError(
            f"{name}: {len(unused)} of its tensors have no place in {kind} by its config.json, "
            f"e.g. {unused[0]}; take weights and config.json that were saved together"
        )


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what a library says of a folder into a ModelError of one line."""
    try:
        yield
    except (ModelError, ImportError):  # what is not installed is told elsewhere
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise ModelError(f"{name}: {type(error).__name__}: {said[:SAID]}") from error


def _cure(model: PreTrainedModel, missing: str, unused: frozenset[str]) -> str:
    """How to get a folder of whole weights: some are there under a longer name."""
    for end in (missing, missing.removeprefix(f"{model.base_model_prefix}.")):
        longer = sorted(key for key in unused if key.endswith(f".{end}"))
        if longer:
            prefix = longer[0].removesuffix(end)
            return (
                f"they are there with the prefix {prefix!r} of what was wrapped around the model: "
                "call save_pretrained of the model inside, or take the prefix off their names"
            )
    return "take a whole checkpoint of this architecture"


def _inside(model: PreTrainedModel, key: str) -> bool:
    """Whether a weight that is not used lies in a part that the encoder has.

    Other data of a module that is there (old buffers, say) are no weights.
    """
    base = model.base_model
    name = key.removeprefix(f"{model.base_model_prefix}.")
    if name.partition(".")[0] not in dict(base.named_children()):
        return False
    parent, _, leaf = name.rpartition(".")
    return leaf in ("weight", "bias") or parent not in dict(base.named_modules())


@contextmanager
def _unreported() -> Iterator[None]:
    """Leave out Transformers' table of weights that do not fit: they are judged here."""
    logger = logging.getLogger("transformers.modeling_utils")

    def judged(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not ("LOAD REPORT" in text and re.search(r"\b(MISMATCH|CONVERSION)\b", text))

    logger.addFilter(judged)
    try:
        yield
    finally:
        logger.removeFilter(judged)
