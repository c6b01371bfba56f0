"""The commands of docs/paper.md that check the published first stages, on the real files."""

import shlex
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from rdx import commands
from rdx.config import ROOT

DL19 = Path(__file__).parents[3] / "shared/data/trec-dl-2019"
TEACHERS = ("gpt-3.5-turbo", "rankvicuna-7b", "vicuna-13b-failing")


def documented():
    """The import commands of the page, one list of words each, the loop written out."""
    page = (ROOT / "docs" / "paper.md").read_text()
    [block] = [text for text in page.split("```")[1::2] if "teacher-$teacher" in text]
    lines = block.replace("\\\n", " ").replace("  ", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line)
        if words[:4] == ["python", "-m", "rdx", "import"]:
            each = TEACHERS if "$teacher" in line else ("",)
            found += [[w.replace("$teacher", one) for w in words[4:]] for one in each]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not DL19.exists(), reason="no TREC DL 2019 data here")
def test_first_stages_are_reproduced_and_the_rest_is_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dl19").symlink_to(DL19)
    imports = documented()
    assert len(imports) == 5
    for words in imports:
        commands.import_(words)
    said = capsys.readouterr().out
    for name, value in {"bm25": "0.4795", "colbertv2": "0.7320", "rankvicuna-7b": "0.6665"}.items():
        assert f"run:{name}/nDCG@10" in said and value in said
    assert main(["paper_main"]) == 0
    said = capsys.readouterr().out
    assert "2 reproduced, 0 within noise, 0 differs, 66 not run" in said
    lines = [line.split()[:5] for line in said.splitlines() if " reproduced  " in line]
    assert [line[2:] for line in lines] == [
        ["dl19_bm25", "nDCG@10", "reproduced"],
        ["dl19_colbert", "nDCG@10", "reproduced"],
    ]
    page = (tmp_path / "results" / "paper_main" / "table.md").read_text()
    assert page.count("a local copy with 11,843 passages") == 2
    table = pd.read_csv(tmp_path / "results" / "paper_main" / "table.csv")
    first = table[(table["row"] == "First stage") & table["mean"].notna()]
    assert first["mean"].round(4).tolist() == [0.4795, 0.7320]
