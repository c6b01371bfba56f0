"""What is wrong with a machine is found, and told with a cure."""

import contextlib
import http.server
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading

import pytest
from served_model import free_port

from rdx import assets, commands, doctor, faults
from rdx.doctor import ERROR, NOTE, OK, WARNING, machine, places


def one(found):
    [finding] = found
    return finding


def states(found):
    return [(finding.about, finding.state) for finding in found]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


# --- the whole ---


def test_a_cell_that_runs(world, tmp_path, capsys):
    commands.doctor(world.overrides(tmp_path / "store"))
    shown = capsys.readouterr().out
    assert "this runs" in shown and "0 errors" in shown
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_what_stops_a_cell_ends_with_status_1_and_json(world, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    (tmp_path / "store").write_text("in the way")
    line = [*world.overrides(tmp_path / "store"), "teacher=rankgpt", "teacher.backend.model=m"]
    with pytest.raises(SystemExit) as end:
        commands.doctor(["--json", *line])
    assert end.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] is False
    wrong = {f["about"]: f for f in told["findings"] if f["state"] == "error"}
    assert set(wrong) == {"store", "key"}
    assert "is a file" in wrong["store"]["told"] and "store=FOLDER" in wrong["store"]["cure"]
    assert "export OPENAI_API_KEY=" in wrong["key"]["cure"]


def test_a_configuration_that_does_not_compose_is_a_finding():
    found = doctor.examine(["loss=nope"])
    assert found[-1].about == "configuration" and found[-1].state == ERROR
    assert "nope" in found[-1].told


def test_a_bad_value_is_a_finding_and_the_rest_is_examined(tmp_path):
    found = doctor.examine(["seed=1,2", "trainer.batch=0", f"store={tmp_path}", "tracking=none"])
    wrong = [f for f in found if f.state == ERROR]
    assert one(wrong).about == "configuration" and "trainer.batch=0" in one(wrong).told
    assert ("store", OK) in states(found) or ("store", WARNING) in states(found)


def test_absent_data_name_the_command_that_fetches_them(tmp_path, monkeypatch):
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    line = ["data=ir_datasets", "data.id=vaswani", "tracking=none", f"store={tmp_path / 's'}"]
    program = (  # on its own, for ir_datasets reads the variable once; and without torch
        "import sys; from rdx import config, doctor; cells, _ = config.split(sys.argv[1:]); "
        "print(doctor.text(list(doctor._data(cells, sys.argv[1:]))))"
    )
    done = subprocess.run([sys.executable, "-c", program, *line], capture_output=True, text=True)
    assert "this does not run" in done.stdout, done.stdout + done.stderr
    assert "vaswani is not fetched yet" in done.stdout
    assert f"-> python -m rdx data fetch {' '.join(line)}" in done.stdout


def test_text_counts():
    found = [
        doctor.Finding("a", OK, "fine"),
        doctor.Finding("bcd", WARNING, "slow", "wait\nor run"),
    ]
    assert doctor.text(found) == (
        "ok      a    fine\n"
        "warning bcd  slow\n"
        "             -> wait\n"
        "             -> or run\n"
        "0 errors, 1 warnings: this runs, but see the warnings"
    )
    assert doctor.text([doctor.Finding("a", ERROR, "x")]).endswith("does not run as it stands")


# --- software and machine ---


