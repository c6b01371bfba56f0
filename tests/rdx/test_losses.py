"""Losses: naive loops, hand-worked values, and the properties that were declared for all."""

import dataclasses
import doctest
import math
import pkgutil
from importlib import import_module

import pytest
import torch
from naive_losses import drawn, naive, padded, value

import rdx.losses
from rdx.losses import (
    ADRMSE,
    BCE,
    KL,
    LCE,
    ApproxMRR,
    ApproxNDCG,
    LambdaRank,
    ListMLE,
    ListNet,
    MarginMSE,
    RankNet,
    Sum,
)
from tests.rdx.configured import configured

ORDINAL = ADRMSE(1.0, "log2", "ordinal")
ALL = [
    RankNet(),
    RankNet(2.0),
    LambdaRank(),
    LambdaRank(0.5, "exponential", 10.0, "pairs"),
    LambdaRank(2.0, "reciprocal", 3.0),
    MarginMSE(),
    MarginMSE(2.0, "best"),
    ListNet(),
    ListNet(0.5, 3.0),
    ListMLE(),
    ListMLE(2.0, "exponential"),
    KL(),
    KL(2.0, 0.5),
    ADRMSE(),
    ADRMSE(0.5, "none"),
    ORDINAL,
    ApproxNDCG(),
    ApproxNDCG(0.5, "exponential"),
    ApproxNDCG(2.0, "reciprocal"),
    ApproxMRR(),
    ApproxMRR(0.5),
    LCE(),
    LCE(0.5),
    BCE(),
    BCE(2.0, 3.0),
    Sum([RankNet(), KL(0.5)], [0.5, 2.0]),
    Sum([LCE(), Sum([BCE()], [0.3])], [1.0, 2.0]),
]
POINTWISE = [BCE(), BCE(2.0, 3.0), ALL[-1]]
SPLIT = [ApproxMRR(), ApproxMRR(0.5), LCE(), LCE(0.5), *POINTWISE]  # the best rank and the rest
EVERY = pytest.mark.parametrize("loss", ALL, ids=str)


def close(expected, rel=1e-12):
    return pytest.approx(expected, rel=rel)


# --- values ---


@EVERY
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_naive_loops(loss, ties, seed):
    lists = drawn(seed, ties=ties)
    expected = naive(loss, lists)
    assert expected > 0
    assert value(loss, lists) == close(expected, 1e-11)
    assert value(loss, lists, dtype=torch.float32) == close(expected, 2e-5)


@pytest.mark.parametrize("loss", [one for one in ALL if one.needs != "scores"], ids=str)
def test_ranks_may_have_gaps_and_start_anywhere(loss):
    scores = [0.3, -1.0, 2.0, 0.1]
    dense = value(loss, [(scores, [2, 1, 4, 3])])
    assert value(loss, [(scores, [70, 4, 99, 71])]) == dense > 0


LN2, LN3, LN4, LN5, LN6 = map(math.log, (2, 3, 4, 5, 6))
SHORT = ([0.0, 0.0], [1, 2], [-1.0, -2.0])  # one ordered pair, ln 2
LONG = ([2.0, 0.0, 0.0], [2, 1, 1], [-2.0, -1.0, -1.0])  # two ordered pairs, each ln(1 + e^2)
OFF = math.log(1 + math.exp(2))
MARGINS = ([3.0, 2.0, 0.0], [1, 2, 3], [7.0, 3.0, 1.0])  # of the student 1, 3, 2, else 4, 6, 2
TIED_MARGINS = ([3.0, 2.0, 0.0], [1, 1, 2], [7.0, 3.0, 1.0])
THIRD = ([0.0, LN3], [1, 2])  # powers 1 and 3; approximate ranks 1.75 and 1.25
POWERS = ([0.0, LN5, LN2], [2, 3, 1])  # in the teacher's order 2, 1, 5
SHARED = ([0.0, LN5, LN2], [1, 2, 1])
SURE = (*THIRD, [LN4, 0.0])
EQUAL = ([0.0, 0.0, 0.0], [1, 2, 3])  # approximate ranks 2
TIED = ([0.0, 0.0, 0.0], [1, 2, 2])
ODDS = ([LN3, 0.0, -LN3], [1, 2, 3])  # probabilities 3/4, 1/2 and 1/4
FIRST = math.e / (math.e + 1)
ROOT = 2**0.5 - 1  # the reciprocal gain of rank 2


