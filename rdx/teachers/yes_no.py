"""Language models that were trained to say whether a passage answers a query: yes or no."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import pandas as pd
from annotated_types import MinLen

from rdx import late
from rdx.assets import Model
from rdx.collection import Collection
from rdx.declared import PRECISION, SCHEDULES, Group, Positive, Texts, one_of, settings
from rdx.precision import AUTO
from rdx.rankings import Scale
from rdx.teachers import pointwise

if TYPE_CHECKING:
    from rdx.teachers import judge
else:
    judge = late.module("rdx.teachers.judge")  # torch and Transformers

CHUNK = 16  # batches of passages between two writes
FIELD = re.compile(r"\{(query|passage|instruction)\}")
# By the difference d of the two logits; a softmax over the two is a sigmoid of it.
SCORES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "difference": lambda d: d,
    "log_probability": lambda d: -np.logaddexp(0, -d),
    "probability": lambda d: np.exp(-np.logaddexp(0, -d)),
}


@settings(frozen=True)
class Form:
    """What a model reads of a pair, and what its answer is worth.

    Parameters
    ----------
    parts
        What it reads, in order: texts that are tokenised one by one, in which {query}, {passage}
        and {instruction} stand for those. Where query or passage stand, nothing is a special token;
        in a part without them `<|im_start|>` and the like are.
    positive, negative
        The answers yes and no, each a token of the vocabulary. They are compared where the answer
        begins: after the last part; of an encoder-decoder, as the first word of the decoder.
    score
        "probability" of yes where only yes and no are possible, "log_probability" of that, or
        "difference" of the two logits. All order passages alike, by the difference.
    instruction
        What to look for.
    """

    parts: Annotated[Texts, MinLen(1)]
    positive: str
    negative: str
    score: Annotated[str, one_of(*SCORES)] = "difference"
    instruction: str = ""

    def __post_init__(self) -> None:
        """Check that the parts show a query and a passage."""
        for field in ("{query}", "{passage}"):
            if sum(part.count(field) for part in self.parts) != 1:
                raise ValueError(f"parts={list(self.parts)}: must have {field} once")

    def texts(self, query: str, passage: str) -> list[str]:
        """The parts of a pair."""
        values = {"query": query, "passage": passage, "instruction": self.instruction}
        return [FIELD.sub(lambda field: values[field[1]], part) for part in self.parts]


@settings(frozen=True)
class YesNo(pointwise.Settings):
    """A language model says whether a passage answers a query; how surely is the score.

    monoT5 (Nogueira et al., Findings of EMNLP 2020), Qwen3-Reranker, mxbai-rerank-v2, and whatever
    has a `Form`.

    Parameters
    ----------
    model
        "asset:NAME", a folder, or a Hub id: a causal language model or an encoder-decoder.
    form
        How it is asked.
    query_length, passage_length
        Tokens kept of each.
    batch
        Pairs scored at a time. In float32 it changes no score beyond rounding.
    precision
        Of weights and arithmetic: "bf16", "fp32", or "auto": bf16 where the device computes it,
        else fp32.
    device
        "auto", "cpu", "cuda", ...
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    scale
        Of the scores, per query, as a student is given them.
    """

    model: Model
    form: Annotated[Form, Group("teacher/form")]
    query_length: Positive = 64
    passage_length: Positive = 384
    batch: Annotated[Positive, SCHEDULES] = 16
    precision: Annotated[str, one_of(AUTO, "bf16", "fp32"), PRECISION] = AUTO
    device: Annotated[str, SCHEDULES] = "auto"
    revision: str | None = None
    scale: Scale = "none"

    engines: ClassVar[tuple[str, ...]] = ("gguf",)

    @property
    def probabilities(self) -> bool:
        """Whether a score is the probability of yes."""
        return self.form.score == "probability"

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Score every candidate.

        Raises
        ------
        FormatError
            If the model orders the passages of no list (`pointwise.ranked`).
        """
        differences = pointwise.scored(
            *(candidates, collection, work / pointwise.LEDGER, CHUNK * self.batch),
            lambda: judge.Judge(self),
        )
        labels = pointwise.ranked(candidates, differences, self.model)
        scores = SCORES[self.form.score](labels.score.to_numpy())
        return labels.assign(score=scores.astype(np.float32))
