"""What the seeds of a cell have in common: mean, SD and interval of what each of them scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mlflow.entities import Metric, Run

from rdx.facts import OK
from rdx.spread import half_width
from rdx.tracking import notes


@dataclass(frozen=True)
class Spread:
    """Of the scores of n seeds: mean, standard deviation (n - 1), ends of the 95 % t interval.

    The interval is about training runs on these queries, of which it treats every one as given.
    """

    mean: float
    sd: float
    low: float
    high: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Spread:
        """Of two values or more."""
        scores = np.asarray(values, dtype=np.float64)
        mean, half = float(scores.mean()), half_width(scores)
        return cls(mean, float(scores.std(ddof=1)), mean - half, mean + half)

    def named(self, key: str) -> Iterator[tuple[str, float]]:
        """The numbers by the names of metrics; the mean has that of a seed's score."""
        yield key, self.mean
        for name in ("sd", "low", "high"):
            yield f"{name}/{key}", getattr(self, name)


@dataclass(frozen=True)
class Seeds:
    """The finished trials of a cell by their seeds, the newest of each; scores by name of metric.

    A score has one value per seed, in their order.
    """

    trials: dict[str, Run]
    scores: dict[str, list[float]]

    @classmethod
    def of(cls, runs: Sequence[Run], keys: Iterable[str]) -> Seeds:
        """Of FINISHED runs; a score that some seed lacks is left out."""
        newest = {run.data.tags["seed"]: run for run in sorted(runs, key=_ended)}
        trials = dict(sorted(newest.items(), key=lambda item: int(item[0])))
        measured = [run.data.metrics for run in trials.values()]
        scores = {
            key: [metrics[key] for metrics in measured]
            for key in keys
            if all(key in metrics for metrics in measured)
        }
        return cls(trials, scores)

    @property
    def spreads(self) -> dict[str, Spread]:
        """Of every score."""
        return {key: Spread.of(values) for key, values in self.scores.items()}

    def metrics(self, time: int) -> list[Metric]:
        """All numbers; their step is the number of seeds.

        So the last word has that one of two processes which saw more of them.
        """
        named = [pair for key, spread in self.spreads.items() for pair in spread.named(key)]
        return [Metric(key, value, time, len(self.trials)) for key, value in named]

    def tags(self) -> dict[str, str]:
        """The seeds, and the health of all of them together."""
        states = {seed: run.data.tags.get("rdx.health", OK) for seed, run in self.trials.items()}
        unsound = [f"{state} (seed {seed})" for seed, state in states.items() if state != OK]
        return {"rdx.seeds": ", ".join(self.trials), "rdx.health": ", ".join(unsound) or OK}

    def note(self, experiment_id: str, measure: str = "") -> str:
        """A description: the score, the seeds, a table of the spreads, and how to read it."""
        score = self.spreads.get(notes.score_key(measure))
        answer = f"**{measure} {score.mean:.4f}**, SD over seeds {score.sd:.4f}. " if score else ""
        rows = [
            f"| {key} | {s.mean:.4f} | {s.sd:.4f} | {s.low:.4f} to {s.high:.4f} |"
            for key, s in self.spreads.items()
        ]
        links = [
            f"[{seed}]({notes.address(experiment_id, f'runs/{run.info.run_id}')})"
            for seed, run in self.trials.items()
        ]
        lines = [
            f"{answer}**Seeds** {', '.join(links)}: one configuration, trained {len(links)} times.",
            "",
            "| score | mean | SD | 95 % interval |",
            "|---|---:|---:|---:|",
            *rows,
            "",
            "SD and t interval are over seeds: what another training run might give on the same "
            "queries. What other queries would give is in the report of `python -m analysis`.",
        ]
        return notes.cut("\n".join(lines), notes.NOTE_LENGTH)


def _ended(run: Run) -> int:
    return int(run.info.end_time or 0)
