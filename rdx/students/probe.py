"""Try a student on a few pairs before anything depends on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from rdx.loading import ModelError, explained
from rdx.students.between import PLACE
from rdx.students.heads import first_position
from rdx.students.settings import CLASSIFIERS
from rdx.students.tokenising import Pairs
from rdx.students.weights import position_tables

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rdx.students.encoder import CrossEncoder
    from rdx.students.settings import Student

PADDING = 0.01  # of the range of the scores: what padding may change in a score
NOISE = 1e-6  # of the largest score: what float32 cannot tell apart
LONG = 48  # tokens of the longer passage that another is padded to
LONGEST = (64, 448)  # tokens of the longest pair that is tried where positions are not known
WORDS = 48  # of the vocabulary, of which the texts are made
MASKED = ("eager", "sdpa")  # implementations of attention that every machine has


def check(student: CrossEncoder, settings: Student) -> None:
    """Check that a student can score its pairs and rank by the scores; settle where it pads.

    Nothing is drawn at random, and the student is as before but for `Pairs.side`, which is that
    side on which padding changes no score: the right one, unless only the left one is.

    Raises
    ------
    ModelError
        If tokens have no embedding; if the longest pairs have no positions; if a pair has another
        score beside a longer one than alone (by more than `PADDING` of the range of some scores);
        if scores do not depend on the query, or on the passage; or if head=last_token does not read
        the last token alone.
    """
    name = f"student.model={settings.model}"
    encoder, tokenizer = student.encoder, student.pairs.tokenizer
    _check_tokens(student.pairs, encoder, name)
    _check_lengths(settings, encoder, tokenizer)
    lengths = (min(settings.query_length, LONGEST[0]), min(settings.passage_length, LONGEST[1]))
    pairs = student.pairs.apart(*lengths)
    texts, longest = _texts(tokenizer, *lengths)
    with (
        _as_it_scores(student),
        explained(f"{name}: cannot score a pair with head={settings.head}"),
    ):
        if capacity(encoder) is None:
            _scores(student, pairs, [longest])
        _settle_padding(student, pairs, texts, settings)
        _check_sight(student, pairs, texts[1], settings)
        if settings.head == "last_token":
            _check_last(student, pairs, texts[1])


def capacity(encoder: PreTrainedModel) -> int | None:
    """The number of tokens that a model has positions for; None = any, as where they are relative.

    In RoBERTa the first positions are those of padding.
    """
    config: Any = encoder.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or most <= 0:
        return None
    table = bool(position_tables(encoder))
    rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None)
    return most - first_position(encoder) if table or rotary else None


def _check_tokens(pairs: Pairs, encoder: PreTrainedModel, name: str) -> None:
    """Refuse a tokeniser that gives tokens which the model has no embedding for."""
    tokenizer = pairs.tokenizer
    rows = cast(nn.Embedding, encoder.get_input_embeddings()).num_embeddings
    added = tokenizer.added_tokens_decoder
    # Special tokens come of no text, but around the texts, and in place of what is unknown.
    special = set(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
    used = set(pairs.batch([("a", "b")])[0]["input_ids"][0].tolist()) | {tokenizer.unk_token_id}
    beyond = {
        i: token
        for token, i in tokenizer.get_vocab().items()
        if i >= rows and (i not in special or i in used)
    }
    if beyond:
        raise ModelError(
            f"{name}: its tokenizer has tokens beyond the {rows} embeddings of the model: "
            f"{len(beyond)}, e.g. {beyond[min(beyond)]!r} with number {min(beyond)}; give the "
            "model its own tokenizer, or train it after resize_token_embeddings"
        )


def _check_lengths(settings: Student, encoder: PreTrainedModel, tokenizer: Any) -> None:
    """Refuse lengths that the model has no positions for."""
    special = tokenizer.num_special_tokens_to_add(pair=True) + settings.scores_lists  # [INT]
    query, passage = settings.query_length, settings.passage_length
    needed = query + passage + special
    most = capacity(encoder)
    if settings.attention == "sparse":  # positions restart at the passage
        room = None if most is None or query + special - 1 > most else most - 2
        own = max(query + special - 1, passage + 2)
    else:
        room = None if most is None else most - query - special
        own = needed
    if most is not None and own > most:
        cure = f"student.passage_length={room}" if room and room > 0 else "fewer query tokens"
        raise ModelError(
            f"student.passage_length={passage}: with query_length={query} and {special} special "
            f"tokens a pair takes {own} positions, and {settings.model} has {most}; give {cure}"
        )
    if needed > tokenizer.model_max_length:
        warnings.warn(
            f"student.passage_length={passage}: a pair may have {needed} tokens, and the "
            f"tokenizer of {settings.model} was saved for {tokenizer.model_max_length}",
            stacklevel=2,
        )


def _texts(
    tokenizer: Any, query: int, passage: int
) -> tuple[list[tuple[str, str]], tuple[str, str]]:
    """Pairs of a longer passage, a short one, another passage and another query; the longest."""
    words = _words(tokenizer)

    def text(start: int, count: int) -> str:
        return " ".join(words[i % len(words)] for i in range(start, start + count))

    first, second = text(0, min(query, 3)), text(3, min(query, 3))
    long, short = text(7, min(passage, LONG)), text(6, min(passage, 8))
    other = text(17, min(passage, 9))
    pairs = [(first, long), (first, short), (first, other), (second, short)]
    return pairs, (text(0, query), text(7, passage))


def _words(tokenizer: Any) -> list[str]:
    """Texts of a token or a few, spread over the vocabulary; none has an unknown part."""
    special = set(tokenizer.all_special_ids)
    ids = sorted(set(tokenizer.get_vocab().values()) - special)
    chosen = ids[:: max(len(ids) // (2 * WORDS), 1)]
    texts = dict.fromkeys(tokenizer.decode([i]).strip() for i in chosen)
    known = []
    for text in texts:
        tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if tokens and special.isdisjoint(tokens) and "\ufffd" not in text:
            known.append(text)
    return known[:WORDS] or ["a", "b", "c", "d"]


@contextmanager
def _as_it_scores(student: CrossEncoder) -> Iterator[None]:
    """Evaluation mode, attention that needs no GPU, and a random state that stays."""
    training = {module: module.training for module in student.modules()}
    encoder = student.encoder
    implementation = encoder.config._attn_implementation
    elsewhere = implementation not in (None, *MASKED)
    student.eval()
    if elsewhere:
        encoder.set_attn_implementation("eager")
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        if elsewhere:
            encoder.set_attn_implementation(implementation)
        for module, mode in training.items():
            module.training = mode


@torch.no_grad()
def _scores(student: CrossEncoder, pairs: Pairs, texts: list[tuple[str, str]]) -> Tensor:
    """Scores [P] of pairs that are padded to the longest."""
    scores: Tensor = student(*pairs.batch(texts))
    return scores


def _settle_padding(
    student: CrossEncoder, pairs: Pairs, texts: list[tuple[str, str]], settings: Student
) -> None:
    """Pad on the side where a pair scores beside a longer one as it does alone."""
    alone = torch.cat([_scores(student, pairs, [pair]) for pair in texts])
    if not alone.isfinite().all():
        raise ModelError(
            f"student.model={settings.model}: its scores are no finite numbers; take another "
            "checkpoint"
        )
    spread = float(alone.max() - alone.min())
    allowed = PADDING * spread + NOISE * float(alone.abs().max())
    # The first token, where a [CLS] is, must stay the first.
    movable = settings.attention == "full" and settings.head in (*CLASSIFIERS, "mean")
    movable = movable and not settings.scores_lists
    differences = {}
    for side in ("right", "left") if movable else ("right",):
        pairs.side = side
        differences[side] = float((_scores(student, pairs, texts[:2]) - alone[:2]).abs().max())
        if differences[side] <= allowed:
            return
    raise ModelError(
        f"student.model={settings.model}: the score of a pair depends on the pairs beside it: "
        f"padding changes it by {min(differences.values()):.2g}, where some scores differ by "
        f"{spread:.2g}; a model of type {student.encoder.config.model_type!r} does not heed its "
        "attention mask, or has another padding token; set pad_token_id in its config.json, or "
        "take another model"
    )


def _check_sight(
    student: CrossEncoder, pairs: Pairs, pair: tuple[str, str], settings: Student
) -> None:
    """Refuse a head that reads tokens which see nothing of the query, or of the passage.

    A masked token has no part in the score: its gradient is exactly zero.
    """
    vectors: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        vectors.append(output.requires_grad_() if output.is_leaf else output)
        return vectors[-1]

    table = cast(nn.Embedding, student.encoder.get_input_embeddings())
    tied = [  # an encoder and its decoder may share them
        module
        for module in student.encoder.modules()
        if isinstance(module, nn.Embedding) and module.weight is table.weight
    ]
    hooks = [module.register_forward_hook(keep) for module in tied]
    inputs, parts = pairs.batch([pair])
    try:
        with torch.enable_grad():
            score = student(inputs, parts)[0]
            gradients = torch.autograd.grad(score, vectors, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    tokens, size = parts.shape[1], table.embedding_dim
    pulls = [g.reshape(-1, size).abs().sum(1) for g in gradients if g is not None]
    if student.scores_lists:
        pulls = [torch.cat([pull[:PLACE], pull[PLACE + 1 :]]) for pull in pulls]
    seen = sum((pull for pull in pulls if len(pull) == tokens), torch.zeros(tokens)) > 0
    for part, text in ((1, "query"), (2, "passage")):
        if not seen[parts[0] == part].any():
            raise ModelError(
                f"student.head={settings.head}: its score does not depend on the {text}: the "
                f"tokens that it reads of a model of type {student.encoder.config.model_type!r} "
                f"do not see the {text}; of models that read from left to right "
                "student.head=last_token and mean see all"
            )


def _check_last(student: CrossEncoder, pairs: Pairs, pair: tuple[str, str]) -> None:
    """Refuse a model whose own head reads another vector than the last token's."""
    vectors: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Any) -> None:
        vectors.append(output.last_hidden_state)

    inputs, parts = pairs.batch([pair])
    hook = student.encoder.base_model.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            [pull] = torch.autograd.grad(student(inputs, parts)[0], vectors[-1:])
    finally:
        hook.remove()
    read = pull[0].abs().sum(1).nonzero().flatten().tolist()
    if read == [inputs["input_ids"].shape[1] - 1]:
        return
    config: Any = student.encoder.config.get_text_config()
    if inputs["input_ids"][0, -1] == config.pad_token_id:
        cure = (
            "pairs end in its padding token, which it does not count; end student.template "
            "otherwise, or give config.json a pad_token_id of its own"
        )
    else:
        cure = "use student.head=cls, which is what it was made for"
    raise ModelError(
        f"student.head=last_token: a model of type {config.model_type!r} does not read its score "
        f"at the last token: {cure}"
    )
