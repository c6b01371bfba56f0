"""Who may import whom: arrows point one way, and heavy packages stay where they belong.

Every import counts, also those inside functions and under ``TYPE_CHECKING``.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import those of lower layers only: no siblings, nothing above.
LAYERS = (
    {"__init__"},
    {"hub", "collection"},
    {"parts"},
    {
        "rankings",
        "losses",
        "assets",
        "draws",
        "power",
        "precision",
        "devices",
        "bars",
        "ids",
        "memory",
        "heap",
    },
    {"lists", "accounting", "loading"},
    {"tokens", "gguf"},
    {"students"},
    {"data", "samplers", "teachers", "batches"},
    {"trainer", "evaluation"},
    {"public"},
    {"ir_metadata"},
    {"artifacts"},
    {"job"},
    {"stages"},
    {"pipeline", "plan", "progress"},
    {"holdings"},
    {"cleaning", "scored", "show"},
    {"fetching"},
    {"export", "systems"},
    {"adapters"},
    {"doctor"},
    {"commands", "sweeper"},
    {"__main__", "cli"},
)
# Used by the pipeline and whatever is above it; they use nothing but folders and the exceptions of
# rankings.
LEAVES = {"config", "grids", "security", "store", "tracking"}
BASE = {
    "arguments",
    "declared",
    "equality",
    "facts",
    "faults",
    "folders",
    "late",
    "quiet",
    "spread",
    "stopping",
    "text",
}  # everybody may use them
LEAF_USERS = set().union(*LAYERS[9:])
RDX = LEAVES.union(BASE, *LAYERS)

ANALYSIS_MAY_USE = {
    "__init__",
    "rankings",
    "power",
    "config",
    "grids",
    "public",
    "stages",
    "store",
    *BASE,
}  # and trials: tracking
WITHOUT_TORCH = {"folders", "rankings", "config", "store"}
HEAVY = {"torch", "transformers", "accelerate", "mlflow"}


def allowed(module: str) -> set[str]:
    """Return the modules of rdx that a module of rdx may import."""
    if module in BASE:
        return {"__init__", "security", *BASE}
    if module in LEAVES:
        more = {"config": ["grids", "hub", "parts", "precision", "store"], "tracking": ["store"]}
        return {"__init__", "rankings", "security", module, *BASE, *more.get(module, [])}
    level = next(i for i, layer in enumerate(LAYERS) if module in layer)
    return set().union({module}, BASE, *LAYERS[:level], LEAVES if module in LEAF_USERS else set())


def imports(name: str, source: str) -> set[str]:
    """Return the dotted names that a module imports; `name` resolves relative imports.

    The name of a package's __init__ ends in ".__init__". ``from a import b`` gives "a.b".
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: -node.level] if node.level else []
            base += [node.module] if node.module else []
            found.update(".".join([*base, alias.name]) for alias in node.names)
    return found


def violations(name: str, source: str) -> list[str]:
    """Return what a module imports although it must not, as "module -> import"."""
    package, module = name.split(".")[:2]
    wrong = []
    for target in imports(name, source):
        top, *rest = target.split(".")
        part = rest[0] if rest and rest[0] in RDX else "__init__"
        if package == "rdx":
            bad = (
                top == "analysis"
                or (top == "rdx" and part not in allowed(module))
                or (top == "mlflow" and module != "tracking")
                or (top in HEAVY and module in WITHOUT_TORCH)
                or (
                    module == "losses"
                    and top not in {"torch", "pydantic", "rdx", *sys.stdlib_module_names}
                )
            )
        else:
            bad = (
                (top == "rdx" and part not in ANALYSIS_MAY_USE)
                and (module, part) != ("trials", "tracking")
            ) or top in HEAVY
        if bad:
            wrong.append(f"{name} -> {target}")
    return sorted(wrong)


def modules(package: str) -> dict[str, Path]:
    """Return the modules of a package, dotted name -> file."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}


FILES = {**modules("rdx"), **modules("analysis")}


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downwards(name):
    assert violations(name, FILES[name].read_text(encoding="utf-8")) == []


def test_every_module_of_rdx_has_a_layer():
    assert {name.split(".")[1] for name in modules("rdx")} <= RDX


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("rdx.losses", "import numpy", "numpy"),
        ("rdx.losses", "from rdx.rankings import ranked", "rdx.rankings.ranked"),
        ("rdx.rankings", "def f():\n    import torch.nn", "torch.nn"),
        ("rdx.config", "from transformers import AutoModel", "transformers.AutoModel"),
        ("rdx.config", "from rdx import pipeline", "rdx.pipeline"),
        ("rdx.store", "import mlflow", "mlflow"),
        ("rdx.store", "from rdx.config import build", "rdx.config.build"),
        ("rdx.pipeline", "import mlflow", "mlflow"),
        ("rdx.pipeline", "import rdx.commands", "rdx.commands"),
        ("rdx.trainer", "from .evaluation import f", "rdx.evaluation.f"),
        ("rdx.trainer", "from . import store", "rdx.store"),
        ("rdx.data.pydocs", "from ..samplers import BM25", "rdx.samplers.BM25"),
        ("rdx.data.__init__", "from ..pipeline import run", "rdx.pipeline.run"),
        ("rdx.students", "from rdx.teachers import Recorded", "rdx.teachers.Recorded"),
        ("rdx.samplers", "from rdx.teachers import Recorded", "rdx.teachers.Recorded"),
        ("rdx.__main__", "import analysis.tables", "analysis.tables"),
        ("rdx.plan.text", "from analysis import tables", "analysis.tables"),
        ("rdx.grids", "from rdx import config", "rdx.config"),
        ("analysis.tables", "import mlflow.entities", "mlflow.entities"),
        ("analysis.tables", "from rdx.losses import RankNet", "rdx.losses.RankNet"),
        ("analysis.tables", "from rdx import tracking", "rdx.tracking"),
        ("analysis.power", "import torch", "torch"),
        ("rdx.data.files", "if TYPE_CHECKING:\n    from rdx import store", "rdx.store"),
    ],
)
def test_a_forbidden_import_is_found(name, source, target):
    assert violations(name, source) == [f"{name} -> {target}"]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rdx.teachers", "from rdx.students import Student"),
        ("rdx.losses", "from __future__ import annotations\nimport math, torch.nn.functional"),
        ("rdx.pipeline", "from rdx import config, data, evaluation, store, tracking, trainer"),
        ("rdx.trainer", "from rdx.batches import f\nfrom rdx import __version__"),
        ("rdx.data.__init__", "from rdx.data.files import Files\nfrom .pydocs import PyDocs"),
        ("rdx.store", "from rdx.rankings import RankingError"),
        ("rdx.__main__", "from rdx import commands"),
        ("rdx.plan.command", "from rdx.power import sensitivity"),
        ("rdx.config", "from rdx import grids"),
        ("rdx.tracking.runs", "import mlflow"),
        ("analysis.trials", "from rdx import config, tracking\nfrom analysis import tables"),
    ],
)
def test_an_allowed_import_passes(name, source):
    assert violations(name, source) == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("rdx.losses", ("mlflow", "transformers", "pandas")),
        ("rdx.rankings", ("torch", "mlflow", "transformers")),
        ("rdx.config", ("torch", "mlflow", "transformers")),
        ("rdx.store", ("torch", "mlflow", "transformers")),
        ("rdx.commands", ("analysis", "mlflow", "torch")),
        ("rdx.pipeline", ("mlflow", "scipy.stats", "torch.distributed.fsdp")),
    ],
)
def test_what_an_import_really_loads(module, unwanted):
    code = f"import sys, {module}; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