@pytest.mark.parametrize(
    ("loss", "lists", "expected"),
    [
        # (0, 1): s = 1 and (2, 1): s = 3, (0, 2) tied
        (
            RankNet(),
            [([1.0, 0.0, 3.0], [1, 2, 1])],
            (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2,
        ),
        # positions 1.5, 1.5 and 3, which passages tied for both share; gains 0, 0 and 1
        (
            LambdaRank(),
            [([1.0, 1.0, 0.0], [2, 2, 1])],
            2 * (1 / math.log2(2.5) - 1 / 2) * math.log(1 + math.e),
        ),
        (MarginMSE(), [MARGINS], (9 + 9 + 0) / 3),
        (MarginMSE(2.0), [MARGINS], (1 + 0 + 1) / 3),
        (MarginMSE(pairs="best"), [MARGINS], (9 + 9) / 2),
        (MarginMSE(), [TIED_MARGINS], (9 + 0) / 2),
        (ListNet(), [THIRD], FIRST * LN4 + (1 - FIRST) * math.log(4 / 3)),
        # the teacher's 4/5 and 1/5
        (ListNet(teacher_temperature=1 / LN4), [THIRD], 0.8 * LN4 + 0.2 * math.log(4 / 3)),
        # 2 of 8, then 1 of 6; weights 2^2 - 1 and 2^1 - 1
        (ListMLE(), [POWERS], LN4 + LN6),
        (ListMLE(position="exponential"), [POWERS], 0.75 * LN4 + 0.25 * LN6),
        # two tied at the top, each against the third only
        (ListMLE(), [SHARED], LN6 + math.log(7 / 2)),
        (KL(), [SURE], 0.8 * math.log(0.8 * 4) + 0.2 * math.log(0.2 / 0.75)),
        (  # 16 : 1
            KL(teacher_temperature=0.5),
            [SURE],
            16 / 17 * math.log(16 / 17 * 4) + 1 / 17 * math.log(1 / 17 / 0.75),
        ),
        (ADRMSE(), [THIRD], (0.5625 / 1 + 0.5625 / math.log2(3)) / 2),
        (ADRMSE(discount="none"), [THIRD], 0.5625),
        # ranks 1, 2.5, 2.5, where by position it is 1, 2, 3
        (ADRMSE(discount="none"), [TIED], (1 + 0.25 + 0.25) / 3),
        (ADRMSE(discount="none", ties="ordinal"), [TIED], (1 + 0 + 1) / 3),
        # gains 1 and 0; 1 and 2^(1/2) - 1; 1, (2^2 - 1) / 15 and 0
        (ApproxNDCG(), [THIRD], 1 - 1 / math.log2(2.75)),
        (
            ApproxNDCG(gain="reciprocal"),
            [THIRD],
            1 - (1 / math.log2(2.75) + ROOT / math.log2(2.25)) / (1 + ROOT / math.log2(3)),
        ),
        (
            ApproxNDCG(gain="exponential"),
            [EQUAL],
            1 - 1.2 / math.log2(3) / (1 + 0.2 / math.log2(3)),
        ),
        (ApproxMRR(), [THIRD], 1 - 1 / 1.75),
        # positives ln 2 and ln 6, negatives sum to 2: 2/4 and 6/8
        (LCE(), [([LN2, LN6, 0.0, 0.0], [1, 1, 2, 3])], (LN2 + math.log(8 / 6)) / 2),
        (BCE(), [ODDS], (2 * math.log(4 / 3) + LN2) / 3),
        (BCE(positive_weight=5.0), [ODDS], (6 * math.log(4 / 3) + LN2) / 3),
        # pairs, passages or positives are pooled over the batch
        (RankNet(), [SHORT, LONG], (LN2 + 2 * OFF) / 3),
        (MarginMSE(), [SHORT, LONG], (1 + 9 + 9) / 3),
        (BCE(), [SHORT, LONG], (4 * LN2 + OFF) / 5),
        (LCE(), [SHORT, LONG], (LN2 + 2 * OFF) / 3),
    ],
)
def test_hand_worked(loss, lists, expected):
    assert value(loss, lists) == close(expected)


def test_hand_worked_lambda_rank():
    # The student has the order 2, 0, 1, the teacher 0, 1, 2 with gains 1, 1/2, 0.
    best = 1 + 0.5 / math.log2(3)
    pairs = [  # gain difference, positions, score difference
        (0.5, (2, 3), 1.0),
        (1.0, (2, 1), -1.0),
        (0.5, (3, 1), -2.0),
    ]
    for mu in (0.0, 10.0):
        expected = 0.0
        for gain, (i, j), difference in pairs:
            swap = abs(1 / math.log2(1 + i) - 1 / math.log2(1 + j))
            step = {1: 1 - 1 / math.log2(3), 2: 1 / math.log2(3) - 1 / 2}[abs(i - j)]
            expected += gain / best * (swap + mu * step) * math.log(1 + math.exp(-difference))
        lists = [([1.0, 0.0, 2.0], [1, 2, 3])]
        assert value(LambdaRank(mu=mu), lists) == close(expected)
        assert value(LambdaRank(mu=mu, reduction="pairs"), lists) == close(expected / 3)


def test_sum_is_the_weighted_sum():
    lists = drawn()
    both = Sum(losses=[RankNet(2.0), ADRMSE()], weights=[0.25, 3])
    expected = 0.25 * value(RankNet(2.0), lists) + 3 * value(ADRMSE(), lists)
    assert value(both, lists) == close(expected)
    assert value(Sum([RankNet(), LCE()], [0, 1]), lists) == close(value(LCE(), lists))


def test_the_examples_in_the_docstrings():
    attempted = 0
    for module in pkgutil.iter_modules(rdx.losses.__path__):
        found = doctest.testmod(import_module(f"rdx.losses.{module.name}"))
        assert found.failed == 0
        attempted += found.attempted
    assert attempted >= 3 * 12


# --- what every loss promises ---


@EVERY
@pytest.mark.parametrize(("score", "rank"), [(1e4, 1), (float("nan"), -5), (float("inf"), 999)])
def test_padding_changes_nothing(loss, score, rank):
    lists = drawn()
    scores, ranks, mask, teacher = padded(lists, 12, score=score, rank=rank, teacher=score)
    scores.requires_grad_()
    found = loss(scores, ranks, mask, teacher)
    assert found.item() == close(naive(loss, lists), 1e-11)
    found.backward()
    assert (scores.grad[~mask] == 0).all()
    bare, ranks, mask, teacher = padded(lists)
    bare.requires_grad_()
    loss(bare, ranks, mask, teacher).backward()
    torch.testing.assert_close(scores.grad[:, : bare.shape[1]], bare.grad)


@EVERY
def test_padding_may_lie_anywhere(loss):
    scores, ranks, mask, teacher = padded(drawn(), 9)
    if loss == ORDINAL:
        ranks = ranks.argsort(1).argsort(1)
    moved = [tensor.flip(1) for tensor in (scores, ranks, mask, teacher)]
    assert loss(*moved).item() == close(loss(scores, ranks, mask, teacher).item())


@EVERY
@pytest.mark.parametrize("equal_scores", [False, True])
def test_order_of_passages_and_lists_does_not_matter(loss, equal_scores):
    scores, ranks, mask, teacher = padded(drawn(ties=loss != ORDINAL))
    if equal_scores:  # the student's ties, too
        scores = scores.round()
    scores.requires_grad_()
    mixed = scores.detach().flip(0, 1).requires_grad_()
    one = loss(scores, ranks, mask, teacher)
    other = loss(mixed, ranks.flip(0, 1), mask.flip(0, 1), teacher.flip(0, 1))
    assert other.item() == close(one.item())
    one.backward()
    other.backward()
    torch.testing.assert_close(mixed.grad.flip(0, 1), scores.grad)


@pytest.mark.parametrize("loss", [one for one in ALL if one not in POINTWISE], ids=str)
def test_a_constant_per_list_does_not_matter(loss):
    lists = drawn()
    moved = [([s + 3.5 * i for s in one[0]], *one[1:]) for i, one in enumerate(lists)]
    assert value(loss, moved) == close(value(loss, lists), 1e-9)
    taught = [(s, r, [one - 7.0 * i for one in t]) for i, (s, r, t) in enumerate(lists)]
    assert value(loss, taught) == close(value(loss, lists), 1e-9)


@pytest.mark.parametrize("loss", POINTWISE, ids=str)
def test_a_constant_does_matter_to_a_pointwise_loss(loss):
    lists = drawn()
    moved = [([s + 3.5 for s in one[0]], *one[1:]) for one in lists]
    assert abs(value(loss, moved) - value(loss, lists)) > 0.05


@EVERY
@pytest.mark.parametrize("ties", [False, True])
def test_gradients_are_those_of_finite_differences(loss, ties):
    scores, ranks, mask, teacher = padded(drawn(3, ties=ties))
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, ranks, mask, teacher), (scores,))


