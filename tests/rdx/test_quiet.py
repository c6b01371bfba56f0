"""What is printed where the output is no terminal: lines, few, and of libraries what matters."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertModel

from rdx import bars, quiet
from rdx.text import counted, plural


@pytest.fixture
def unattended(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)


def test_a_bar_is_silent_for_a_minute_and_then_a_line_a_minute(capsys, monkeypatch, unattended):
    for _ in bars.bar(range(3), desc="reading", unit="query", total=3):
        pass
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(bars, "EVERY", 0.0)
    with bars.bar(desc="reading", unit="query", total=3) as progress:
        progress.set_postfix(loss=0.5, refresh=False)
        progress.update()
        progress.update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines][-2:] == [
        "reading: 1 of 3 queries",
        "reading: 2 of 3 queries",
    ]
    assert all(line.endswith(", loss=0.5") for line in lines[-2:])


def test_a_bar_without_an_end_counts(capsys, monkeypatch, unattended):
    monkeypatch.setattr(bars, "EVERY", 0.0)
    for _ in bars.bar(iter("ab"), desc="MaxSim", unit="block"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("MaxSim: 2 blocks, ") and "left" not in lines[-1]


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    with torch.random.fork_rng():
        BertModel(BertConfig(num_hidden_layers=2, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def warnings(monkeypatch):
    """Lines of Transformers that come through."""
    quiet.loggers()
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_layers_that_are_cut_off_are_not_told(two_layers, warnings):
    AutoModel.from_pretrained(two_layers, num_hidden_layers=1)
    assert warnings == []


def test_weights_that_no_checkpoint_has_are_told_in_a_line(two_layers, warnings):
    AutoModelForSequenceClassification.from_pretrained(two_layers, num_hidden_layers=3)
    [line] = warnings
    assert str(two_layers) in line and "\n" not in line
    assert "classifier.weight" in line and "encoder.layer.2" in line


def test_weights_of_another_size_are_told_as_they_are(two_layers, warnings):
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModel.from_pretrained(two_layers, vocab_size=11)
    assert "MISMATCH" in warnings[0]


SETTINGS = "from rdx import quiet; quiet.environment(); quiet.loggers(); import logging, os; "


def test_what_the_user_has_set_stays():
    code = (
        "import logging; logging.getLogger('httpx').setLevel('INFO'); "
        + SETTINGS
        + "print(os.environ['MLFLOW_LOGGING_LEVEL'], os.environ['HF_HUB_DISABLE_PROGRESS_BARS'], "
        "*(logging.getLogger(n).getEffectiveLevel() for n in ('httpx', 'urllib3')))"
    )
    own = os.environ | {"MLFLOW_LOGGING_LEVEL": "DEBUG"}
    own.pop("HF_HUB_DISABLE_PROGRESS_BARS", None)
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True)
    assert done.stdout.split() == ["DEBUG", "1", str(logging.INFO), str(logging.WARNING)]


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        *((0, "cell", "0 cells"), (1, "cell", "1 cell"), (1234, "cell", "1,234 cells")),
        *((1, "query", "1 query"), (2, "query", "2 queries"), (2, "key", "2 keys")),
        *((2, "process", "2 processes"), (2, "batch", "2 batches"), (1, "query id", "1 query id")),
    ],
)
def test_counted_nouns(n, noun, text):
    assert counted(n, noun) == text
    assert plural(noun) == counted(2, noun).removeprefix("2 ")
