"""Score queries given passages by a causal LM."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from rdx.loading import ModelError
from rdx.teachers.likelihood import PASSAGE, prompt_of
from rdx.teachers.models import left_padded, load_causal, positions
from rdx.teachers.pointwise import Asked, by_length

if TYPE_CHECKING:
    from rdx.teachers.likelihood import QueryLikelihood

BATCH = 16  # passages read at a time
POSITIONS = 512  # of further queries at a time: each has a probability for the whole vocabulary


class _Encoded(NamedTuple):
    """Tokens of passage and instruction, and of every query."""

    prefix: list[int]
    queries: list[list[int]]


class Scorer:
    """A causal LM that scores queries given passages.

    Every passage is read with its first query; what the model keeps of the passage is then read on
    with each further one.
    """

    def __init__(self, settings: QueryLikelihood) -> None:
        self.settings = settings
        self.tokenizer, self.model = load_causal(
            settings.model, settings.precision, settings.device, settings.revision
        )
        self._before, after = prompt_of(settings.prompt).split(PASSAGE)
        self._begin, self._after = self._beginning(), self._ids(after)
        around = len(self._begin) + len(self._after)
        longest = settings.passage_length + around + 2 * settings.query_length
        self._shares = keeps(self.model.config, longest)

    def scores(self, asked: Sequence[Asked], progress: tqdm) -> list[list[float]]:
        """Mean log-probability of the query tokens, per passage and query."""
        encoded = [self._encode(*one) for one in asked]
        if not self._shares:
            alone = [_Encoded(prefix, [query]) for prefix, queries in encoded for query in queries]
            values = (value for [value] in self._in_batches(alone, progress))
            return [[next(values) for _ in one.queries] for one in encoded]
        return self._in_batches(encoded, progress)

    def _in_batches(self, encoded: list[_Encoded], progress: tqdm) -> list[list[float]]:
        def score(numbers: list[int]) -> list[list[float]]:
            values = self._batch([encoded[i] for i in numbers])
            progress.update(sum(map(len, values)))
            return values

        lengths = [len(one.prefix) + len(one.queries[0]) for one in encoded]
        return by_length(lengths, BATCH, score)

    def _beginning(self) -> list[int]:
        token = self.tokenizer.bos_token_id
        if self.settings.bos and token is None:
            raise ModelError(
                f"bos=true: the tokenizer of {self.settings.model} has no token for the beginning "
                "of a text; give teacher.bos=false"
            )
        return [token] if self.settings.bos else []

    def _encode(self, passage: str, queries: list[str]) -> _Encoded:
        read = self._ids(self._before + passage)[: self.settings.passage_length]
        return _Encoded(
            self._begin + read + self._after,
            [self._ids(f" {query}")[: self.settings.query_length] for query in queries],
        )

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @torch.inference_mode()
    def _batch(self, batch: list[_Encoded]) -> list[list[float]]:
        """Scores of all queries of some passages."""
        firsts = [len(one.queries[0]) for one in batch]
        longest = max(firsts)
        # Every query ends at the last position, and only the last positions that some query needs
        # go through the vocabulary matrix.
        rows = [one.prefix + one.queries[0] for one in batch]
        tokens, mask = left_padded(rows, self.model.device)
        output: Any = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions(mask),
            logits_to_keep=longest + 1,
            use_cache=any(len(one.queries) > 1 for one in batch),
        )
        logits = output.logits.float()
        picked = _log_probabilities(logits[:, :-1], tokens[:, -longest:]).cpu()
        result = [[picked[i, longest - n :].mean().item()] for i, n in enumerate(firsts)]
        if output.past_key_values is not None:
            for i, n in enumerate(firsts):
                mask[i, -n:] = 0  # the first query is nothing to the others
            # what the model expects after the instruction
            starts = logits[range(len(batch)), [longest - n for n in firsts]]
            for i, value in self._further(batch, output.past_key_values, mask, starts):
                result[i].append(value)
        return result

    def _further(
        self, batch: list[_Encoded], kept: DynamicCache, mask: Tensor, starts: Tensor
    ) -> Iterator[tuple[int, float]]:
        """Passage and score of all queries but the first of each passage, in their order.

        Parameters
        ----------
        kept
            Keys and values of the passages.
        mask
            [passages, L] which of them are those of passage and instruction.
        starts
            [passages, vocabulary] logits of a query's first token.
        """
        pairs = [(i, query) for i, one in enumerate(batch) for query in one.queries[1:]]
        values = [0.0] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda k: len(pairs[k][1]))
        while order:
            # the longest that are left, as many as fit
            some = order[-max(1, POSITIONS // len(pairs[order[-1]][1])) :]
            del order[-len(some) :]
            owners = torch.tensor([pairs[k][0] for k in some], device=mask.device)
            queries = [pairs[k][1] for k in some]
            means = self._continued(kept, mask[owners], starts[owners], owners, queries)
            for k, value in zip(some, means, strict=True):
                values[k] = value
        yield from ((i, value) for (i, _), value in zip(pairs, values, strict=True))

    def _continued(
        self,
        kept: DynamicCache,
        mask: Tensor,
        starts: Tensor,
        owners: Tensor,
        queries: list[list[int]],
    ) -> list[float]:
        """Scores of queries [B], each after its passage, whose mask and logits are given."""
        lengths = torch.tensor([len(query) for query in queries], device=mask.device)
        width = max(map(len, queries))
        padded = [query + [0] * (width - len(query)) for query in queries]
        tokens = torch.tensor(padded, device=mask.device)
        places = torch.arange(width, device=mask.device)
        theirs = places < lengths[:, None]
        logits = starts[:, None]
        if width > 1:
            cache = copy.deepcopy(kept)
            cache.batch_select_indices(owners)
            output = self.model(
                input_ids=tokens[:, :-1],
                attention_mask=torch.cat([mask, theirs[:, 1:].to(mask.dtype)], 1),
                position_ids=mask.sum(1, keepdim=True) + places[:-1],
                past_key_values=cache,
                use_cache=True,
            )
            logits = torch.cat([logits, output.logits.float()], 1)
        picked = _log_probabilities(logits, tokens).masked_fill(~theirs, 0)
        means: list[float] = (picked.sum(1) / lengths).tolist()
        return means


def keeps(config: PretrainedConfig, tokens: int) -> bool:
    """Whether a model keeps keys and values of so many tokens, all of them, in every layer."""
    return all(
        type(layer) is DynamicLayer
        or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window > tokens)
        for layer in DynamicCache(config=config).layers
    )


def _log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of tokens [B, L], by logits [B, L, vocabulary]."""
    return logits.gather(2, tokens[:, :, None]).squeeze(2) - logits.logsumexp(2)
