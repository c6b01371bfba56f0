"""What re-ranking a query costs, and how costs are compared."""

import numpy as np
import pytest
import torch
from test_evaluation import Counting, ranking

from rdx.collection import Collection
from rdx.evaluation import ratio, timed
from rdx.evaluation.efficiency import rapl
from rdx.trainer import Trainer


def texts(queries):
    passages = {f"d{i}": "x" * (i + 1) for i in range(9)}
    return Collection("toy", {q: "a" for q in queries}, passages, None)


@pytest.mark.parametrize(("repetitions", "queries"), [(1, 2), (3, 2), (2, 9)])
def test_every_query_is_timed_as_often_as_asked(repetitions, queries):
    first = ranking({f"q{i}": {f"d{j}": -float(j) for j in range(i + 1)} for i in range(5)})
    student = Counting().train()
    settings = Trainer(precision="fp32", device="cpu")
    found = timed(
        student, first, texts([f"q{i}" for i in range(5)]), settings, 100, repetitions, queries
    )
    n = min(queries, 5)
    assert list(found["seconds"]) == [f"q{i}" for i in range(n)] == list(found["pairs"])
    assert {len(one) for one in found["seconds"].values()} == {repetitions}
    assert list(found["pairs"].values()) == list(range(1, n + 1))
    warm = min(3, n)
    assert found["warm_up"] == warm and len(student.shapes) == warm + repetitions * n
    medians = [np.median(one) for one in found["seconds"].values()]
    assert found["latency"]["p50"] == pytest.approx(np.median(medians))
    assert found["latency"]["p95"] == pytest.approx(np.quantile(medians, 0.95))
    assert found["pairs_per_second"] == pytest.approx(sum(range(1, n + 1)) / sum(medians))
    assert found["peak_memory"]["cuda"] is None and found["hardware"]["device"] == "CPU"
    assert found["peak_memory"]["rss"] is None or found["peak_memory"]["rss"] > 10**7
    assert set(found["energy"]) == {"joules_per_query", "source"}


def test_peak_memory_is_that_of_the_work(monkeypatch):
    """Not of what the process held before."""
    from rdx.evaluation import efficiency

    held = np.ones(40_000_000)  # 320 MB
    del held
    with efficiency._peak(torch.device("cpu")) as low:
        pass
    with efficiency._peak(torch.device("cpu")) as high:
        assert np.ones(40_000_000).sum() == 40_000_000
    if low["rss"] is None:
        pytest.skip("this system does not reset the peak")
    assert high["rss"] - low["rss"] > 250e6


def test_memory_that_was_freed_before_does_not_count():
    """As after a training: small pieces, between which the allocator keeps what was freed."""
    from rdx.evaluation import efficiency

    with efficiency._peak(torch.device("cpu")) as before:
        pass
    if before["rss"] is None:
        pytest.skip("this system does not reset the peak")
    pieces = [bytearray(b"x" * 50_000) for _ in range(6000)]  # 300 MB, from the heap
    held = pieces[-1]
    del pieces
    with efficiency._peak(torch.device("cpu")) as after:
        pass
    assert after["rss"] - before["rss"] < 100e6 and held


def test_ratio_is_of_sums_of_medians():
    a = {"p": [4.0, 100.0, 2.0], "q": [2.0], "only": [9.0]}
    b = {"q": [1.0], "p": [1.0, 3.0]}
    assert ratio(a, b)[0] == pytest.approx((4 + 2) / (2 + 1))
    value, low, high = ratio({"p": [4.0], "q": [3.0]}, {"p": [1.0], "q": [1.0]}, draws=2000)
    assert (value, low, high) == pytest.approx((3.5, 3.0, 4.0))  # the possible draws
    assert ratio({"p": [3.0]}, {"p": [2.0]}) == (1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="no query"):
        ratio({"p": [1.0]}, {"q": [1.0]})


def test_the_interval_of_a_ratio_covers_it():
    """Of two systems whose times are log-normal around known means, over 200 samples."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        hard = random.lognormal(0, 0.3, 60)
        a = {str(i): [3 * h * random.lognormal(0, 0.1)] for i, h in enumerate(hard)}
        b = {str(i): [h * random.lognormal(0, 0.1)] for i, h in enumerate(hard)}
        _, low, high = ratio(a, b, draws=400)
        covered += low <= 3 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_rapl_counts_packages_once(tmp_path):
    assert rapl(tmp_path) == []
    for name, used in {"intel-rapl:0": 5, "intel-rapl:1": 7, "intel-rapl:0:0": 100}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{used}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    assert rapl(tmp_path) == [(5, 1000), (7, 1000)]
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert rapl(tmp_path) == []


def test_energy_is_what_the_counters_saw(tmp_path, monkeypatch):
    from rdx.evaluation import efficiency

    monkeypatch.setattr(efficiency, "POWERCAP", tmp_path)
    with efficiency._energy(torch.device("cpu")) as none:
        pass
    assert none == {}
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("10000000")
    (package / "energy_uj").write_text("9000000")
    with efficiency._energy(torch.device("cpu")) as found:
        (package / "energy_uj").write_text("2000000")  # it has wrapped
    assert found == {"joules": pytest.approx(3.0), "source": "RAPL"}