@EVERY
def test_half_precision_scores_give_a_float32_loss(loss):
    scores, ranks, mask, teacher = padded(drawn(), dtype=torch.bfloat16)
    scores.requires_grad_()
    found = loss(scores, ranks, mask, teacher)
    assert found.dtype == torch.float32
    assert found.item() == loss(scores.float(), ranks, mask, teacher).item()
    found.backward()
    assert scores.grad.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(scores.float(), ranks, mask, teacher)
    assert inside.dtype == torch.float32
    assert inside.item() == found.item()
    assert loss(scores.double(), ranks, mask, teacher.float()).dtype == torch.float64


@EVERY
def test_extreme_scores_stay_finite(loss):
    lists = [([-1e4, 0.0, 1e4], [1, 2, 3], [900.0, 0.0, -900.0])]
    scores, ranks, mask, teacher = padded(lists, dtype=torch.float32)
    scores.requires_grad_()
    found = loss(scores, ranks, mask, teacher)
    found.backward()
    assert math.isfinite(found.item()) and found.item() > 0
    assert torch.isfinite(scores.grad).all()


@EVERY
def test_long_lists_stay_finite(loss):
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 400, generator=random, requires_grad=True)
    ranks = torch.stack([torch.randperm(400, generator=random) + 1 for _ in range(2)])
    found = loss(scores, ranks, ranks > 0, -ranks.float())
    found.backward()
    assert math.isfinite(found.item()) and found.item() > 0
    assert torch.isfinite(scores.grad).all() and (scores.grad != 0).any()


