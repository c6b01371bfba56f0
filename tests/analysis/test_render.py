import shutil
import subprocess
from dataclasses import replace

import pytest

from analysis.render import latex, markdown, text
from analysis.render.entry import (
    ABSENT,
    APART,
    Column,
    Entry,
    Flag,
    Table,
    interval,
    mark_best,
    number,
    numbers,
    p_value,
    runs,
    short,
    system,
    words,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("entry", "words", "value"),
    [
        (number(0.71249), "0.712", 0.71249),
        (number(-0.03, sign=True), "−0.030", -0.03),
        (number(2, 1, sign=True), "+2.0", 2.0),
        (number(None), "–", None),
        (number(NAN), "–", None),
        (interval(-0.1, 0.2), "[−0.100, +0.200]", -0.1),
        (interval(0.1, 0.2, sign=False), "[0.100, 0.200]", 0.1),
        (interval(NAN, 0.2), "–", None),
        (p_value(0.0004), "< 0.001", 0.0004),
        (p_value(0.04), "0.040", 0.04),
        (p_value(NAN), "–", None),
        (short(12345.6), "12346", 12345.6),
        (short(0.012345), "0.0123", 0.012345),
        (runs(0), "–", None),
        (runs(1), "1 seed", 1.0),
        (runs(3), "3", 3.0),
        (runs(2, 1), "2 vs 1 (1 seed)", 2.0),
        (runs(0, 3), "– vs 3", 0.0),
    ],
)
def test_text_and_value_of_an_entry_agree(entry, words, value):
    assert (entry.text, entry.value) == (words, value)
    assert (Flag.MISSING in entry.flags) == (value is None)


def marks(values, competes=None):
    entries = mark_best([number(v) for v in values], competes or [True] * len(values))
    signs = {Flag.BEST: "b", Flag.SECOND: "s", Flag.MISSING: ""}
    return "".join("".join(signs[flag] for flag in e.flags) or "." for e in entries)


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


def example():
    return Table(
        label="a_b 1",
        caption="Costs 5 % & more: x_1 | y*",
        columns=(
            *words("System"),
            Column("nDCG@10", "dl19"),
            Column("RR@10", "dl19"),
            Column("nDCG@10", "dl20"),
            Column("Seeds"),
        ),
        rows=(
            (system("first_stage"), number(0.1), number(0.2), number(None), ABSENT),
            (
                system("A & B", alarm=True),
                number(0.512).flagged(Flag.BEST, Flag.SIGNIFICANT),
                number(0.4).flagged(Flag.SECOND),
                number(0.3),
                runs(1),
            ),
        ),
        notes=("α = 0.05, p < 0.01 – “quoted” ± −1 ≤ ∞ † {x} ~ ^ \\ # $",),
    )


def test_markdown():
    assert markdown.render(example()) == (
        "Costs 5 % & more: x_1 \\| y\\*\n"
        "\n"
        "| System      | dl19 nDCG@10 |   dl19 RR@10 | dl20 nDCG@10 |  Seeds |\n"
        "| ----------- | -----------: | -----------: | -----------: | -----: |\n"
        "| first_stage |        0.100 |        0.200 |            – |      – |\n"
        "| A & B (!)   |   **0.512**† | <u>0.400</u> |        0.300 | 1 seed |\n"
        "\n"
        "- α = 0.05, p < 0.01 – “quoted” ± −1 ≤ ∞ † {x} ~ ^ \\\\ # $\n"
    )


def test_text():
    lines = text.render(example()).splitlines()
    assert lines[0] == "System       dl19 nDCG@10  dl19 RR@10  dl20 nDCG@10   Seeds"
    assert lines[3] == "A & B (!)      **0.512**†     _0.400_         0.300  1 seed"


def test_latex():
    lines = latex.render(example()).splitlines()
    assert r"\caption{Costs 5 \% \& more: x\_1 | y*}" in lines
    assert r"\label{tab:a-b-1}" in lines
    assert r"\begin{tabular}{lrrrr}" in lines
    assert r" & \multicolumn{2}{c}{dl19} & \multicolumn{1}{c}{dl20} &  \\" in lines
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-4}" in lines
    assert r"System & nDCG@10 & RR@10 & nDCG@10 & Seeds \\" in lines
    assert r"first\_stage & 0.100 & 0.200 & -- & -- \\" in lines
    row = r"A \& B (!) & \textbf{0.512}$^{\dagger}$ & \underline{0.400} & 0.300 & 1 seed \\"
    assert row in lines
    rules = [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    plain = Table("t", "", numbers("a", "b"), ((Entry("1"), Entry("2")),))
    assert "multicolumn" not in latex.render(plain)


def test_rows_apart_stand_below_a_line():
    lines = tuple((Entry(name), number(0.5)) for name in ("first", "second", "third"))
    table = Table("t", "", (*words("System"), *numbers("score")), lines, apart=1)
    for shown in (text.render(table), markdown.render(table), latex.render(table)):
        each = [line for line in shown.splitlines() if APART in line or "0.5" in line]
        assert [i for i, line in enumerate(each) if APART in line] == [2] and len(each) == 4
    assert APART not in latex.render(replace(table, apart=0))
    long = replace(table, rows=(lines[0],) * latex.MOST_ROWS + lines[1:])
    [first, second] = latex.render(long).split(r"\end{tabular}}")[:2]
    assert APART not in first and APART in second


def test_latex_escape():
    assert latex.escape("a_b & 5% #1 $x {y} ~^\\") == (
        r"a\_b \& 5\% \#1 \$x \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert latex.escape("< 0.001") == "$<$ 0.001"


def test_rows_must_fit_the_head():
    with pytest.raises(ValueError):
        Table("t", "", numbers("a", "b"), ((Entry("1"),),))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    document = (
        "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\n\\usepackage{booktabs,graphicx}\n"
        f"\\begin{{document}}\n{latex.render(example())}\n\\end{{document}}\n"
    )
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
