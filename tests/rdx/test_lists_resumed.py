"""Lists that are drawn anew in every epoch, in a training that is killed and goes on."""

import numpy as np
import pytest
from trainer_toys import TOY, equal, stopped, trained

from rdx import rankings
from rdx.artifacts import Checkpoint
from rdx.lists import (
    HeadAndBand,
    LogRank,
    Pools,
    RandomDepth,
    ScoreQuantiles,
    SingleRelevant,
    drawn,
    with_relevance,
)
from rdx.trainer import Epochs


def table():
    rows = [
        (q, f"d{(i + j) % 20}", -float(j)) for i, q in enumerate(TOY.queries) for j in range(12)
    ]
    candidates = rankings.rank(*zip(*rows, strict=True))
    relevant = {q: {f"d{i}": 1, f"d{i + 4}": 1} for i, q in enumerate(TOY.queries)}
    labels = {"teacher_rank": candidates["rank"], "teacher_score": candidates.score}
    pools = Pools.of(candidates.assign(**labels))
    return with_relevance(pools, relevant)


PICKERS = [LogRank(), SingleRelevant(margin=0.5), ScoreQuantiles(), HeadAndBand(2, (4, 12))]


@pytest.mark.parametrize("picker", PICKERS, ids=lambda one: type(one).__name__)
def test_an_interrupted_training_sees_the_same_lists(tmp_path, picker):
    """Four epochs of three steps, killed in the third; once more after its end, in the fourth."""

    def train(work, seed=3, **more):
        lists = drawn(table(), picker, 4, seed=seed)
        budget = {"budget": Epochs(4), "checkpoint_seconds": 0}
        return trained(tmp_path, lists=lists, work=work, **budget, **more)

    whole, facts = train("whole")
    for step in (7, 10):
        stopped(train, step, work="parts")
    seen = []
    resumed, again = train("parts", on_step=lambda step, metrics: seen.append(step))
    assert seen and seen[0] > 3 and seen[-1] == 11  # it did not begin anew
    assert equal(whole, resumed)
    assert facts == again
    other, _ = train("other", seed=4)
    assert not equal(whole, other)  # another draw is another student


def test_the_batch_decides_nothing():
    lists = drawn(table(), RandomDepth(), 5, seed=0)
    backwards = {epoch: list(lists(epoch)) for epoch in reversed(range(6))}
    assert all(lists(epoch) == backwards[epoch] for epoch in range(6))
    state = np.random.get_state()[1].tolist()
    list(lists(0))
    assert np.random.get_state()[1].tolist() == state  # no global generator is touched


@pytest.mark.parametrize(
    "lists",
    ["score_quantiles", "head_and_band depth.lists.head=2 depth.lists.band=[3,8]"],
)
def test_a_student_learns_from_the_lists_of_a_cell(world, tmp_path, lists):
    """Of a teacher with scores; every list has the passages that were asked for."""
    depth = (f"depth/lists={lists}".split(), ["depth.pool=8", "depth.k=4", "teacher=labels"])
    more = ("prefinetune=none", "budget.epochs=25", "evaluation.interpolate=false")
    summary = world.run(tmp_path, *sum(depth, []), *more)
    assert summary.facts.training.pairs == 25 * 8 * 4
    key = summary.facts.signatures["distill"]
    curve = Checkpoint(tmp_path / "distill" / key).curve
    assert np.mean(curve[-20:]) < np.mean(curve[:20])
