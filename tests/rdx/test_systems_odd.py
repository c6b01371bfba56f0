"""What `evaluate` and `import` say of odd files; queries that are passages of their corpus."""

import json
import re
import unicodedata

import numpy as np
import pandas as pd
import pytest

from rdx import accounting, commands, facts, stages
from rdx.collection import Collection
from rdx.data import Files
from rdx.job import DEV, STAGE_1, TRAINING, Job, source
from rdx.job import test_role as role_of
from rdx.pipeline import obtain
from rdx.samplers import Others
from rdx.stages import CANDIDATES, RETRIEVE
from rdx.systems import Run

KEY = "evaluation.collections.files.data"


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    monkeypatch.setattr(accounting, "_WARNED", set())


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a collection and runs into the working folder; returns the words of `--collection`."""
    monkeypatch.chdir(tmp_path)

    def write(passages, queries, qrels, **runs):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in passages.items()]
        (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / "q.tsv").write_text("".join(f"{q}\t{t}\n" for q, t in queries.items()))
        rows = "".join(f"{q} 0 {d} {grade}\n" for q, d, grade in qrels)
        (tmp_path / "r.txt").write_text(rows, encoding="utf-8")
        for name, ranked in runs.items():
            lines = [f"{q} Q0 {d} {i} {9 - i} {name}\n" for q, docs in ranked.items()
                     for i, d in enumerate(docs, 1)]  # fmt: skip
            (tmp_path / f"{name}.run").write_text("".join(lines), encoding="utf-8")
        data = (f"{KEY}.corpus=c.jsonl", f"{KEY}.queries=q.tsv", f"{KEY}.qrels=r.txt")
        return ["--collection", "evaluation=files", *data]

    return write


def said(capsys, *words):
    """What `evaluate` prints: values by system, counts of the collection and of runs, warnings."""
    commands.evaluate([*words, "--measures", "nDCG@10"])
    lines = capsys.readouterr().out.splitlines()
    values = {}
    for line in lines[1:]:
        if line.startswith(("files: ", "WARNING")):
            break
        values[line.split()[0]] = float(line.split()[1])
    [counts] = [line for line in lines if line.startswith("files: ")]
    counters = {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", counts.partition(": ")[2])}
    rows = [line.split() for line in lines if line.startswith("  ")]
    of_runs = {row[0].rstrip(":"): tuple(map(int, (row[1], row[3]))) for row in rows}
    return values, counters, of_runs, [line for line in lines if line.startswith("WARNING")]


def test_evaluate_says_all_that_is_counted(write, capsys):
    passages = {"d1": "river", "d2": "river", "d3": ""}
    queries = {"q1": "a", "q2": "b", "q3": "c", "q4": ""}
    qrels = [("q1", "d1", 1), ("q1", "d9", 1), ("q2", "d3", -1), ("q4", "d1", 1)]
    words = write(passages, queries, qrels, a={"q1": ["d1", "d8"], "q9": ["d1"]})
    values, counts, of_runs, _ = said(capsys, "a.run", *words, f"{KEY}.empty=drop")
    loaded = Files("c.jsonl", "q.tsv", "r.txt", empty="drop").load()
    assert counts == loaded.counts
    assert {name: n for name, n in counts.items() if n} == {
        **{"repeated_texts": 1, "empty_passages": 1, "empty_queries": 1, "qrels_of_empty": 2},
        **{"qrels_without_passage": 2, "queries_without_qrels": 1},
        **{"queries_without_relevant": 1, "negative_qrels": 1},
    }
    assert of_runs == {"queries_not_in_collection": (1, 2), "passages_not_in_corpus": (1, 2)}
    assert values == {"a": round(1 / (1 + 1 / np.log2(3)) / 2, 4)}  # q1 and q2, q4 is dropped


NAMES = ("Caf\u00e9_Zo\u00eb", "\u00dcbermut", "Se\u00f1or_\u00d1", "plain_a", "plain_b", "plain_c")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_ids_in_two_normal_forms_are_warned_of(write, capsys, form):
    judged = [("q1", NAMES[0]), ("q1", NAMES[1]), ("q2", NAMES[2]), ("q2", "plain_b")]
    qrels = [(q, unicodedata.normalize(form, d), 1) for q, d in judged]
    passages, queries = {d: f"on {d}" for d in NAMES}, {"q1": "a", "q2": "b"}
    words = write(passages, queries, qrels, a=dict.fromkeys(queries, NAMES))
    values, counts, of_runs, warnings = said(capsys, "a.run", *words)
    assert values["a"] == {"NFC": 0.7719, "NFD": 0.1186}[form]
    spelt = 3 if form == "NFD" else 0
    assert (counts["qrels_spelt_otherwise"], counts["qrels_without_passage"]) == (spelt, spelt)
    assert of_runs == ({"passages_spelt_otherwise": (3, 6)} if spelt else {})
    assert len(warnings) == (2 if spelt else 0)
    assert all("Unicode normal form" in warning for warning in warnings)


def test_queries_of_a_run_in_another_spelling(write, capsys):
    words = write({"d1": "a"}, {"7": "a", "8": "b"}, [("7", "d1", 1), ("8", "d1", 1)],
                  a={"7.0": ["d1"], "8": ["d1"]}, b={"7.0": ["d1"]})  # fmt: skip
    values, _, of_runs, [warning] = said(capsys, "a.run", *words)
    assert values == {"a": 0.5} and "'7.0' for '7' (zeros of a number)" in warning
    assert of_runs == {"queries_not_in_collection": (1, 2), "queries_spelt_otherwise": (1, 2)}
    with pytest.raises(ValueError, match="'7.0' for '7'"):
        commands.evaluate(["b.run", *words])


def test_ranks_that_contradict_the_scores_are_warned_of(write, capsys, tmp_path):
    words = write({"d1": "a", "d2": "b"}, {"q": "a"}, [("q", "d1", 1)])
    (tmp_path / "a.run").write_text("q Q0 d1 1 1 t\nq Q0 d2 2 2 t\n")
    second = round(1 / np.log2(3), 4)
    values, _, of_runs, warnings = said(capsys, "a.run", *words)
    assert values == {"a": second} and len(warnings) == 1
    assert of_runs == {"queries_misranked": (1, 1)}
    values, _, of_runs, warnings = said(capsys, "a.run", *words, "--order", "rank")
    assert values == {"a": 1.0} and warnings == [] and of_runs == {}


# --- queries that are passages, as in ArguAna ---

CASES = {f"case{n}{x}": f"statement case{n}{x}" for n in (1, 2) for x in "ab"}
ASKED = {q: CASES[q] for q in ("case1a", "case2a")}
COUNTERS = [(q, f"{q[:-1]}b", 1) for q in ASKED]
WITH = {q: [q, f"{q[:-1]}b"] for q in ASKED}


@pytest.mark.parametrize(
    ("rule", "value", "warned"), [(None, 0.6309, 1), ("keep", 0.6309, 0), ("drop", 1.0, 0)]
)
def test_own_passages_are_kept_or_dropped(write, capsys, rule, value, warned):
    words = write(CASES, ASKED, COUNTERS, whole=WITH)
    words += [f"evaluation.self_retrieval={rule}"] if rule else []
    values, _, of_runs, warnings = said(capsys, "whole.run", *words)
    assert values == {"whole": value} and of_runs == {"own_passages": (2, 4)}
    assert len(warnings) == warned
    beside, *_ = said(capsys, "whole.run", *words, "--first-stage", "whole.run")
    assert beside == {"whole": value, "first_stage": value}
    read = Run("whole.run").read(Files("c.jsonl", "q.tsv", "r.txt").load(), rule)
    assert read.ranking["rank"].tolist() == ([1, 1] if rule == "drop" else [1, 2, 1, 2])


@pytest.mark.parametrize(
    ("query", "passage", "same"),
    [
        ("a statement", "A  Statement\n", True),
        ("a statement of some length", "title: a statement of some length", True),
        ("one two three four five six seven", "title one two three four five six", True),  # cut
        ("one two three four five six seven", "one two three four five", True),
        ("one two three", "one two", False),
        ("stone", "a river stone", False),
        ("stone", "the stone", True),
        ("what is a stone", "another passage with the same number", False),
        ("", "text", False),
    ],
)
def test_an_id_alone_makes_no_own_passage(query, passage, same):
    collection = Collection("c", {"1": query}, {"1": passage, "2": "x"}, pd.DataFrame())
    ranking = pd.DataFrame({"query_id": ["1", "1"], "doc_id": ["2", "1"], "rank": [1, 2]})
    assert accounting.own_passages(ranking, collection) == (["1"] if same else [])


def test_without_texts_the_first_place_tells():
    class Absent(dict):
        def __contains__(self, doc_id):
            raise FileNotFoundError

    collection = Collection("c", {"1": "a", "2": "b"}, Absent(), pd.DataFrame())
    ranking = pd.DataFrame(
        {"query_id": ["1", "1", "2", "2"], "doc_id": ["1", "2", "1", "2"], "rank": [1, 2, 1, 2]}
    )
    assert accounting.own_passages(ranking, collection) == ["1"]


def test_an_import_records_what_is_odd(write, tmp_path):
    words = write(CASES, ASKED, COUNTERS, first=WITH, own=WITH | {"other": ["case1a"]})
    tracked = [f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", "evaluation.k=2"]
    parts = {}
    for rule in ("keep", "drop"):
        words_of = [*words, *tracked, f"evaluation.self_retrieval={rule}"]
        commands.import_(["own.run", "--name", rule, *words_of, "--first-stage", "first.run"])
    for path in tmp_path.glob("store/import/*/trial.json"):
        trial = facts.parse(facts.TrialFacts, path.read_bytes())
        parts[trial.imported.name] = trial
    assert parts.keys() == {"keep", "drop"}
    odd = {"queries_not_in_collection": facts.Count(1, 3), "own_passages": facts.Count(2, 4)}
    values = {"keep": 1 / np.log2(3), "drop": 1.0}
    for rule, trial in parts.items():
        assert trial.imported.oddities == {"files": odd}
        of_files = trial.collections["files"]
        assert of_files.own_passages == {"keep": 2, "drop": 0}[rule]
        assert of_files.oddities == Files("c.jsonl", "q.tsv", "r.txt").load().counts
        assert of_files.first_stage.get("self_retrieval") == {"drop": "drop"}.get(rule)
        assert trial.means[f"files/run:{rule}/nDCG@10"] == pytest.approx(values[rule])
    assert parts["keep"].signature != parts["drop"].signature


@pytest.fixture
def jobs(world, tmp_path):
    """Cells of the tiny world, whose queries have the ids of passages, by the rule."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("corpus.tsv", "queries.tsv", "qrels.txt"):
        text = (world.folder / name).read_text()
        (folder / name).write_text(re.sub(r"^q", "d", text, flags=re.MULTILINE))
    there = [o.replace(str(world.folder), str(folder)) for o in world.overrides(tmp_path / "store")]
    there = [o.replace(str(folder / "bert"), str(world.folder / "bert")) for o in there]
    found = {}
    for rule in ("null", "keep", "drop"):
        [cell] = stages.cells([*there, f"evaluation.self_retrieval={rule}"])
        found[rule] = cell, Job.of(cell)
    return found