@pytest.fixture
def project(tmp_path):
    def write(required, pinned):
        names = ", ".join(json.dumps(name) for name in required)
        (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = [{names}]\n")
        (tmp_path / "constraints.txt").write_text("\n".join(["# versions", *pinned]) + "\n")
        return tmp_path

    return write


def test_packages_against_what_is_required_and_pinned(project):
    import filelock
    import psutil

    right = [f"psutil=={psutil.__version__}", f"filelock=={filelock.__version__} # why"]
    found = machine.packages(project(["psutil>=1", "filelock"], right))
    assert states(found) == [("packages", OK)]
    found = list(machine.packages(project(["psutil>=999", "no-such-thing", "filelock"], right)))
    assert states(found) == [("packages", ERROR)]
    assert "psutil is" in found[0].told and ">=999 is needed" in found[0].told
    assert "no-such-thing is not installed" in found[0].told and "constraints" in found[0].cure
    found = machine.packages(project(["psutil>=1"], ["psutil==1.0", "not-installed==3"]))
    other = one(found)
    assert other.state == WARNING and f"psutil {psutil.__version__} (tested: 1.0)" in other.told


def test_builds_of_a_version_are_that_version(project):
    import torch

    plain = torch.__version__.partition("+")[0]
    found = machine.packages(project(["torch"], [f"torch=={plain}"]))
    assert states(found) == [("packages", OK)]


def test_without_project_files_the_installed_metadata_tells_what_is_required(tmp_path):
    assert states(machine.packages(tmp_path)) == [("packages", OK)]


def test_optional_packages():
    absent = machine.optional([("no_such_module", "extension.Teacher"), ("json", "y")] * 2)
    finding = one(absent)
    assert finding.state == ERROR and finding.cure == "pip install no_such_module"


@pytest.mark.parametrize(
    ("module", "extra"),
    [("openai", "llm"), ("peft", "lora"), ("fast_plaid", "plaid"), ("numpy", ""), ("no_such", "")],
)
def test_the_extra_of_a_package_is_read_from_the_metadata(module, extra):
    assert faults.extra_of(module) == extra


def test_memory_of_the_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("2500000000\n")
    finding = one(machine.memory())
    assert finding.state == WARNING and finding.told == "0.5 of 3.0 GB free" and finding.cure
    (tmp_path / "memory.max").write_text("max\n")
    assert "0.5 of 3.0" not in one(machine.memory()).told


def test_a_gpu_that_is_wanted_and_not_there():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    finding = one(machine.gpus({"auto", "cuda"}, {"bf16"}))
    assert finding.state == ERROR and "trainer.device=cuda" in finding.told and finding.cure
    assert one(machine.gpus({"auto", "cpu"}, {"bf16"})).state in (NOTE, WARNING)


@pytest.mark.gpu
def test_a_gpu_that_is_there():
    import torch

    found = list(machine.gpus({"cuda"}, {"bf16"}))
    assert ERROR not in {f.state for f in found}
    assert torch.cuda.get_device_name(0) in found[0].told


def test_the_compiler(monkeypatch, tmp_path):
    assert list(machine.compiler(False)) == []
    monkeypatch.setenv("CXX", "/no/such/compiler")
    finding = one(machine.compiler(True))
    assert finding.state == ERROR and "no C++ compiler" in finding.told
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'cmath: no such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    finding = one(machine.compiler(True))
    assert finding.state == ERROR and "cmath: no such file" in finding.told


@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler here")
def test_a_compiler_that_compiles(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    assert one(machine.compiler(True)).state == OK


def test_variables_that_make_loading_unsafe(monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    assert list(machine.switches()) == []
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert one(machine.switches()).state == WARNING


# --- places ---


def test_a_folder_that_is_not_there_yet(tmp_path):
    finding = one(places.folder("store", tmp_path / "a" / "b", "store"))
    assert finding.state in (OK, WARNING) and "to be made" in finding.told
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def mounted(place, options):
    """A small disk in memory; skips where this user may not make one."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(tmp_path):
    with mounted(tmp_path / "disk", "size=2m") as disk:
        assert one(places.folder("store", disk, "store")).state == ERROR  # room for the probe only
        with contextlib.suppress(OSError), (disk / "filled").open("wb") as file:
            file.write(bytes(4 << 20))
        finding = one(places.folder("store", disk / "store", "store"))
        assert finding.state == ERROR and "No space left" in finding.told
        assert "df -h" in finding.cure
        assert [p.name for p in disk.iterdir()] == ["filled"]


def test_a_read_only_disk(tmp_path):
    with mounted(tmp_path / "disk", "ro,size=1m") as disk:
        finding = one(places.folder("store", disk, "store"))
        assert finding.state == ERROR and "Read-only file system" in finding.told
        [lock] = list(places.locks(disk)) or [None]
        assert lock is None or lock.state == WARNING


def test_little_room(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(places, "LITTLE", free + (1 << 40))
    assert one(places.folder("store", tmp_path, "store")).state == WARNING
    monkeypatch.setattr(places, "FULL", free + (1 << 40))
    assert one(places.folder("store", tmp_path, "store")).state == ERROR
    monkeypatch.setattr(places, "LITTLE", 0)
    monkeypatch.setattr(places, "FULL", 0)
    assert one(places.folder("store", tmp_path, "store")).state == OK


def test_locks(tmp_path):
    assert one(places.locks(tmp_path)).state == OK
    assert list(tmp_path.iterdir()) == [] and list(places.locks(tmp_path / "absent")) == []


def test_locks_that_do_not_hold(tmp_path, monkeypatch):
    class Granted:
        def __init__(self, *_, **__):
            pass

        def acquire(self, timeout):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(places, "SoftFileLease", Granted)
    finding = one(places.locks(tmp_path))
    assert finding.state == WARNING and "granted twice" in finding.told


def test_models(tmp_path, monkeypatch):
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    name = "asset:all-MiniLM-L6-v2"
    assert one(places.model(name, "student.model")).state == NOTE
    assert not assets.present(name) and not (tmp_path / "cache").exists()
    finding = one(places.model("somebody/no-such-model", "student.model"))
    assert finding.state == ERROR and "HF_HUB_OFFLINE" in finding.cure
    assert one(places.model("/no/such/folder", "student.model")).state == ERROR
    model = tmp_path / "model"
    model.mkdir()
    (model / "pytorch_model.bin").write_bytes(b"x")
    assert one(places.model(str(model), "student.model")).state == WARNING
    (model / "model.safetensors").write_bytes(b"x")
    assert one(places.model(str(model), "student.model")).state == OK


# --- services ---


@pytest.fixture
def server():
    """A server whose status and wait a test sets; it notes what it was told."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 (its name is the library's)
            self.server.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(self.server.status)
            if self.server.status == 302:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.status, one.asked = 200, []
    one.url = f"http://127.0.0.1:{one.server_port}"
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    yield one
    one.shutdown()
    one.server_close()


def test_tracking_servers(server, monkeypatch):
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    assert one(places.tracking({"uri": server.url})).state == OK
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    server.status = 401
    finding = one(places.tracking({"uri": server.url + "/"}))
    assert finding.state == WARNING and "HTTP 401" in finding.told
    assert server.asked == [("/health", None), ("/health", "Bearer abc")]
    finding = one(places.tracking({"uri": f"http://127.0.0.1:{free_port()}"}))
    assert finding.state == WARNING and "cannot be reached" in finding.told
    assert "training goes on" in finding.told and "mlflow server" in finding.cure
    assert one(places.tracking({"_target_": "rdx.tracking.NoTracking"})).state == NOTE


def test_a_tracking_file(tmp_path):
    path = tmp_path / "mlflow.db"
    assert one(places.tracking({"uri": f"sqlite:///{path}"})).about == "tracking"
    assert not path.exists()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (a)")
    before = path.read_bytes()
    assert one(places.tracking({"uri": f"sqlite:///{path}"})).state == OK
    assert path.read_bytes() == before
    path.write_bytes(b"no database at all " * 100)
    finding = one(places.tracking({"uri": f"sqlite:///{path}"}))
    assert finding.state == WARNING and "not a database" in finding.told


def backend(url, variable="RDX_TEST_KEY"):
    return {"model": "m", "base_url": url, "key_variable": variable}


def test_keys_and_teachers(server, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("RDX_TEST_KEY", raising=False)
    assert one(places.service(backend(None))).state == ERROR
    assert states(places.service(backend(server.url))) == [("key", NOTE), ("teacher", OK)]
    monkeypatch.setenv("RDX_TEST_KEY", "with space")
    finding = one(places.service(backend(server.url)))
    assert finding.state == ERROR and "with space" not in finding.told + finding.cure
    monkeypatch.setenv("RDX_TEST_KEY", "good-key")
    for status, state in ((200, OK), (404, OK), (500, OK), (401, ERROR), (403, ERROR), (302, OK)):
        server.status = status
        assert states(places.service(backend(server.url))) == [("key", OK), ("teacher", state)]
    assert {path for path, _ in server.asked} == {"/models"}  # no redirection was followed
    assert server.asked[-1][1] == "Bearer good-key"
    found = list(places.service(backend(f"http://127.0.0.1:{free_port()}/v1")))
    assert states(found) == [("key", OK), ("teacher", ERROR)]
    assert "good-key" not in repr(found)


def test_a_server_that_does_not_answer(monkeypatch):
    import socket

    monkeypatch.setattr(places, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        finding = one(places.tracking({"uri": url}))
    assert finding.state == WARNING and finding.told.startswith(url)


def test_rights_are_missed(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    finding = one(places.folder("store", tmp_path, "store"))
    assert finding.state == ERROR and "Permission denied" in finding.told
