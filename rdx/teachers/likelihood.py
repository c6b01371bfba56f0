"""Query likelihood: a small causal LM scores single passages.

A passage is read once, whatever the number of queries that it is a candidate of: the model's keys
and values of passage and instruction serve all of them (`_Scorer`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import pandas as pd
from pydantic import AfterValidator

from rdx import late, rankings
from rdx.assets import Model
from rdx.collection import Collection
from rdx.declared import PRECISION, SCHEDULES, DecidedBy, Positive, Share, one_of, settings
from rdx.precision import AUTO
from rdx.teachers import pointwise

if TYPE_CHECKING:
    from rdx.teachers import scorer
else:
    scorer = late.module("rdx.teachers.scorer")  # torch and Transformers

PASSAGE = "{passage}"
# What the query is a continuation of: a space and the query follow.
PROMPTS = {
    "docstring": "Documentation: {passage}\nA one-line summary of it:",
    "web_passage": "Web page: {passage}\nA search query that this page answers:",
}


def prompt_of(prompt: str) -> str:
    """The text of a prompt that is given by its name, or as it is."""
    return PROMPTS.get(prompt, prompt)


def _asks(prompt: str) -> str:
    """Refuse what is neither a name nor shows the passage once."""
    if prompt_of(prompt).count(PASSAGE) != 1:
        raise ValueError(f"must be one of {list(PROMPTS)}, or a text with {PASSAGE} once")
    return prompt


@settings(frozen=True)
class QueryLikelihood(pointwise.Settings):
    """Mean log p(query token | passage) under a causal LM, after Sachan et al. (EMNLP 2022).

    The LM reads the passage and an instruction, and scores the query's tokens; no label is used.
    With `interpolation` w, the ranking is by ``(1 - w) z(log p) + w z(first-stage score)``, z
    being the z-score within the list (Zhuang et al. 2023 interpolate likewise). Ties as trec_eval.

    Parameters
    ----------
    model
        "asset:NAME", a folder (Hugging Face or GGUF), or a Hub id.
    passage_length, query_length
        Tokens kept of each; what the prompt has before the passage counts as part of it.
    interpolation
        Weight of the first stage, 0 (LLM alone) to 1.
    scale
        Of the scores that a student learns from, per query (docs/teachers.md).
    chunk
        Passages scored, each for all queries that it is a candidate of, and appended to the ledger
        at a time; batches never cross chunks, so that an interrupted teacher gives the same
        numbers as an undisturbed one.
    prompt
        What the LM reads before the query: "docstring" (for documentation of programs),
        "web_passage" (MS MARCO), or a text with {passage} once. Sachan et al. and Zhuang et al.
        (EMNLP 2023) show how much its wording matters.
    bos
        Whether the LM's token for the beginning of a text comes first. Models that never saw a text
        without it (Gemma) need it.
    precision
        Of weights and arithmetic: "bf16", "fp32", or "auto": bf16 where the device computes it,
        else fp32. Log-probabilities are float32.
    device
        "auto", "cpu", "cuda", ...
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    """

    model: Model
    passage_length: Positive = 96
    query_length: Positive = 32
    interpolation: Share = 0.0
    scale: rankings.Scale = "none"
    prompt: Annotated[str, AfterValidator(_asks), DecidedBy(prompt_of)] = "docstring"
    bos: bool = False
    chunk: Positive = 64
    precision: Annotated[str, one_of(AUTO, "bf16", "fp32"), PRECISION] = AUTO
    device: Annotated[str, SCHEDULES] = "auto"
    revision: str | None = None

    engines: ClassVar[tuple[str, ...]] = ("gguf",)

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Score every candidate, and rank by the interpolated score.

        Raises
        ------
        FormatError
            If the model orders the passages of no list (`pointwise.ranked`).
        """
        llm = pointwise.scored(
            *(candidates, collection, work / pointwise.LEDGER, self.chunk),
            lambda: scorer.Scorer(self),
        )
        both = candidates.assign(llm=llm.astype("float64"))
        mixed = (1 - self.interpolation) * rankings.z_scores(both, "llm")
        mixed += self.interpolation * rankings.z_scores(both, "score")
        return pointwise.ranked(candidates, llm, self.model, mixed)
