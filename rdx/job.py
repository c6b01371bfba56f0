"""What the stages of a cell work with: its configuration, its objects, the store, its record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from rdx import accounting, config
from rdx.arguments import near
from rdx.artifacts import weights_in
from rdx.collection import Collection
from rdx.config import Cell
from rdx.data.mixture import Mixture
from rdx.facts import Counts, OriginNode, origins_of
from rdx.parts import Budget, DataSource, Loss, OnStep, Redrawn, Sampler, Teacher
from rdx.samplers.by_part import ByPart, of_mixture
from rdx.samplers.others import Others
from rdx.store import Store
from rdx.tracking import Tracking, Trial, Unrecorded

if TYPE_CHECKING:
    from rdx.evaluation import Evaluation
    from rdx.lists import Depth
    from rdx.students import Student
    from rdx.trainer import Prefinetune, Trainer

TRAINING, STAGE_1, DEV = "training", "stage 1", "dev"
_TEST = "test "
# Keys of the configuration that name a student of another cell, or a folder.
START, REDRAWS = "start", "sampler.student"


@dataclass(frozen=True)
class Origin:
    """A student that a cell takes from elsewhere (`rdx.stages.origins`).

    Attributes
    ----------
    parts
        Of the cell that it is the result of; None: it lies in `folder`.
    content
        What the folder holds.
    """

    parts: Parts | None
    folder: Path | None
    content: JsonValue


class Parts:
    """The objects of a cell's config groups, each built when it is first asked for."""

    def __init__(self, cfg: dict[str, Any]) -> None:
        self._cfg = cfg
        self.seed: int = cfg["seed"]
        self.limits: dict[str, float | None] = cfg.get("limits") or {}

    @cached_property
    def origins(self) -> dict[str, Origin]:
        """The students that the cell takes from elsewhere, by `START` and `REDRAWS`."""
        return {key: _origin(node) for key, node in origins_of(self._cfg).items()}

    def of(self, path: str) -> Parts:
        """The objects of a cell that a student comes from, as in "start/start"; "": these."""
        if not path:
            return self
        key, _, rest = path.partition("/")
        parts = self.origins[key].parts
        assert parts is not None  # what lies in a folder has no stages
        return parts.of(rest)

    def _build(self, group: str) -> Any:
        return config.part(self._cfg, group)

    @cached_property
    def data(self) -> DataSource:
        """The training collection."""
        return self._build("data")

    @cached_property
    def redrawn(self) -> Redrawn | None:
        """The further round of training candidates; None: they are as `sampler` gives them."""
        sampler: Sampler | Redrawn = self._build("sampler")
        return sampler if isinstance(sampler, Redrawn) else None

    @cached_property
    def sampler(self) -> Sampler:
        """Where training candidates come from, in the first place."""
        if self.redrawn is not None:
            return self.in_training(self.redrawn.first, "sampler.first")
        return self.in_training(self._build("sampler"), "sampler")

    @cached_property
    def depth(self) -> Depth:
        """How many candidates a training list holds."""
        return self._build("depth")

    @cached_property
    def teacher(self) -> Teacher:
        """What re-orders candidates."""
        return self._build("teacher")

    @property
    def scale(self) -> str:
        """The scale that a student is given the teacher's scores in; "none" where it has none."""
        return getattr(self.teacher, "scale", "none")

    @cached_property
    def prefinetune(self) -> Prefinetune | None:
        """Stage 1; None: the student begins as it comes."""
        stage: Prefinetune | None = self._build("prefinetune")
        if stage is None:
            return None
        return replace(stage, sampler=self.in_training(stage.sampler, "prefinetune.sampler"))

    @cached_property
    def loss(self) -> Loss | None:
        """Of the distillation; None: there is none, and the student of stage 1 is evaluated."""
        return self._build("loss")

    @cached_property
    def student(self) -> Student:
        """The cross-encoder."""
        return self._build("student")

    @cached_property
    def budget(self) -> Budget:
        """How long is distilled."""
        return self._build("budget")

    @cached_property
    def trainer(self) -> Trainer:
        """How is trained."""
        return self._build("trainer")

    @cached_property
    def evaluation(self) -> Evaluation:
        """What is measured, where, and how deep."""
        return self._build("evaluation")

    @cached_property
    def tracking(self) -> Tracking:
        """Where the trial is recorded."""
        return self._build("tracking")

    def in_training(self, sampler: Sampler, key: str) -> Sampler:
        """A sampler of this cell as it works on the training collection (`on`)."""
        return on(self.data, sampler, self.evaluation.self_retrieval, key)

    def in_test(self, name: str) -> Sampler:
        """The first stage of a test set (`on`)."""
        evaluation, test = self.evaluation, self.evaluation.collections[name]
        key = f"evaluation.collections.{name}.first_stage"
        return on(test.data, test.first_stage, evaluation.self_retrieval_of(name), key)


def on(data: DataSource, sampler: Sampler, self_retrieval: str | None, key: str) -> Sampler:
    """A sampler as it works on a collection.

    Of a mixture, it searches each query's own part; with self_retrieval="drop", it leaves out
    queries' own passages. The cell's rule holds in training, too, so that a student is trained on
    what it is tested on.

    Raises
    ------
    ConfigError
        Naming the key of the sampler, if it is for other parts, or for those of no mixture.
    """
    names = list(data.parts) if isinstance(data, Mixture) else []
    if not names and isinstance(sampler, ByPart):
        raise config.ConfigError(f"{key}: is for the parts of a mixture (data=mixture)")
    try:
        whole = of_mixture(sampler, names) if names else sampler
    except ValueError as error:
        raise config.ConfigError(f"{key}.{error}") from error
    return Others(whole) if self_retrieval == "drop" else whole


