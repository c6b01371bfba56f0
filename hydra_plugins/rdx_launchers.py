"""Launchers for several cells at once: joblib's workers, Submitit (Slurm) and Ray.

They are thin: the engine schedules. They differ from Hydra's own plugins in one thing: a cell whose
process is killed, runs out of memory or time, fails alone, and the launching process lives on to
say so.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

GRACE = 40.0  # seconds; a record waits 30 for its server
# Submitit's parameters that all clusters have; the others carry the cluster's name.
SHARED = (
    *("name", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb"),
    *("timeout_min", "stderr_to_stdout"),
)


class Cell:
    """One cell as it is sent to another process; called there, it runs.

    It is composed when it is sent, with all paths absolute and all variables resolved: what it
    means is decided where the user stands, wherever the process is. It keeps nothing between two
    calls: what a cell has reached is in the store, so that the same call continues there.
    """

    def __init__(self, launcher: _Engine, overrides: Sequence[str], number: int) -> None:
        self.context, self.task_function = launcher.hydra_context, launcher.task_function
        self.overrides, self.number = list(overrides), number
        self.config, self.composed = launcher.config, False
        self.state = Singleton.get_state()
        self.folder = os.getcwd()
        self.variables = {k: v for k, v in os.environ.items() if k.startswith("RDX_")}

    def __getstate__(self) -> dict[str, Any]:
        """What is sent; composed late (.1 s each), so that a large grid starts at once."""
        config = self.config if self.composed else self._compose()
        return {**vars(self), "config": config, "composed": True}

    def _compose(self) -> DictConfig:
        from rdx.config import COMPOSING, resolved  # Hydra imports every plugin at every start

        with COMPOSING:
            config = self.context.config_loader.load_sweep_config(self.config, self.overrides)
            keys = [str(key) for key in config if key != "hydra"]
            plain = resolved(OmegaConf.masked_copy(config, keys), Path(self.folder))
        with open_dict(config):
            for key in keys:
                config[key] = plain[key]
            config.hydra.sweep.dir = str(Path(self.folder, config.hydra.sweep.dir))
            config.hydra.job.num = self.number
            config.hydra.job.id = f"{config.hydra.job.name}_{self.number}"
        return config

    def __call__(self) -> JobReturn:
        """Run the cell; its exception is returned, and told here."""
        from rdx import faults  # Hydra imports every plugin at every start

        with suppress(OSError):  # another machine may lack the folder; no path needs it
            os.chdir(self.folder)
        if self.folder not in sys.path:  # the user's own modules lie there
            sys.path.insert(0, self.folder)
        for name, value in self.variables.items():
            os.environ.setdefault(name, value)
        Singleton.set_state(self.state)
        setup_globals()
        HydraConfig.instance().set_config(self.config)
        result = run_job(
            hydra_context=self.context,
            task_function=self.task_function,
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if result.status == JobStatus.FAILED:
            error = result._return_value
            print(f"rdx: {faults.told(error)}", file=sys.stderr, flush=True)
            if faults.full():
                traceback.print_exception(error)
        return result

    def checkpoint(self) -> Any:
        """What Submitit queues again when the job is pre-empted or runs out of time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Engine(Launcher):
    """What the launchers share: Hydra's settings, and cells made of command lines."""

    config: DictConfig
    hydra_context: Any
    task_function: Any

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.hydra_context, self.task_function = hydra_context, task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all cells; the results are in the order of the command lines."""
        cells = [
            Cell(self, overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)
        ]
        return self.run(cells)

    def run(self, cells: list[Cell]) -> list[JobReturn]:
        """One result per cell; None of the engine's errors is raised."""
        raise NotImplementedError


