"""What a student must do before it is trained: pad without a trace, see both texts, fit."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, FNetConfig, PreTrainedTokenizerFast

from rdx import batches
from rdx.loading import ModelError
from rdx.students import Student, probe
from tests.rdx.small_models import CAUSAL, FAMILIES, PAIRS, WORDS, bytelevel, save, sentencepiece
from tests.rdx.small_models import wordpiece as wordpieces

SHORT = {"query_length": 8, "passage_length": 40}


def create(folder, head="cls", **more):
    return Student(str(folder), head=head, **(SHORT | more)).create(0)


@torch.no_grad()
def scores(student, pairs, max_tokens):
    numbers = [str(i) for i in range(len(pairs))]
    texts = (dict(zip(numbers, own, strict=True)) for own in zip(*pairs, strict=True))
    tokens = student.pairs.tokens(*texts)
    rows = tokens.rows(numbers, numbers)
    return torch.from_numpy(batches.scores(student, tokens, rows, torch.device("cpu"), max_tokens))


def spread(values):
    return float(values.max() - values.min())


def texts(count, seed=0):
    """Pairs of passages of 1 to 30 words."""
    random = np.random.default_rng(seed)

    def text(most):
        return " ".join(random.choice(WORDS, random.integers(1, most + 1)))

    return [(text(4), text(30)) for _ in range(count)]


# --- neighbours ---


@pytest.mark.parametrize(
    ("kind", "head"),
    [(kind, head) for kind in FAMILIES for head in ("cls", "mean")]
    + [(kind, head) for kind in ("bert", "xlnet", "llama") for head in ("linear", "interaction")],
)
def test_a_score_is_the_pairs_alone_whatever_max_tokens(kind, head, tmp_path):
    folder = save(kind, tmp_path)
    if (kind == "t5" and head != "cls") or (kind in CAUSAL and head == "linear"):
        with pytest.raises(ModelError, match="student"):
            create(folder, head)
        return
    student = create(folder, head).eval()
    pairs = PAIRS + texts(12)
    alone = scores(student, pairs, 1)
    for max_tokens in (100, 10_000):
        beside = scores(student, pairs, max_tokens)
        assert (beside - alone).abs().max() <= 1e-4 * spread(alone)
    student.save(tmp_path / "saved")
    loaded = Student(folder, head=head, **SHORT).load(tmp_path / "saved").eval()
    assert (
        loaded.pairs.side
        == student.pairs.side
        == ("left" if (kind, head) == ("xlnet", "cls") else "right")
    )
    again = scores(loaded, pairs, 10_000)
    assert (again - alone).abs().max() <= 1e-4 * spread(alone)


def of_tokeniser(folder, **changes):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "config", "tokeniser", "expected"),
    [
        ("roberta", {}, {"pad_token": "<s>"}, 1),  # positions are counted from the model's
        ("roberta", {"pad_token_id": 2}, {}, 2),
        ("bert", {}, {"pad_token": None}, 0),
        ("bert", {}, {"padding_side": "left"}, 0),
        ("gpt2", {}, {"padding_side": "left"}, 0),
        ("gpt2", {"eos_token_id": 7}, {"pad_token": "b"}, None),
        ("llama", {"pad_token_id": -1}, {}, 0),
        ("llama", {"pad_token_id": None}, {"pad_token": None, "eos_token": None}, 0),
        ("qwen3", {"pad_token_id": 9}, {"pad_token": "a"}, 9),
        ("xlnet", {}, {"padding_side": "right"}, 1),
    ],
)
def test_model_and_tokeniser_agree_on_padding(kind, config, tokeniser, expected, tmp_path):
    folder = of_tokeniser(save(kind, tmp_path, **config), **tokeniser)
    before = PreTrainedTokenizerFast.from_pretrained(folder, split_special_tokens=True)
    student = create(folder).eval()
    pairs = PAIRS + texts(8, seed=1)
    alone = scores(student, pairs, 1)
    assert (scores(student, pairs, 10_000) - alone).abs().max() <= 1e-4 * spread(alone)
    inputs, _ = student.pairs.batch(pairs)
    rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    assert [own[mask == 1].tolist() for own, mask in rows] == [
        before(*pair)["input_ids"] for pair in pairs
    ]
    padding = inputs["input_ids"][inputs["attention_mask"] == 0]
    own = student.encoder.config.pad_token_id
    assert padding.unique().tolist() == [own] and expected in (own, None)
    student.save(tmp_path / "saved")  # and so do they where rdx is not
    saved = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    assert (saved.pad_token_id, saved.padding_side) == (own, student.pairs.side)


def test_a_padding_token_beyond_the_embeddings_is_not_padded_with(tmp_path):
    folder = save("llama without padding", tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # as many do, without resizing
    tokenizer.save_pretrained(folder)
    student = create(folder).eval()
    alone = scores(student, PAIRS, 1)
    assert (scores(student, PAIRS, 1000) - alone).abs().max() <= 1e-4 * spread(alone)


@pytest.mark.parametrize("head", ["mean", "interaction"])
def test_a_model_that_is_deaf_to_its_mask_is_refused(head, tmp_path):
    settings = Student(save("bert", tmp_path), head=head, **SHORT)
    student = settings.create(0)
    probe.check(student, settings)
    forward = student.encoder.forward

    def deaf(attention_mask, **inputs):
        return forward(**inputs, attention_mask=torch.ones_like(attention_mask))

    student.encoder.forward = deaf
    with pytest.raises(ModelError, match=r"student\.model=.*the pairs beside it"):
        probe.check(student, settings)


def test_a_model_that_takes_no_mask_is_refused(tmp_path):
    made = wordpieces()
    config = FNetConfig(vocab_size=len(made), hidden_size=16, num_hidden_layers=1)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"student\.model=.*the pairs beside it"):
        create(tmp_path, "mean")


def test_scores_that_are_no_numbers_are_refused(tmp_path):
    settings = Student(save("bert", tmp_path), head="mean", **SHORT)
    student = settings.create(0)
    torch.nn.init.constant_(student.head.linear.weight, float("nan"))
    with pytest.raises(ModelError, match="finite"):
        probe.check(student, settings)


# --- what can rank ---


@pytest.mark.parametrize("kind", CAUSAL)
def test_the_first_token_of_a_causal_model_is_refused(kind, tmp_path):
    with pytest.raises(ModelError, match=r"student\.head=linear: .* depend on the (query|passage)"):
        create(save(kind, tmp_path), "linear")


@pytest.mark.parametrize("text", ["query", "passage"])
def test_a_head_that_reads_one_of_the_texts_alone_is_refused(text, tmp_path):
    settings = Student(save("bert", tmp_path), head="mean", **SHORT)
    student = settings.create(0)
    forward = student.encoder.forward
    part = 1 if text == "query" else 2

    def blind(**inputs):  # to the text; what follows a [SEP] is the passage
        after = (inputs["input_ids"] == 3).cumsum(1) - (inputs["input_ids"] == 3).long()
        seen = (inputs["input_ids"] != 0) * (after != part - 1)
        mask = torch.where(seen.sum(1, keepdim=True) > 0, seen, 1)
        output = forward(**(inputs | {"attention_mask": mask}))
        output.last_hidden_state = output.last_hidden_state * seen.unsqueeze(2)
        return output

    student.encoder.forward = blind
    with pytest.raises(ModelError, match=f"depend on the {text}"):
        probe.check(student, settings)


def test_trying_a_student_changes_nothing(tmp_path):
    settings = Student(save("bert", tmp_path), head="mean", dropout=0.3, **SHORT)
    torch.manual_seed(3)
    expected = torch.rand(4), np.random.default_rng(0).random()
    torch.manual_seed(3)
    student = settings.create(0)
    modes = {name: module.training for name, module in student.named_modules()}
    state = {name: value.clone() for name, value in student.state_dict().items()}
    probe.check(student, settings)
    settings.verify()
    assert torch.equal(torch.rand(4), expected[0])
    assert modes == {name: module.training for name, module in student.named_modules()}
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())
    assert all(p.grad is None for p in student.parameters())
    assert student.encoder.config._attn_implementation == "eager"


def test_a_student_is_verified_once_and_errors_are_not_remembered(tmp_path, monkeypatch):
    folder = Path(save("bert", tmp_path / "bert"))
    calls = []
    create_it = Student.create
    monkeypatch.setattr(Student, "create", lambda self, seed: calls.append(create_it(self, seed)))
    good, bad = Student(str(folder), **SHORT), Student(str(folder), **SHORT, layers=9)
    good.verify()
    Student(str(folder), **SHORT).verify()
    assert len(calls) == 1
    for _ in range(2):
        with pytest.raises(ModelError, match=r"^student\.layers=9"):
            bad.verify()
    shutil.rmtree(folder)
    with pytest.raises((ModelError, FileNotFoundError), match="model="):
        Student(str(folder), passage_length=9).verify()


# --- lengths ---

POSITIONS = {  # of 128; RoBERTa's first two are those of padding
    **dict.fromkeys(
        ["bert", "electra", "albert", "distilbert", "gpt2", "llama", "modernbert"], 128
    ),
    **dict.fromkeys(["roberta", "xlm-roberta", "mpnet"], 126),
    **dict.fromkeys(["deberta-v2", "xlnet", "t5"], None),
}
SPECIAL = {"t5": 2, "gpt2": 0, "llama": 0, "roberta": 4, "xlm-roberta": 4, "mpnet": 4}


@pytest.mark.parametrize("kind", POSITIONS)
def test_the_longest_pair_fits_or_is_refused(kind, tmp_path):
    folder, special = save(kind, tmp_path), SPECIAL.get(kind, 3)
    room = (POSITIONS[kind] or 400) - 8 - special
    student = create(folder, passage_length=room).eval()
    assert probe.capacity(student.encoder) == POSITIONS[kind]
    odd = [("river " * 50, "garden " * 600), ("a" * 50, "é🙂 " * 300)]
    values = scores(student, odd, 10_000)
    assert values.isfinite().all()
    assert student.pairs.batch(odd[:1])[1].shape[1] == room + 8 + special
    if POSITIONS[kind]:
        with pytest.raises(ModelError, match=rf"^student\.passage_length={room + 1}: .*={room}$"):
            create(folder, passage_length=room + 1)
        with pytest.raises(ModelError, match="query"):
            create(folder, query_length=128, passage_length=1)


def test_positions_that_restart_at_the_passage_are_counted_so(tmp_path):
    folder = save("bert", tmp_path)
    kinds = {"head": "mean", "attention": "sparse"}
    student = create(folder, passage_length=126, **kinds).eval()
    longest = [("river " * 50, "garden " * 600)]
    assert scores(student, longest, 10_000).isfinite().all()
    with pytest.raises(ModelError, match=r"^student\.passage_length=127: .*=126$"):
        create(folder, passage_length=127, **kinds)


def test_a_tokeniser_that_was_saved_for_less_is_said(tmp_path):
    folder = of_tokeniser(save("bert", tmp_path), model_max_length=50)
    with pytest.warns(UserWarning, match=r"student\.passage_length=40.*51 tokens.* 50"):
        create(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create(folder, passage_length=39)


TOKENISERS = {
    "WordPiece": ("bert", wordpieces, {}),
    "byte-level": ("roberta", bytelevel, {"roberta": True}),
    "Unigram": ("xlm-roberta", sentencepiece, {}),
    "decoder": ("gpt2", bytelevel, {"eos_token": "<|end|>"}),
}
ODD = st.lists(
    st.sampled_from(
        [
            *WORDS,
            "🙂",
            "👩\u200d👩\u200d👧",
            "\U00012000",
            "漢字",
            "e\u0301\u0323",
            "\u200d",
            "\ufeff",
        ]
        + ["ﬁ", " ", "\n", "ǅ", "\u0345", "ß", "İ", "x" * 120, "[SEP]", "</s>", "\x00", "𝔘", "क्षि"]
        + ["…", "▁", "Ġ"]
    )
    | st.characters(),
    max_size=40,
)


@pytest.fixture(scope="module")
def pairs_of(tmp_path_factory):
    known = {}
    for name, (kind, _, _) in TOKENISERS.items():
        folder = save(kind, tmp_path_factory.mktemp(kind), max_position_embeddings=512)
        known[name] = create(folder, passage_length=30).pairs
    return known


@pytest.mark.parametrize("name", TOKENISERS)
@settings(max_examples=40, deadline=None)
@given(passage=ODD, joint=st.sampled_from(["", " "]), limit=st.integers(1, 30))
def test_no_text_has_more_tokens_than_it_may(pairs_of, name, passage, joint, limit):
    own = pairs_of[name].apart(8, limit)
    text = joint.join(passage)

    def count(some):
        return len(own.tokenizer(some, add_special_tokens=False)["input_ids"])

    kept = beginning(own.tokenizer, text, limit)
    tokens = own.tokens({}, {"d": text})
    assert text.startswith(kept)
    assert (kept == text) == (not tokens.passages.truncated[0]) == (count(text) <= limit)
    assert int(tokens.passages.lengths(np.array([0]))[0]) == count(kept) <= limit
    alone = own.tokenizer(kept, add_special_tokens=False)["input_ids"]
    assert tokens.passages.ids.tolist() == alone
    swapped = own.apart(limit, 8).tokens({"q": text}, {})
    assert swapped.queries.ids.tolist() == alone


def beginning(tokenizer, text, limit):
    """The beginning of a text that is at most `limit` tokens, one text at a time."""

    def offsets(some):
        return tokenizer(some, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]

    ends = [end for _, end in offsets(text)]
    if len(ends) <= limit:
        return text
    count = limit
    kept = text[: ends[count - 1]]
    while (excess := len(offsets(kept)) - limit) > 0:
        count = max(count - excess, 0)
        kept = text[: ends[count - 1]] if count else ""
    return kept


def test_a_character_is_kept_whole_or_not_at_all(pairs_of):
    smiles = "x" + "🙂" * 99  # a token of "x", and four of each of the others

    def kept(text, limit):
        ids = pairs_of["byte-level"].apart(8, limit).tokens({}, {"": text}).passages.ids
        return pairs_of["byte-level"].tokenizer.decode(ids)

    assert kept(smiles, 92) == "x" + "🙂" * 22
    assert kept(smiles, 93) == "x" + "🙂" * 23
    assert kept("🙂", 3) == "" and kept("🙂", 4) == "🙂"
    parts = pairs_of["byte-level"].apart(8, 92).batch([("🙂" * 9, smiles)])[1][0].tolist()
    assert parts.count(1) == 8 and parts.count(2) == 89


# --- tokens ---


@pytest.mark.parametrize("kind", ["bert", "llama", "xlm-roberta"])
def test_tokens_without_an_embedding_are_refused(kind, tmp_path):
    folder = save(kind, tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    tokenizer.save_pretrained(folder)
    create(folder)  # no text has that one
    tokenizer.add_tokens(["elementwise", "ndarray"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=rf"{size} embeddings.*: 2, e\.g\. 'elementwise'"):
        create(folder)


def test_special_tokens_around_the_texts_need_embeddings(tmp_path):
    folder = save("bert", tmp_path)
    made = wordpieces()
    made.add_special_tokens({"sep_token": "[END]"})
    from tokenizers import processors

    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [END]",
        pair="[CLS] $A [END] $B:1 [END]:1",
        special_tokens=[("[CLS]", 2), ("[END]", made.convert_tokens_to_ids("[END]"))],
    )
    made.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"1, e\.g\. '\[END\]'"):
        create(folder)
