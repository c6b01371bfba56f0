"""What re-ranking a query costs, and how costs are compared."""

import numpy as np
import pytest
import torch
from test_evaluation import Counting, ranking

from rdx.collection import Collection
from rdx.evaluation import efficiency, ratio, timed
from rdx.evaluation.efficiency import rapl, watch_energy, watch_memory
from rdx.facts import Energy
from rdx.trainer import Trainer

CPU = torch.device("cpu")


def texts(queries):
    passages = {f"d{i}": "x" * (i + 1) for i in range(9)}
    return Collection("toy", {q: "a" for q in queries}, passages, None)


@pytest.mark.parametrize(("repetitions", "queries"), [(1, 2), (3, 2), (2, 9)])
def test_every_query_is_timed_as_often_as_asked(repetitions, queries):
    first = ranking({f"q{i}": {f"d{j}": -float(j) for j in range(i + 1)} for i in range(5)})
    student = Counting().train()
    settings = Trainer(precision="fp32", device="cpu")
    timing = timed(
        student, first, texts([f"q{i}" for i in range(5)]), settings, 100, repetitions, queries
    )
    n = min(queries, 5)
    assert list(timing.seconds) == [f"q{i}" for i in range(n)] == list(timing.pairs)
    assert {len(times) for times in timing.seconds.values()} == {repetitions}
    assert list(timing.pairs.values()) == list(range(1, n + 1))
    warm = min(3, n)
    assert timing.warm_up == warm and len(student.shapes) == warm + repetitions * n
    medians = [np.median(times) for times in timing.seconds.values()]
    assert timing.latency.p50 == pytest.approx(np.median(medians))
    assert timing.latency.p95 == pytest.approx(np.quantile(medians, 0.95))
    assert timing.pairs_per_second == pytest.approx(sum(range(1, n + 1)) / sum(medians))
    assert timing.peak_memory.cuda is None and timing.hardware.device == "CPU"
    assert timing.peak_memory.rss is None or timing.peak_memory.rss > 10**7


def peak():
    memory = watch_memory(CPU)().rss
    if memory is None:
        pytest.skip("this system does not reset the peak")
    return memory


def test_peak_memory_is_that_of_the_work():
    """Not of what the process held before."""
    held = np.ones(40_000_000)  # 320 MB
    del held
    low, read = peak(), watch_memory(CPU)
    assert np.ones(40_000_000).sum() == 40_000_000
    assert read().rss - low > 250e6


def test_memory_that_was_freed_before_does_not_count():
    """As after a training: small pieces, between which the allocator keeps what was freed."""
    before = peak()
    pieces = [bytearray(b"x" * 50_000) for _ in range(6000)]  # 300 MB, from the heap
    held = pieces[-1]
    del pieces
    assert peak() - before < 100e6 and held


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
    monkeypatch.setattr(efficiency, "POWERCAP", tmp_path)
    assert watch_energy(CPU)(4) == Energy()
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("10000000")
    (package / "energy_uj").write_text("9000000")
    read = watch_energy(CPU)
    (package / "energy_uj").write_text("2000000")  # it has wrapped
    assert read(4) == Energy(joules_per_query=pytest.approx(3.0 / 4), source="RAPL")
