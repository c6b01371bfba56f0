"""Settings of a student, and making or loading one."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from annotated_types import MinLen
from safetensors.torch import load_file

from rdx.assets import Model, check_model, model_path
from rdx.declared import (
    SCHEDULES,
    Above0,
    BelowOne,
    Positive,
    Texts,
    one_of,
    settings,
)
from rdx.draws import seed as draw_seed
from rdx.loading import explained
from rdx.students import probe
from rdx.students.apart import refuse_mixing
from rdx.students.encoder import CrossEncoder, add_adapters, compile_encoder
from rdx.students.folders import HEAD, check_folder, saved_head, saved_side
from rdx.students.heads import OWN
from rdx.students.tokenising import Pairs, load_tokenizer
from rdx.students.weights import configuration, dropouts, first_layers, read_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEADS = ("cls", *OWN)
ATTENTION = ("full", "sparse")
# As Transformers names them. The flash ones need packages (and GPUs) of their own, and take no mask
# that keeps two texts apart.
MASKED = ("eager", "sdpa")
IMPLEMENTATIONS = (*MASKED, "flash_attention_2", "flash_attention_3")


@settings(frozen=True)
class LoRA:
    """Train low-rank updates of the encoder's matrices instead of the matrices (Hu et al. 2022).

    The head, and the pooler under the model's own head, are trained whole. A saved student is
    merged: plain weights that know nothing of adapters. Each stage trains adapters of its own.
    Needs the extra `lora` (peft).

    Parameters
    ----------
    rank
        r of the update ``alpha / r * B A``.
    alpha
        Scale of the update.
    dropout
        Dropout probability of what goes into A.
    targets
        Names of linear layers, or ends of names, e.g. [query, value]; None = all of the encoder.
    """

    rank: Positive = 16
    alpha: Above0 = 32.0
    dropout: BelowOne = 0.0
    targets: Annotated[Texts, MinLen(1)] | None = None

    requires: ClassVar[str] = "peft"


@settings(frozen=True)
class Student:
    """A cross-encoder: a Hugging Face encoder over query and passage together, and a head.

    Parameters
    ----------
    model
        "asset:NAME", a folder, or a Hub id.
    layers
        Keep the first n layers; None = all.
    head
        "cls": the model's own sequence-classification head, which plain Transformers loads; of a
        trained one with two labels, the logit of the second minus that of the first.
        "linear": a linear layer without bias on the [CLS] vector (the paper's ELECTRA; Lightning
        IR's default). "mean": a linear layer on the mean of all token vectors. "interaction":
        ``a * MaxSim(query, passage) + w . h_[CLS]`` on the jointly encoded token vectors, a and w
        learned, w = 0 at the start (after CEDR, MacAvaney et al. 2019); where the encoder is an
        embedding model, it starts as a usable ranker.
    query_length, passage_length
        Tokens kept of each, special tokens not counted.
    attention
        "full": every token sees every token (the paper). "sparse": [CLS] sees everything, a query
        token the query only, a passage token the passage only, and positions restart at the passage
        (an extreme of the sparse cross-encoders of Schlatt et al., ECIR 2024): an embedding model
        keeps the token vectors that it was trained for, and only [CLS] reads both texts. Encoders
        that cannot do that (DeBERTa) are refused by `create`.
    dropout
        Every dropout probability of the encoder; None = as the model's configuration has them.
    lora
        Train low-rank updates only; None = all weights.
    compile
        Compile the encoder with torch.compile (a C++ compiler or Triton is needed). The first
        steps take minutes; dropout draws the same numbers. Not part of the identity.
    attention_implementation
        How Transformers computes attention; one of `IMPLEMENTATIONS`. None = "eager" for training
        where there is no GPU, else the model's default. Not part of the identity.
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    """

    model: Model
    layers: Positive | None = None
    head: Annotated[str, one_of(*HEADS)] = "cls"
    query_length: Positive = 32
    passage_length: Positive = 256
    attention: Annotated[str, one_of(*ATTENTION)] = "full"
    dropout: BelowOne | None = None
    lora: LoRA | None = None
    compile: Annotated[bool, SCHEDULES] = False
    attention_implementation: Annotated[str, one_of(*IMPLEMENTATIONS), SCHEDULES] | None = None
    revision: str | None = None

    # What of a student decides how texts are tokenised.
    tokenised_by: ClassVar = ("model", "revision", "query_length", "passage_length")

    def __post_init__(self) -> None:
        """Check values together."""
        if self.attention == "sparse" and self.attention_implementation not in (None, *MASKED):
            raise ValueError(
                f"attention_implementation={self.attention_implementation!r}: takes no "
                f"mask as attention='sparse' needs it; must be one of {list(MASKED)}, or null"
            )

    def check(self) -> None:
        """Check the files of a model that is a place on this machine; reads no weights.

        Raises
        ------
        FileNotFoundError, ValueError
            Naming the key, if it is none, or its weights are not whole.
        """
        check_model(self.model, self.revision)
        folder = Path(self.model)
        if folder.exists() or self.model.startswith(("/", "./", "../", "~")):
            check_folder(folder, f"model={self.model}", self.head)

    def verify(self) -> None:
        """Load the student and try it on a few pairs, once in a process: before others are paid.

        Raises
        ------
        ModelError, FileNotFoundError, AssetError, HubError
            As `create`.
        """
        _verify(self)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer alone.

        Raises
        ------
        ModelError, FileNotFoundError, AssetError, HubError
            As `create`.
        """
        return load_tokenizer(
            str(model_path(self.model, self.revision)), f"student.model={self.model}"
        )

    def create(self, seed: int) -> CrossEncoder:
        """The student as it comes, to be trained; `seed` decides freshly drawn weights.

        Raises
        ------
        ModelError, FileNotFoundError
            If the weights are not all the model's, or the student cannot score its pairs
            (`rdx.students.probe`); the message begins with the key.
        AssetError, HubError
            If the model cannot be had.
        """
        folder = model_path(self.model, self.revision)
        name = f"student.model={self.model}"
        with explained(name):
            check_folder(Path(folder), name, self.head)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(seed, "weights"))
            student = self._assemble(folder, name, fresh=True)
            if saved_head(Path(folder)) is not None:
                self._load_head(student, Path(folder), name)
            if self.attention == "sparse":
                refuse_mixing(student.encoder, self.query_length, self.passage_length)
            probe.check(student, self)
            return self._finished(student, adapt=True)

    def load(self, folder: Path, seed: int | None = None) -> CrossEncoder:
        """A student that `CrossEncoder.save` wrote.

        With `lora`, one that is to be trained needs a seed, which decides the fresh adapters;
        without a seed there are none, which is as it should be for scoring.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(seed or 0, "adapters"))
            training = seed is not None
            student = self._assemble(str(folder), str(folder), fresh=False, training=training)
            student.pairs.side = saved_side(folder)
            self._load_head(student, folder, str(folder))
            return self._finished(student, adapt=training)

    def _assemble(self, folder: str, name: str, fresh: bool, training: bool = True) -> CrossEncoder:
        config = configuration(folder, name)
        extra = {} if self.layers is None else first_layers(config, self.layers, name)
        implementation = self.attention_implementation
        if implementation is None and training and not torch.cuda.is_available():
            # On a CPU, at a few hundred tokens, torch's fused attention scores faster, and trains
            # 1.4 times slower.
            implementation = "eager"
        if implementation is not None:
            extra["attn_implementation"] = implementation
        if self.dropout is not None:
            extra |= dict.fromkeys(dropouts(config), self.dropout)
        encoder = read_encoder(folder, name, self.head == "cls", self.layers, fresh, **extra)
        if self.head != "cls" and getattr(encoder, "pooler", None) is not None:
            # Nothing reads it: several processes wait for its gradient, compiling makes it 0.
            encoder.pooler.requires_grad_(False)
        encoder = encoder.float()
        head = OWN[self.head](encoder.config.hidden_size) if self.head in OWN else None
        return CrossEncoder(encoder, head, Pairs(folder, self, encoder))

    def _load_head(self, student: CrossEncoder, folder: Path, name: str) -> None:
        if student.head is not None:
            with explained(f"{name}: {HEAD}"):
                student.head.load_state_dict(load_file(folder / HEAD))

    def _finished(self, student: CrossEncoder, adapt: bool) -> CrossEncoder:
        """The student with fresh adapters, if it is to have some, and compiled."""
        if self.lora is not None and adapt:
            add_adapters(student.encoder, self.lora)
        if self.compile:
            compile_encoder(student.encoder)
        return student


@lru_cache(maxsize=64)
def _verify(student: Student) -> None:
    student.create(0)
