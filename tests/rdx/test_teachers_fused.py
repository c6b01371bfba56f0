"""Fused teachers; and cells whose teachers score passages, trained for real."""

import math

import numpy as np
import pandas as pd
import pytest
from transformers import BertForSequenceClassification

from rdx import config, rankings
from rdx.artifacts import Checkpoint, TeacherRanking
from rdx.collection import Collection
from rdx.job import TRAINING, Job
from rdx.plan.services import Paid, services
from rdx.stages import TEACH, Step
from rdx.teachers import Fused, Identity, Labels, Oracle, QueryLikelihood, Recorded, Shuffled
from tests.rdx import tiny
from tests.rdx.configured import check_refused
from tests.rdx.conftest import TOPICS, WORDS
from tests.rdx.small_judges import t5

LISTS = {"q1": "abcd", "q2": "ba", "q3": "cab"}
FIRST = rankings.rank(
    *zip(*[(q, d, 9.0 - i) for q, docs in LISTS.items() for i, d in enumerate(docs)], strict=True)
)
QRELS = pd.DataFrame(
    [("q1", "c", 2), ("q1", "d", 1), ("q2", "a", 1), ("q3", "b", 3)],
    columns=["query_id", "doc_id", "relevance"],
)
TEXTS = Collection("toy", dict.fromkeys(LISTS, "a"), dict.fromkeys("abcd", "a"), QRELS)
SCORES = {  # of two members
    "one": {"q1": [4.0, 2.0, 0.0, -2.0], "q2": [0.0, 1.0], "q3": [5.0, 1.0, 1.5]},
    "two": {"q1": [0.1, 0.1, 0.3, 0.1], "q2": [3.0, 9.0], "q3": [0.2, 0.8, 0.9]},
}


def run(tmp_path, name: str, lists: dict[str, list[float]], order: str = "score") -> Recorded:
    """A recorded ranking that scores the passages of FIRST."""
    lines = [
        f"{q} Q0 {d} {rank} {score} x\n"
        for q, scores in lists.items()
        for rank, (score, d) in enumerate(sorted(zip(scores, LISTS[q], strict=True))[::-1], 1)
    ]
    (tmp_path / f"{name}.run").write_text("".join(lines))
    return Recorded(str(tmp_path / f"{name}.run"), order)


def both(tmp_path, **settings) -> Fused:
    return Fused({name: run(tmp_path, name, lists) for name, lists in SCORES.items()}, **settings)


def by_list(taught: pd.DataFrame, column: str) -> dict[str, list]:
    """Of a column, in the order of the first stage."""
    ordered = FIRST.merge(taught, on=["query_id", "doc_id"], suffixes=("_first", ""))
    return {q: list(rows[column]) for q, rows in ordered.groupby("query_id")}


def naive_scale(scores: list[float], how: str) -> list[float]:
    low, high, mean = min(scores), max(scores), sum(scores) / len(scores)
    spread = math.sqrt(sum((s - mean) ** 2 for s in scores) / len(scores))
    ways = {
        "none": lambda s: s,
        "minmax": lambda s: (s - low) / (high - low),
        "zscore": lambda s: (s - mean) / spread,
        "quantile": lambda s: (
            sum((o < s) + (o == s) / 2 for o in scores) / (len(scores) - 1)
            - 0.5 / (len(scores) - 1)
        ),
    }
    return [ways[how](s) for s in scores]


@pytest.mark.parametrize("how", ["none", "minmax", "zscore", "quantile"])
def test_the_mean_is_of_scaled_scores(tmp_path, how):
    taught = both(tmp_path, member_scale=how).rank(FIRST, TEXTS, tmp_path)
    found, ranks = by_list(taught, "score"), by_list(taught, "teacher_rank")
    for query_id in LISTS:
        one, two = (naive_scale(SCORES[name][query_id], how) for name in SCORES)
        mean = [(a + b) / 2 for a, b in zip(one, two, strict=True)]
        assert found[query_id] == pytest.approx(mean, abs=1e-6)
        places = sorted(range(len(mean)), key=lambda i: (mean[i], LISTS[query_id][i]))[::-1]
        assert [ranks[query_id][i] for i in places] == list(range(1, len(mean) + 1))
    assert set(taught.state) == {"ok"} and taught.score.dtype == "float32"