def test_the_rule_holds_for_every_role_and_is_signed(jobs):
    keys = {rule: cell.keys for rule, (cell, _) in jobs.items()}
    for name in ("candidates", "teach", "prefinetune", "distill"):
        assert keys["null"][name] == keys["keep"][name] != keys["drop"][name]
    roles = (TRAINING, STAGE_1, DEV, role_of("files"))
    for rule, (_, job) in jobs.items():
        wrapped = [isinstance(source(job.parts, role).sampler, Others) for role in roles]
        assert wrapped == [rule == "drop"] * 4
        assert isinstance(job.parts.prefinetune.sampler, Others) == (rule == "drop")


def test_no_candidate_of_any_role_is_the_query(jobs):
    sizes = {}
    for rule, (_, job) in jobs.items():
        rankings = [obtain(job, CANDIDATES).ranking]
        rankings += [obtain(job, RETRIEVE, role).ranking for role in (DEV, role_of("files"))]
        for ranking in rankings:
            own = (ranking.query_id == ranking.doc_id).sum()
            assert (own == 0) if rule == "drop" else (own > 0)
        sizes[rule] = [ranking.groupby("query_id").size().max() for ranking in rankings]
        lists = job.parts.prefinetune.lists(job.parts.data.load("train"))(0)
        assert lists  # of the labels: the own passage is judged relevant, and may be the positive
    assert sizes["drop"] == sizes["null"] == sizes["keep"]  # filled up to k


