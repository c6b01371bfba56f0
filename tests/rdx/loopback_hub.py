"""A Hub on this machine: what huggingface_hub asks of the real one, from folders of files."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "hf_loopback"  # of an account that has access to everything
LARGE = (".safetensors", ".bin")  # these lie elsewhere, and are redirected to


@dataclass
class Repository:
    """Folders by commit, names of commits, and what goes wrong with it."""

    commits: dict[str, Path]
    refs: dict[str, str]
    gated: bool = False
    breaks: dict[str, int] = field(default_factory=dict)  # file -> how often it breaks off
    short: frozenset[str] = frozenset()  # files with fewer bytes than are told

    def commit(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class Hub(ThreadingHTTPServer):
    """Repositories by id; `asked` is every request, as "METHOD path"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, folder: Path, **more) -> str:
        """Make a folder the newest commit of a repository; returns the commit."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digest = hashlib.sha1()
        for path in files:
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        commit = digest.hexdigest()
        known = self.repositories.setdefault(name, Repository({}, {}, **more))
        known.commits[commit] = folder
        known.refs["main"] = commit
        return commit


class Handler(BaseHTTPRequestHandler):
    """Answers as huggingface.co does."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_) -> None:
        pass

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            self._about(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/(large/)?(.+)/resolve/([^/]+)/(.+)", path):
            self._file(found[2], found[3], found[4], elsewhere=bool(found[1]))
        else:
            self._refuse(404, "EntryNotFound")

    def _about(self, name: str, revision: str) -> None:
        found = self._found(name, revision)
        if found is not None:
            known, commit = found
            folder = known.commits[commit]
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            listed = [
                {"rfilename": p.relative_to(folder).as_posix(), "size": p.stat().st_size}
                for p in files
            ]
            about = {"id": name, "sha": commit, "siblings": listed, "private": False}
            body = json.dumps(about | {"gated": "auto" if known.gated else False}).encode()
            self._send(200, body, {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str, elsewhere: bool) -> None:
        found = self._found(name, revision)
        if found is None:
            return
        known, commit = found
        given = self.headers.get("Authorization")
        if known.gated and given != f"Bearer {TOKEN}":
            self._refuse(403 if given else 401, "GatedRepo")
            return
        path = known.commits[commit] / file
        if not path.is_file():
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
            return
        data = path.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"X-Repo-Commit": commit, "ETag": tag, "Accept-Ranges": "bytes"}
        if path.suffix in LARGE and not elsewhere:
            headers |= {"X-Linked-ETag": tag, "X-Linked-Size": str(len(data))}
            self._send(302, b"", headers | {"Location": f"{self.server.address}/large{self.path}"})
            return
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        if file in known.short and self.command == "GET":
            data = data[: len(data) // 2]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = None
        if self.command == "GET" and known.breaks.get(file, 0) > 0:
            known.breaks[file] -= 1
            cut = (len(data) - start) // 2
        self._send(206 if start else 200, data[start:], headers, cut)

    def _found(self, name: str, revision: str) -> tuple[Repository, str] | None:
        known = self.server.repositories.get(name)
        commit = known.commit(revision) if known else None
        if known is None or commit is None:
            self._refuse(404, "RevisionNotFound" if known else "RepoNotFound")
            return None
        return known, commit

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def running():
    """A Hub that answers until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
