"""Settings of a student, and making or loading one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from annotated_types import MinLen
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

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
from rdx.loading import pretrained
from rdx.students.apart import refuse_mixing
from rdx.students.encoder import (
    CrossEncoder,
    add_adapters,
    compile_encoder,
    dropouts,
    first_layers,
    may_be_fresh,
)
from rdx.students.heads import OWN
from rdx.students.tokenising import Pairs

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

    def check(self) -> None:
        """Raise ValueError if peft is not installed."""
        if importlib.util.find_spec("peft") is None:
            raise ValueError("needs peft: pip install '.[lora]'")


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
        "cls": the model's own sequence-classification head, which plain Transformers loads.
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

    def __post_init__(self) -> None:
        """Check values together."""
        if self.attention == "sparse" and self.attention_implementation not in (None, *MASKED):
            raise ValueError(
                f"attention_implementation={self.attention_implementation!r}: takes no "
                f"mask as attention='sparse' needs it; must be one of {list(MASKED)}, or null"
            )

    def check(self) -> None:
        """Check that a model that is a place on this machine is a model's folder.

        Raises
        ------
        FileNotFoundError, ValueError
            Naming the key, if it is none, or its weights are not whole.
        """
        check_model(self.model, self.revision)
        folder = Path(self.model)
        if not (folder.exists() or self.model.startswith(("/", "./", "../", "~"))):
            return
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "no such folder"
            raise FileNotFoundError(f"model={self.model}: {what} (in {Path.cwd()})")
        try:
            known = "model_type" in json.loads((folder / "config.json").read_text())
        except (OSError, ValueError, TypeError):
            known = False
        if not known:
            raise FileNotFoundError(
                f"model={self.model}: its config.json is missing, or names no model_type; "
                "give the folder that save_pretrained wrote"
            )
        names = [path.name for path in folder.iterdir()]
        if not any(
            name.startswith(("tokenizer", "vocab")) or name.endswith(".model") for name in names
        ):
            raise FileNotFoundError(
                f"model={self.model}: no tokenizer in this folder; save it there, too: "
                "tokenizer.save_pretrained(...)"
            )
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, "pt"):  # reads the header, and compares the size
                    pass
            except SafetensorError as error:
                raise ValueError(
                    f"model={self.model}: {path.name} is damaged ({error}): copy it again"
                ) from error

    def create(self, seed: int) -> CrossEncoder:
        """The student as it comes, to be trained; `seed` decides freshly drawn weights."""
        folder = model_path(self.model, self.revision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(seed, "weights"))
            return self._assemble(folder, folder, adapt=True)

    def load(self, folder: Path, seed: int | None = None) -> CrossEncoder:
        """A student that `CrossEncoder.save` wrote.

        With `lora`, one that is to be trained needs a seed, which decides the fresh adapters;
        without a seed there are none, which is as it should be for scoring.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(seed or 0, "adapters"))
            student = self._assemble(str(folder), str(folder), adapt=seed is not None)
        if student.head is not None:
            student.head.load_state_dict(load_file(folder / "head.safetensors"))
        return student

    def _assemble(self, weights: str, tokenizer: str, adapt: bool) -> CrossEncoder:
        extra = {} if self.layers is None else first_layers(weights, self.layers)
        implementation = self.attention_implementation
        if implementation is None and adapt and not torch.cuda.is_available():
            # On a CPU, at a few hundred tokens, torch's fused attention scores faster, and trains
            # 1.4 times slower.
            implementation = "eager"
        if implementation is not None:
            extra["attn_implementation"] = implementation
        if self.dropout is not None:
            extra |= dict.fromkeys(dropouts(weights), self.dropout)
        if self.head == "cls":
            extra["num_labels"] = 1
            encoder = pretrained(AutoModelForSequenceClassification, weights, may_be_fresh, **extra)
        else:
            encoder = pretrained(AutoModel, weights, may_be_fresh, **extra)
            if getattr(encoder, "pooler", None) is not None:
                # Nothing reads it: several processes wait for its gradient, compiling makes it 0.
                encoder.pooler.requires_grad_(False)
        encoder = encoder.float()
        head = OWN[self.head](encoder.config.hidden_size) if self.head in OWN else None
        if self.attention == "sparse" and adapt:
            refuse_mixing(encoder, self.query_length, self.passage_length)
        if self.lora is not None and adapt:
            add_adapters(encoder, self.lora)
        if self.compile:
            compile_encoder(encoder)
        return CrossEncoder(encoder, head, Pairs(tokenizer, self))
