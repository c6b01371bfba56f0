"""Causal language models that vLLM runs in this process, as backend of a listwise teacher.

Chats become tokens, and tokens text, as with `Local`; only the engine differs. It is called by its
offline interface (docs.vllm.ai: `LLM`, `LLM.generate`, `SamplingParams`), and imported when a model
is loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar

from annotated_types import Le
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from rdx.assets import Model, check_model
from rdx.declared import SCHEDULES, Above0, From0, Positive, Seed, one_of, settings, version
from rdx.gguf import folder_of
from rdx.teachers.chats import Chats, Row, end_tokens
from rdx.teachers.in_process import InProcess
from rdx.teachers.messages import Answer, Identity, Message
from rdx.teachers.revisions import which

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@settings(frozen=True)
class VLLM:
    """A causal LM in this process, run by vLLM.

    An answer ends at an end token or at its limit. Requests are seeded one by one, so that an
    answer does not depend on the others beyond rounding.

    Parameters
    ----------
    model
        "asset:NAME", a folder (Hugging Face), or a Hub id.
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    precision
        "bf16", "fp16" or "fp32", of weights and arithmetic.
    temperature, seed
        Of the sampling; 0 is greedy. A window that is asked again gets the same seed.
    max_new_tokens
        None = as many as the permutation needs, and a few more; models that think aloud need room
        for it.
    context
        Longest prompt and answer together, in tokens; None = the model's number of positions. vLLM
        does not start where the memory does not hold the keys and values of so many.
    chat_variables
        Given to the model's chat template, such as {enable_thinking: false}.
    batch
        Windows given to the engine at a time, at most; it batches them by itself.
    tensor_parallel_size, gpu_memory_utilization, enforce_eager
        As vLLM names them: GPUs that share the model; share of a GPU's memory that is taken;
        whether CUDA graphs are not captured, which starts sooner and runs slower.
    """

    model: Model
    revision: str | None = None
    precision: Annotated[str, one_of(*DTYPES)] = "bf16"
    temperature: From0 = 0.0
    seed: Seed = 0
    max_new_tokens: Positive | None = None
    context: Positive | None = None
    chat_variables: dict[str, Any] = field(default_factory=dict)
    batch: Annotated[Positive, SCHEDULES] = 256
    tensor_parallel_size: Annotated[Positive, SCHEDULES] = 1
    gpu_memory_utilization: Annotated[Above0, Le(1), SCHEDULES] = 0.9
    enforce_eager: Annotated[bool, SCHEDULES] = False

    requires: ClassVar[str] = "vllm"
    engines: ClassVar[tuple[str, ...]] = ("vllm",)

    def check(self) -> None:
        """Raise FileNotFoundError or ValueError if the model is none that could be loaded."""
        check_model(self.model, self.revision)

    def backend(self) -> InProcess:
        """A backend that loads the model when it is first asked."""
        return InProcess(self)

    def identity(self) -> Identity:
        """All that changes answers, vLLM's version too."""
        return {
            "engine": f"vllm {version('vllm')}",
            **which(self.model, self.revision),
            "precision": self.precision,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_new_tokens": self.max_new_tokens,
            "context": self.context,
            "chat_variables": dict(self.chat_variables),
        }

    def longest(self, size: int) -> int | None:
        """Tokens of the longest answer; None where the permutation decides them."""
        return self.max_new_tokens

    def load(self) -> Engine:
        """The loaded model."""
        return Engine(self)


class Engine:
    """The loaded model."""

    def __init__(self, settings: VLLM) -> None:
        from vllm import LLM, SamplingParams

        self.settings, self._sampling = settings, SamplingParams
        folder = folder_of(settings.model, settings.revision)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        self.chats = Chats(tokenizer, config, settings)
        try:
            generation = GenerationConfig.from_pretrained(folder)
        except OSError:  # the model has none
            generation = GenerationConfig.from_model_config(config)
        self.ends = sorted(end_tokens(tokenizer, generation))
        self._llm = LLM(
            model=str(folder),
            dtype=DTYPES[settings.precision],
            seed=settings.seed,
            max_model_len=self.chats.context,
            tensor_parallel_size=settings.tensor_parallel_size,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            enforce_eager=settings.enforce_eager,
            trust_remote_code=False,
        )

    def row(self, messages: list[Message], size: int) -> Row:
        """The tokens of a chat that shows `size` passages."""
        return self.chats.row(messages, size)

    def together(self, rows: Sequence[Row]) -> list[int]:
        """As many rows as the engine is given at a time."""
        return list(range(min(len(rows), self.settings.batch)))

    def answers(self, rows: Sequence[Row], stop: threading.Event) -> list[Answer]:
        """One answer per row; what has begun is not stopped."""
        outputs = self._llm.generate(
            [{"prompt_token_ids": row.ids} for row in rows],
            [self._parameters(row) for row in rows],
            use_tqdm=False,
        )
        return [self._answer(*pair) for pair in zip(rows, outputs, strict=True)]

    def _parameters(self, row: Row) -> Any:
        return self._sampling(
            temperature=self.settings.temperature,
            seed=self.settings.seed,
            max_tokens=row.limit,
            stop_token_ids=self.ends,
            detokenize=False,  # which would drop the special tokens that mark thoughts
        )

    def _answer(self, row: Row, output: Any) -> Answer:
        [said] = output.outputs
        text = self.chats.text(row, said.token_ids)
        taken = len(output.prompt_token_ids), len(said.token_ids)
        return Answer(text, *taken, 0.0, said.finish_reason or "unknown")
