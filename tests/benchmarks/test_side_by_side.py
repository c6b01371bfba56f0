"""The benchmarks run, and count tokens right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import host, side_by_side, texts, training

ROOT = Path(__file__).parents[2]


def test_made_up_lists_are_like_the_real_ones():
    lists = texts.ranked_lists(Path("no/such/folder"))
    assert len(lists) == 43 and all(len(passages) == 100 for _, _, passages in lists)
    words = [len(text.split()) for _, _, passages in lists for text in passages]
    assert 50 < sum(words) / len(words) < 62
    assert lists == texts.ranked_lists(Path("no/such/folder"))


def test_no_pair_comes_twice_until_the_texts_are_used_up():
    lists = training.training_lists(queries=8, depth=20, steps=4)
    assert len(lists) == 32 and all(len(passages) == 20 for _, passages, _ in lists)
    shown = [(query, tuple(passages)) for query, passages, _ in lists]
    assert len(set(shown)) == 32


@pytest.mark.parametrize(
    ("values", "text"), [([2.0], "2.00"), ([1.0, 3.0, 2.0], "2.00 (1.00–3.00)")]
)
def test_spread(values, text):
    assert side_by_side.spread(values) == text


def test_rows_are_compared_with_those_of_the_same_numerics():
    assert training._alike("rdx, bf16, sdpa", "Lightning IR, bf16, sdpa")
    assert training._alike("rdx, bf16, sdpa", "sentence-transformers, bf16, sdpa, mini-batch 8")
    assert not training._alike("rdx, bf16, eager", "Lightning IR, bf16, sdpa")
    assert not training._alike("rdx, bf16, sdpa, gradient cache", "Lightning IR, bf16, sdpa")
    assert training._alike("rdx, defaults", "Lightning IR, defaults")
    assert not training._alike("rdx, bf16, sdpa", "Lightning IR, defaults")


def test_first_sight_counts_tokenising_and_ratios_are_of_one_turn():
    turn = {"spans": [0.03, 0.02, 0.01], "real": 10, "padded": 12}
    other = {"spans": [0.5, 0.4, 0.6], "real": 10, "padded": 20}
    table = host.preparing({"rdx": [turn | {"first": 0.07}], "other": [other]}, pairs=1000)
    assert table[2:] == [
        "| rdx | 100 | 10.0 | 100,000 | 1.20 |  |",
        "| other | 500 | 400.0 | 2,500 | 2.00 | 40 × |",
    ]


@pytest.mark.slow
def test_a_library_in_a_process_of_its_own(tmp_path):
    """Two steps of four pairs: every real token once, and padded ones no fewer."""
    model = side_by_side.save_model("minilm", tmp_path / "model", layers=1)
    lists = [["one query", ["a b c d", "e"], [1, 2]]] * 4
    task = {
        "mode": "train",
        "library": "rdx",
        "model": model,
        "device": "cpu",
        "query_length": 32,
        "passage_length": 64,
        "lists": lists,
        "batch": 2,
        "precision": "fp32",
        "attention": None,
        "options": {"gradient_cache": "off"},
    }
    measured = side_by_side.measure(sys.executable, task)
    assert len(measured["spans"]) == 1 and not measured["cached"]
    assert measured["real"] == 4 * ((3 + 2 + 4) + (3 + 2 + 1))
    assert measured["real"] <= measured["padded"]
    twice = side_by_side.measure(sys.executable, task | {"options": {"gradient_cache": "on"}})
    assert twice["cached"] and twice["real"] == 2 * measured["real"]


@pytest.mark.slow
def test_the_table(tmp_path):
    command = [sys.executable, "-m", "benchmarks.training", "--only", "rdx, bf16, eager"]
    sizes = ["--queries", "1", "--depth", "2", "--steps", "1", "--repeat", "1"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "| rdx, bf16, eager |" in done.stdout, json.dumps(done.stdout)


@pytest.mark.slow
def test_the_tables_of_the_data_side():
    command = [sys.executable, "-m", "benchmarks.host", "--only", "rdx"]
    sizes = ["--queries", "2", "--depth", "5", "--steps", "2", "--repeat", "1"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, cwd=ROOT, check=True)
    rows = ["| rdx, as for a GPU", "| the cuts alone |", "| training, prepared ahead |"]
    assert all(row in done.stdout for row in rows), done.stdout
