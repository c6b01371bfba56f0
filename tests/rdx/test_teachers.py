"""Teachers: recorded rankings, labels, controls, and the query likelihood of a tiny LM."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tqdm import tqdm
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from rdx import config, rankings
from rdx.collection import Collection
from rdx.loading import ModelError
from rdx.teachers import (
    Identity,
    Labels,
    Oracle,
    QueryLikelihood,
    Recorded,
    Shuffled,
    likelihood,
    pointwise,
)
from rdx.teachers import scorer as scoring
from rdx.teachers.scorer import Scorer, keeps
from tests.rdx.configured import check_refused, configured

COLUMNS = ["query_id", "doc_id", "teacher_rank", "score", "state"]


def ranking(lists: dict[str, str]) -> pd.DataFrame:
    """A first stage that ranks one-letter passages as they are written."""
    rows = [(q, d, 10.0 - i) for q, docs in lists.items() for i, d in enumerate(docs)]
    return rankings.rank(*zip(*rows, strict=True))


CANDIDATES = ranking({"q2": "dcba", "q1": "abcd", "q3": "zx"})


def collection(grades: dict[str, dict[str, int]]) -> Collection:
    rows = [(q, d, grade) for q, docs in grades.items() for d, grade in docs.items()]
    qrels = pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])
    return Collection("toy", {}, {}, qrels.astype({"relevance": "int32"}))


def ranks(taught: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Teacher ranks by query and passage, of a frame that is checked for its form."""
    assert list(taught.columns) == COLUMNS
    assert taught.teacher_rank.dtype == "int32" and taught.score.dtype == "float32"
    assert not taught.duplicated(["query_id", "doc_id"]).any()
    return {
        str(q): dict(zip(rows.doc_id, rows.teacher_rank, strict=True))
        for q, rows in taught.groupby("query_id")
    }


def first_to_last(taught: pd.DataFrame) -> dict[str, str]:
    """The passages of each query in the teacher's order; checks that ranks are 1, 2, ..., n."""
    lists = ranks(taught)
    for places in lists.values():
        assert sorted(places.values()) == list(range(1, len(places) + 1))
    return {q: "".join(sorted(places, key=places.get)) for q, places in lists.items()}


# --- recorded ---


def run_file(path, lists: dict[str, list[tuple[str, int, float]]]) -> str:
    lines = [f"{q} Q0 {d} {r} {s} x\n" for q, rows in lists.items() for d, r, s in rows]
    path.write_text("".join(lines))
    return str(path)


@pytest.fixture
def recorded(tmp_path) -> str:
    # the ranks say d b a c, the scores c a b d; q3 lacks x; q1 is absent
    rows = [("a", 30, 8.0), ("b", 20, 7.0), ("c", 40, 9.0), ("d", 10, 6.0), ("extra", 15, 6.5)]
    return run_file(tmp_path / "t.run", {"q2": rows, "q3": [("z", 1, 1.0)], "other": rows})


@pytest.mark.parametrize(("order", "expected"), [("rank", "dbac"), ("score", "cabd")])
def test_recorded_takes_ranks_or_scores(recorded, tmp_path, order, expected):
    taught = Recorded(recorded, order).rank(CANDIDATES, None, tmp_path)
    assert first_to_last(taught)["q2"] == expected  # the passage beside them leaves no gap
    complete = taught[taught.query_id == "q2"].sort_values("doc_id")
    scores = {"rank": [], "score": [8.0, 7.0, 9.0, 6.0]}[order]
    assert list(complete.score.dropna()) == scores and taught.score.dtype == "float32"


def test_recorded_lists_with_a_missing_passage_have_failed(recorded, tmp_path):
    taught = Recorded(recorded).rank(CANDIDATES, None, tmp_path)
    states = taught.groupby("query_id").state.agg(set).to_dict()
    assert states == {"q1": {"failed"}, "q2": {"ok"}, "q3": {"failed"}}
    assert len(taught) == len(CANDIDATES)


def test_recorded_that_covers_no_list_is_an_error(recorded, tmp_path):
    some = CANDIDATES[CANDIDATES.query_id != "q2"]
    with pytest.raises(rankings.FormatError, match=r"t\.run: .* none of the 2"):
        Recorded(recorded).rank(some, None, tmp_path)


