"""An installed rdx, far from the checkout: its data, the user's own, and where it writes."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from rdx import config

ROOT = Path(__file__).parents[2]
FOLDERS = ("rdx", "analysis", "hydra_plugins", "conf", "experiments")
FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
COPIED = ("CITATION.cff", "constraints.txt")
ROWS = [
    {"name": "BM25", "system": "first_stage"},
    {"name": "Mine", "grid": "mine"},
    {"name": "RankNet", "grid": "ranknet"},
]
# Twice a loss of rdx. Adam does not see that, but for its epsilon.
LOSS = '''
from rdx.losses import RankNet


class Twice(RankNet):
    """RankNet, twice."""

    def __call__(self, *lists, **more):
        return 2 * super().__call__(*lists, **more)
'''
DECLARED = {"RDX_EXTENSIONS": "my_losses"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files that packages are built from."""
    folder = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, *COPIED):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def packages(source, tmp_path_factory):
    """The packages of an environment that holds the wheel, and no checkout."""
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
    others = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n")
    return packages


@pytest.fixture
def run(packages, tmp_path):
    """Start an installed program in an empty folder."""

    def start(program, *arguments, **variables):
        settings = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **variables}
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | settings
        command = [str(packages.parents[2] / "bin" / program), *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return start


@pytest.fixture
def own(tmp_path, world):
    """The working folder with a class, an option and an experiment of the user's own."""
    (tmp_path / "my_losses.py").write_text(LOSS)
    loss = tmp_path / "conf" / "loss" / "twice.yaml"
    loss.parent.mkdir(parents=True)
    loss.write_text("_target_: my_losses.Twice\n")
    cell = world.overrides("store", "prefinetune=none")
    tiny = [override for override in cell if "tracking" not in override]
    spec = {
        "name": "mine",
        "claim": "twice a loss is no other loss",
        "grid": {"mine": [*tiny, "loss=twice"], "ranknet": [*tiny, "loss=ranknet"]},
        "measures": ["nDCG@10"],
        "baseline": "BM25",
        "family": "collection",
        "rows": ROWS,
    }
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(yaml.safe_dump({"spec": spec}))
    return tmp_path


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_what_it_says_in_an_empty_folder(run, packages, tmp_path):
    shown = run("rdx", "--help")
    assert shown.returncode == 0
    for group in ("experiments", "conf/loss", "conf/student/lora"):
        options = ", ".join(sorted(path.stem for path in (ROOT / group).glob("*.yaml")))
        assert f"{group.removeprefix('conf/')}: {options}" in shown.stdout.splitlines()
    project = (ROOT / "pyproject.toml").read_text()
    version = run("python", "-m", "rdx", "--version").stdout
    assert version.startswith("rdx ") and f'version = "{version.split()[1]}"' in project
    wrong = run("rdx", "loss=ranknt")
    assert wrong.returncode == 1 and "ranknet" in wrong.stderr and not wrong.stdout
    assert run("rdx-analysis", "dem").returncode == 2
    code = "import rdx, analysis; print(rdx.__file__, analysis.__file__)"
    assert run("python", "-c", code).stdout.count(str(packages)) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_grid_of_the_users_own_writes_into_the_working_folder_alone(run, own, packages):
    before = listing(packages)
    done = run("rdx", "+experiments=experiments/mine.yaml", "tracking=none", **DECLARED)
    assert done.returncode == 0, done.stderr
    assert "2 cells finished" in done.stdout
    assert len(list((own / "store" / "evaluate").glob("*/manifest.json"))) == 2
    assert listing(packages) == before


@pytest.mark.slow
def test_workers_and_the_analysis_know_the_users_own(run, own, packages):
    before = listing(packages)
    spec = shutil.copy(own / "experiments" / "mine.yaml", own / "elsewhere.yaml")
    done = run("rdx", "+experiments=mine", "hydra/launcher=joblib", **DECLARED)
    assert done.returncode == 0, done.stderr
    for name in ("mine", spec):
        table = run("rdx-analysis", name, "--out", own / "tables", **DECLARED)
        assert table.returncode == 0, table.stderr
        rows = (own / "tables" / "table.csv").read_text().splitlines()
        assert {row["name"] for row in ROWS} <= {line.split(",")[1] for line in rows}
        shutil.rmtree(own / "tables")
    assert listing(packages) == before


def test_the_source_distribution_makes_the_same_wheel(source, packages, tmp_path):
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {name.split("/", 1)[-1] for name in tar.getnames()}
    data = [path for folder in ("conf", "experiments") for path in (ROOT / folder).rglob("*.yaml")]
    names = {str(path.relative_to(ROOT)) for path in data} | set(COPIED)
    templates = (ROOT / "analysis" / "render" / "templates").iterdir()
    assert names | {str(path.relative_to(ROOT)) for path in templates} <= held
    for name in held:
        if "/templates/" in name and not name.endswith("/"):
            assert (packages / name).read_bytes() == (ROOT / name).read_bytes()
    for name in names:
        assert (packages / "rdx" / name).read_bytes() == (ROOT / name).read_bytes()


# --- where options are looked for, in this process ---


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A working folder with own options, one of them in the place of one of rdx."""
    for group, name, text in [
        ("conf/loss", "mine", "_target_: rdx.losses.ListNet\ntemperature: 3.0\n"),
        ("conf/loss", "adr_mse", "_target_: rdx.losses.RankNet\ntemperature: 9.0\n"),
        ("conf/model", "big", "_target_: somebody.Else\n"),  # of another program
        ("store/evaluate", "0123", "a: 1\n"),
        ("experiments", "mine", "spec:\n  grid:\n    a: ['loss=mine,adr_mse,ranknet']\n"),
    ]:
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(text)
    (tmp_path / "conf" / "config.yaml").write_text("who: another program\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_own_options_come_first_and_rdx_has_the_others(study):
    losses = [cell.cfg["loss"] for cell in config.cells("mine")]
    assert losses == [
        {"_target_": "rdx.losses.ListNet", "temperature": 3.0},
        {"_target_": "rdx.losses.RankNet", "temperature": 9.0},
        {"_target_": "rdx.losses.RankNet", "temperature": 1.0, "weights": "none"},
    ]
    assert [cell.levels["loss"] for cell in config.cells("mine")] == ["mine", "adr_mse", "ranknet"]


def test_hydra_itself_composes_the_same(study, rdx):
    done = rdx(["loss=mine", "seed=3", "--cfg", "job", "--resolve"], study)
    composed = config.composed(["loss=mine", "seed=3"])
    assert yaml.safe_load(done.stdout) == OmegaConf.to_container(composed, resolve=True)


def test_own_options_may_be_excluded_and_misspelt_ones_not(study):
    grid = ["loss=mine,ranknet"]
    possible, left_out = config.split([*grid, "+exclude=[{loss:mine}]"])
    assert [cell.levels["loss"] for cell in possible] == ["ranknet"] and len(left_out) == 1
    with pytest.raises(config.ConfigError, match="'mine'"):
        config.split([*grid, "+exclude=[{loss:mien}]"])


def test_the_working_folder_is_no_search_path(study):
    for override in ("+store=0123", "+store/evaluate=0123", "+conf/loss=mine"):
        with pytest.raises(config.ConfigError):
            config.cells([override])


@pytest.mark.parametrize("place", ["mine", "experiments/mine.yaml", "./a b/c.yaml", "/c.yaml"])
def test_an_experiment_is_named_or_found_by_its_path(study, tmp_path_factory, place):
    if place.endswith("c.yaml"):
        away = tmp_path_factory.mktemp("away") if place.startswith("/") else study
        path = Path(f"{away}/{place}")
        path.parent.mkdir(exist_ok=True)
        shutil.copy("experiments/mine.yaml", path)
        place = str(path) if place.startswith("/") else place
    assert len(config.cells(place)) == 3


@pytest.mark.parametrize(
    "text", [b"a: [1\nb: 2\n", b"- 1\n", b"3\n", b"\xff: 1\n", b"a: ${b\n", b""]
)
def test_what_is_no_option_is_refused_by_its_name(study, text):
    (study / "conf" / "loss" / "bad.yaml").write_bytes(text)
    with pytest.raises(config.ConfigError) as refused:
        for cell in config.cells(["loss=bad"]):
            config.check(cell)
    assert "conf/loss/bad.yaml" in str(refused.value) or "loss=bad" in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3
