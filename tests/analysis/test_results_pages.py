"""The pages below docs/results say what the results beside them say."""

from pathlib import Path

import pytest

from tests.scripts import script

ROOT = Path(__file__).parents[2]
results, reproduction = script("results"), script("reproduction")


@pytest.mark.parametrize("name", results.names())
def test_a_page_says_what_its_results_say(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("RDX_TREC_DL", raising=False)  # nothing but the results is read
    text = (results.FOLDER / name / results.PAGE).read_text(encoding="utf-8")
    assert results.marks.names(text, "results")
    assert results.page(text, results.summary_of(name)) == text
    drawn = {path.stem for path in (results.FOLDER / name).glob("figure-*.svg")}
    assert drawn == set(results.FIGURE.findall(text))
    assert all((results.FOLDER / name / f"{one}.png").is_file() for one in drawn)


def test_marks_that_name_no_table_are_refused():
    name = results.names()[0]
    with pytest.raises(SystemExit, match="no nothing"):
        results.page(
            "<!-- nothing: python scripts/results.py -->\n<!-- end -->", results.summary_of(name)
        )


def test_what_was_trained_again_is_the_drawn_cell_and_its_page_says_how_it_went():
    text = (reproduction.AGAIN / reproduction.PAGE).read_text(encoding="utf-8")
    assert reproduction.page(text) == text
    for name in reproduction.NAMES:
        assert f"| {name} |" in text