def _origin(node: OriginNode) -> Origin:
    if node.folder is None:
        assert node.cell is not None
        return Origin(Parts(node.cell), None, None)
    folder = Path(node.folder)
    return Origin(None, folder, weights_in(folder))


@dataclass(frozen=True)
class Source:
    """A collection of a cell, and the sampler that retrieves from it, in one of their roles.

    Attributes
    ----------
    data, sampler
        Where the collection comes from; what ranks its passages.
    split
        Of the collection.
    queries
        Judged queries of the split that are retrieved for, at most; None = all.
    k
        Passages that are retrieved for a query.
    """

    data: DataSource
    sampler: Sampler
    split: str
    queries: int | None = None
    k: int = 0

    def judged(self, split: Collection) -> Collection:
        """The judged queries that are retrieved for, a sample by hash.

        Raises
        ------
        ConfigError
            If there is none.
        """
        judged = [q for q in dict.fromkeys(split.qrels.query_id) if q in split.queries]
        if not judged:
            raise config.ConfigError(
                f"collection {split.name!r}, split {self.split!r}: no query has a judgement, so "
                "that nothing can be measured on it; give qrels, or another split"
            )
        return split.subset(split.ordered(judged, 0)[: self.queries])


def test_role(name: str) -> str:
    """The role of a test set."""
    return f"{_TEST}{name}"


def test_name(role: str) -> str:
    """The name of the test set that has a role."""
    return role.removeprefix(_TEST)


def test_roles(parts: Parts) -> list[str]:
    """The roles of all test sets of a cell."""
    return [test_role(name) for name in parts.evaluation.collections]


def validation_roles(parts: Parts) -> list[str]:
    """The roles of what the distillation is validated on; none if it is not.

    Raises
    ------
    ConfigError
        If a collection that it names is not evaluated.
    """
    if parts.trainer.validate_every is None:
        return []
    names, known = parts.trainer.validate_on, list(parts.evaluation.collections)
    for name in names or ():
        if name not in known:
            raise config.ConfigError(
                f"trainer.validate_on={name}: not one of evaluation.collections"
                f"{near(name, known)}; valid: {known}"
            )
    return [DEV] if names is None else [test_role(name) for name in names]


def source(parts: Parts, role: str) -> Source:
    """The collection and the sampler in a role: `TRAINING`, `STAGE_1`, `DEV` or of a test set."""
    if role == TRAINING:
        return Source(parts.data, parts.sampler, "train")
    if role == STAGE_1 and parts.prefinetune is not None:
        return Source(parts.data, parts.prefinetune.sampler, "train")
    evaluation = parts.evaluation
    if role == DEV:
        sampler, size = evaluation.dev_first_stage, evaluation.dev_queries
        if sampler is None:
            raise config.ConfigError("evaluation.dev_first_stage=null: dev queries need a sampler")
        sampler = parts.in_training(sampler, "evaluation.dev_first_stage")
        return Source(parts.data, sampler, "dev", size, evaluation.k)
    name = test_name(role)
    test, k = evaluation.collections[name], evaluation.depth(name)
    return Source(test.data, parts.in_test(name), test.split, test.queries, k)


@dataclass
class Job:
    """A cell that is worked on.

    Attributes
    ----------
    cell, parts
        Its configuration, and the objects of its groups.
    store
        Where results are kept.
    trial
        The record of this execution.
    """

    cell: Cell
    parts: Parts
    store: Store
    trial: Trial = field(default_factory=Unrecorded)
    _splits: dict[tuple[Path, str], Collection] = field(default_factory=dict)

    @classmethod
    def of(cls, cell: Cell) -> Job:
        """The job of a cell, not recorded yet."""
        return cls(cell, Parts(cell.cfg), Store(Path(cell.cfg["store"])))

    def within(self, path: str) -> Job:
        """The job of a cell that a student comes from (`Parts.of`): it has no record of its own."""
        return replace(self, parts=self.parts.of(path), trial=Unrecorded()) if path else self

    def split(self, source: Source, folder: Path) -> Collection:
        """The split of a collection that was laid out in a folder, loaded once."""
        if (folder, source.split) not in self._splits:
            self._splits[folder, source.split] = source.data.load(source.split, folder)
        return self._splits[folder, source.split]

    def report(self, title: str, counts: Counts, oddities: dict[str, int] | None = None) -> None:
        """Print and log counts of dropped data, and stop if one is beyond its limit."""
        if counts:
            print(accounting.block(title, counts, oddities or {}))
            shares = {f"lost/{name}": float(count.n) for name, count in counts.items()}
            self.trial.log_step("labels", 0, shares)
            accounting.check(counts, self.parts.limits)

    def on_step(self, steps: int, curve: str = "") -> OnStep:
        """After each of so many steps, show others in the store how far a training is.

        `curve` is the name under which the steps are logged, too; "": they are not.
        """
        return partial(self._stepped, steps, curve)

    def _stepped(self, steps: int, curve: str, step: int, metrics: dict[str, float]) -> None:
        if curve:
            self.trial.log_step(curve, step, metrics)
        self.store.tell(step + 1, steps)
