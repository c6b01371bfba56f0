"""Several collections as one: ids, samples with shares, and candidates of each query's own part.

Both parts number their queries and passages alike, so that nothing may ever go by a bare id.
"""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from rdx import config, rankings, stages
from rdx.artifacts import Candidates, Checkpoint
from rdx.collection import Mixed, sample_queries
from rdx.config import ConfigError
from rdx.config.identity import FILES, PASSAGES, identity
from rdx.data import Files, Mixture, Part
from rdx.job import Job
from rdx.samplers import BM25, ByPart, ColBERT, Random, Recorded, of_mixture
from tests.rdx.configured import check_refused

PLANTS = "clover daisy fern heath ivy iris moss oak palm rose sage tulip".split()


@pytest.fixture(scope="module")
def plants(world, tmp_path_factory):
    """Another collection with the ids of the world's, in its words: d0..d23, q0..q11."""
    folder = tmp_path_factory.mktemp("plants")
    words = [line.split()[1] for line in (world.folder / "corpus.tsv").read_text().splitlines()]
    texts = [f"{words[i % 7]} {words[i]} {words[(i * 5) % 24]}" for i in range(24)]
    (folder / "corpus.tsv").write_text("".join(f"d{i}\t{t}\n" for i, t in enumerate(texts)))
    (folder / "queries.tsv").write_text("".join(f"q{i}\t{texts[i]}\n" for i in range(12)))
    (folder / "qrels.txt").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(12)))
    return folder


def files(folder, **options) -> Files:
    paths = (str(folder / name) for name in ("corpus.tsv", "queries.tsv", "qrels.txt"))
    return Files(*paths, **options)


@pytest.fixture(scope="module")
def mixture(world, plants) -> Mixture:
    parts = {"world": Part(files(world.folder, dev=0.3), 3.0), "plants": Part(files(plants), 1.0)}
    return Mixture(parts)


# --- the collection ---


def test_ids_are_those_of_the_parts_with_their_names(mixture, tmp_path):
    mixture.prepare(tmp_path)
    for folder in (None, tmp_path):
        mixed = mixture.load("all", folder)
        alone = {name: part.data.load("all") for name, part in mixture.parts.items()}
        assert mixed.queries == {
            f"{name}/{q}": text for name, one in alone.items() for q, text in one.queries.items()
        }
        expected = {
            f"{name}/{d}": text for name, one in alone.items() for d, text in one.passages.items()
        }
        assert dict(mixed.passages.items()) == expected == dict(mixed.passages)
        assert list(mixed.passages) == list(expected) and len(mixed.passages) == 54
        assert len(mixed.qrels) == sum(len(one.qrels) for one in alone.values())
        assert mixed.relevant()["plants/q3"] == {"plants/d3": 1}
        assert mixed.relevant()["world/q3"] == {"world/d3": 2, "world/d10": 1}
        total = Counter()
        for one in alone.values():
            total.update(one.counts)
        assert mixed.counts == {name: total[name] for name in mixed.counts}


def test_passages_are_looked_for_in_their_part(mixture):
    mixed = mixture.load()
    asked = ["world/d29", "plants/d29", "d29", "other/d1", "plants/d23", "world/", "plants/d23"]
    assert mixed.holds(asked).tolist() == [True, False, False, False, True, False, True]
    assert [one in mixed.passages for one in asked] == mixed.holds(asked).tolist()
    for absent in ("plants/d29", "d29", "other/d1"):
        with pytest.raises(KeyError, match=absent):
            mixed.passages[absent]


def test_dev_queries_come_from_the_parts_that_have_some(mixture, plants):
    dev, train = mixture.load("dev"), mixture.load("train")
    assert {query.split("/")[0] for query in dev.queries} == {"world"}
    assert len(dev.passages) == len(train.passages) == 54  # one index holds for both
    assert dev.sample(dev.queries, None, 0)[:3] == dev.sample(dev.queries, 3, 0) != []
    assert not {*dev.queries} & {*train.queries}
    assert mixture.has_dev and not Mixture({"plants": Part(files(plants), 1.0)}).has_dev