def test_borda_counts_who_is_below_and_halves_ties(tmp_path):
    members = {"l": Labels(), "o": Oracle(), "i": Identity()}
    taught = Fused(members, how="borda").rank(FIRST, TEXTS, tmp_path)
    # q1 a b c d: labels .5 .5 3 2, oracle 1 0 3 2, identity 3 2 1 0 -> 4.5 2.5 7 4
    # q2 b a: labels 0 1, oracle 0 1, identity 1 0 -> 1 2
    # q3 c a b: labels .5 .5 2, oracle 1 0 2, identity 2 1 0 -> 3.5 1.5 4
    assert by_list(taught, "teacher_rank") == {
        "q1": [2, 4, 1, 3], "q2": [2, 1], "q3": [2, 3, 1]
    }  # fmt: skip
    assert taught.score.isna().all() and set(taught.state) == {"ok"}
    tied = Fused({"o": Oracle(), "i": Identity()}, how="borda").rank(FIRST, TEXTS, tmp_path / "..")
    assert by_list(tied, "teacher_rank")["q2"] == [1, 1]  # who contradict each other say nothing


@pytest.mark.parametrize("how", ["mean", "borda"])
def test_a_list_is_usable_if_it_is_of_all_members(tmp_path, how):
    lacking = run(tmp_path, "one", {"q1": SCORES["one"]["q1"], "q3": SCORES["one"]["q3"]})
    other = run(tmp_path, "two", SCORES["two"])
    fused = Fused({"b": other, "a": lacking}, how=how)
    taught = fused.rank(FIRST, TEXTS, tmp_path)
    assert {q: set(of) for q, of in by_list(taught, "state").items()} == {
        "q1": {"ok"}, "q2": {"failed"}, "q3": {"ok"}
    }  # fmt: skip
    assert by_list(taught, "teacher_rank")["q2"] == [1, 2]  # the first stage's
    assert np.isnan(by_list(taught, "score")["q2"]).all()
    none = Fused({"a": lacking, "b": run(tmp_path, "three", {"q2": [1.0, 2.0]})}, how=how)
    (tmp_path / "none").mkdir()
    with pytest.raises(rankings.FormatError, match="teachers="):
        none.rank(FIRST, TEXTS, tmp_path / "none")


def test_members_that_cancel_out_give_no_order(tmp_path):
    one = run(tmp_path, "one", SCORES["one"])
    flat = {q: [-s for s in scores] if q == "q2" else scores for q, scores in SCORES["one"].items()}
    taught = Fused({"a": one, "b": run(tmp_path, "two", flat)}).rank(FIRST, TEXTS, tmp_path)
    states = {q: set(of) for q, of in by_list(taught, "state").items()}
    assert states == {"q1": {"ok"}, "q2": {"malformed"}, "q3": {"ok"}}


