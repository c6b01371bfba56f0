"""A whole table against the tables of other libraries: systems x measures, means and p values.

scipy and statsmodels are always asked. RDX_PEERS_PYTHON names the python of an environment with
ranx or PyTerrier (`pip install ranx python-terrier`), which are no dependencies of this project.
"""

import json
import os
import subprocess
from itertools import permutations
from pathlib import Path

import ir_measures
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.spec import parse
from analysis.summary import summarise
from analysis.trials import COLUMNS, Trials
from rdx import rankings
from rdx.evaluation import per_query
from tests.analysis.facts import COLLECTION, imported, trial

DL19 = Path(__file__).parents[3] / "shared/data/trec-dl-2019"
MEASURES = ("nDCG@10", "RR@10", "P@10")
PEERS = os.environ.get("RDX_PEERS_PYTHON")


def write_synthetic(folder):
    """Six systems of falling quality over 50 queries; one equals another, some lists are short."""
    generator = np.random.default_rng(0)
    docs = [f"d{i:02}" for i in range(30)]
    lines, runs = [], {}
    for q in range(50):
        grades = generator.choice(4, len(docs), p=(0.7, 0.1, 0.1, 0.1))
        grades[0] = 1  # pt.Experiment and ranx each have their own idea of a query without any
        lines += [f"q{q} 0 {d} {g}" for d, g in zip(docs, grades, strict=True)]
        for s in range(5):
            scores = grades + generator.normal(0, 0.5 + s / 2, len(docs))
            kept = np.argsort(-scores)[: 4 if q % 10 == s else 30]
            rows = [(f"q{q}", docs[i], scores[i]) for i in kept]
            runs.setdefault(f"system-{s}", []).extend(rows)
    runs["twin"] = runs["system-3"]
    (folder / "qrels.txt").write_text("\n".join(lines) + "\n")
    for name, rows in runs.items():
        rankings.write_trec(rankings.rank(*zip(*rows, strict=True)), folder / f"{name}.run", "x")
    return "system-2"


def write_dl19(folder):
    """The runs of TREC DL 2019, in the order that trec_eval gives them."""
    (folder / "qrels.txt").write_text((DL19 / "qrels.txt").read_text())
    for path in sorted((DL19 / "runs").glob("*.run")):
        run = rankings.read_trec(path)
        # Libraries differ in where they put tied passages, and this is about the rest.
        ranking = run.assign(score=-run["rank"].astype("float32"))
        rankings.write_trec(ranking, folder / f"{path.stem.replace('++', '')}.run", "x")
    return "bm25-terrier"


no_dl19 = pytest.mark.skipif(not DL19.exists(), reason="no TREC DL 2019 data here")


@pytest.fixture(
    scope="module",
    params=[write_synthetic, pytest.param(write_dl19, marks=no_dl19)],
    ids=["synthetic", "dl19"],
)
def files(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder / "qrels.txt", request.param(folder), sorted(folder.glob("*.run"))


@pytest.fixture(scope="module")
def ours(files):
    """Our table of the files, in the form of a peer's."""
    qrels, baseline, paths = files
    systems = {f"run:{path.stem}": rankings.read_trec(path) for path in paths}
    table = per_query("docs", systems, rankings.read_qrels(qrels), MEASURES)
    table["signature"] = table.system
    frame = table.reindex(columns=COLUMNS, fill_value="").assign(seed=0)
    facts = {
        name: trial(name, 0, {"docs": COLLECTION}, imported=imported(name.removeprefix("run:")))
        for name in systems
    }
    spec = {
        "name": "peers",
        "claim": "The same numbers.",
        "measures": list(MEASURES),
        "baseline": baseline,
        "family": "collection",
        "all_pairs": True,
        "grid": {},
        "rows": [{"name": path.stem, "system": f"run:{path.stem}"} for path in paths],
    }
    found = summarise(parse(spec), Trials(frame, (), (), facts, {}))
    names = [path.stem for path in paths]
    p = {f"{a} {b}": {} for a, b in permutations(names, 2)}
    for (_, measure), pairs in found.pairs.items():
        for i, a in enumerate(pairs.rows):
            for j, b in enumerate(pairs.rows):
                if i != j:
                    p[f"{a} {b}"][measure] = pairs.p[i, j]
    corrected = {a: {} for a in names if a != baseline}
    for one in found.against:
        assert one.comparison.p == p[f"{one.treatment} {baseline}"][one.measure]
        corrected[one.treatment][one.measure] = one.p_corrected
    means = {a: {m: found.scores[a, "docs", m].mean for m in MEASURES} for a in names}
    return {"means": means, "p": p, "corrected": corrected}


def peer(files, library):
    """The table of a library, or a skip."""
    if not PEERS:
        pytest.skip("RDX_PEERS_PYTHON names no python")
    qrels, baseline, runs = files
    script = Path(__file__).with_name("table_peers.py")
    done = subprocess.run(
        [PEERS, str(script), library, ",".join(MEASURES), str(qrels), baseline, *map(str, runs)],
        capture_output=True,
        text=True,
        check=False,
    )
    if f"No module named '{library}'" in done.stderr:
        pytest.skip(f"{PEERS} has no {library}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def naive(files):
    """ir_measures, scipy and statsmodels, put together by hand."""
    qrels, baseline, paths = files
    judged = list(ir_measures.read_trec_qrels(str(qrels)))
    order = list(dict.fromkeys(one.query_id for one in judged))
    values = {}
    for path in paths:
        run = list(ir_measures.read_trec_run(str(path)))
        for measure in MEASURES:
            found = ir_measures.iter_calc([ir_measures.parse_measure(measure)], judged, run)
            by_query = {one.query_id: one.value for one in found}
            values[path.stem, measure] = np.array([by_query.get(q, 0.0) for q in order])
    names = [path.stem for path in paths]
    p = {
        f"{a} {b}": {m: stats.ttest_rel(values[a, m], values[b, m]).pvalue for m in MEASURES}
        for a, b in permutations(names, 2)
    }
    corrected = {a: {} for a in names if a != baseline}
    for m in MEASURES:
        raw = [p[f"{a} {baseline}"][m] for a in corrected]
        for a, value in zip(corrected, multipletests(raw, method="holm")[1], strict=True):
            corrected[a][m] = value
    means = {a: {m: values[a, m].mean() for m in MEASURES} for a in names}
    return {"means": means, "p": p, "corrected": corrected}


@pytest.mark.parametrize("library", ["scipy", "ranx", "pyterrier"])
def test_a_whole_table_is_that_of_other_libraries(files, ours, library):
    theirs = naive(files) if library == "scipy" else peer(files, library)
    for kind, expected in theirs.items():
        found, wanted = flat(ours[kind]), flat(expected)
        if kind != "p":  # of pairs, some libraries have those with the baseline alone
            assert set(wanted.index) == set(found.index)
        # Two equal systems: no test has a p value for them there, and ours is 1.
        wanted = wanted.fillna(1.0)
        gap = (found[wanted.index] - wanted).abs().max()
        print(library, kind, len(wanted), gap)
        assert gap < 1e-9, kind
    assert {"means", "p"} <= theirs.keys()


def flat(nested):
    """(outer, inner) -> number."""
    return pd.DataFrame(nested).T.stack(future_stack=True).astype(float)