def test_what_is_kept_empty_is_scored_and_retrieved_from(jobs, world):
    """A student, and late interaction: of an empty text there are special tokens alone."""
    import torch

    from rdx.batches import scores
    from rdx.samplers import ColBERT

    _, job = jobs["keep"]
    student = job.parts.student.create(0).eval()
    pairs = [("river", ""), ("", "river"), ("", ""), ("river", "\u200b"), ("river", "engine")]
    queries = {str(i): query for i, (query, _) in enumerate(pairs)}
    texts = student.pairs.tokens(queries, {str(i): text for i, (_, text) in enumerate(pairs)})
    rows = texts.rows(list(queries), list(queries))
    with torch.inference_mode():
        together = scores(student, texts, rows, torch.device("cpu"), 999)
        alone = [
            scores(student, texts, rows[i : i + 1], torch.device("cpu"), 999)[0]
            for i in range(len(pairs))
        ]
    assert np.isfinite(together).all()
    assert together == pytest.approx(np.array(alone), abs=1e-5)
    passages = {"d1": "river", "d2": "", "d3": "engine"}
    collection = Collection("c", {"q1": "river", "q2": ""}, passages, pd.DataFrame())
    sampler = ColBERT(model=str(world.folder / "bert"), device="cpu", precision="fp32")
    ranking = sampler.candidates(collection, 3)
    assert np.isfinite(ranking.score).all() and set(ranking.query_id) <= {"q1", "q2"}
    assert set(ranking[ranking.query_id == "q1"].doc_id) == set(passages)
