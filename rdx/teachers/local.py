"""Causal language models of Transformers in this process, as backend of a listwise teacher.

Windows of several queries are answered in one batch. Key-value caches are not reused between
windows: a window re-orders what the one before it showed, so that two of them share the words
before the first passage and nothing else, about one token in thirty at 20 passages.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any

from rdx import late
from rdx.assets import Model, check_model
from rdx.declared import PRECISION, SCHEDULES, Positive, one_of, settings
from rdx.precision import AUTO, chosen
from rdx.teachers.in_process import InProcess
from rdx.teachers.messages import Identity
from rdx.teachers.revisions import which

if TYPE_CHECKING:
    from rdx.teachers import engine
else:
    engine = late.module("rdx.teachers.engine")  # torch and Transformers

SCORES = ("generate", "first_token")


@settings(frozen=True)
class Local:
    """A causal LM in this process.

    Answers are greedy. In fp32 they do not depend on which requests share a batch; in bf16
    rounding does, so that close decisions may differ.

    Parameters
    ----------
    model
        "asset:NAME", a folder (Hugging Face or GGUF), or a Hub id.
    precision
        "bf16", "fp32", or "auto": bf16 where the device computes it, else fp32.
    device
        "auto", "cpu", "cuda", ...
    batch
        Windows answered at a time, at most; fewer where half of the free memory does not hold the
        keys and values of more. Halved when the device's memory does not suffice.
    score
        "generate": the model writes the permutation, and is stopped when it is complete.
        "first_token": one forward pass; the passages in the order of the logits of their letters
        (A-Z, so at most 26 passages) where the answer begins (FIRST, Reddy et al., EMNLP 2024).
        The prompt must name passages by letters.
    opening
        With "first_token": what the answer has before its first letter, "" or, for models that
        were trained on answers such as "[B] > [A]", "[".
    max_new_tokens
        With "generate": None = as many as the permutation needs, and a few more; models that
        think aloud need room for it.
    context
        Longest prompt and answer together, in tokens; None = the model's number of positions.
    chat_variables
        Given to the model's chat template, such as {enable_thinking: false}.
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    """

    model: Model
    precision: Annotated[str, one_of(AUTO, "bf16", "fp32"), PRECISION] = AUTO
    device: Annotated[str, SCHEDULES] = "auto"
    batch: Annotated[Positive, SCHEDULES] = 16
    score: Annotated[str, one_of(*SCORES)] = "generate"
    opening: str = ""
    max_new_tokens: Positive | None = None
    context: Positive | None = None
    chat_variables: dict[str, Any] = field(default_factory=dict)
    revision: str | None = None

    def __post_init__(self) -> None:
        """Choose the precision."""
        object.__setattr__(self, "precision", chosen(self.precision, self.device))

    def check(self) -> None:
        """Raise FileNotFoundError or ValueError if the model is none that could be loaded."""
        check_model(self.model, self.revision)

    def backend(self) -> InProcess:
        """A backend that loads the model when it is first asked."""
        return InProcess(self)

    def identity(self) -> Identity:
        """All that changes answers, which device and batch do not.

        Nor are the versions of Transformers and torch part of it: they change the rounding at
        most, and an update must not make all answers worthless.
        """
        by_score: dict[str, Identity] = {
            "generate": {"max_new_tokens": self.max_new_tokens},
            "first_token": {"opening": self.opening},
        }
        return {
            "engine": "transformers",
            **which(self.model, self.revision),
            "precision": self.precision,
            "score": self.score,
            "context": self.context,
            "chat_variables": dict(self.chat_variables),
            **by_score[self.score],
        }

    def longest(self, size: int) -> int | None:
        """Tokens of the longest answer; None where the permutation decides them."""
        return 1 if self.score == "first_token" else self.max_new_tokens

    def load(self) -> engine.Engine:
        """The loaded model."""
        return engine.Engine(self)
