"""What the labelling client costs beside the service: python -m benchmarks.labelling [...].

Slides windows of 20 over lists of 100 passages, asked of a server on loopback that answers after
`--latency` seconds and runs in a process of its own, so that its work does not count. Each row is
one client process. The peer sends the same requests by the openai package under a semaphore, reads
the answers with one regular expression, and keeps nothing. Prints Markdown:

- windows per second of the client's own time (user and system, all threads) and of the clock, by
  prompt and lists in flight;
- memory that labelling adds to the process, by number of windows; and what a session takes that
  goes on after a kill at the end, when all windows were answered and nothing was returned.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pandas as pd
import psutil

from benchmarks.texts import DEPTH, ranked_lists, source
from rdx import rankings
from rdx.collection import Collection
from rdx.teachers import Endpoint, Listwise
from rdx.teachers.endpoint import TOKENS_AROUND, TOKENS_PER_PASSAGE
from rdx.teachers.prompts import load
from rdx.teachers.session import Session
from rdx.teachers.windows import applied, positions

PROMPTS = ("multi_turn", "single_turn")
WINDOW, STRIDE = 20, 10
PER_LIST = len(positions(DEPTH, WINDOW, STRIDE))
VARIANTS = 997  # answers that the server knows for each size


@dataclass(frozen=True)
class Task:
    """What one client process does; if it is `killed`, after the last answer."""

    client: str  # "rdx" or "openai"
    prompt: str
    windows: int
    in_flight: int
    url: str
    folder: str
    killed: bool = False


# --- the server ---


class Service(asyncio.Protocol):
    """Just enough of HTTP: reads a request, and answers with some order of its passages later."""

    def __init__(self, latency: float) -> None:
        self.latency, self.received = latency, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer whole requests."""
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head) if end else None
        if length and len(body) >= int(length[1]):
            self.received = b""
            loop = asyncio.get_running_loop()
            loop.call_later(self.latency, self.transport.write, _reply(body))


_ANSWERS: dict[int, list[bytes]] = {}


def _reply(body: bytes) -> bytes:
    limit = re.search(rb'"max_tokens": ?(\d+)', body)
    assert limit is not None
    size = (int(limit[1]) - TOKENS_AROUND) // TOKENS_PER_PASSAGE
    if size not in _ANSWERS:
        draw = random.Random(size)
        _ANSWERS[size] = [_answer(draw.sample(range(1, size + 1), size)) for _ in range(VARIANTS)]
    return _ANSWERS[size][zlib.crc32(body) % VARIANTS]


def _answer(order: list[int]) -> bytes:
    text = " > ".join(f"[{i}]" for i in order)
    message = {"role": "assistant", "content": text}
    reply = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "toy",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2350, "completion_tokens": 90, "total_tokens": 2440},
    }
    content = json.dumps(reply).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


async def serve(latency: float) -> None:
    """Serve for ever; say at which port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Service(latency), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def served(latency: float) -> Iterator[str]:
    """The server in a process of its own, and its address."""
    command = [sys.executable, "-m", "benchmarks.labelling", "--serve", "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.terminate()
        process.wait()


# --- the clients ---


def lists(count: int) -> tuple[Collection, pd.DataFrame]:
    """Lists of 100 passages, those of TREC DL 2019 again and again under other names.

    A query that comes again is numbered, so that no request is asked twice.
    """
    known = ranked_lists()
    queries, passages, rows = {}, {}, []
    for i in range(count):
        query_id, query, texts = known[i % len(known)]
        passages |= {f"{query_id}-{j}": text for j, text in enumerate(texts)}
        queries[f"q{i}"] = f"{query} {i}"
        rows += [(f"q{i}", f"{query_id}-{j}", -float(j)) for j in range(len(texts))]
    none = pd.DataFrame(columns=["query_id", "doc_id", "relevance"])
    return Collection("labelling", queries, passages, none), rankings.rank(*zip(*rows, strict=True))


def label(task: Task, collection: Collection, candidates: pd.DataFrame) -> None:
    """Label with rdx."""
    teacher = Listwise(
        Endpoint("toy", base_url=task.url),
        task.prompt,
        window=WINDOW,
        stride=STRIDE,
        concurrency=task.in_flight,
        ledger=str(Path(task.folder) / "ledger"),
    )
    work = Path(task.folder) / "teach"
    work.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        if task.killed:
            stack.enter_context(contextlib.suppress(KeyboardInterrupt))
            stack.enter_context(
                mock.patch.object(Session, "ranking", side_effect=KeyboardInterrupt)
            )
        assert set(teacher.rank(candidates, collection, work).state) == {"ok"}


def label_by_openai(task: Task, collection: Collection, candidates: pd.DataFrame) -> None:
    """The same requests by the openai package, as a script of one's own would send them."""
    import openai

    prompt = load(task.prompt)

    async def one(
        client: openai.AsyncOpenAI, slots: asyncio.Semaphore, query: str, docs: list[str]
    ):
        order = docs
        async with slots:
            for start, end in positions(len(order), WINDOW, STRIDE):
                texts = [collection.passages[doc_id] for doc_id in order[start:end]]
                reply = await client.chat.completions.create(
                    model="toy",
                    messages=prompt.messages(query, texts),
                    temperature=0,
                    max_tokens=TOKENS_PER_PASSAGE * len(texts) + TOKENS_AROUND,
                )
                text = reply.choices[0].message.content or ""
                named = [int(name) - 1 for name in re.findall(r"\[(\d+)\]", text)]
                order = applied(order, start, named)
        return order

    async def every() -> None:
        slots = asyncio.Semaphore(task.in_flight)
        async with openai.AsyncOpenAI(base_url=task.url, api_key="none") as client:
            groups = candidates.groupby("query_id", sort=False).doc_id
            asking = [one(client, slots, collection.queries[q], list(docs)) for q, docs in groups]
            await asyncio.gather(*asking)

    asyncio.run(every())