class JoblibLauncher(_Engine):
    """Slots on this machine: one worker process each, which runs one cell after the other.

    Parameters
    ----------
    slots
        Cells at once; null: one per GPU of `gpus`, or one without GPUs.
    gpus
        The GPUs to share out, as CUDA_VISIBLE_DEVICES names them: the i-th slot sees only the i-th,
        counted round when there are fewer GPUs than slots. null: those of CUDA_VISIBLE_DEVICES if
        set, else all of this machine. An empty list: none, and every slot sees what is there.
    """

    def __init__(self, slots: int | None = None, gpus: Sequence[Any] | None = None) -> None:
        if slots is not None and slots < 1:
            raise ValueError(f"hydra.launcher.slots={slots}: must be at least 1, or null")
        self.gpus = _gpus() if gpus is None else [str(gpu) for gpu in gpus]
        self.slots = slots or len(self.gpus) or 1

    def environment(self, slot: int) -> dict[str, str]:
        """The variables of a slot's worker: its GPU, and its share of the cores."""
        cores = len(os.sched_getaffinity(0))
        defaults = {"OMP_NUM_THREADS": str(max(cores // self.slots, 1))}
        variables = {key: os.environ.get(key, value) for key, value in defaults.items()}
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        return variables

    def run(self, cells: list[Cell]) -> list[JobReturn]:
        """Give each cell to the first free slot; a worker that dies is replaced."""
        from joblib.externals.loky import ProcessPoolExecutor

        def worker(slot: int) -> Any:
            return ProcessPoolExecutor(1, env=self.environment(slot), initializer=_begin)

        free: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        count = min(self.slots, len(cells))
        pools = {slot: worker(slot) for slot in range(count)}
        running: dict[int, Future[JobReturn]] = {}
        for slot, pool in pools.items():
            free.put((slot, pool))

        def on_a_slot(cell: Cell) -> JobReturn:
            slot, pool = free.get()
            future = running[slot] = pool.submit(cell)
            result = _result(cell, future.result)
            if future.exception() is not None:
                pool.shutdown(wait=False, kill_workers=True)
                pools[slot] = worker(slot)
            free.put((slot, pools[slot]))
            return result

        threads = ThreadPoolExecutor(count)
        try:
            results = list(threads.map(on_a_slot, cells))
        except BaseException:  # Ctrl-C
            threads.shutdown(wait=False, cancel_futures=True)
            _stop(pools.values(), running.values())
            raise
        for pool in pools.values():
            pool.shutdown()
        return results


def _stop(pools: Iterable[Any], running: Iterable[Future[JobReturn]]) -> None:
    """End workers; cells close their records first, for which they have `GRACE` seconds."""
    for pool in pools:
        for pid in list(pool._processes or ()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    wait(running, GRACE)
    for pool in pools:
        pool.shutdown(wait=False, kill_workers=True)


class SubmititLauncher(_Engine):
    """Jobs of a cluster, one per cell, submitted as one array.

    Parameters
    ----------
    cluster
        "slurm", or "local" for processes on this machine.
    folder
        Where Submitit keeps its jobs and their logs; every machine must see it.
    max_num_timeout
        How often a job that runs out of time is queued again; a pre-empted one always is.

    Other Parameters
    ----------------
    timeout_min
        Minutes that a cell may take, each time that it runs. Some time before, it is told to stop,
        and is queued again.
    signal_delay_s
        Slurm: how many seconds before. On this machine it is 30.
    gpus_per_node
        GPUs of a cell; null: none is asked for.
    cpus_per_task
        Cores of a cell.
    mem_gb
        Memory of a cell, in GB; null: as the cluster has it.
    name
        Slurm: name of the jobs.
    partition, account, qos, constraint
        Slurm: as sbatch has them; null: the cluster's default.
    array_parallelism
        Slurm: cells at once.
    additional_parameters
        Slurm: further settings of sbatch by their names:
        ``+hydra.launcher.additional_parameters.reservation=NAME``.
    setup
        Slurm: lines of the job's script before its command, such as ``[module load cuda]``.
    """

    def __init__(
        self, cluster: str, folder: str, max_num_timeout: int = 0, **parameters: Any
    ) -> None:
        self.cluster, self.folder = cluster, folder
        self.max_num_timeout, self.parameters = max_num_timeout, parameters

    def executor(self) -> Any:
        """Submitit's executor with these parameters."""
        import submitit

        limits = {f"{self.cluster}_max_num_timeout": self.max_num_timeout}
        folder = Path(self.folder).absolute()
        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster, **limits)
        for key, value in self.parameters.items():
            if value is not None:
                name = key if key in SHARED else f"{self.cluster}_{key}"
                plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
                executor.update_parameters(**{name: plain})
        return executor

    def run(self, cells: list[Cell]) -> list[JobReturn]:
        """Submit all, wait for all."""
        executor = self.executor()
        with executor.batch():
            jobs = [executor.submit(cell) for cell in cells]
        for cell, job in zip(cells, jobs, strict=True):
            print(f"{job.job_id}  {' '.join(cell.overrides)}\n  {job.paths.stderr}", flush=True)
        return [_result(cell, job.result) for cell, job in zip(cells, jobs, strict=True)]


class RayLauncher(_Engine):
    """Tasks of a Ray cluster, one per cell.

    Parameters
    ----------
    address
        The cluster, such as "auto" or "ray://HOST:10001"; null: one on this machine, for this grid.
    num_cpus
        Cores that a cell needs: Ray shares out the cluster accordingly.
    num_gpus
        GPUs that a cell needs; 0.5: two cells share one. Ray sets CUDA_VISIBLE_DEVICES.
    memory
        Bytes that a cell needs; null: it is not asked.
    resources
        Of the cluster's own kinds what a cell needs, as ``{node_type_a: 1}``.
    max_retries
        How often a cell is run again whose process or machine died. An exception fails it at once.
    """

    def __init__(
        self,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        memory: int | None = None,
        resources: dict[str, float] | None = None,
        max_retries: int = 1,
    ) -> None:
        self.address = address
        self.options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "memory": memory,
                        "resources": dict(resources or {}), "max_retries": max_retries,
                        "max_calls": 1}  # fmt: skip

    def run(self, cells: list[Cell]) -> list[JobReturn]:
        """Submit all, wait for all."""
        import ray

        ray.init(address=self.address, include_dashboard=None if self.address else False)
        try:
            task = ray.remote(**self.options)(_called)
            references = [task.remote(cell) for cell in cells]
            return [
                _result(cell, partial(ray.get, reference))
                for cell, reference in zip(cells, references, strict=True)
            ]
        finally:
            ray.shutdown()


def _begin() -> None:
    """Start a worker that runs one cell after the other."""
    from joblib.externals.loky import process_executor

    # A cell that needs 300 MB more than the first one is no leak; loky would replace the worker,
    # and the next cell load all libraries again.
    process_executor._USE_PSUTIL = False
    _end_with_parent()


def _end_with_parent() -> None:
    """Let this worker end soon after the launcher that started it, which may have been killed.

    joblib's workers would stay for ever, and so would what they hold of a GPU's memory.
    """
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the launcher ends us

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # a cell that runs closes its record
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="rdx-parent", daemon=True).start()


def _called(cell: Cell) -> JobReturn:
    return cell()


def _result(cell: Cell, wait: Callable[[], JobReturn]) -> JobReturn:
    """What a cell gave; where its process gave nothing, a failure that says why."""
    try:
        return wait()
    except Exception as error:
        failed = JobReturn(overrides=cell.overrides, status=JobStatus.FAILED)
        failed.return_value = error
        return failed


def _gpus() -> list[str]:
    """The GPUs of this machine; counting them starts no CUDA in this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
