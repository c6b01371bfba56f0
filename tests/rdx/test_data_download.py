"""Downloads over a loopback server that cuts connections, knows ranges or not, and lies."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rdx.data.download import DownloadError, download, locked, md5_of

BODY = bytes(range(256)) * 40
MD5 = hashlib.md5(BODY).hexdigest()


class Server:
    """Serves BODY at every address; `cut` bytes per answer, `status` of the first answers."""

    def __init__(self):
        self.cut, self.ranges, self.failures, self.asked, self.agents = None, True, [], [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/file"

    def answer(self, request):
        given = request.headers.get("Range")
        self.asked.append(given)
        self.agents.append(request.headers.get("X-Test"))
        if self.failures:
            request.send_error(self.failures.pop(0))
            return
        start = int(given.removeprefix("bytes=").removesuffix("-")) if given and self.ranges else 0
        if start >= len(BODY):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(BODY)}")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        request.send_header("Content-Length", str(len(BODY) - start))
        request.end_headers()
        end = len(BODY) if self.cut is None else start + self.cut
        request.wfile.write(BODY[start:end])
        request.close_connection = True


@pytest.fixture
def server():
    one = Server()
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_a_file_is_fetched_and_checked(server, tmp_path):
    path = tmp_path / "folder" / "file"
    download(server.address, path, [MD5], {"X-Test": "yes"})
    assert path.read_bytes() == BODY and md5_of(path) == MD5
    assert server.agents == ["yes"]
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_cut_connection_is_gone_on_from(server, tmp_path):
    server.cut = 4000
    download(server.address, tmp_path / "file", [MD5], pause=0)
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.asked == [None, "bytes=4000-", "bytes=8000-"]


def test_what_a_killed_process_left_is_gone_on_from(server, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY[:1000])
    download(server.address, tmp_path / "file", [MD5])
    assert (tmp_path / "file").read_bytes() == BODY and server.asked == ["bytes=1000-"]
    (tmp_path / "again.part").write_bytes(BODY)  # killed between the last byte and the renaming
    download(server.address, tmp_path / "again", [MD5])
    assert (tmp_path / "again").read_bytes() == BODY


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"something else")
    download(server.address, tmp_path / "file", [MD5])
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY + b"more")
    download(server.address, tmp_path / "file", [MD5], pause=0)
    assert (tmp_path / "file").read_bytes() == BODY


def test_another_sum_is_refused_with_both(server, tmp_path):
    with pytest.raises(DownloadError, match=f"md5 {MD5}, expected 0a or 0b; the file is kept as"):
        download(server.address, tmp_path / "file", ["0a", "0b"])
    assert [one.name for one in tmp_path.iterdir()] == ["file.refused"]
    download(server.address, tmp_path / "file", ["0a", MD5])  # one of several sums is enough
    download(server.address, tmp_path / "unchecked")
    assert (tmp_path / "unchecked").read_bytes() == BODY


def test_errors_of_the_server(server, tmp_path):
    server.failures = [503, 500]
    download(server.address, tmp_path / "file", [MD5], pause=0)
    assert len(server.asked) == 3
    server.failures = [404]
    with pytest.raises(DownloadError, match=r"/file: 404 Not Found"):
        download(server.address, tmp_path / "other", [MD5], pause=0)
    server.asked, server.cut = [], 0
    (tmp_path / "cut.part").write_bytes(BODY[:10])
    with pytest.raises(DownloadError, match="10 bytes are kept in .*the same command goes on"):
        download(server.address, tmp_path / "cut", [MD5], pause=0)
    assert server.asked == ["bytes=10-"] * 5


def test_who_waits_for_a_lock_says_what_for(tmp_path, capfd):
    entered = []

    def second():
        with locked(tmp_path / "a" / "lock", "msmarco"):
            entered.append(True)

    with locked(tmp_path / "a" / "lock", "msmarco"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(1.5)
        assert not entered
    thread.join()
    assert entered and "waiting for another process that fetches msmarco" in capfd.readouterr().out