def measured(task: Task) -> dict[str, float]:
    """Run a task in this process."""
    collection, candidates = lists(task.windows // PER_LIST)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far
    process = psutil.Process()
    before, start, clock = process.memory_info().rss, time.process_time(), time.perf_counter()
    (label if task.client == "rdx" else label_by_openai)(task, collection, candidates)
    return {
        "windows": len(collection.queries) * PER_LIST,
        "own": time.process_time() - start,
        "clock": time.perf_counter() - clock,
        "memory": _peak() - before,
        "load": os.getloadavg()[0],
    }


def _peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(task: Task) -> dict[str, float]:
    """Run a task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.labelling", "--task", json.dumps(task.__dict__)]
    environment = os.environ | {"NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# --- the tables ---


def throughput(windows: int, in_flight: list[int], peers: int, url: str, root: str) -> None:
    """Windows per second, of rdx and of the peer, which does `peers` windows."""
    print("| client | prompt | in flight | windows/s of its own time | windows/s | load |")
    print("|---|---|--:|--:|--:|--:|")
    for client, count in (("rdx", windows), ("openai", peers)):
        for prompt in PROMPTS:
            for some in in_flight if client == "rdx" else in_flight[:1]:
                with tempfile.TemporaryDirectory(dir=root) as folder:
                    row = measure(Task(client, prompt, count, some, url, folder))
                rates = f"{row['windows'] / row['own']:,.0f} | {row['windows'] / row['clock']:,.0f}"
                print(f"| {client} | {prompt} | {some} | {rates} | {row['load']:.1f} |", flush=True)


def growth(sizes: list[int], in_flight: int, url: str, root: str) -> None:
    """Memory, and the second session, by number of windows."""
    print("\n| windows | memory added (MB) | a session later: seconds | memory added (MB) | load |")
    print("|--:|--:|--:|--:|--:|")
    for windows in sizes:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            first, second = (
                measure(Task("rdx", PROMPTS[0], windows, in_flight, url, folder, killed))
                for killed in (True, False)
            )
        cells = (
            f"{first['memory'] / 1e6:.0f} | {second['clock']:.1f} | {second['memory'] / 1e6:.0f}"
        )
        print(f"| {first['windows']:,.0f} | {cells} | {second['load']:.1f} |", flush=True)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=9000, help="of a row of the first table")
    parser.add_argument("--peers", type=int, default=1800, help="the same, of the peer")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 90_000])
    parser.add_argument("--folder", default=".", help="where to write: which disk")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds of an answer")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.latency))
    elif given.task:
        print(json.dumps(measured(Task(**json.loads(given.task)))))
    else:
        print(f"{source()}; an answer takes {given.latency:g} s\n")
        with served(given.latency) as url:
            throughput(given.windows, given.in_flight, given.peers, url, given.folder)
            growth(given.sizes, given.in_flight[0], url, given.folder)


if __name__ == "__main__":
    main()
