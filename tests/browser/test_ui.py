"""MLflow's pages in a real browser: a reviewer finds a grid, its cells, their metrics, the report.

Needs playwright and a Chromium (of the system, or CHROMIUM=PATH).
"""

import importlib.util
import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium"),
    pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="no playwright"),
]


@pytest.fixture(scope="module")
def shots():
    spec = importlib.util.spec_from_file_location("shots", ROOT / "scripts" / "screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def grid(shots, tmp_path_factory):
    """A page, the server's address and the ids of the runs."""
    folder = tmp_path_factory.mktemp("ui")
    tracking, ids = shots.record_grid(folder)
    with shots.served(tracking, folder) as address, shots.opened(CHROMIUM) as page:
        shots.prepare(page, ids)
        yield page, address, ids


def test_the_parent_has_its_claim_its_children_and_a_way_to_the_report(shots, grid):
    page, address, ids = grid
    page.goto(f"{address}/#/experiments/{ids['experiment']}/runs/{ids['parent']}")
    page.get_by_text(shots.CLAIM).first.wait_for()
    page.get_by_text("colbert deep adr_mse seed=2").first.wait_for()
    link = page.get_by_role("link", name="analysis/report.html")
    assert link.get_attribute("href").endswith(f"{ids['parent']}/artifacts/analysis/report.html")
    page.goto(
        f"{address}/#/experiments/{ids['experiment']}/runs/{ids['parent']}"
        "/artifacts/analysis/report.html"
    )
    page.frame_locator("iframe").get_by_text("Report of the grid").wait_for()


def test_a_child_has_its_metrics_and_a_description(grid):
    page, address, ids = grid
    name = "bm25 shallow adr_mse seed=2"
    page.goto("about:blank")
    page.goto(f"{address}/#/experiments/{ids['experiment']}/runs/{ids[name]}")
    page.get_by_text(name).first.wait_for()
    page.get_by_text("nDCG_at_10/student/dl19").first.wait_for()
    page.get_by_role("link", name="per_query.parquet").first.wait_for()


def test_the_table_lists_all_cells_best_first(shots, grid):
    page, address, ids = grid
    page.goto("about:blank")
    page.goto(shots.runs_page(address, ids))
    page.get_by_text("25 matching runs").wait_for()
    cells = page.get_by_role("link", name=re.compile(r"seed=\d"))
    cells.first.wait_for()
    assert cells.first.inner_text().startswith("colbert deep")
