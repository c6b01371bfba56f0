"""Run a grid for the chaos test, cell by cell, each in a process of its own.

A fork server has imported torch and rdx once; the processes it forks are real ones, and are killed.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

JUMP = 1e6  # seconds
WRITES = ((os, "replace"), (os, "fsync"), (os, "rename"), (Path, "write_text"), (shutil, "rmtree"))


def grid(cells, log, pids, fault):
    """Run the cells one after the other; a cell that fails or is killed does not stop the rest.

    Parameters
    ----------
    cells
        What is run, signed.
    pids
        File to which the process of every cell is written.
    fault
        Of `cell`.
    """
    _printed_to(log)
    failed = 0
    for chosen in cells:
        child = multiprocessing.get_context("fork").Process(target=cell, args=(chosen, fault))
        child.start()
        with open(pids, "a") as file:
            file.write(f"{child.pid}\n")
        child.join()
        failed += child.exitcode != 0
    sys.exit(min(failed, 1))


def cell(chosen, fault):
    """One cell; killed at its n-th write by ("write", n), under a jumping clock by ("clock", s)."""
    import torch

    from rdx import pipeline, progress

    torch.set_num_threads(1)
    if fault and fault[0] == "write":
        _killed_at_write(fault[1])
    elif fault and fault[0] == "clock":
        _jumping(fault[1])
    with progress.recorded(Path(chosen.cfg["store"]), chosen.signature, chosen.cfg):
        pipeline.run(chosen)


def _killed_at_write(number):
    """End like a pulled plug before the n-th write, counted over all ways to write; odd: after."""
    left = [number]

    def dangerous(write):
        def killed(*arguments, **named):
            left[0] -= 1
            if left[0] == 0 and number % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = write(*arguments, **named)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return killed

    for owner, name in WRITES:
        setattr(owner, name, dangerous(getattr(owner, name)))


def _jumping(seed):
    """Let the clock of the day jump to and fro by days, every tenth of a second."""
    real, sign = time.time, 1 if seed % 2 else -1
    time.time = lambda: real() + sign * JUMP * (int(real() * 10) % 2)


def _printed_to(log):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