def test_recorded_refuses_bad_values(recorded, tmp_path):
    with pytest.raises(ValueError, match=r"teacher\.order='ranks'"):
        configured("teacher", Recorded, recorded, "ranks")
    with pytest.raises(ValueError, match=r"teacher\.run=.*none\.run"):
        configured("teacher", Recorded, str(tmp_path / "none.run"))


# --- labels and controls ---

GRADES = collection({
    "q1": {"c": 1, "d": 3, "a": 0, "nowhere": 2}, "q2": {"a": 1, "d": 1}, "q3": {"z": -2, "x": 0},
})  # fmt: skip


def test_labels_tie_equal_grades(tmp_path):
    taught = Labels().rank(CANDIDATES, GRADES, tmp_path)
    assert ranks(taught) == {
        "q1": {"a": 3, "b": 3, "c": 2, "d": 1},
        "q2": {"a": 1, "b": 2, "c": 2, "d": 1},
        "q3": {"z": 1, "x": 1},
    }
    assert set(taught.state) == {"ok"}
    assert taught[taught.query_id == "q1"].set_index("doc_id").score.to_dict() == {
        "a": 0, "b": 0, "c": 1, "d": 3,
    }  # fmt: skip


def test_oracle_orders_by_grade_then_first_stage(tmp_path):
    taught = Oracle().rank(CANDIDATES, GRADES, tmp_path)
    assert first_to_last(taught) == {"q1": "dcab", "q2": "dacb", "q3": "zx"}


@pytest.mark.parametrize("teacher", [Labels(), Oracle()])
def test_labels_and_oracle_need_judgements(teacher, tmp_path):
    with pytest.raises(rankings.FormatError, match="toy"):
        teacher.rank(CANDIDATES, collection({"q1": {"a": 0}}), tmp_path)


def test_identity_is_the_first_stage(tmp_path):
    taught = Identity().rank(CANDIDATES, None, tmp_path)
    assert first_to_last(taught) == {"q1": "abcd", "q2": "dcba", "q3": "zx"}
    merged = taught.merge(CANDIDATES, on=["query_id", "doc_id"])
    assert (merged.teacher_rank == merged["rank"]).all()


def test_shuffled_is_a_function_of_seed_and_query(tmp_path):
    many = ranking({f"q{i}": "abcdefgh" for i in range(40)})
    shuffled = first_to_last(Shuffled(3).rank(many, None, tmp_path))
    assert len(set(shuffled.values())) > 35
    some = many[many.query_id.isin(["q9", "q31"])]
    backwards = pd.concat([some[some.query_id == "q31"], some[some.query_id == "q9"]])
    for few in (some, backwards):
        expected = {"q9": shuffled["q9"], "q31": shuffled["q31"]}
        assert first_to_last(Shuffled(3).rank(few, None, tmp_path)) == expected
    other = first_to_last(Shuffled(4).rank(many, None, tmp_path))
    assert sum(other[q] != shuffled[q] for q in shuffled) > 35


def test_shuffled_is_uniform(tmp_path):
    many = ranking({f"q{i}": "abc" for i in range(3000)})
    shuffled = pd.Series(first_to_last(Shuffled().rank(many, None, tmp_path)))
    shares = shuffled.value_counts(normalize=True).to_dict()
    assert set(shares) == {"abc", "acb", "bac", "bca", "cab", "cba"}
    assert max(shares.values()) - min(shares.values()) < 0.05


# --- query likelihood ---

