"""LaTeX output goes through a real LaTeX, where there is one."""

import shutil
import subprocess

import pandas as pd
import pytest

from analysis import report
from analysis.render import latex
from analysis.spec import parse
from analysis.summary import summarise
from analysis.trials import COLUMNS, Trials
from rdx.config import load_spec, split

pytestmark = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
DOCUMENT = (
    r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"
    r"\begin{document}\input{table.tex}\end{document}"
)


def compiled(summary, folder):
    """The log of a document with all tables of a summary; the test fails if it does not compile."""
    text = "\n".join(map(latex.render, report.tables_of(summary)))
    (folder / "table.tex").write_text(text, encoding="utf-8")
    (folder / "all.tex").write_text(DOCUMENT, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    log = (folder / "all.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert (folder / "all.pdf").stat().st_size > 10_000
    return log


def unwritten(log):
    """What LaTeX complains about: characters without a glyph, lines wider than the page."""
    signs = ("Missing character", "Overfull \\hbox", "undefined", "too large for page")
    return [line for line in log.splitlines() if any(sign in line for sign in signs)]


@pytest.mark.parametrize("name", ["table", "depth", "grid"])
def test_tables_of_trials_compile(name, request, tmp_path):
    assert unwritten(compiled(request.getfixturevalue(name), tmp_path)) == []


@pytest.mark.parametrize("name", ["demo", "losses", "paper_main", "paper_tirex"])
def test_tables_of_the_specs_compile(name, tmp_path):
    cells, left_out = split(name)
    frame = pd.DataFrame(columns=list(COLUMNS))
    nothing = Trials(frame, tuple(cells), tuple(cells), {}, {}, tuple(left_out))
    assert unwritten(compiled(summarise(parse(load_spec(name), cells), nothing), tmp_path)) == []
