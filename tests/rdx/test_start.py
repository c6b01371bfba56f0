"""How a process of rdx begins and ends."""

import json
import subprocess
import sys

from rdx.config import ROOT

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