WORDS = "river engine garden planet violin market stone reed kelp onyx".split()
TODAYS = "Documentation: {passage}\nA one-line summary of it:"
PROMPT = ["Documentation", ":", "A", "one", "-", "line", "summary", "of", "it", "[UNK]"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("llama")
    vocabulary = {word: i for i, word in enumerate(PROMPT + WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


RANDOM = np.random.default_rng(0)
TEXTS = Collection(
    "toy",
    {f"q{i}": " ".join(RANDOM.choice(WORDS, 1 + i % 4)) for i in range(7)},
    {f"d{i}": " ".join(RANDOM.choice(WORDS, 1 + (5 * i) % 9)) for i in range(12)},
    pd.DataFrame(columns=["query_id", "doc_id", "relevance"]),
)


def first_stage() -> pd.DataFrame:
    rows = [
        (q, f"d{d}", float(RANDOM.normal(5, 3)))
        for i, q in enumerate(TEXTS.queries)
        for d in RANDOM.choice(12, 4 + i % 3, replace=False)
    ]
    return rankings.rank(*zip(*rows, strict=True))


FIRST = first_stage()


def teacher(llama, **settings) -> QueryLikelihood:
    return QueryLikelihood(llama, **({"precision": "fp32", "device": "cpu", "chunk": 2} | settings))


@pytest.fixture(scope="module")
def naive(llama):
    """Mean log-probability of the query, one pair at a time, one token at a time."""
    model = LlamaForCausalLM.from_pretrained(llama).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama)

    @torch.inference_mode()
    def score(query, passage, passage_length=96, query_length=32, prompt=TODAYS, first=()):
        before, after = prompt.split("{passage}")
        prompt = [*first, *tokenizer(before + passage)["input_ids"][:passage_length]]
        prompt += tokenizer(after)["input_ids"]
        total, words = 0.0, tokenizer(query)["input_ids"][:query_length]
        for i, word in enumerate(words):
            logits = model(input_ids=torch.tensor([prompt + words[:i]])).logits[0, -1].tolist()
            total += logits[word] - math.log(sum(math.exp(x) for x in logits))
        return total / len(words)

    return score


def likelihoods(folder) -> dict[str, dict[str, float]]:
    """By query and passage, in the ledger's order of passages."""
    scores: dict[str, dict[str, float]] = {}
    for line in (folder / pointwise.LEDGER).read_text().splitlines():
        row = json.loads(line)
        for query_id, value in row["scores"].items():
            scores.setdefault(query_id, {})[row["doc_id"]] = value
    return scores


def test_query_likelihood_equals_a_naive_computation(llama, naive, tmp_path):
    taught = teacher(llama).rank(FIRST, TEXTS, tmp_path)
    expected = {
        q: {d: naive(TEXTS.queries[q], TEXTS.passages[d]) for d in rows.doc_id}
        for q, rows in FIRST.groupby("query_id")
    }
    scored = likelihoods(tmp_path)
    assert scored.keys() == expected.keys()
    for query_id, places in ranks(taught).items():
        assert scored[query_id] == pytest.approx(expected[query_id], abs=1e-4)
        best = sorted(places, key=lambda d: -expected[query_id][d])
        assert sorted(places, key=places.get) == best
    assert set(taught.state) == {"ok"}
    scores = taught[taught.query_id == "q3"].score
    assert scores.mean() == pytest.approx(0, abs=1e-6)
    assert scores.std(ddof=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("docstring", TODAYS),
        ("reed {passage} kelp: of {it", "reed {passage} kelp: of {it"),
        ("{passage}", "{passage}"),
    ],
)
def test_prompts_and_the_first_token(llama, naive, tmp_path, monkeypatch, prompt, text, sharing):
    if not sharing:
        monkeypatch.setattr(scoring, "keeps", lambda *_: False)
    scored = {}
    for bos in (False, True):
        work = tmp_path / str(bos)
        work.mkdir()
        folder = with_bos(llama, tmp_path) if bos else llama
        teacher(folder, prompt=prompt, bos=bos).rank(FIRST, TEXTS, work)
        scored[bos] = likelihoods(work)
        for q, d in zip(FIRST.query_id, FIRST.doc_id, strict=True):
            first = [PROMPT.index("-")] if bos else []
            expected = naive(TEXTS.queries[q], TEXTS.passages[d], prompt=text, first=first)
            assert scored[bos][q][d] == pytest.approx(expected, abs=1e-4)
    assert scored[False] != scored[True]


def with_bos(llama, folder) -> str:
    """The same model, whose tokenizer has a token for the beginning of a text."""
    LlamaForCausalLM.from_pretrained(llama).save_pretrained(folder / "bos")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama)
    tokenizer.bos_token = "-"
    tokenizer.save_pretrained(folder / "bos")
    return str(folder / "bos")


