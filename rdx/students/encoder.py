"""The model of a student: a Hugging Face encoder, its adapters, and a head."""

from __future__ import annotations

import copy
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors.torch import save_file
from torch import Tensor, nn

from rdx.loading import ModelError
from rdx.students.between import attending, with_token
from rdx.students.dropout import CheapDropout
from rdx.students.folders import FACTS, HEAD
from rdx.students.heads import Linear, bias, first_position, sparse
from rdx.students.int_token import int_token
from rdx.students.packing import PLACES, Packing, packs
from rdx.students.settings import MASKED
from rdx.students.tokenising import Pairs
from rdx.tokens import LISTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rdx.students.settings import LoRA


# Encoders with layers like BERT's: every token sees every token, and what classifies reads [CLS].
LIKE_BERT = ("bert", "camembert", "electra", "roberta", "xlm-roberta")
# Encoders whose layers are told the position of every token, and see windows of tokens in turn.
LIKE_MODERNBERT = ("modernbert",)
PACKED = (*LIKE_BERT, *LIKE_MODERNBERT)  # whose layers can do without padding


class CrossEncoder(nn.Module):
    """Encoder, head and tokeniser: (query, passage) pairs to scores."""

    def __init__(
        self,
        encoder: PreTrainedModel,
        head: nn.Module | None,
        pairs: Pairs,
        filled_to: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.pairs, self.filled_to = encoder, head, pairs, filled_to
        self.first_position = first_position(encoder)

    def forward(self, inputs: dict[str, Tensor], parts: Tensor) -> Tensor:
        """Scores [P] (float32) of tokenised pairs [P, L]; `inputs`, `parts` as `Tokens` gives them.

        A student that scores lists takes each pair for a list of its own where `inputs` do not say
        which pairs make a list.
        """
        lists = inputs.get(LISTS)
        inputs = {name: each for name, each in inputs.items() if name != LISTS}
        if self.scores_lists:
            inputs, parts = with_token(inputs, parts, int_token(self.encoder))
        mask = inputs["attention_mask"]
        layers: AbstractContextManager[object] = nullcontext()
        if self.pairs.attention == "sparse":
            inputs = sparse(inputs, parts, self.first_position)
        if packs(self.encoder):
            packing = Packing.of(inputs)
            layers = packing.around(self._layers, self._reads_cls and self.like_bert)
            inputs = {name: each for name, each in inputs.items() if name not in PLACES}
            if not self.like_bert:
                inputs["position_ids"] = packing.positions
        elif self.like_bert:
            plain = inputs["attention_mask"] is mask
            if plain and self.encoder.config._attn_implementation in MASKED:
                # Transformers looks whether there is padding at all, which waits for a GPU
                inputs = {**inputs, "attention_mask": bias(mask.bool()[:, None, None])}
            if self._reads_cls:
                last = self._layers[-1].attention.output
                layers = last.register_forward_pre_hook(_first_token)
        cheap = CheapDropout() if self.training and mask.device.type == "cpu" else nullcontext()
        with cheap, layers, self._between(lists, len(mask)):
            output = self.encoder(**inputs)
        scores: Tensor
        if self.head is None:
            scores = output.logits.squeeze(1).float()
        else:
            scores = self.head(output.last_hidden_state, mask, parts)
        return scores

    def _between(self, lists: Tensor | None, pairs: int) -> AbstractContextManager[None]:
        """Within it, the passages of a list see each other, if the student is to have that."""
        if lists is None or not self.scores_lists:
            return nullcontext()
        filled = self.filled_to if self.training else None
        return attending(self._layers, lists, pairs, filled or 0)

    @property
    def scores_lists(self) -> bool:
        """Whether the score of a passage depends on the other passages of its list."""
        return self.pairs.between != "none"

    @property
    def like_bert(self) -> bool:
        """Whether its layers are like BERT's."""
        return self.encoder.config.model_type in LIKE_BERT

    @property
    def _layers(self) -> Any:
        base = cast(Any, self.encoder.base_model)
        return base.encoder.layer if self.like_bert else base.layers

    @property
    def _reads_cls(self) -> bool:
        """Whether [CLS] alone is read of the last layer.

        It then goes on with [CLS] alone after its attention, which saves 9 of the 12 matrix
        products (of the hidden size squared) per token of that layer.
        """
        return self.head is None or isinstance(self.head, Linear)

    def save(self, folder: Path) -> None:
        """Write the encoder in plain Hugging Face form, adapters merged, and the head beside it."""
        merged(self.encoder).save_pretrained(folder)
        self.pairs.tokenizer.save_pretrained(folder)
        if self.head is not None:
            save_file(self.head.state_dict(), folder / HEAD)
        (folder / FACTS).write_text(json.dumps(self.pairs.facts) + "\n")


def _first_token(module: nn.Module, vectors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of token vectors [P, L, H], those of the first token [P, 1, H]."""
    return tuple(each[:, :1] for each in vectors)


def compile_encoder(encoder: nn.Module) -> None:
    """Compile an encoder in place, for batches of different lengths."""
    # dropout must not differ from the uncompiled one
    encoder.compile(dynamic=True, options={"fallback_random": True})


def is_compiled(encoder: nn.Module) -> bool:
    """Whether `compile_encoder` was called on an encoder."""
    return getattr(encoder, "_compiled_call_impl", None) is not None


def add_adapters(encoder: PreTrainedModel, lora: LoRA) -> None:
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
        raise ModelError(
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


def merged(encoder: PreTrainedModel) -> PreTrainedModel:
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