def test_shares_decide_no_index_and_no_layout(mixture):
    other = Mixture({name: Part(p.data, p.share + 1) for name, p in mixture.parts.items()})
    assert identity(other) != identity(mixture)
    for without in (PASSAGES, FILES):
        assert identity(other, without) == identity(mixture, without)
    held = Mixture({name: Part(files_of(p, dev=0.1), p.share) for name, p in mixture.parts.items()})
    assert identity(held, FILES) == identity(mixture, FILES)


def files_of(part, **options):
    data = part.data
    return Files(data.corpus, data.queries, data.qrels, **options)


# --- samples of its queries ---


def mixed(sizes, shares) -> Mixed:
    queries = {f"{name}/q{i}": "" for name, size in sizes.items() for i in range(size)}
    nothing = pd.DataFrame(columns=["query_id", "doc_id", "relevance"])
    return Mixed("m", queries, {}, nothing, parts=dict.fromkeys(sizes), shares=shares)


@pytest.mark.parametrize("shares", [(1, 1), (3, 1), (0.6, 0.3, 0.1), (1, 2, 4, 8), (1,)])
def test_every_sample_has_the_shares_and_is_part_of_the_larger_one(shares):
    names = "abcd"[: len(shares)]
    one = mixed(dict.fromkeys(names, 400), dict(zip(names, shares, strict=True)))
    whole = one.sample(one.queries, 300, 5)
    for n in (*range(20), *range(20, 301, 35)):
        drawn = one.sample(one.queries, n, 5)
        assert drawn == whole[:n]
        counts = Counter(query.split("/")[0] for query in drawn)
        for name, share in zip(names, shares, strict=True):
            # the method's quota: within one, but for many parts and few queries
            assert abs(counts[name] - n * share / sum(shares)) < 1.5
    assert set(one.sample(one.queries, 100, 6)) != set(whole[:100])
    shuffled = np.random.default_rng(0).permutation(list(one.queries)).tolist()
    assert one.sample(shuffled, 50, 5) == whole[:50]


def test_a_part_gives_the_queries_that_it_gives_alone():
    one = mixed({"a": 50, "b": 90}, {"a": 2, "b": 1})
    drawn = one.sample(one.queries, 30, 7)
    own = sample_queries([f"q{i}" for i in range(50)], 20, 7)
    assert [query for query in drawn if query[0] == "a"] == [f"a/{query}" for query in own]
    # turns of a: .5, 1.5, 2.5, ...; of b: 1, 3, 5
    assert [query[0] for query in drawn[:9]] == [*"abaabaaba"]


def test_all_is_as_many_as_the_shares_allow():
    one = mixed({"a": 10, "b": 90}, {"a": 1, "b": 1})
    everything = one.sample(one.queries, None, 0)
    assert Counter(query[0] for query in everything) == {"a": 10, "b": 10}
    assert one.sample(one.queries, 20, 0) == everything
    with pytest.raises(ValueError, match=r"^depth\.queries=21: .*20 queries.*\ba\b"):
        one.sample(one.queries, 21, 0, "depth.queries")
    # of the queries that there are candidates for
    few = [query for query in one.queries if query != "a/q3"]
    assert len(one.sample(few, None, 0)) == 18
    assert one.sample([], None, 0) == []


# --- candidates ---


