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
from tests.rdx.conftest import mounted


def one(findings, state=None, *named):
    """The only finding, of a state, which names what it is about."""
    [finding] = findings
    assert state in (None, finding.state), finding
    assert [word for word in named if word not in finding.told + finding.cure] == []
    return finding


def states(findings):
    return [(finding.about, finding.state) for finding in findings]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


# --- the whole ---


def test_a_cell_that_runs(world, tmp_path, capsys):
    commands.doctor(world.overrides(tmp_path / "store"))
    assert "0 errors" in capsys.readouterr().out
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
    assert str(tmp_path / "store") in wrong["store"]["told"] and "store=" in wrong["store"]["cure"]
    assert "OPENAI_API_KEY=" in wrong["key"]["cure"]


def test_a_configuration_that_does_not_compose_is_a_finding():
    assert one(doctor.examine(["loss=nope"])[-1:], ERROR, "nope").about == "configuration"


def test_a_bad_value_is_a_finding_and_the_rest_is_examined(tmp_path):
    findings = doctor.examine(["seed=1,2", "trainer.batch=0", f"store={tmp_path}", "tracking=none"])
    wrong = [finding for finding in findings if finding.state == ERROR]
    assert one(wrong, ERROR, "trainer.batch=0").about == "configuration"
    assert ("store", OK) in states(findings) or ("store", WARNING) in states(findings)


def test_absent_data_name_the_command_that_fetches_them(tmp_path, monkeypatch):
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    line = ["data=ir_datasets", "data.id=vaswani", "tracking=none", f"store={tmp_path / 's'}"]
    program = (  # on its own, for ir_datasets reads the variable once; and without torch
        "import sys; from rdx import config, doctor; cells, _ = config.split(sys.argv[1:]); "
        "print(doctor.text(list(doctor._data(cells, sys.argv[1:]))))"
    )
    done = subprocess.run([sys.executable, "-c", program, *line], capture_output=True, text=True)
    assert "error" in done.stdout and "vaswani" in done.stdout, done.stdout + done.stderr
    assert f"-> python -m rdx data fetch {' '.join(line)}" in done.stdout


def test_text_counts():
    fine = doctor.Finding("a", OK, "fine")
    slow = doctor.Finding("bcd", WARNING, "slow", "wait\nor run")
    *lines, counts = doctor.text([fine, slow]).splitlines()
    assert lines == [
        "ok      a    fine",
        "warning bcd  slow",
        "             -> wait",
        "             -> or run",
    ]
    assert counts.startswith("0 errors, 1 warnings: ")
    assert "\n1 errors, 0 warnings: " in doctor.text([doctor.Finding("a", ERROR, "x")])


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
    assert states(machine.packages(project(["psutil>=1", "filelock"], right))) == [("packages", OK)]
    lacking = machine.packages(project(["psutil>=999", "no-such-thing", "filelock"], right))
    named = ("psutil", ">=999", "no-such-thing", "constraints")
    assert one(lacking, ERROR, *named).about == "packages"
    untested = machine.packages(project(["psutil>=1"], ["psutil==1.0", "not-installed==3"]))
    one(untested, WARNING, f"psutil {psutil.__version__}", "1.0")


def test_builds_of_a_version_are_that_version(project):
    import torch

    plain = torch.__version__.partition("+")[0]
    assert states(machine.packages(project(["torch"], [f"torch=={plain}"]))) == [("packages", OK)]


def test_without_project_files_the_installed_metadata_tells_what_is_required(tmp_path):
    assert states(machine.packages(tmp_path)) == [("packages", OK)]


def test_optional_packages():
    absent = machine.optional([("no_such_module", "extension.Teacher"), ("json", "y")] * 2)
    one(absent, ERROR, "pip install no_such_module")


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        *(("peft", "lora"), ("fast_plaid", "plaid"), ("vllm", "vllm")),
        *(("numpy", ""), ("no_such", "")),
    ],
)
def test_the_extra_of_a_package_is_read_from_the_metadata(module, extra):
    assert faults.extra_of(module) == extra


def test_constraints_hold_where_the_extra_can_keep_to_them():
    for module, command in {
        "peft": "pip install -c constraints.txt -e '.[lora]'",
        "vllm": "pip install -e '.[vllm]'",
        "no_such": "pip install no_such",
    }.items():
        assert faults.installing(module) == command


def test_memory_of_the_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("2500000000\n")
    assert one(machine.memory(), WARNING, "0.5 of 3.0 GB").cure
    (tmp_path / "memory.max").write_text("max\n")
    assert "0.5 of 3.0" not in one(machine.memory()).told


def test_a_gpu_that_is_wanted_and_not_there():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert one(machine.gpus({"auto", "cuda"}, {"bf16"}), ERROR, "trainer.device=cuda").cure
    assert one(machine.gpus({"auto", "cpu"}, {"bf16"})).state in (NOTE, WARNING)


@pytest.mark.gpu
def test_a_gpu_that_is_there():
    import torch

    findings = list(machine.gpus({"cuda"}, {"bf16"}))
    assert ERROR not in {finding.state for finding in findings}
    assert torch.cuda.get_device_name(0) in findings[0].told


