"""Students: cross-encoders that score (query, passage) pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from rdx.assets import check_model, model_path
from rdx.draws import seed as draw_seed

HEADS = ("cls", "mean", "interaction")
ATTENTION = ("full", "sparse")


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
        "cls": the model's own sequence-classification head (the paper). "mean": a linear layer on
        the mean of all token vectors. "interaction": ``a * MaxSim(query, passage) + w . h_[CLS]``
        on the jointly encoded token vectors, a and w learned, w = 0 at the start (after CEDR,
        MacAvaney et al. 2019); where the encoder is an embedding model, it starts as a usable
        ranker.
    query_length, passage_length
        Tokens kept of each, special tokens not counted.
    attention
        "full": every token sees every token (the paper). "sparse": [CLS] sees everything, a query
        token the query only, a passage token the passage only, and positions restart at the passage
        (an extreme of the sparse cross-encoders of Schlatt et al., ECIR 2024): an embedding model
        keeps the token vectors that it was trained for, and only [CLS] reads both texts.
    dropout
        Every dropout probability of the encoder; None = as the model's configuration has them.
    """

    model: str
    layers: int | None = None
    head: str = "cls"
    query_length: int = 32
    passage_length: int = 256
    attention: str = "full"
    dropout: float | None = None

    def __post_init__(self) -> None:
        """Check values; nothing is fetched."""
        check_model(self.model)
        if self.head not in HEADS:
            raise ValueError(f"student.head={self.head!r}: must be one of {list(HEADS)}")
        if self.attention not in ATTENTION:
            raise ValueError(
                f"student.attention={self.attention!r}: must be one of {list(ATTENTION)}"
            )
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"student.dropout={self.dropout}: must be in [0, 1), or null")
        for name in ("layers", "query_length", "passage_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"student.{name}={value}: must be at least 1")

    def create(self, seed: int) -> CrossEncoder:
        """The student as it comes; `seed` decides freshly drawn weights."""
        folder = model_path(self.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(seed, "weights"))
            return self._assemble(folder, folder)

    def load(self, folder: Path) -> CrossEncoder:
        """A student that `CrossEncoder.save` wrote."""
        student = self._assemble(str(folder), str(folder))
        if student.head is not None:
            student.head.load_state_dict(load_file(folder / "head.safetensors"))
        return student

    def _assemble(self, weights: str, tokenizer: str) -> CrossEncoder:
        extra: dict[str, Any] = {} if self.layers is None else {"num_hidden_layers": self.layers}
        if not torch.cuda.is_available():
            # On a CPU, at a few hundred tokens, torch's fused attention trains 1.4 times slower.
            extra["attn_implementation"] = "eager"
        if self.dropout is not None:
            extra |= dict.fromkeys(_dropouts(weights), self.dropout)
        if self.head == "cls":
            encoder = AutoModelForSequenceClassification.from_pretrained(
                weights, num_labels=1, **extra
            )
        else:
            encoder = AutoModel.from_pretrained(weights, **extra)
        size = encoder.config.hidden_size
        heads = {"mean": Mean, "interaction": Interaction}
        head = heads[self.head](size) if self.head in heads else None
        return CrossEncoder(encoder.float(), head, Pairs(tokenizer, self))


def _dropouts(weights: str) -> list[str]:
    """The keys of a model's configuration that are dropout probabilities."""
    known = AutoConfig.from_pretrained(weights).to_dict()
    named = [key for key in known if "dropout" in key or key.endswith("pdrop")]
    return [key for key in named if known[key] is None or isinstance(known[key], float)]


class CrossEncoder(nn.Module):
    """Encoder, head and tokeniser: (query, passage) pairs to scores."""

    def __init__(self, encoder: Any, head: nn.Module | None, pairs: Pairs) -> None:
        super().__init__()
        self.encoder, self.head, self.pairs = encoder, head, pairs

    def forward(self, inputs: dict[str, Tensor], parts: Tensor) -> Tensor:
        """Scores [P] (float32) of tokenised pairs [P, L]; `parts` as `Pairs` gives it."""
        mask = inputs["attention_mask"]
        if self.pairs.attention == "sparse":
            inputs = _sparse(inputs, parts)
        output = self.encoder(**inputs)
        if self.head is None:
            return output.logits.squeeze(1).float()
        return self.head(output.last_hidden_state, mask, parts)

    def save(self, folder: Path) -> None:
        """Write the encoder in plain Hugging Face form, and the head beside it."""
        self.encoder.save_pretrained(folder)
        self.pairs.tokenizer.save_pretrained(folder)
        if self.head is not None:
            save_file(self.head.state_dict(), folder / "head.safetensors")
        (folder / "student.json").write_text(json.dumps(self.pairs.facts) + "\n")


def _sparse(inputs: dict[str, Tensor], parts: Tensor) -> dict[str, Tensor]:
    """Model inputs whose attention mask [P, 1, L, L] keeps query and passage apart.

    The separator after each text belongs to that text; padding sees itself only, so that no row of
    the attention is empty.
    """
    real = inputs["attention_mask"].bool()
    before = torch.roll(parts, 1, dims=1)
    text = torch.where((parts == 0) & real, before, parts)  # a separator joins the text before it
    text[:, 0] = 0  # [CLS]
    same = text.unsqueeze(2) == text.unsqueeze(1)
    cls = torch.zeros_like(same)
    cls[:, 0] = True
    own = torch.eye(parts.shape[1], dtype=torch.bool, device=parts.device)
    allowed = ((same | cls) & real.unsqueeze(1)) | own
    # Added to the attention's logits: not every implementation takes a boolean mask.
    bias = torch.zeros(allowed.shape, device=allowed.device)
    bias = bias.masked_fill(~allowed, torch.finfo(torch.bfloat16).min).unsqueeze(1)
    index = torch.arange(parts.shape[1], device=parts.device).expand_as(parts)
    start = torch.where(text == 2, index, parts.shape[1]).amin(1, keepdim=True)
    positions = torch.where(text == 2, index - start + 1, torch.where(real, index, 0))
    kept = {key: value for key, value in inputs.items() if key != "token_type_ids"}
    return {**kept, "attention_mask": bias, "position_ids": positions}


class Mean(nn.Module):
    """A linear layer on the mean of the token vectors."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 1)

    def forward(self, hidden: Tensor, mask: Tensor, parts: Tensor) -> Tensor:
        """Scores [P] from token vectors [P, L, H] and mask [P, L]."""
        weights = mask.unsqueeze(2).float()
        mean = (hidden.float() * weights).sum(1) / weights.sum(1)
        return self.linear(mean).squeeze(1).float()


class Interaction(nn.Module):
    """Scaled MaxSim between the jointly encoded query and passage tokens, plus a [CLS] term.

    MaxSim = mean over query tokens of the largest cosine with a passage token.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.cls = nn.Linear(size, 1)
        nn.init.zeros_(self.cls.weight)
        nn.init.zeros_(self.cls.bias)

    def forward(self, hidden: Tensor, mask: Tensor, parts: Tensor) -> Tensor:
        """Scores [P] from token vectors [P, L, H]; parts [P, L] is 1 at query, 2 at passage."""
        with torch.autocast(hidden.device.type, enabled=False):
            unit = nn.functional.normalize(hidden.float(), dim=-1)
            similarity = unit @ unit.transpose(1, 2)  # [P, L, L]
            best = similarity.masked_fill((parts != 2).unsqueeze(1), -1.0).amax(2)  # [P, L]
            query = (parts == 1).float()
            maxsim = (best * query).sum(1) / query.sum(1).clamp(min=1)
            return self.scale * maxsim + self.cls(hidden[:, 0].float()).squeeze(1)


class Pairs:
    """Tokenise (query, passage) pairs; each text is cut once and remembered."""

    def __init__(self, folder: str, student: Student) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
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