def searched(world):
    return [
        BM25(),
        Random(seed=3),
        Random(seed=3, positives=True),
        ColBERT(model=str(world.folder / "bert"), kind="tokens", precision="fp32", device="cpu"),
        ColBERT(
            *(str(world.folder / "bert"), "tokens"),
            over=BM25(),
            precision="fp32",
            device="cpu",
        ),
    ]


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("laid_out", [True, False])
def test_each_query_is_searched_in_its_own_part(world, mixture, tmp_path, which, laid_out):
    sampler = searched(world)[which]
    whole, mixed = of_mixture(sampler, mixture.parts), mixture.load()
    folder = None
    if laid_out:
        folder = tmp_path / "index"
        folder.mkdir()
        whole.prepare(mixed, folder)
    few = mixed.subset(["plants/q3", "world/q3", "world/q8", "plants/q0"])
    ranking = whole.candidates(few, 6, folder)
    rankings.check(ranking, "candidates")
    assert set(ranking.query_id) == set(few.queries)
    expected = []
    for name, query_ids in (("plants", ["q3", "q0"]), ("world", ["q3", "q8"])):
        alone = sampler.candidates(mixed.parts[name].subset(query_ids), 6)
        ids = {key: f"{name}/" + alone[key] for key in ("query_id", "doc_id")}
        expected.append(alone.assign(**ids))
    pd.testing.assert_frame_equal(ranking, pd.concat(expected, ignore_index=True))
    assert whole.covered(mixed.queries, folder) == list(mixed.queries)


def run(path, rows) -> Recorded:
    path.write_text("".join(f"{q} Q0 {d} {r} {9 - r} x\n" for q, d, r in rows))
    return Recorded(str(path), missing="drop")


def test_a_given_run_has_the_ids_of_the_mixture(mixture, tmp_path):
    mixed = mixture.load()
    rows = [("plants/q3", "plants/d5", 1), ("world/q3", "world/d5", 1), ("world/q3", "d5", 2)]
    sampler = of_mixture(run(tmp_path / "whole.run", rows), mixture.parts)
    assert isinstance(sampler, Recorded)
    ranking = sampler.candidates(mixed, 9)
    assert list(ranking.doc_id) == ["plants/d5", "world/d5"]
    assert ranking.attrs["passages_missing"] == (1, 3)
    over = ColBERT(over=sampler)  # what ranks a given run again reads its ids, too
    assert of_mixture(over, mixture.parts) is over


def test_given_runs_of_the_parts_have_their_ids(mixture, tmp_path):
    mixed = mixture.load()
    rows = [("q3", "d5", 1), ("q3", "d29", 2), ("q4", "d6", 1)]
    recorded = run(tmp_path / "plants.run", rows)
    whole = of_mixture(ByPart({"plants": recorded, "world": BM25()}), mixture.parts)
    covered = whole.covered(mixed.queries)
    assert [q for q in covered if q.startswith("plants")] == ["plants/q3", "plants/q4"]
    assert sum(q.startswith("world") for q in covered) == 24
    ranking = whole.candidates(mixed.subset(["plants/q3", "world/q3"]), 9)
    assert list(ranking.doc_id[ranking.query_id == "plants/q3"]) == ["plants/d5"]
    assert ranking.attrs["passages_missing"] == (1, 2)
    assert whole.fingerprint()["parts"]["plants"]["engine"] == "recorded"
    with pytest.raises(ValueError, match=r"^samplers: .*plants, world"):
        of_mixture(ByPart({"plants": recorded}), ["plants", "world"])


# --- whole cells ---


def cell_on(world, plants, store, *more):
    """The command line of a cell on three parts of the world and one of the plants."""
    kept = [o for o in world.overrides(store) if not o.startswith("data")]
    settings = {"data": "mixture", "+data.parts.world.share": 3, "+data.parts.plants.share": 1}
    for name, folder in (("world", world.folder), ("plants", plants)):
        settings[f"+data@data.parts.{name}.data"] = "files"
        for file in ("corpus.tsv", "queries.tsv", "qrels.txt"):
            settings[f"data.parts.{name}.data.{file.split('.')[0]}"] = folder / file
    settings["data.parts.world.data.dev"] = 0.3
    return [*(f"{key}={value}" for key, value in settings.items()), *kept, *more]


