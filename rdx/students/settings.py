"""Settings of a student, and making or loading one."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from rdx.assets import check_model, model_path
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


@dataclass(frozen=True)
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

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check values, and that peft is there."""
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(self.targets))
        if self.rank < 1:
            raise ValueError(f"student.lora.rank={self.rank}: must be at least 1")
        if self.alpha <= 0:
            raise ValueError(f"student.lora.alpha={self.alpha}: must be above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"student.lora.dropout={self.dropout}: must be in [0, 1)")
        if self.targets == ():
            raise ValueError("student.lora.targets=[]: must name a layer, or be null for all")
        if importlib.util.find_spec("peft") is None:
            raise ValueError("student.lora: needs peft: pip install '.[lora]'")


@dataclass(frozen=True)
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

    model: str
    layers: int | None = None
    head: str = "cls"
    query_length: int = 32
    passage_length: int = 256
    attention: str = "full"
    dropout: float | None = None
    lora: LoRA | None = None
    compile: bool = False
    attention_implementation: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        """Check values; nothing is fetched."""
        check_model(self.model, self.revision)
        for name, known in (
            ("head", HEADS),
            ("attention", ATTENTION),
            ("attention_implementation", (None, *IMPLEMENTATIONS)),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"student.{name}={value!r}: must be one of {list(known)}")
        if self.attention == "sparse" and self.attention_implementation not in (None, *MASKED):
            raise ValueError(
                f"student.attention_implementation={self.attention_implementation!r}: takes no "
                f"mask as attention='sparse' needs it; must be one of {list(MASKED)}, or null"
            )
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"student.dropout={self.dropout}: must be in [0, 1), or null")
        for name in ("layers", "query_length", "passage_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"student.{name}={value}: must be at least 1")

    def check(self) -> None:
        """Check that a model that is a place on this machine is a model's folder.

        Raises
        ------
        FileNotFoundError, ValueError
            Naming the key, if it is none, or its weights are not whole.
        """
        folder = Path(self.model)
        if not (folder.exists() or self.model.startswith(("/", "./", "../", "~"))):
            return
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "no such folder"
            raise FileNotFoundError(f"student.model={self.model}: {what} (in {Path.cwd()})")
        try:
            known = "model_type" in json.loads((folder / "config.json").read_text())
        except (OSError, ValueError, TypeError):
            known = False
        if not known:
            raise FileNotFoundError(
                f"student.model={self.model}: its config.json is missing, or names no model_type; "
                "give the folder that save_pretrained wrote"
            )
        names = [path.name for path in folder.iterdir()]
        if not any(
            name.startswith(("tokenizer", "vocab")) or name.endswith(".model") for name in names
        ):
            raise FileNotFoundError(
                f"student.model={self.model}: no tokenizer in this folder; save it there, too: "
                "tokenizer.save_pretrained(...)"
            )
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, "pt"):  # reads the header, and compares the size
                    pass
            except SafetensorError as error:
                raise ValueError(
                    f"student.model={self.model}: {path.name} is damaged ({error}): copy it again"
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