def test_a_finished_member_is_not_asked_again(tmp_path, monkeypatch):
    fused = Fused({"s": Shuffled(), "z": Identity()}, how="borda")
    work = tmp_path / "abc.partial"
    work.mkdir()
    asked, own = [], Shuffled.rank
    monkeypatch.setattr(Shuffled, "rank", lambda *a: asked.append(a[3].name) or own(*a))
    monkeypatch.setattr(Identity, "rank", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fused.rank(FIRST, TEXTS, work)
    monkeypatch.undo()
    monkeypatch.setattr(Shuffled, "rank", lambda *a: 1 / 0)
    resumed = fused.rank(FIRST, TEXTS, work)
    monkeypatch.undo()
    assert asked == ["abc-s"]  # a ledger knows its answers by a name that begins so
    (tmp_path / "new").mkdir()
    pd.testing.assert_frame_equal(resumed, fused.rank(FIRST, TEXTS, tmp_path / "new"))


# --- configuration ---

BASE = ["teacher=fused", "+teacher@teacher.teachers.lm=query_likelihood"]
SECOND = "+teacher@teacher.teachers.second"


def test_members_that_give_no_scores_are_for_borda(tmp_path):
    [cell] = config.cells([*BASE, f"{SECOND}=labels", "teacher.member_scale=minmax"])
    teacher = config.part(cell.cfg, "teacher")
    assert isinstance(teacher, Fused) and isinstance(teacher.teachers["lm"], QueryLikelihood)
    assert not teacher.ranks_unseen  # as labels do not
    with pytest.raises(config.ConfigError, match=r"teacher\.teachers\.second: Oracle"):
        config.cells([*BASE, f"{SECOND}=oracle"])
    [cell] = config.cells([*BASE, f"{SECOND}=shuffled", "teacher.how=borda"])
    assert config.part(cell.cfg, "teacher").ranks_unseen is False
    with pytest.raises(
        config.ConfigError, match="loss MarginMSE needs scores, which teacher Fused"
    ):
        config.cells([*BASE, f"{SECOND}=labels", "teacher.how=borda", "loss=margin_mse"])
    assert config.cells([*BASE, f"{SECOND}=labels", "loss=margin_mse"])
    with pytest.raises(config.ConfigError, match=r"teacher\.teachers=\['lm'\]"):
        config.cells(BASE)
    with pytest.raises(config.ConfigError, match=r"teacher\.teachers\.lm\.chunk=0"):
        config.cells([*BASE, f"{SECOND}=labels", "teacher.teachers.lm.chunk=0"])


def test_a_fused_teacher_is_what_its_members_are(tmp_path):
    def identity(*overrides):
        [cell] = config.cells([*BASE, f"{SECOND}=labels", *overrides])
        return config.identity(config.part(cell.cfg, "teacher"))

    same = identity()
    assert identity("teacher.teachers.lm.device=cpu") == same  # schedules
    assert identity("teacher.teachers.lm.passage_length=50") != same
    assert identity("teacher.member_scale=quantile") != same
    assert "gguf" in str(same)  # the engine of a member
    check_refused("teacher", Fused, "teachers='a b'", teachers={"a b": Labels(), "c": Labels()})


def test_paid_services_of_members_are_told(tmp_path):
    asks = "+teacher@teacher.teachers.gpt=rankgpt"
    model = [f"teacher.teachers.gpt.backend.{key}" for key in ("model=m", "base_url=http://x")]
    [cell] = config.cells([*BASE, asks, *model, "teacher.how=borda", "depth.queries=7"])
    teacher = config.part(cell.cfg, "teacher")
    assert teacher.service == teacher.teachers["gpt"].service == "m at http://x"
    assert isinstance(teacher.teachers["gpt"], Paid) and not isinstance(teacher, Paid)
    [found] = services([(Job.of(cell).parts, Step(TEACH.name, TRAINING))])
    assert (found.teacher, found.requests) == (teacher.service, 7)  # a window for each list


# --- cells ---

EPOCHS = 10


@pytest.fixture
def reranker(tmp_path) -> str:
    """A random cross-encoder that knows the words of the tiny world."""
    words = [*TOPICS, *WORDS]
    kind = {"num_labels": 1, "initializer_range": 0.5}
    return str(tiny.bert(tmp_path / "reranker", words, BertForSequenceClassification, **kind))


def check_learned(world, tmp_path, *overrides: str) -> pd.DataFrame:
    """Run a cell: its loss must halve; gives the labels."""
    more = ["prefinetune=none", "loss=margin_mse", f"budget.epochs={EPOCHS}", *overrides]
    summary = world.run(tmp_path / "store", *more, "trainer.learning_rate=0.01")
    store = tmp_path / "store"
    keys = summary.facts.signatures
    curve = Checkpoint(store / "distill" / keys["distill"]).curve
    steps = len(curve) // EPOCHS
    assert np.mean(curve[-steps:]) < np.mean(curve[:steps]) / 2
    return TeacherRanking(store / "teach" / keys["teach"]).ranking


def of(key: str, folder: str) -> list[str]:
    values = {"model": folder, "query_length": 8, "passage_length": 16, "precision": "fp32"}
    return [f"{key}.{name}={value}" for name, value in values.items()]


def test_a_student_learns_from_a_cross_encoder(world, tmp_path, reranker):
    labels = check_learned(world, tmp_path, "teacher=cross_encoder", *of("teacher", reranker))
    assert set(labels.state) == {"ok"} and labels.score.notna().all()


def test_a_student_learns_from_a_yes_or_no(world, tmp_path):
    model = t5(tmp_path / "t5")
    form = "teacher/form=monot5"
    labels = check_learned(world, tmp_path, "teacher=yes_no", form, *of("teacher", model))
    assert (labels.score < 0).all()  # logarithms of probabilities


def test_a_student_learns_from_a_fused_teacher(world, tmp_path, reranker):
    members = ["cross_encoder", "labels", "cross_encoder"]
    named = [f"+teacher@teacher.teachers.{n}={m}" for n, m in zip("abc", members, strict=True)]
    both = [*of("teacher.teachers.a", reranker), *of("teacher.teachers.c", str(world.folder / "x"))]
    tiny.bert(world.folder / "x", [*TOPICS, *WORDS], BertForSequenceClassification, 1, num_labels=2)
    labels = check_learned(world, tmp_path, "teacher=fused", *named, *both)
    means = labels.groupby("query_id").score.mean()
    assert list(means) == pytest.approx([0] * len(means), abs=1e-5)  # of z-scores