@EVERY
@pytest.mark.parametrize("case", ["one passage", "empty mask", "an empty list beside", "no list"])
def test_nothing_to_learn_is_a_zero_with_a_gradient(loss, case):
    scores = torch.tensor([[3.0, -1.0], [0.5, 7.0]], requires_grad=True)
    ranks = torch.tensor([[1, 2], [1, 2]])
    mask = torch.zeros(2, 2, dtype=torch.bool)
    if case == "one passage":
        mask[:, 1] = True
    if case == "an empty list beside":
        mask[0, 0] = True
    size = 0 if case == "no list" else 2
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way back either
        found = loss(scores[:size], ranks[:size], mask[:size], -ranks[:size].float())
        assert found.item() == 0
        found.backward()
    assert (scores.grad == 0).all()


@pytest.mark.parametrize("loss", [one for one in ALL if not isinstance(one, ADRMSE)], ids=str)
@pytest.mark.parametrize("teacher", [[2.0, 2.0, 2.0], [3.0, 2.0, 1.0]])
def test_tied_lists_teach_nothing(loss, teacher):
    scores = torch.tensor([[3.0, -1.0, 0.0]], requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = loss(scores, torch.tensor([[4, 4, 4]]), mask, torch.tensor([teacher]))
    assert found.item() == 0
    found.backward()
    assert (scores.grad == 0).all()


@pytest.mark.parametrize("loss", [one for one in ALL if not isinstance(one, ADRMSE)], ids=str)
def test_lists_that_teach_nothing_do_not_thin_the_others(loss):
    lists = drawn(sizes=(5, 3), ties=False)
    more = [*lists, ([3.0, -1.0], [4, 4]), ([2.0], [1]), ([], [])]
    assert value(loss, more) == close(value(loss, lists))


@pytest.mark.parametrize("loss", [one for one in ALL if one not in SPLIT], ids=str)
def test_minimising_gives_the_teachers_order(loss):
    ranks = torch.tensor([[3, 1, 4, 2, 5], [2, 5, 1, 3, 4]])
    scores = torch.zeros(2, 5, requires_grad=True)  # a student that knows nothing
    optimiser = torch.optim.Adam([scores], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        loss(scores, ranks, ranks > 0, -ranks.float()).backward()
        optimiser.step()
    if loss == MarginMSE(2.0, "best"):
        torch.testing.assert_close(
            (scores.amax(1, keepdim=True) - scores) * 2, ranks.float() - 1, atol=0.05, rtol=0
        )
    assert (scores.argsort(1, descending=True) == ranks.argsort(1)).all()


@pytest.mark.parametrize("loss", SPLIT, ids=str)
def test_minimising_puts_the_relevant_first(loss):
    ranks = torch.tensor([[2, 1, 2, 2, 1], [2, 2, 1, 2, 2]])
    scores = torch.zeros(2, 5, requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        loss(scores, ranks, ranks > 0).backward()
        optimiser.step()
    for row, split in zip(scores, ranks, strict=True):
        assert row[split == 1].min() > row[split == 2].max() + 1


# --- arguments ---

CHANGES = [
    (RankNet(), RankNet(2.0)),
    (LambdaRank(), LambdaRank(2.0)),
    (LambdaRank(), LambdaRank(gain="exponential")),
    (LambdaRank(), LambdaRank(gain="reciprocal")),
    (LambdaRank(), LambdaRank(mu=10.0)),
    (LambdaRank(), LambdaRank(reduction="pairs")),
    (MarginMSE(), MarginMSE(2.0)),
    (MarginMSE(), MarginMSE(pairs="best")),
    (ListNet(), ListNet(2.0)),
    (ListNet(), ListNet(teacher_temperature=2.0)),
    (ListMLE(), ListMLE(2.0)),
    (ListMLE(), ListMLE(position="exponential")),
    (KL(), KL(2.0)),
    (KL(), KL(teacher_temperature=2.0)),
    (ADRMSE(), ADRMSE(2.0)),
    (ADRMSE(), ADRMSE(discount="none")),
    (ADRMSE(), ADRMSE(ties="ordinal")),
    (ApproxNDCG(), ApproxNDCG(2.0)),
    (ApproxNDCG(), ApproxNDCG(gain="exponential")),
    (ApproxNDCG(), ApproxNDCG(gain="reciprocal")),
    (ApproxMRR(), ApproxMRR(2.0)),
    (LCE(), LCE(2.0)),
    (BCE(), BCE(2.0)),
    (BCE(), BCE(positive_weight=2.0)),
    (Sum([RankNet(), LCE()], [1, 1]), Sum([RankNet(), ADRMSE()], [1, 1])),
    (Sum([RankNet(), LCE()], [1, 1]), Sum([RankNet(), LCE()], [1, 2])),
]


@pytest.mark.parametrize(("one", "other"), CHANGES, ids=str)
def test_every_argument_changes_the_value(one, other):
    lists = drawn()
    assert abs(value(one, lists) - value(other, lists)) > 1e-3


def names(cls):
    return [field.name for field in dataclasses.fields(cls)]


def test_no_argument_was_forgotten():
    tested = {
        (type(one).__name__, name)
        for one, other in CHANGES
        for name in names(type(one))
        if getattr(one, name) != getattr(other, name)
    }
    classes = {type(one) for one in ALL}
    assert tested == {(cls.__name__, name) for cls in classes for name in names(cls)}
    assert {cls.__name__ for cls in classes} | {"Loss"} == set(rdx.losses.__all__)


WARM = [RankNet, LambdaRank, ListNet, ListMLE, KL, ADRMSE, ApproxNDCG, ApproxMRR, LCE, BCE]


@pytest.mark.parametrize("loss", WARM)
def test_temperature_divides(loss):
    lists = drawn()
    doubled = [([2 * s for s in scores], *rest) for scores, *rest in lists]
    assert value(loss(temperature=2.0), doubled) == close(value(loss(), lists))


@pytest.mark.parametrize("loss", [MarginMSE, KL])
def test_the_teachers_temperature_divides(loss):
    lists = drawn()
    doubled = [(scores, ranks, [2 * t for t in teacher]) for scores, ranks, teacher in lists]
    assert value(loss(teacher_temperature=2.0), doubled) == close(value(loss(), lists))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: configured("loss", RankNet, 0.0), r"loss\.temperature=0\.0"),
        (lambda: configured("loss", ADRMSE, temperature=-1.0), r"loss\.temperature=-1\.0"),
        (lambda: configured("loss", LCE, float("nan")), r"loss\.temperature=nan"),
        (lambda: configured("loss", BCE, 0.0), r"loss\.temperature=0\.0"),
        (lambda: configured("loss", ListMLE, 0.0), r"loss\.temperature=0\.0"),
        (lambda: configured("loss", LambdaRank, 0.0), r"loss\.temperature=0\.0"),
        (lambda: configured("loss", ApproxNDCG, 0.0), r"loss\.temperature=0\.0"),
        (lambda: configured("loss", ApproxMRR, 0.0), r"loss\.temperature=0\.0"),
        (lambda: configured("loss", ListNet, 0.0), r"loss\.temperature=0\.0"),
        (lambda: configured("loss", ListNet, 1.0, 0.0), r"loss\.teacher_temperature=0\.0"),
        (lambda: configured("loss", KL, 0.0), r"loss\.temperature=0\.0"),
        (lambda: configured("loss", KL, 1.0, -2.0), r"loss\.teacher_temperature=-2\.0"),
        (lambda: configured("loss", MarginMSE, 0.0), r"loss\.teacher_temperature=0\.0"),
        (lambda: configured("loss", MarginMSE, pairs="first"), r"loss\.pairs='first'.*'best'"),
        (lambda: configured("loss", ADRMSE, discount="ln"), r"loss\.discount='ln'.*'log2'"),
        (lambda: configured("loss", ADRMSE, ties="random"), r"loss\.ties='random'.*'average'"),
        (
            lambda: configured("loss", ListMLE, position="log2"),
            r"loss\.position='log2'.*'exponential'",
        ),
        (lambda: configured("loss", LambdaRank, gain="square"), r"loss\.gain='square'.*'linear'"),
        (lambda: configured("loss", ApproxNDCG, gain="square"), r"loss\.gain='square'.*'linear'"),
        (lambda: configured("loss", LambdaRank, mu=-1.0), r"loss\.mu=-1\.0"),
        (lambda: configured("loss", LambdaRank, mu=float("nan")), r"loss\.mu=nan"),
        (
            lambda: configured("loss", LambdaRank, reduction="mean"),
            r"loss\.reduction='mean'.*'lists'",
        ),
        (lambda: configured("loss", BCE, positive_weight=0.0), r"loss\.positive_weight=0\.0"),
        (lambda: configured("loss", Sum, [], []), r"loss\.weights=\[\].*0 losses"),
        (
            lambda: configured("loss", Sum, [RankNet()], [1.0, 2.0]),
            r"loss\.weights=\[1\.0, 2\.0\].*1 losses",
        ),
        (
            lambda: configured("loss", Sum, [RankNet()], [-1.0]),
            r"loss\.weights\[0\]=-1\.0",
        ),
        (
            lambda: configured("loss", Sum, [RankNet(), LCE()], [0.0, 0.0]),
            r"loss\.weights=\[0\.0, 0\.0\].*all",
        ),
    ],
)
def test_bad_values_name_their_key(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@EVERY
def test_shapes_must_agree(loss):
    ranks, mask = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\[B, N\].*\(2, 1\)"):
        loss(torch.zeros(2, 1), ranks, mask)
    with pytest.raises(ValueError, match=r"\[B, N\]"):
        loss(torch.zeros(2), ranks[0], mask[0])


# --- what they need of a teacher ---


def test_needs():
    found = {type(one).__name__: one.needs for one in ALL if not isinstance(one, Sum)}
    assert found == {
        "RankNet": "ranks",
        "LambdaRank": "ranks",
        "ListNet": "ranks",
        "ListMLE": "ranks",
        "ADRMSE": "ranks",
        "ApproxNDCG": "ranks",
        "ApproxMRR": "ranks",
        "LCE": "ranks",
        "MarginMSE": "scores",
        "KL": "scores",
        "BCE": "labels",
    }
    assert Sum([RankNet(), ADRMSE()], [1, 1]).needs == "ranks"
    assert Sum([BCE(), RankNet()], [1, 1]).needs == "labels"
    assert Sum([BCE(), Sum([KL()], [1]), RankNet()], [1, 1, 1]).needs == "scores"


@pytest.mark.parametrize("loss", [one for one in ALL if one.needs == "scores"], ids=str)
def test_a_teacher_without_scores_is_refused(loss):
    scores, ranks, mask, teacher = padded(drawn())
    with pytest.raises(ValueError, match="this teacher gives no scores"):
        loss(scores, ranks, mask)
    with pytest.raises(ValueError, match="this teacher gives no scores"):
        loss(scores, ranks, mask, None)
    for missing in (float("nan"), float("-inf")):
        teacher[0, 1] = missing
        with pytest.raises(ValueError, match="this teacher gives no scores .* 1 of 18 passages"):
            loss(scores, ranks, mask, teacher)
    with pytest.raises(ValueError, match=r"teacher_scores must be \[B, N\]"):
        loss(scores, ranks, mask, teacher[:, 1:])


@pytest.mark.parametrize("loss", [one for one in ALL if one.needs != "scores"], ids=str)
def test_who_does_not_need_scores_ignores_them(loss):
    scores, ranks, mask, teacher = padded(drawn())
    expected = loss(scores, ranks, mask).item()
    for given in (None, teacher, torch.full_like(teacher, float("nan"))):
        assert loss(scores, ranks, mask, given).item() == expected


@pytest.mark.parametrize("loss", SPLIT, ids=str)
def test_relevant_are_the_best_rank_and_the_rest(loss):
    scores, ranks, mask, _ = padded(drawn(1))
    best = torch.where(mask, ranks, 99).amin(1, keepdim=True)
    split = torch.where(ranks == best, 1, 2)
    assert loss(scores, split, mask).item() == loss(scores, ranks, mask).item()


# --- how they belong together ---


def test_adr_mse_pulls_tied_passages_together():
    ranks, mask = torch.tensor([[4, 4, 4]]), torch.ones(1, 3, dtype=torch.bool)
    equal = torch.zeros(1, 3, requires_grad=True)
    found = ADRMSE()(equal, ranks, mask)
    assert found.item() == 0
    found.backward()
    assert (equal.grad == 0).all()
    assert ADRMSE()(torch.tensor([[3.0, -1.0, 0.0]]), ranks, mask).item() > 0
    # by position, equal scores are wrong about ranks 1 and 3 by one
    ordinal = ADRMSE(discount="none", ties="ordinal")(torch.zeros(1, 3), ranks, mask)
    assert ordinal.item() == pytest.approx(2 / 3)


def test_list_mle_of_one_relevant_passage_is_lce():
    lists = [([0.3, -1.0, 2.0], [2, 1, 2]), ([1.0, 0.5], [1, 2])]
    assert value(ListMLE(), lists) == close(value(LCE(), lists))


def test_listnet_is_kl_to_the_ranks_plus_their_entropy():
    scores, ranks, mask, _ = padded(drawn(sizes=(6, 6), ties=False))
    target = (-ranks.double() / 2).softmax(1)
    entropy = -(target * target.log()).sum(1).mean()
    expected = KL(0.5, 2.0)(scores, ranks, mask, -ranks.double()) + entropy
    torch.testing.assert_close(ListNet(0.5, 2.0)(scores, ranks, mask), expected)


@pytest.mark.parametrize("gain", ["linear", "exponential", "reciprocal"])
def test_approximations_become_the_measures_as_the_temperature_falls(gain):
    # in the student's order the teacher ranks are 3, 2, 1, 4
    lists = [([0.3, -1.0, 2.0, 0.1], [2, 4, 3, 1])]
    gains = {
        "linear": [1, 2 / 3, 1 / 3, 0],
        "exponential": [2**y - 1 for y in (4, 8 / 3, 4 / 3, 0)],
        "reciprocal": [2 ** (1 / r) - 1 for r in (1, 2, 3, 4)],
    }[gain]
    discounts = [1 / math.log2(1 + p) for p in (1, 2, 3, 4)]
    dcg = sum(gains[r - 1] * d for r, d in zip([3, 2, 1, 4], discounts, strict=True))
    best = sum(g * d for g, d in zip(gains, discounts, strict=True))
    assert value(ApproxNDCG(1e-3, gain), lists) == close(1 - dcg / best)
    assert value(ApproxMRR(1e-3), lists) == close(1 - 1 / 3)
    assert value(ADRMSE(1e-3, "none"), lists) == close((0 + 0 + 4 + 4) / 4)


@pytest.mark.parametrize("loss", [LambdaRank(mu=2.0), ApproxNDCG(0.3)], ids=str)
def test_two_levels_of_ranks_are_a_binary_ndcg_whatever_the_gain(loss):
    lists = [([0.3, -1.0, 2.0, 0.1], [1, 2, 2, 1])]
    linear = value(loss, lists)
    exponential = value(type(loss)(**{**vars(loss), "gain": "exponential"}), lists)
    assert exponential == close(linear)
    discount = [1 / math.log2(1 + p) for p in (1, 2)]
    if isinstance(loss, ApproxNDCG):
        s = lists[0][0]
        ranks = [
            1 + sum(1 / (1 + math.exp((s[i] - s[j]) / 0.3)) for j in range(4) if j != i)
            for i in (0, 3)
        ]
        assert linear == close(1 - sum(1 / math.log2(1 + r) for r in ranks) / sum(discount))


def test_lambda_rank_learns_from_a_student_that_is_undecided():
    ranks, mask = torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool)
    scores = torch.zeros(1, 3, requires_grad=True)
    found = LambdaRank()(scores, ranks, mask)
    found.backward()
    # as in the order 3, 2, 1, just before which it stands
    worst = LambdaRank()(torch.tensor([[0.0, 1e-6, 2e-6]]), ranks, mask)
    assert found.item() == close(worst.item(), 1e-5)
    assert scores.grad[0, 0] < scores.grad[0, 1] < scores.grad[0, 2]


LISTWISE = [ListNet(), ListMLE(), KL(), ADRMSE(), ApproxNDCG(), ApproxMRR(), LambdaRank()]


@pytest.mark.parametrize("loss", LISTWISE, ids=str)
def test_listwise_losses_weigh_lists_equally(loss):
    mean = (value(loss, [SHORT]) + value(loss, [LONG])) / 2
    assert value(loss, [SHORT]) != pytest.approx(mean)
    assert value(loss, [SHORT, LONG]) == close(mean)
    assert value(loss, [SHORT, LONG, ([], [], [])]) == close(mean)
