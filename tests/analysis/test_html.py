import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from analysis import figures, report
from analysis.figures import captions
from analysis.render import html
from analysis.render.entry import APART, Entry, Flag, Table, number, numbers, words
from analysis.render.figures import svg
from analysis.render.html import Page, Picture, Trial

VOID = {"meta", "br", "link", "img", "input", "hr"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Elements(HTMLParser):
    """Collects elements and texts; an unbalanced tag is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.cells, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)
            if "td" in self.open or "th" in self.open:
                self.cells[-1] += data

    def of(self, tag, **wanted):
        found = [attrs for name, attrs in self.elements if name == tag]
        return [a for a in found if all(a.get(k) == v for k, v in wanted.items())]


@pytest.fixture(scope="module")
def shown(table):
    return report.tables_of(table)[:2]


@pytest.fixture(scope="module")
def text(table, shown):
    pictures = [
        Picture(svg(sketch.draw(), name), sketch.caption)
        for name, sketch in figures.sketches(table).items()
        if name != "power"
    ]
    links = {"table.csv": "table.csv", 'a "b"': "x?a=1&b=2"}
    return html.render(report.page(table, shown, pictures, links))


@pytest.fixture(scope="module")
def page(text):
    return Elements(text)


def test_the_claim_is_at_the_top_and_everything_is_escaped(text, page):
    assert "Students <b>beat</b> the first stage & each other." in page.texts
    assert "<b>" not in text and "LambdaRank <&>" not in text
    assert {"href": "x?a=1&b=2"} in page.of("a")
    entries = ((Entry("<script>alert(1)</script>"),),)
    bad = Table("x", "<i>", words("<s>"), entries, ("<u>",))
    other = html.render(Page("<p>", tables=[bad]))
    body = other[: other.rindex("<script>")]
    assert not re.search(r"<(i|s|p|u|script)>alert|<[isp]>", body) and "&lt;script&gt;" in body


def test_nothing_is_fetched(text, page):
    assert not re.search(r"https?:|//[a-z]", text.replace("// ", ""))
    assert not page.of("link") and not page.of("img")
    assert all("src" not in attrs for _, attrs in page.elements)
    for _, attrs in page.elements:
        assert attrs.get("xlink:href", "#").startswith("#")
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_every_cell_is_there_with_its_marks(page, shown):
    for table in shown:
        for row in table.rows:
            for entry in row:
                assert entry.text + entry.alarm + entry.suffix in page.cells
    bold = [entry for row in shown[0].rows for entry in row if Flag.BEST in entry.flags]
    assert len(page.of("strong")) == len(bold) + 1 and len(bold) == 4  # and the legend's
    assert "≈ equivalent within ±0.02" in "".join(page.texts)


def test_every_note_and_the_health_states_are_there(page, shown):
    for note in shown[0].notes:
        assert note in page.texts
    assert "below_first_stage" in page.texts
    assert "(!) Health below_first_stage: RankNet, shuffled teacher (seed 1)." in page.texts


def test_a_number_is_traced_to_its_trials(page, table):
    titles = [attrs["title"] for attrs in page.of("button", **{"class": "trace"})]
    scores = table.scores["RankNet", "trec-dl-2019", "nDCG@10"]
    (own,) = [t for t in titles if t.startswith("RankNet\n") and repr(scores.mean) in t
              and "trec-dl-2019, nDCG@10" in t]  # fmt: skip
    assert "43 queries" in own and "minus First stage (BM25): +0." in own
    for signature, seed in zip(table.signatures["RankNet"], scores.seeds, strict=True):
        run = table.trials.runs[signature]
        assert f"trial {signature}: seed {seed}, health ok, MLflow run {run}" in own
        assert signature in page.cells and run in page.cells  # also without a click
    pair = [t for t in titles if t.startswith("RankNet\n") and "\nADR-MSE\n" in t]
    assert len(pair) == 4 * 5  # comparisons name both sides
    assert not any(t.startswith("RankNet\n") and "shuffled" in t for t in titles)


def test_ids_are_unique_and_the_figures_inline(page, text, table):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    labels = [attrs["aria-label"] for attrs in page.of("svg")]
    assert len(labels) == 5 and labels[0] == captions.differences(table)
    for target in re.findall(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)', text):
        assert "".join(target) in ids


def test_links_are_checked():
    with pytest.raises(ValueError):
        Page("x", links={"x": "javascript:alert(1)"})
    with pytest.raises(ValueError):
        Trial("A", "1f", run="r", page="javascript:alert(1)")


def test_runs_are_links():
    address = "https://host/#/experiments/1/runs/r"
    trials = [Trial("A", "1f", run="r", page=address), Trial("A", "2e", run="s")]
    page = Elements(html.render(Page("x", trials=trials, interface="mlflow ui")))
    assert page.of("a") == [{"href": address}]
    assert "mlflow ui" in page.texts


def test_the_answer_comes_before_figures_and_they_before_tables(table):
    pictures = [Picture('<svg width="240pt"></svg>', name) for name in ("first", "second")]
    tables = report.tables_of(table)[:1]
    told = report.answer_of(table)
    text = html.render(report.page(table, tables, pictures, told=told))
    sentences = [str(escape(sentence.shown)) for sentence in told[:2]]
    marks = ("<figcaption>first", '<h2 id="t0">', "<figcaption>second")
    places = [text.index(part) for part in (*sentences, *marks)]
    assert places == sorted(places)
    assert pictures[0].width == "240pt"


def test_the_main_figure_is_of_the_question():
    names = {"differences": 0, "differences-2": 1, "interaction-a": 2, "power": 3}
    assert [*report.main_first(names, False)][0] == "differences"
    assert [*report.main_first(names, True)] == [
        "interaction-a", "differences", "differences-2", "power"
    ]  # fmt: skip
    assert [*report.main_first({"power": 3}, True)] == ["power"]


def test_a_table_is_stacked_where_it_does_not_fit():
    columns = (*words("System"), *numbers("nDCG@10", "RR@10"))
    line = ["a system", "0.404", "0.545"]
    # .57 rem a character, .8 between columns: 8, 9 and 7 characters, with 2 for the sign of sorting
    needed = 0.57 * (8 + 9 + 7) + 3 * 0.8 + 1.5
    assert needed < 24 and html.layout(columns, [line]).stacked == 24
    many = html.layout((*columns, *numbers(*map(str, range(100)))), [line + ["0.5"] * 100])
    assert many.stacked == html.WIDTHS[-1]  # on no screen is it wide
    assert html.layout(columns, []).stacked == 24


def test_rows_apart_stand_in_a_body_of_their_own():
    rows = tuple((Entry(name), number(0.5)) for name in ("A", "B", "C"))
    page = Elements(
        html.render(Page("x", tables=[Table("x", "", (*words("S"), *numbers("n")), rows, apart=1)]))
    )
    assert [attrs.get("class") for attrs in page.of("tbody")] == [None, "apart"]
    assert page.cells.index("C") > page.cells.index(APART) > page.cells.index("B")


def test_entries_bring_what_they_are_sorted_by_and_rest_on():
    named = Entry("A − B", rows=("A", "B"))
    line = (named, number(-0.03125, sign=True), Entry("no number"), number(None))
    tables = [Table("x", "", (*words("Pair"), *numbers("a", "b", "c")), (line,))]
    trials = [Trial("A", "1f"), Trial("A", "2e", seed=7, health="nan", run="r"), Trial("B", "3d")]
    page = Elements(html.render(Page("x", tables=tables, trials=trials)))
    assert [cell.get("data-v") for cell in page.of("td")[:3]] == ["-0.03125", None, None]
    titles = [button["title"].splitlines() for button in page.of("button", **{"class": "trace"})]
    assert titles == [["A", trials[0].line, trials[1].line, "B", trials[2].line]] * 2
    assert len(page.of("span", **{"class": "alarm"})) == 2  # in the legend, and the second trial


PROBE = """
<script>
addEventListener("load", function () {
  var out = [], table = document.querySelector("table");
  function names() {
    return Array.from(table.tBodies[0].rows).map(function (r) { return r.cells[0].textContent; });
  }
  var before = names(), button = table.querySelectorAll("button.sort")[1];
  button.focus(); button.click();
  var head = button.parentElement;
  out.push(head.getAttribute("aria-sort"), names()[0]);
  button.click();
  out.push(head.getAttribute("aria-sort"), names()[0]);
  var root = document.documentElement;
  out.push(root.scrollWidth <= root.clientWidth ? "fits" : "overflows " + root.scrollWidth);
  var cut = Array.from(document.querySelectorAll("main .entry, main td code")).filter(function (e) {
    var box = e.closest(".box").getBoundingClientRect(), own = e.getBoundingClientRect();
    return own.width && (own.right > box.right + 1 || own.left < box.left - 1);
  });
  out.push(cut.length ? "cut: " + cut[0].textContent : "whole");
  table.querySelector("button.trace").click();
  out.push(document.querySelector("#trace pre").textContent.split("\\n")[0]);
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
  out.push(document.getElementById("trace").hidden ? "closed" : "open");
  document.body.setAttribute("data-seen", out.join("|"));
});
</script>
"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(text, tmp_path, width):
    inner = tmp_path / "report.html"
    inner.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    # A window of a headless browser has a least width; a frame has not.
    outer = tmp_path / "frame.html"
    outer.write_text(
        f'<iframe src="report.html" width="{width}" height="800"></iframe><script>'
        "addEventListener('load', function () {"
        "document.title = document.querySelector('iframe').contentDocument.body.dataset.seen;"
        "});</script>"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (seen,) = re.findall("<title>(.*?)</title>", done.stdout)
    assert seen == "descending|Oracle|ascending|RankNet, shuffled teacher (!)|fits|whole|" \
        "RankNet, shuffled teacher|closed"  # fmt: skip
