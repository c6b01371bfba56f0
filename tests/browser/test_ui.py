"""MLflow's pages in a browser that is new to them: what a user sees of a grid and its cells.

Needs playwright and a Chromium (of the system, or CHROMIUM=PATH).
"""

import importlib.util
import os
import re
import shutil

import pytest

from tests.scripts import script

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium"),
    pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="no playwright"),
]


@pytest.fixture(scope="module")
def shots():
    return script("screenshots")


@pytest.fixture(scope="module")
def grid(shots, tmp_path_factory):
    """A page of a browser that remembers nothing, the addresses, and what was recorded."""
    folder = tmp_path_factory.mktemp("ui")
    recorded = shots.record_grid(folder)
    with shots.served(recorded.tracking, folder) as address, shots.opened(CHROMIUM) as page:
        yield page, shots.pages(address, recorded), recorded


def visit(page, address):
    page.goto("about:blank")
    page.goto(address)


def test_the_experiment_opens_among_model_training_at_its_runs(grid):
    page, pages, _ = grid
    visit(page, pages["mlflow_experiment"])
    page.get_by_role("heading", name="Runs").wait_for()
    assert "/runs?" in page.url
    page.get_by_role("link", name="Models", exact=True).wait_for()
    assert page.get_by_role("link", name="Sessions").count() == 0  # of the GenAI mode


def test_the_page_of_a_grid_begins_with_its_best_row_and_leads_to_all_cells(shots, grid):
    page, pages, recorded = grid
    visit(page, pages["mlflow_grid"])
    best = page.get_by_text(re.compile(r"nDCG@10 0\.\d{4}: colbert adr_mse, mean of 2 seeds"))
    best.first.wait_for()
    assert best.first.is_visible()  # above the fold of "Show more"
    page.get_by_text("0_score/nDCG_at_10").first.wait_for()
    for name in ("bm25 ranknet seed=1", "bm25 ranknet seed=2", "random adr_mse seed=1"):
        assert page.get_by_role("link", name=name).first.is_visible()
    home = pages["mlflow_grid"].partition("#")[0]
    ways = page.get_by_role("link", name=re.compile("^(table, best first|charts)$")).all()
    links = {f"{home}#{way.get_attribute('href').partition('#')[2]}" for way in ways}
    assert links == {pages["mlflow_cells"], pages["mlflow_charts"]}
    report = page.get_by_role("link", name="report with tests").get_attribute("href")
    page.get_by_text(shots.CLAIM).first.wait_for()
    visit(page, f"{home}#{report.partition('#')[2]}")
    page.frame_locator("iframe").get_by_text("Report of the grid").wait_for()


def test_the_table_lists_all_cells_best_first_with_what_varies(shots, grid):
    page, pages, recorded = grid
    visit(page, pages["mlflow_cells"])
    page.get_by_text("12 matching runs").wait_for()
    cells = page.get_by_role("link", name=re.compile(r"seed=\d"))
    cells.first.wait_for()
    assert cells.first.inner_text().startswith("colbert adr_mse seed=")
    shown = set(page.get_by_role("columnheader").all_inner_texts())
    assert {"0_score/nDCG_at_10", "loss", "sampler", "seed"} <= shown


def test_charts_begin_with_the_declared_measure_and_end_with_the_machine(grid):
    page, pages, _ = grid
    visit(page, pages["mlflow_charts"])
    first, others, last = "0_score", ("RR_at_10/first_stage", "distill"), "System metrics"
    page.get_by_text(first, exact=True).first.wait_for()
    page.get_by_text(last, exact=True).first.wait_for()
    lines = page.inner_text("body").splitlines()
    assert [line for line in lines if line in (first, *others, last)] == [first, *others, last]


def test_a_child_has_its_metrics_and_a_description(grid):
    page, pages, recorded = grid
    name = "bm25 adr_mse seed=2"
    visit(page, pages["mlflow_grid"].replace(recorded.grid, recorded.runs[name]))
    page.get_by_text(name).first.wait_for()
    page.get_by_text("0_score/nDCG_at_10").first.wait_for()
    page.get_by_text("nDCG_at_10/student/dl19").first.wait_for()
    page.get_by_role("link", name="per_query.parquet").first.wait_for()
