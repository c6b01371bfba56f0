import shutil
import subprocess

import pytest

from analysis.tables import (
    Column,
    Entry,
    Table,
    latex,
    latex_escape,
    mark_best,
    markdown,
    score,
    text,
)


def marks(values, competes=None):
    entries = mark_best([score(v) for v in values], competes or [True] * len(values))
    return "".join("b" if e.best else "s" if e.second else "." for e in entries)


def test_marks_follow_the_printed_numbers():
    assert marks([0.1, 0.3, 0.2]) == ".bs"
    # .71149 and .7105 print as .711 and .710 (or .711): equal print, equal mark
    assert marks([0.71149, 0.71051, 0.7094]) == "bbs"
    assert marks([0.7114, 0.7116, 0.7114]) == "sbs"
    assert marks([0.5, 0.5]) == "bb"
    assert marks([0.5]) == "b"
    assert marks([-0.2, -0.1]) == "sb"


def test_missing_and_reference_rows_take_no_marks():
    assert marks([None, 0.2, 0.1]) == ".bs"
    assert marks([None, None]) == ".."
    assert marks([0.9, 0.2, 0.1], [False, True, True]) == ".bs"
    assert marks([0.9, 0.2], [False, False]) == ".."
    assert score(None).text == "–"


def example():
    return Table(
        label="a_b 1",
        caption="Costs 5 % & more: x_1 | y*",
        columns=(
            Column("System", numeric=False),
            Column("nDCG@10", "dl19"),
            Column("RR@10", "dl19"),
            Column("nDCG@10", "dl20"),
            Column("Seeds"),
        ),
        rows=(
            (Entry("first_stage"), score(0.1), score(0.2), score(None), Entry("–")),
            (
                Entry("A & B"),
                Entry("0.512", best=True, significant=True),
                Entry("0.400", second=True),
                score(0.3),
                Entry("1 seed"),
            ),
        ),
        notes=("α = 0.05, p < 0.01 – “quoted” ± −1 ≤ ∞ † {x} ~ ^ \\ # $",),
    )


def test_markdown():
    assert markdown(example()) == (
        "Costs 5 % & more: x_1 \\| y\\*\n"
        "\n"
        "| System      | dl19 nDCG@10 |   dl19 RR@10 | dl20 nDCG@10 |  Seeds |\n"
        "| ----------- | -----------: | -----------: | -----------: | -----: |\n"
        "| first_stage |        0.100 |        0.200 |            – |      – |\n"
        "| A & B       |   **0.512**† | <u>0.400</u> |        0.300 | 1 seed |\n"
        "\n"
        "- α = 0.05, p < 0.01 – “quoted” ± −1 ≤ ∞ † {x} ~ ^ \\\\ # $\n"
    )


def test_text():
    lines = text(example()).splitlines()
    assert lines[0] == "System       dl19 nDCG@10  dl19 RR@10  dl20 nDCG@10   Seeds"
    assert lines[3] == "A & B          **0.512**†     _0.400_         0.300  1 seed"


def test_latex():
    lines = latex(example()).splitlines()
    assert r"\caption{Costs 5 \% \& more: x\_1 | y*}" in lines
    assert r"\label{tab:a-b-1}" in lines
    assert r"\begin{tabular}{lrrrr}" in lines
    assert r" & \multicolumn{2}{c}{dl19} & \multicolumn{1}{c}{dl20} &  \\" in lines
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-4}" in lines
    assert r"System & nDCG@10 & RR@10 & nDCG@10 & Seeds \\" in lines
    assert r"first\_stage & 0.100 & 0.200 & -- & -- \\" in lines
    row = r"A \& B & \textbf{0.512}$^{\dagger}$ & \underline{0.400} & 0.300 & 1 seed \\"
    assert row in lines
    rules = [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    plain = Table("t", "", (Column("a"), Column("b")), ((Entry("1"), Entry("2")),))
    assert "multicolumn" not in latex(plain)


def test_latex_escape():
    assert latex_escape("a_b & 5% #1 $x {y} ~^\\") == (
        r"a\_b \& 5\% \#1 \$x \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert latex_escape("< 0.001") == "$<$ 0.001"


def test_rows_must_fit_the_head():
    with pytest.raises(ValueError, match="1 cells under 2 heads"):
        Table("t", "", (Column("a"), Column("b")), ((Entry("1"),),))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    document = (
        "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\n\\usepackage{booktabs,graphicx}\n"
        f"\\begin{{document}}\n{latex(example())}\n\\end{{document}}\n"
    )
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