def trained(world, plants, store, *more):
    from rdx import pipeline

    [cell] = stages.cells(cell_on(world, plants, store, *more))
    config.check(cell)
    return pipeline.run(cell)


@pytest.mark.slow
def test_a_student_is_trained_on_a_mixture(world, plants, tmp_path):
    store = tmp_path / "store"
    more = ("trainer.validate_every=8", "prefinetune.epochs=12", "budget.epochs=30")
    summary = trained(world, plants, store, *more, "sampler=random", "sampler.positives=true")
    keys = summary.facts.signatures
    found = Candidates(store / "candidates" / keys["candidates"])
    parts = Counter(query_id.split("/")[0] for query_id in found.sample.queries)
    assert parts == {"world": 6, "plants": 2}
    query_part = found.ranking.query_id.str.partition("/")[0]
    assert (query_part == found.ranking.doc_id.str.partition("/")[0]).all()
    assert summary.facts.health == "ok" and summary.facts.training.lists == 8
    for stage in ("prefinetune", "distill"):
        curve = Checkpoint(store / stage / keys[stage]).curve
        tenth = max(len(curve) // 10, 2)
        assert np.mean(curve[-tenth:]) < np.mean(curve[:tenth]), stage
    # a smaller sample is part of it; other shares need no other index
    fewer = trained(world, plants, store, *more[1:], "depth.queries=4", "data.parts.plants.share=3")
    again = [step for step, how in fewer.stages.items() if how == "computed"]
    assert not [step for step in again if step.startswith(("index", "collection", "tokens"))]
    assert fewer.facts.collections["files"].queries == summary.facts.collections["files"].queries


def test_samples_of_a_cell_are_nested(world, plants, tmp_path):
    [cell] = stages.cells(cell_on(world, plants, tmp_path / "store"))
    data = Job.of(cell).parts.data.load("train")
    samples = [data.sample(data.queries, n, 0) for n in (2, 4, 8, 12)]
    assert all(set(a) < set(b) for a, b in zip(samples, samples[1:], strict=False))


@pytest.mark.parametrize(
    ("override", "begin"),
    [
        ("+data.parts.world.shar=2", "data.parts.world.shar"),
        ("data.parts.world.share=0", "data.parts.world.share=0"),
        ("data.parts.world.data.corpus=no.tsv", "data.parts.world.data.corpus=no.tsv"),
        ("+data.parts.other.share=2", "data.parts.other.data"),
        ("depth.queries=40", None),
    ],
)
def test_what_is_wrong_is_named_by_its_key(world, plants, tmp_path, override, begin):
    line = [*cell_on(world, plants, tmp_path / "store"), override]
    if begin is None:
        data = Job.of(stages.cells(line)[0]).parts.data.load("train")
        with pytest.raises(ValueError, match=r"^depth\.queries=40"):
            data.sample(data.queries, 40, 0, "depth.queries")
        return
    with pytest.raises(ConfigError) as refused:
        [cell] = stages.cells(line)
        config.check(cell)
    assert str(refused.value).startswith(begin)


def test_samplers_of_parts_are_for_these_parts(world, plants, tmp_path):
    by_part = ["sampler=by_part", "+sampler@sampler.samplers.world=bm25"]
    with pytest.raises(ConfigError, match=r"^sampler\.samplers"):
        stages.cells([*cell_on(world, plants, tmp_path), *by_part])
    with pytest.raises(ConfigError, match=r"^sampler: .*mixture"):
        stages.cells([*world.overrides(tmp_path), *by_part])
    both = [*by_part, "+sampler@sampler.samplers.plants=random"]
    assert len(stages.cells([*cell_on(world, plants, tmp_path), *both])) == 1


def test_names_stand_before_ids(plants):
    for name in ("a/b", "", "a b"):
        check_refused("data", Mixture, told=f"parts.{name}", parts={name: Part(files(plants), 1.0)})
    check_refused("data", Mixture, parts={})