def test_the_compiler(monkeypatch, tmp_path):
    assert list(machine.compiler(False)) == []
    monkeypatch.setenv("CXX", "/no/such/compiler")
    one(machine.compiler(True), ERROR, "C++")
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'cmath: no such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    one(machine.compiler(True), ERROR, "cmath: no such file")


@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler here")
def test_a_compiler_that_compiles(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    one(machine.compiler(True), OK)


def test_variables_that_make_loading_unsafe(monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    assert list(machine.switches()) == []
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    one(machine.switches(), WARNING)


# --- places ---


def test_a_folder_that_is_not_there_yet(tmp_path):
    assert one(places.folder("store", tmp_path / "a" / "b", "store")).state in (OK, WARNING)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def disk(request, tmp_path):
    """A small disk in memory, with the options of a test."""
    with mounted(tmp_path, request.param) as there:
        if not there:
            pytest.skip("cannot mount a tmpfs here")
        yield tmp_path


@pytest.mark.parametrize("disk", ["size=2m"], indirect=True)
def test_a_full_disk(disk):
    one(places.folder("store", disk, "store"), ERROR)  # room for the probe only
    with contextlib.suppress(OSError), (disk / "filled").open("wb") as file:
        file.write(bytes(4 << 20))
    one(places.folder("store", disk / "store", "store"), ERROR, "No space left", "df -h")
    assert [p.name for p in disk.iterdir()] == ["filled"]


@pytest.mark.parametrize("disk", ["ro,size=1m"], indirect=True)
def test_a_read_only_disk(disk):
    one(places.folder("store", disk, "store"), ERROR, "Read-only file system")
    [lock] = list(places.locks(disk)) or [None]
    assert lock is None or lock.state == WARNING


def test_little_room(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path).free
    more = free + (1 << 40)
    for little, full, state in ((more, 0, WARNING), (more, more, ERROR), (0, 0, OK)):
        monkeypatch.setattr(places, "LITTLE", little)
        monkeypatch.setattr(places, "FULL", full)
        one(places.folder("store", tmp_path, "store"), state)


def test_locks(tmp_path):
    one(places.locks(tmp_path), OK)
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
    one(places.locks(tmp_path), WARNING, str(tmp_path), "twice")


def test_models(tmp_path, monkeypatch):
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    name = "asset:all-MiniLM-L6-v2"
    one(places.model(name, "student.model"), NOTE)
    assert not assets.present(name) and not (tmp_path / "cache").exists()
    one(places.model("somebody/no-such-model", "student.model"), ERROR, "HF_HUB_OFFLINE")
    one(places.model("/no/such/folder", "student.model"), ERROR)
    model = tmp_path / "model"
    model.mkdir()
    (model / "pytorch_model.bin").write_bytes(b"x")
    one(places.model(str(model), "student.model"), WARNING)
    (model / "model.safetensors").write_bytes(b"x")
    one(places.model(str(model), "student.model"), OK)


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

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.asked = 200, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_tracking_servers(server, monkeypatch):
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    one(places.tracking({"uri": server.url}), OK)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    server.status = 401
    one(places.tracking({"uri": server.url + "/"}), WARNING, "HTTP 401")
    assert server.asked == [("/health", None), ("/health", "Bearer abc")]
    absent = f"http://127.0.0.1:{free_port()}"
    one(places.tracking({"uri": absent}), WARNING, absent, "mlflow server")
    one(places.tracking({"_target_": "rdx.tracking.NoTracking"}), NOTE)


def test_a_tracking_file(tmp_path):
    path = tmp_path / "mlflow.db"
    assert one(places.tracking({"uri": f"sqlite:///{path}"})).about == "tracking"
    assert not path.exists()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (a)")
    before = path.read_bytes()
    one(places.tracking({"uri": f"sqlite:///{path}"}), OK)
    assert path.read_bytes() == before
    path.write_bytes(b"no database at all " * 100)
    one(places.tracking({"uri": f"sqlite:///{path}"}), WARNING, "not a database")


def backend(url, variable="RDX_TEST_KEY"):
    return {"model": "m", "base_url": url, "key_variable": variable}


def test_keys_and_teachers(server, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("RDX_TEST_KEY", raising=False)
    one(places.service(backend(None)), ERROR)
    assert states(places.service(backend(server.url))) == [("key", NOTE), ("teacher", OK)]
    monkeypatch.setenv("RDX_TEST_KEY", "with space")
    assert "with space" not in repr(one(places.service(backend(server.url)), ERROR))
    monkeypatch.setenv("RDX_TEST_KEY", "good-key")
    for status, state in ((200, OK), (404, OK), (500, OK), (401, ERROR), (403, ERROR), (302, OK)):
        server.status = status
        assert states(places.service(backend(server.url))) == [("key", OK), ("teacher", state)]
    assert {path for path, _ in server.asked} == {"/models"}  # no redirection was followed
    assert server.asked[-1][1] == "Bearer good-key"
    findings = list(places.service(backend(f"http://127.0.0.1:{free_port()}/v1")))
    assert states(findings) == [("key", OK), ("teacher", ERROR)]
    assert "good-key" not in repr(findings)


def test_a_server_that_does_not_answer(monkeypatch):
    import socket

    monkeypatch.setattr(places, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        one(places.tracking({"uri": url}), WARNING, url)


def test_rights_are_missed(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    one(places.folder("store", tmp_path, "store"), ERROR, "Permission denied")
