"""A store, and an MLflow that mirrors it."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rdx.tracking import MLflow
from tests import records

LEVELS = {"data": "pydocs", "sampler": "bm25", "loss": "ranknet"}
CONFIG = {"loss": {"_target_": "rdx.losses.RankNet"}, "seed": 1, "trainer": {"betas": [0.9, 0.99]}}
NOTHING = {"delivered": 0, "kept": 0, "closed": 0}


def until(condition, seconds=30):
    """Wait for what a trial's thread writes; returns the last value of the condition."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


def quick(monkeypatch):
    """Points are written at once, and what fails is tried again soon."""
    from rdx.tracking import recorder

    monkeypatch.setattr(recorder, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(recorder, "RETRY_SECONDS", (0.05, 0.2))
    monkeypatch.setattr(recorder, "_silent", {})


def outcome(means, digest="d", health="ok", name="dl19"):
    """The facts of a trial with one test collection."""
    collection = records.collection(queries=43, k=100, digest=digest)
    return records.trial("aa", 1, {name: collection}, health, levels=LEVELS, means=means)


def killed(place, signature, grid):
    """A process that is killed in the middle of a trial, with one point recorded."""
    code = f"""
import os, signal, time
from pathlib import Path
from rdx.tracking import MLflow
tracking, about = {place.settings!r}, dict(levels={{}}, config={{"a": 1}}, grid={grid!r}, seed=1)
with tracking.trial(store=Path({str(place.store)!r}), signature={signature!r}, **about) as trial:
    trial.log_step("distill", 0, {{"loss": 1.0}})
    while trial._writer.mirror.pending() and tracking.uri.startswith("sqlite"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL


@dataclass(frozen=True)
class Place:
    store: Path
    settings: MLflow

    @classmethod
    def of(cls, folder, **more):
        uri, artifacts = f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts")
        settings = {"uri": uri, "artifacts": artifacts, "system_metrics": False, "wait": 120}
        return cls(folder / "store", MLflow(**settings | more))

    def but(self, **settings):
        return Place(self.store, replace(self.settings, **settings))

    def trial(self, signature, grid="", levels=LEVELS, config=CONFIG, seed=1):
        return self.settings.trial(
            store=self.store,
            signature=signature,
            levels=levels,
            config=config,
            grid=grid,
            seed=seed,
        )

    def record(self, signature, *about, **more):
        """A trial in which nothing happens."""
        with self.trial(signature, *about, **more):
            pass

    def finished(self, signature):
        return self.settings.finished(self.store, signature)

    def recorded(self):
        return self.settings.recorded(self.store)

    def sync(self):
        return self.settings.sync(self.store)

    def log_grid(self, grid, rows, claim="", measure="nDCG@10"):
        self.settings.log_grid(self.store, grid, rows, claim, measure)

    @property
    def client(self):
        return self.settings._import("database").client_of(self.settings.uri)

    def search(self, condition):
        database, client = self.settings._import("database"), self.client
        experiment = client.get_experiment_by_name(self.settings.experiment)
        return database.search(client, experiment.experiment_id, condition) if experiment else []

    def runs(self, signature):
        return self.search(f"tags.`rdx.signature` = '{signature}'")

    def run(self, signature):
        [run] = self.runs(signature)
        return run

    def trials(self):
        return self.search("tags.`rdx.kind` = 'trial'")

    def parents(self, grid):
        return self.search(f"tags.`rdx.kind` = 'grid' and tags.`rdx.grid` = '{grid}'")

    def curve(self, run, name="distill/loss"):
        return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, name)]
