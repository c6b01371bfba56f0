"""The options beir, beir_folders, nanobeir and cqadupstack; several first stages; deep ones."""

import json
from functools import cache

import ir_measures
import pytest

from rdx import config, rankings, stages
from rdx.artifacts import Evaluated
from rdx.config import ConfigError
from rdx.data import Beir, catalogue
from rdx.evaluation import Evaluation
from rdx.samplers import BM25, Recorded

THIRTEEN = (
    "arguana climate-fever dbpedia-entity fever fiqa hotpotqa nfcorpus nq quora scidocs scifact "
    "trec-covid webis-touche2020"
).split()
NANO = {*THIRTEEN, "msmarco"} - {"trec-covid"}
HEAD = "query-id\tcorpus-id\tscore\n"


@cache
def evaluation(*overrides) -> Evaluation:
    [cell] = config.cells(list(overrides))
    return config.part(cell.cfg, "evaluation")


@pytest.mark.parametrize(
    ("option", "sets", "means"),
    [
        ("beir", set(THIRTEEN), {"beir13": 13}),
        ("nanobeir", NANO, {"nanobeir": 13}),
        ("cqadupstack", None, {"cqadupstack": 12}),
        ("beir_and_cqadupstack", None, {"beir13": 13, "cqadupstack": 12}),
    ],
)
def test_an_option_names_the_test_sets_of_ir_datasets(option, sets, means):
    found = evaluation(f"evaluation={option}")
    assert {name: len(of) for name, of in found.means.items()} == means
    assert len(found.collections) == sum(means.values())
    assert sets is None or set(found.collections) == sets
    for name, test in found.collections.items():
        dataset = catalogue.load(test.data.id)
        assert all(map(dataset.has, ("docs", "queries", "qrels"))), name
        assert test.first_stage == BM25()
        # CQADupStack's forums are one corpus
        forum = name.startswith("cqadupstack")
        assert test.corpus == ("cqadupstack" if forum else None)
        own = name in ("arguana", "quora")
        assert found.self_retrieval_of(name) == ("drop" if own else None), name
    # a mean of thirteen is of the thirteen
    assert set().union(*map(set, found.means.values())) == set(found.collections)


def test_first_stages_come_from_a_folder(tmp_path):
    for option in ("beir", "nanobeir", "cqadupstack", "beir_folders"):
        found = evaluation(f"evaluation={option}", f"evaluation.runs={tmp_path}")
        for name, test in found.collections.items():
            assert test.first_stage == Recorded(str(tmp_path / f"{name}.run"))
    one = "evaluation.collections.fever.first_stage"
    fever = evaluation("evaluation=beir", f"+sampler@{one}=recorded", f"{one}.run=own.run")
    assert fever.collections["fever"].first_stage.run == "own.run"
    assert fever.collections["nq"].first_stage == BM25()


def test_folders_are_those_of_beir(tmp_path):
    found = evaluation("evaluation=beir_folders", f"evaluation.folder={tmp_path}")
    assert {*found.collections} == {*THIRTEEN} == {*found.means["beir13"]}
    for name, test in found.collections.items():
        assert test.data.folder == str(tmp_path / name) and test.split == "test"
        ids = evaluation("evaluation=beir").collections[name]
        assert test.self_retrieval == ids.self_retrieval


def test_a_mean_is_never_of_fewer_than_it_says():
    with pytest.raises(ConfigError, match=r"^evaluation\.means\.beir13: .*'fever'.*~evaluation"):
        evaluation("evaluation=beir", "~evaluation.collections.fever")
    less = evaluation(
        "evaluation=beir", "~evaluation.collections.fever", "~evaluation.means.beir13"
    )
    assert len(less.collections) == 12 and not less.means


# --- whole cells ---


