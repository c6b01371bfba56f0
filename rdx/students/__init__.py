"""Students: cross-encoders that score (query, passage) pairs."""

from __future__ import annotations

import copy
import importlib.util
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import MinLen
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

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
from rdx.students.dropout import CheapDropout
from rdx.students.heads import OWN, Interaction, Linear, Mean, first_position, sparse

__all__ = [
    "ATTENTION",
    "HEADS",
    "IMPLEMENTATIONS",
    "CrossEncoder",
    "Interaction",
    "Linear",
    "LoRA",
    "Mean",
    "Pairs",
    "Student",
    "compile_encoder",
]

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

    requires: ClassVar[tuple[str, str]] = ("peft", "lora")

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
            one.startswith(("tokenizer", "vocab")) or one.endswith(".model") for one in names
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
        extra = {} if self.layers is None else _layers(weights, self.layers)
        implementation = self.attention_implementation
        if implementation is None and adapt and not torch.cuda.is_available():
            # On a CPU, at a few hundred tokens, torch's fused attention scores faster, and trains
            # 1.4 times slower.
            implementation = "eager"
        if implementation is not None:
            extra["attn_implementation"] = implementation
        if self.dropout is not None:
            extra |= dict.fromkeys(_dropouts(weights), self.dropout)
        if self.head == "cls":
            extra["num_labels"] = 1
            encoder = pretrained(
                AutoModelForSequenceClassification, weights, _may_be_fresh, **extra
            )
        else:
            encoder = pretrained(AutoModel, weights, _may_be_fresh, **extra)
            if getattr(encoder, "pooler", None) is not None:
                # Nothing reads it: several processes wait for its gradient, compiling makes it 0.
                encoder.pooler.requires_grad_(False)
        encoder = encoder.float()
        head = OWN[self.head](encoder.config.hidden_size) if self.head in OWN else None
        if self.attention == "sparse" and adapt:
            refuse_mixing(encoder, self.query_length, self.passage_length)
        if self.lora is not None and adapt:
            _adapt(encoder, self.lora)
        if self.compile:
            compile_encoder(encoder)
        return CrossEncoder(encoder, head, Pairs(tokenizer, self))


def _may_be_fresh(model: Any, name: str) -> bool:
    """Whether a checkpoint may lack a weight: of the head, of which the pooler is part."""
    base = model.base_model_prefix + "."
    inner = model.base_model is not model
    return (inner and not name.startswith(base)) or "pooler" in name.split(".")


def compile_encoder(encoder: nn.Module) -> None:
    """Compile an encoder in place, for batches of different lengths."""
    # dropout must not differ from the uncompiled one
    encoder.compile(dynamic=True, options={"fallback_random": True})


def _layers(weights: str, count: int) -> dict[str, Any]:
    """What cuts a model's configuration down to its first layers."""
    config = AutoConfig.from_pretrained(weights, trust_remote_code=False)
    kinds = config.to_dict().get("layer_types")  # e.g. of ModernBERT
    return {"num_hidden_layers": count} | ({"layer_types": kinds[:count]} if kinds else {})


def _dropouts(weights: str) -> list[str]:
    """The keys of a model's configuration that are dropout probabilities."""
    known = AutoConfig.from_pretrained(weights, trust_remote_code=False).to_dict()
    named = [key for key in known if "dropout" in key or key.endswith("pdrop")]
    return [key for key in named if known[key] is None or isinstance(known[key], float)]


def _adapt(encoder: Any, lora: LoRA) -> None:
    """Freeze the encoder and add adapters to its linear layers, in place.

    Only the base model is touched, so that a classification head is trained whole; and so is the
    pooler, which belongs to that head: it is as fresh as the head where the checkpoint has none.
    """
    from peft import LoraConfig, inject_adapter_in_model

    base = encoder.base_model
    linear = [name for name, module in base.named_modules() if isinstance(module, nn.Linear)]
    ends = lora.targets or ("",)
    chosen = [
        name
        for name in linear
        if any(not end or name == end or name.endswith(f".{end}") for end in ends)
        and "pooler" not in name.split(".")
    ]
    if not chosen:
        raise ValueError(
            f"student.lora.targets={list(ends)}: no such linear layer in {type(base).__name__}; "
            f"it has {sorted({name.rpartition('.')[2] for name in linear})}"
        )
    alpha: Any = lora.alpha  # peft says int, and takes any number
    config = LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=chosen
    )
    inject_adapter_in_model(config, base)
    for name, parameter in base.named_parameters():
        if base is not encoder and "pooler" in name.split("."):
            parameter.requires_grad_(True)


