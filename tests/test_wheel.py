"""An installed rdx, far from the checkout: its data, the user's own, and where it writes."""

import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("rdx", "analysis", "hydra_plugins", "conf", "experiments")
FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
MORE = ("CITATION.cff", "constraints.txt")
SPEC = """
spec:
  claim: mine is as good as RankNet
  baseline: RankNet
  rows:
    - {label: Mine, match: {loss: mine}}
    - {label: RankNet, match: {loss: ranknet}}
  grid:
    main: ["loss=mine,ranknet"]
"""
LOSS = 'from rdx.losses import RankNet\n\n\nclass Mine(RankNet):\n    """The same."""\n'


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files that packages are built from."""
    folder = tmp_path_factory.mktemp("source")
    for name in PARTS:
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in (*FILES, *MORE):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def installed(source, tmp_path_factory):
    """Folder with the programs of an environment that holds the wheel, and no checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", symlinks=True)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    offline = ("--no-deps", "--no-index")
    build = ("wheel", *offline, "--no-build-isolation", "-w", str(folder), str(source))
    subprocess.run([*pip, *build], check=True)
    [wheel] = folder.glob("*.whl")
    python = str(folder / "env" / "bin" / "python")
    subprocess.run([*pip, "--python", python, "install", *offline, str(wheel)], check=True)
    [packages] = (folder / "env").glob("lib/python*/site-packages")
    # The dependencies; a .pth file in there, as of an editable rdx, is not read.
    others = [path for path in sys.path if path.endswith("-packages")] or site.getsitepackages()
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n")
    return folder / "env" / "bin"


@pytest.fixture
def run(installed, tmp_path):
    """Start an installed program in an empty folder."""

    def start(program, *arguments, **variables):
        settings = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **variables}
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | settings
        command = [str(installed / program), *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return start


@pytest.fixture
def own(tmp_path):
    """The working folder with a loss, a class and an experiment of the user's own."""
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "mine.yaml").write_text("_target_: my_losses.Mine\n")
    (tmp_path / "my_losses.py").write_text(LOSS)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(SPEC)
    return tmp_path


def test_help_and_version_from_an_empty_folder(run, tmp_path):
    told = run("rdx", "--help")
    assert told.returncode == 0 and "demo" in told.stdout and "ranknet" in told.stdout
    version = run("python", "-m", "rdx", "--version")
    assert version.stdout.split()[0] == "rdx" and "ydra" not in version.stdout
    where = run("python", "-c", "import rdx, analysis, hydra_plugins.rdx_grid as g; "
                "print(rdx.__file__, analysis.__file__, g.__file__)")  # fmt: skip
    assert str(ROOT) not in where.stdout and where.stdout.count("site-packages") == 3
    assert not list(tmp_path.iterdir())


def test_a_misspelt_option_is_refused_with_the_valid_ones(run):
    wrong = run("rdx", "loss=ranknt")
    assert wrong.returncode == 1 and "ranknet" in wrong.stderr


def test_own_options_and_experiments_are_known(run, own):
    declared = {"RDX_EXTENSIONS": "my_losses"}
    shown = run("rdx", "--cfg", "job", "loss=mine", **declared)
    assert "_target_: my_losses.Mine" in shown.stdout
    for name in ("mine", "experiments/mine.yaml", own / "experiments" / "mine.yaml"):
        plan = run("rdx", "plan", f"+experiments={name}", "tracking=none", **declared)
        assert plan.returncode == 0 and plan.stdout.startswith("2 cells: 0 finished, 2 to run")
    assert run("rdx-analysis", "experiments/mine.yaml", **declared).returncode == 2  # no trials
    (own / "conf" / "loss" / "broken.yaml").write_text("a: [b\nc: d\n")
    broken = run("rdx", "loss=broken")
    assert broken.returncode == 1 and "broken.yaml" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_the_source_distribution_holds_the_data(source, tmp_path):
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[-1] for name in tar.getnames()}
    data = [path for folder in ("conf", "experiments") for path in (ROOT / folder).rglob("*.yaml")]
    assert {str(path.relative_to(ROOT)) for path in data} <= names
    assert set(MORE) <= names


@pytest.mark.slow
def test_a_grid_and_its_analysis_write_into_the_working_folder_alone(
    run, own, installed, small_world
):
    env = installed.parent
    before = {path: path.stat().st_mtime_ns for path in env.rglob("*")}
    declared = {"RDX_EXTENSIONS": "my_losses"}
    spec = own / "experiments" / "mine.yaml"
    cell = [one for one in small_world.overrides("store") if one != "tracking=none"]
    grid = [f"    main: {[*cell, 'loss=mine,ranknet']}".replace("'", '"')]
    spec.write_text(SPEC.rpartition("    main:")[0] + "\n".join(grid) + "\n")
    done = run("rdx", "+experiments=mine", "hydra/launcher=joblib", **declared)
    assert done.returncode == 0, done.stderr
    table = run("rdx-analysis", "mine", **declared)
    assert table.returncode == 0 and (own / "results" / "mine" / "table.md").is_file()
    assert {path: path.stat().st_mtime_ns for path in env.rglob("*")} == before