def put(world, folder):
    """The world's collection, in the form of BEIR."""
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        rows = [
            line.split("\t") for line in (world.folder / f"{name}.tsv").read_text().splitlines()
        ]
        # queries are numbered as passages are, so that some have their own among their passages
        records = ({"_id": key[1:], "title": "", "text": text} for key, text in rows)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    rows = [line.split() for line in (world.folder / "qrels.txt").read_text().splitlines()]
    # not the passage that is the query itself
    table = "".join(f"{q[1:]}\t{d[1:]}\t{grade}\n" for q, _, d, grade in rows if q[1:] != d[1:])
    (folder / "qrels" / "test.tsv").write_text(HEAD + table)
    return folder


def evaluated(world, store, *more):
    from rdx import pipeline

    kept = [o for o in world.overrides(store, "prefinetune=none") if "evaluation" not in o]
    [cell] = stages.cells([*kept, "loss=none", *more])
    config.check(cell)
    return pipeline.run(cell)


def by_hand(run, beir, measure="nDCG@10"):
    """A mean over queries by ir_measures, of a run file."""
    qrels = beir.load("test").qrels
    judged = [ir_measures.Qrel(*row) for row in qrels.itertuples(index=False)]
    ranking = rankings.read_trec(run)
    docs = [
        ir_measures.ScoredDoc(q, d, s)
        for q, d, s in zip(ranking.query_id, ranking.doc_id, ranking.score, strict=True)
    ]
    parsed = ir_measures.parse_measure(measure)
    return ir_measures.calc_aggregate([parsed], judged, docs)[parsed]


def test_the_mean_over_thirteen_collections_is_a_number_of_its_own(world, tmp_path):
    shelf = tmp_path / "beir"
    for name in THIRTEEN:
        put(world, shelf / name)
    more = ("evaluation=beir_folders", f"evaluation.folder={shelf}", "evaluation.k=1000")
    summary = evaluated(world, tmp_path / "store", *more)
    facts = summary.facts
    folder = tmp_path / "store" / "evaluate" / facts.signature / "runs"
    values = {}
    for name in THIRTEEN:
        values[name] = by_hand(folder / f"{name}.student.run.gz", Beir(str(shelf / name)))
        assert facts.means[f"{name}/student/nDCG@10"] == pytest.approx(values[name])
        own = facts.collections[name].own_passages
        assert (own == 0) == (name in ("arguana", "quora"))
    assert values["arguana"] == values["quora"] != values["fever"] == values["nq"]
    expected = sum(values.values()) / 13
    assert facts.means["beir13/student/nDCG@10"] == pytest.approx(expected)
    assert facts.over_collections.named["beir13"].corpora == tuple(THIRTEEN)
    stored = Evaluated(folder.parent).facts
    assert stored == facts


def test_several_first_stages_of_a_collection_have_one_mean(world, tmp_path):
    """A test set for each first stage."""
    folder = put(world, tmp_path / "facts")
    (tmp_path / "random.run").write_text(
        "".join(
            f"{q} Q0 {(q * 7 + r) % 30} {r} {9 - r} x\n" for q in range(29) for r in range(1, 8)
        )
    )
    sets = []
    for name, first in (("deep", "bm25"), ("given", "recorded")):
        key = f"evaluation.collections.{name}"
        sets += [
            f"+{key}.split=test",
            f"+data@{key}.data=beir",
            f"{key}.data.folder={folder}",
            f"+sampler@{key}.first_stage={first}",
        ]
    sets.append(f"evaluation.collections.given.first_stage.run={tmp_path / 'random.run'}")
    more = ("evaluation=beir_folders", *(f"~evaluation.collections.{name}" for name in THIRTEEN))
    mean = ("~evaluation.means.beir13", "+evaluation.means.facts=[deep,given]", "evaluation.k=20")
    summary = evaluated(world, tmp_path / "store", *more, *mean, *sets)
    means = summary.facts.means
    for system in ("student", "first_stage", "oracle"):
        both = [means[f"{name}/{system}/nDCG@10"] for name in ("deep", "given")]
        assert means[f"facts/{system}/nDCG@10"] == pytest.approx(sum(both) / 2)
    assert means["deep/first_stage/nDCG@10"] != means["given/first_stage/nDCG@10"]