def _merged(encoder: Any) -> Any:
    """The encoder with its adapters, if it has any, added to its matrices; a copy."""
    if not any("lora_" in name for name, _ in encoder.named_parameters()):
        return encoder
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(encoder)
    for name, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            plain.set_submodule(name, module.get_base_layer())
    return plain


class CrossEncoder(nn.Module):
    """Encoder, head and tokeniser: (query, passage) pairs to scores."""

    def __init__(self, encoder: Any, head: nn.Module | None, pairs: Pairs) -> None:
        super().__init__()
        self.encoder, self.head, self.pairs = encoder, head, pairs
        self.first_position = first_position(encoder)

    def forward(self, inputs: dict[str, Tensor], parts: Tensor) -> Tensor:
        """Scores [P] (float32) of tokenised pairs [P, L]; `parts` as `Pairs` gives it."""
        mask = inputs["attention_mask"]
        if self.pairs.attention == "sparse":
            inputs = sparse(inputs, parts, self.first_position)
        with CheapDropout() if self.training and mask.device.type == "cpu" else nullcontext():
            output = self.encoder(**inputs)
        if self.head is None:
            return output.logits.squeeze(1).float()
        return self.head(output.last_hidden_state, mask, parts)

    def save(self, folder: Path) -> None:
        """Write the encoder in plain Hugging Face form, adapters merged, and the head beside it."""
        _merged(self.encoder).save_pretrained(folder)
        self.pairs.tokenizer.save_pretrained(folder)
        if self.head is not None:
            save_file(self.head.state_dict(), folder / "head.safetensors")
        (folder / "student.json").write_text(json.dumps(self.pairs.facts) + "\n")


class Pairs:
    """Tokenise (query, passage) pairs; each text is cut once and remembered.

    What looks like a special token inside a text, e.g. "[SEP]", is text like any other. That is
    saved with the tokeniser, so that exported students are told the same.
    """

    def __init__(self, folder: str, student: Student) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, split_special_tokens=True, trust_remote_code=False
        )
        self.lengths = (student.query_length, student.passage_length)
        self.attention = student.attention
        self.facts = {"head": student.head, "layers": student.layers, "lengths": self.lengths}
        self._cut: dict[tuple[str, int], str] = {}
        self.truncated: set[str] = set()

    def encode(self, pairs: list[tuple[str, str]]) -> list[dict[str, list[int]]]:
        """Token ids (and whatever the model wants beside) of every pair, unpadded.

        "parts" is 1 at query tokens, 2 at passage tokens, 0 at special tokens.
        """
        queries = [self._shorten(query, self.lengths[0]) for query, _ in pairs]
        passages = [self._shorten(passage, self.lengths[1]) for _, passage in pairs]
        encoded = self.tokenizer(queries, passages, verbose=False)
        columns = list(encoded.keys())
        return [
            {name: encoded[name][i] for name in columns}
            | {"parts": [0 if s is None else s + 1 for s in encoded.sequence_ids(i)]}
            for i in range(len(pairs))
        ]

    def pad(self, encoded: list[dict[str, list[int]]]) -> tuple[dict[str, Tensor], Tensor]:
        """Pad to the longest; returns model inputs [P, L] and parts [P, L]."""
        width = max(len(one["input_ids"]) for one in encoded)
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        tensors = {
            name: torch.tensor(
                [one[name] + [fill.get(name, 0)] * (width - len(one[name])) for one in encoded]
            )
            for name in encoded[0]
        }
        return tensors, tensors.pop("parts")

    def _shorten(self, text: str, limit: int) -> str:
        key = (text, limit)
        if key not in self._cut:
            found = self.tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )["offset_mapping"]
            if len(found) > limit:
                self.truncated.add(text)
            self._cut[key] = text[: found[limit - 1][1]] if len(found) > limit else text
        return self._cut[key]