def test_a_prompt_is_its_text_and_has_a_passage(llama, tmp_path):
    one, other = (teacher(llama, prompt=prompt) for prompt in ("docstring", TODAYS))
    assert config.identity(one) == config.identity(other)
    assert config.identity(teacher(llama, prompt="web_passage")) != config.identity(one)
    assert config.identity(teacher(llama, bos=True)) != config.identity(one)
    for prompt in ("web", "{passage} {passage}", ""):
        check_refused(
            "teacher", QueryLikelihood, model="asset:SmolLM2-135M-Instruct", prompt=prompt
        )
    with pytest.raises(ModelError, match="^bos=true"):
        teacher(llama, bos=True).rank(FIRST, TEXTS, tmp_path)


def test_query_likelihood_cuts_texts(llama, naive, tmp_path):
    lengths = {"passage_length": 4, "query_length": 2}
    teacher(llama, **lengths).rank(FIRST, TEXTS, tmp_path)
    scored = likelihoods(tmp_path)
    changed = 0
    for q, d in zip(FIRST.query_id, FIRST.doc_id, strict=True):
        texts = TEXTS.queries[q], TEXTS.passages[d]
        assert scored[q][d] == pytest.approx(naive(*texts, **lengths), abs=1e-4)
        changed += abs(scored[q][d] - naive(*texts)) > 1e-3
    assert changed > 10


def test_interpolation_ends_are_llm_and_first_stage(llama, tmp_path):
    ranked = {}
    for weight in (0.0, 0.5, 1.0):
        taught = teacher(llama, interpolation=weight).rank(FIRST, TEXTS, tmp_path)
        ranked[weight] = {q: sorted(places, key=places.get) for q, places in ranks(taught).items()}
    first = {str(q): list(rows.doc_id) for q, rows in FIRST.groupby("query_id")}
    assert ranked[1.0] == first
    scored = likelihoods(tmp_path)
    best = {q: sorted(docs, key=lambda d, docs=docs: -docs[d]) for q, docs in scored.items()}
    assert ranked[0.0] == best != first
    assert ranked[0.5] not in (ranked[0.0], ranked[1.0])


def alone(llama) -> dict[str, dict[str, float]]:
    """Every pair scored by itself."""
    scorer = Scorer(teacher(llama))
    scores: dict[str, dict[str, float]] = {}
    for query_id, doc_id in zip(FIRST.query_id, FIRST.doc_id, strict=True):
        pair = (TEXTS.passages[doc_id], [TEXTS.queries[query_id]])
        [[value]] = scorer.scores([pair], tqdm(disable=True))
        scores.setdefault(query_id, {})[doc_id] = value
    return scores


def test_a_passage_is_read_once_for_all_its_queries(llama, tmp_path, monkeypatch):
    forward, sizes = LlamaForCausalLM.forward, []

    def counted(self, input_ids=None, **more):
        sizes.append((len(input_ids), more.get("past_key_values") is not None))
        return forward(self, input_ids=input_ids, **more)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    shared = teacher(llama, chunk=100).rank(FIRST, TEXTS, tmp_path)
    passages = FIRST.doc_id.nunique()
    assert sizes[0] == (passages, False) and all(kept for _, kept in sizes[1:])
    assert sum(size for size, _ in sizes) == len(FIRST) > 2 * passages

    # the same as each pair alone, and as chunks, batches and models that cannot share
    expected = alone(llama)
    for query_id, places in ranks(shared).items():
        best = [expected[query_id][d] for d in sorted(places, key=places.get)]
        assert all(one > two - 1e-5 for one, two in zip(best, best[1:], strict=False))
    everywhere = [likelihoods(tmp_path)]
    for name, changed in {"POSITIONS": 3, "BATCH": 2, "keeps": lambda *_: False}.items():
        monkeypatch.setattr(scoring, name, changed)
        (tmp_path / name).mkdir()
        teacher(llama, chunk=5).rank(FIRST, TEXTS, tmp_path / name)
        everywhere.append(likelihoods(tmp_path / name))
    for scored in everywhere:
        assert scored.keys() == expected.keys()
        for query_id, values in expected.items():
            assert scored[query_id] == pytest.approx(values, abs=1e-5)


