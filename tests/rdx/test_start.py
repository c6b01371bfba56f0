"""How a process of rdx begins and ends."""

import json
import os
import subprocess
import sys

import pandas as pd

from rdx import late, students
from rdx.artifacts import Evaluated
from rdx.config import ROOT
from rdx.stages import LAST, cells
from rdx.store import Store
from rdx.students.heads import OWN
from tests import records

COUNTED = """
import atexit, gc, json, weakref

full = lambda: gc.get_stats()[2]["collections"]
at_exit = lambda: print(json.dumps({**seen, "frozen": gc.get_freeze_count()}))
atexit.register(at_exit)  # what is registered first runs last
from rdx.__main__ import collect_rarely

young = gc.get_threshold()[:2]
collect_rarely()
collect_rarely()  # as a worker does that runs two cells
before = full()
import torch, pandas

class Loop:
    def __init__(self):
        self.me = self

dead = weakref.ref(Loop())
kept = [[] for _ in range(2 * young[0] * young[1])]
seen = {"during": full() - before, "loop": dead() is None, "young": gc.get_threshold()[:2] == young}
"""


def test_a_start_has_no_full_collections_and_young_garbage_is_still_collected():
    command = [sys.executable, "-c", COUNTED]
    seen = json.loads(subprocess.check_output(command, cwd=ROOT, text=True))
    assert seen["during"] == 0
    assert seen["loop"] and seen["young"]
    assert seen["frozen"] > 100_000  # what the end of the process need not go through


# What takes longest to import; a cell that is stored needs none of it.
HEAVY = {
    "torch", "transformers", "accelerate", "tokenizers", "mlflow", "sqlalchemy", "ir_datasets",
    "openai", "httpx", "bm25s", "statsmodels", "sklearn", "matplotlib", "huggingface_hub",
}  # fmt: skip
RUN = """
import atexit, json, runpy, sys

atexit.register(lambda: print("\\n" + json.dumps(sorted(sys.modules))))
sys.argv[0] = "rdx"
runpy.run_module("rdx", run_name="__main__")
"""


def run(folder, *arguments: str) -> tuple[str, set[str]]:
    """What `python -m rdx` prints, and what packages it imports."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text, found = done.stdout.rstrip().rsplit("\n", 1)
    return text, {name.partition(".")[0] for name in json.loads(found)}


def test_a_stored_cell_is_found_without_what_trains_and_records(world, tmp_path):
    overrides = world.overrides(tmp_path / "store")
    [cell] = cells(overrides)
    facts = records.trial(cell.signature, cell.cfg["seed"], {"files": records.collection()})
    values = pd.DataFrame({"query_id": ["q"], "value": [0.5]})

    def evaluated(folder):
        Evaluated.write(folder, facts, values, cell.cfg)

    Store(tmp_path / "store").cached(LAST.stage, cell.signature, evaluated)
    text, modules = run(tmp_path, *overrides)
    assert f"signature: {cell.signature}" in text
    assert not modules & HEAVY


def test_help_is_shown_without_them(tmp_path):
    text, modules = run(tmp_path, "--help")
    assert "sampler" in text
    assert not modules & HEAVY


def test_names_of_a_package_are_imported_when_asked_for():
    code = (
        "import sys; from rdx import students, teachers, trainer; before = set(sys.modules);"
        "assert 'torch' not in before and 'rdx.students.encoder' not in before;"
        "students.CrossEncoder, teachers.Local, trainer.fit;"
        "assert 'torch' in sys.modules and students.CrossEncoder.__module__ in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert students.HEADS == (*students.settings.CLASSIFIERS, *OWN)
    try:
        students.Nobody  # noqa: B018
    except AttributeError as error:
        assert "Nobody" in str(error)
    else:
        raise AssertionError
    json_late = late.module("json")
    assert json_late.dumps([1]) == "[1]" and not hasattr(json_late, "nothing")
