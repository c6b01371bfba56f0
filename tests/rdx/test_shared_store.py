"""What a cell leaves can be read by others as the umask says, and without a right to write."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.rdx.conftest import ROOT

OTHER = 54321  # a user, and a group


@pytest.fixture(params=[0o022, 0o027], ids=oct)
def finished(request, world, rdx, tmp_path):
    """A folder with the store, the record and the export of a cell made under a umask."""
    before = os.umask(request.param)
    try:
        rdx(["-m", *world.recorded("store", "seed=1,2")], tmp_path, status=0)
        manifest, _ = tmp_path.glob("store/evaluate/*/manifest.json")
        rdx(["export", manifest.parent.name, "out"], tmp_path, status=0)
    finally:
        os.umask(before)
    return request.param, tmp_path, manifest.parent.name


@pytest.mark.slow
def test_every_file_has_the_permissions_of_the_umask(finished):
    umask, folder, _ = finished
    paths = list(folder.rglob("*"))
    assert {path.name for path in paths} >= {"store", "out", "mlflow.db", "model.safetensors"}
    wrong = {
        str(path.relative_to(folder)): oct(path.stat().st_mode & 0o777)
        for path in paths
        if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert not wrong


READS = """
import sys
from analysis import trials
from rdx import stages
print(len(trials.collect(stages.cells(sys.argv[2:]), sys.argv[1]).frame), "values")
"""


@pytest.mark.slow
@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="not root, or no setpriv"
)
@pytest.mark.parametrize("finished", [0o022], indirect=True)
def test_a_second_user_reads_a_store_that_only_its_owner_may_write(
    finished, world, tmp_path_factory
):
    _, folder, signature = finished
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OTHER, OTHER)
    folder.chmod(0o755)  # pytest's own
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    def ask(*arguments):
        rights = "--bounding-set=-dac_override,-dac_read_search,-fowner"  # as any other user
        own = tmp_path_factory.mktemp("own")
        done = subprocess.run(["setpriv", rights, sys.executable, *map(str, arguments)], cwd=own,
                              capture_output=True, text=True, timeout=200,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
        return own, done.returncode, done.stdout + done.stderr

    store, record = folder / "store", f"sqlite:///{folder / 'mlflow.db'}"
    _, code, said = ask("-c", f"open({str(store / 'mine')!r}, 'w')")
    assert code == 1 and "PermissionError" in said  # it may not write there
    own, code, said = ask("-m", "rdx", "export", signature, "out", "--store", store)
    assert code == 0 and (own / "out" / "model.safetensors").is_file(), said
    _, code, said = ask("-m", "rdx", "status", "--store", store)
    assert code == 0 and "2 cells: 2 finished" in said, said
    cell = world.recorded(store, f"tracking.uri={record}", "seed=1,2")
    _, code, said = ask("-c", READS, record, *cell)
    assert code == 0 and not said.startswith("0 values"), said
    _, code, said = ask("-m", "rdx", "-m", *cell)
    assert code == 0 and "Stages computed: 0" in said, said
    _, code, said = ask("-m", "rdx", "plan", *cell)
    assert code == 0 and "2 finished" in said, said
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    hidden = store / "evaluate" / signature / "per_query.parquet"
    hidden.chmod(0o600)
    for words in (["export", signature, "out", "--store", store], cell[:-1]):
        _, code, said = ask("-m", "rdx", *words)
        assert code == 1 and "Traceback" not in said, said
        assert said.splitlines()[-1].startswith("rdx: ") and str(hidden) in said, said
    hidden.parent.chmod(0o700)
    _, code, said = ask("-m", "rdx", "status", "--store", store)
    assert code == 0 and "1 finished, 1 unreadable" in said and str(hidden.parent) in said, said
    (store / "grids").chmod(0o700)
    for verb in ("status", "retry"):
        _, code, said = ask("-m", "rdx", verb, "--store", store)
        assert code == 1 and said == f"{said.splitlines()[0]}\n" and "grids" in said, said
    (folder / "mlflow.db").chmod(0o600)
    _, code, said = ask("-m", "analysis", "demo", "--tracking-uri", record)
    assert code == 2 and said == f"{said.splitlines()[0]}\n" and "mlflow.db" in said, said