def test_models_that_forget_do_not_share():
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 1, "hidden_size": 8}
    assert keeps(LlamaConfig(**sizes), 10**6)
    window = MistralConfig(**sizes, sliding_window=100)
    assert keeps(window, 99) and not keeps(window, 100)
    assert not keeps(MambaConfig(num_hidden_layers=2), 1)


@pytest.fixture
def asked(monkeypatch):
    """The (passage, queries) that the LM was asked."""
    everything, scores = [], Scorer.scores

    def recording(self, texts, progress):
        everything.extend(texts)
        return scores(self, texts, progress)

    monkeypatch.setattr(Scorer, "scores", recording)
    return everything


BY_PASSAGE = [
    (TEXTS.passages[d], [TEXTS.queries[q] for q in rows.query_id])
    for d, rows in FIRST.groupby("doc_id", sort=False)
]


def test_a_finished_ledger_is_not_asked_again(llama, asked, tmp_path, monkeypatch):
    whole = teacher(llama).rank(FIRST, TEXTS, tmp_path)
    assert asked == BY_PASSAGE
    before = (tmp_path / pointwise.LEDGER).read_bytes()
    monkeypatch.setattr(likelihood, "scorer", None)  # not even loaded
    pd.testing.assert_frame_equal(teacher(llama).rank(FIRST, TEXTS, tmp_path), whole)
    assert (tmp_path / pointwise.LEDGER).read_bytes() == before


@pytest.mark.parametrize("kept_lines", [0, 1, 2, 4, 7])
def test_a_torn_ledger_is_completed(llama, asked, tmp_path, kept_lines):
    whole = teacher(llama).rank(FIRST, TEXTS, tmp_path)
    path = tmp_path / pointwise.LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(BY_PASSAGE) > 8
    # killed half way through a line
    torn = lines[kept_lines][: len(lines[kept_lines]) // 2]
    path.write_bytes(b"".join(lines[:kept_lines]) + torn)
    asked.clear()
    resumed = teacher(llama).rank(FIRST, TEXTS, tmp_path)
    pd.testing.assert_frame_equal(resumed, whole)  # scores bit for bit
    # chunks of two passages that lack one are asked again as they were
    assert asked == BY_PASSAGE[kept_lines // 2 * 2 :]
    assert likelihoods(tmp_path).keys() == TEXTS.queries.keys()
    asked.clear()
    pd.testing.assert_frame_equal(teacher(llama).rank(FIRST, TEXTS, tmp_path), whole)
    assert not asked


def test_answers_are_kept_chunk_by_chunk(llama, tmp_path, monkeypatch):
    scores, calls = Scorer.scores, []

    def dies(self, texts, progress):
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return scores(self, texts, progress)

    monkeypatch.setattr(Scorer, "scores", dies)
    with pytest.raises(KeyboardInterrupt):
        teacher(llama).rank(FIRST, TEXTS, tmp_path)
    lines = (tmp_path / pointwise.LEDGER).read_text().splitlines()
    assert [json.loads(line)["doc_id"] for line in lines] == list(FIRST.doc_id.unique())[:4]


def test_bf16_is_close_to_float32(llama, tmp_path):
    values = []
    for precision in ("fp32", "bf16"):
        (tmp_path / precision).mkdir()
        teacher(llama, precision=precision).rank(FIRST, TEXTS, tmp_path / precision)
        scored = likelihoods(tmp_path / precision)
        values.append(np.array([v for q in TEXTS.queries for v in scored[q].values()]))
    assert 1e-4 < np.abs(values[0] - values[1]).mean() < 0.2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("passage_length", 0), ("query_length", 0), ("chunk", 0)),
        *(("interpolation", 1.1), ("precision", "fp16")),
    ],
)
def test_query_likelihood_refuses_bad_values(key, value):
    with pytest.raises(ValueError, match=rf"teacher\.{key}='?{value}"):
        configured("teacher", QueryLikelihood, "somewhere", **{key: value})


def test_query_likelihood_refuses_unknown_assets():
    with pytest.raises(ValueError, match=r"asset:gpt.*SmolLM2"):
        configured("teacher", QueryLikelihood, "asset:gpt")
