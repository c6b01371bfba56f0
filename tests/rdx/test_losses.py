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
    MSE,
    ApproxMRR,
    ApproxNDCG,
    Hinge,
    LambdaRank,
    ListMLE,
    ListNet,
    MarginMSE,
    RankNet,
    Sum,
)
from rdx.losses.combined import divided, divisible, weighted
from tests.rdx.configured import check_refused

WEIGHTED = [
    RankNet(weights=weights)
    for weights in ("reciprocal_sum", "reciprocal", "score_difference", "student_rank")
]
SOFT = [BCE(targets="scores"), BCE(2.0, 3.0, "scores")]
ORDINAL = ADRMSE(1.0, "log2", "ordinal")
ALL = [
    RankNet(),
    RankNet(2.0),
    *WEIGHTED,
    RankNet(0.5, "student_rank"),
    Hinge(),
    Hinge(2.0, "best"),
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
    KL(direction="reverse"),
    KL(2.0, 0.5, "reverse"),
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
    *SOFT,
    MSE(),
    MSE(2.0),
    Sum([RankNet(), KL(0.5)], [0.5, 2.0]),
    Sum([MSE(), Sum([Hinge()], [0.3])], [1.0, 2.0]),
    Sum([LCE(), Sum([BCE()], [0.3])], [1.0, 2.0]),
]
ON_TARGETS = [*SOFT, MSE(), MSE(2.0), ALL[-2]]  # which every passage has
ON_LABELS = [BCE(), BCE(2.0, 3.0), ALL[-1]]
POINTWISE = [*ON_TARGETS, *ON_LABELS]
# the best rank and the rest
SPLIT = [ApproxMRR(), ApproxMRR(0.5), LCE(), LCE(0.5), Hinge(2.0, "best"), *ON_LABELS]
NAN = float("nan")


def each(losses):
    return pytest.mark.parametrize("loss", list(losses), ids=str)


EVERY = each(ALL)
ON_RANKS = each(loss for loss in ALL if loss.needs != "scores")
ON_ORDER = each(loss for loss in ALL if not isinstance(loss, ADRMSE) and loss not in ON_TARGETS)


def close(expected, rel=1e-12):
    return pytest.approx(expected, rel=rel)


def with_gradient(loss, scores, *lists):
    """The value of a loss, and its gradient by the student's scores."""
    scores = scores.detach().clone().requires_grad_()
    total = loss(scores, *lists)
    total.backward()
    return total, scores.grad


# --- values ---


@EVERY
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_naive_loops(loss, ties, seed):
    lists = drawn(seed, ties=ties)
    expected = naive(loss, lists)
    assert expected != 0
    assert value(loss, lists) == close(expected, 1e-11)
    assert value(loss, lists, dtype=torch.float32) == close(expected, 2e-5)


@ON_RANKS
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
        # teacher ranks 1.5, 3, 1.5, the student's 2, 3, 1; teacher scores 3, 1, 2.5
        *(
            (
                RankNet(weights=weights),
                [([1.0, 0.0, 3.0], [1, 2, 1], [3.0, 1.0, 2.5])],
                (first * math.log(1 + math.exp(-1)) + second * math.log(1 + math.exp(-3))) / 2,
            )
            for weights, first, second in [
                ("reciprocal_sum", 1 / 4.5, 1 / 4.5),
                ("reciprocal", 1 / 3, 1 / 3),
                ("score_difference", 2.0, 1.5),
                ("student_rank", 1 / 5, 1 / 4),
            ]
        ),
        # leads of 1, 3 and 2, then 1 and -3
        (Hinge(2.5), [([3.0, 2.0, 0.0], [1, 2, 3])], (1.5 + 0 + 0.5) / 3),
        (Hinge(2.5, "best"), [([3.0, 2.0, 0.0], [1, 2, 3])], (1.5 + 0) / 2),
        (Hinge(), [([1.0, 0.0], [1, 2]), ([3.0, 0.0, 0.0], [2, 1, 2])], (0 + 4 + 1) / 3),
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
        (KL(direction="reverse"), [SURE], 0.25 * math.log(0.25 / 0.8) + 0.75 * math.log(0.75 * 5)),
        # errors -4, -1, -1, and one of a list of one passage
        (MSE(), [MARGINS, ([1.0], [1], [3.0])], (16 + 1 + 1 + 4) / 4),
        (MSE(2.0), [MARGINS], (0.25 + 0.25 + 0.25) / 3),
        (  # probabilities 3/4, 1/2 and 1/4
            BCE(targets="scores"),
            [(*ODDS, [1.0, 0.25, 0.5])],
            (math.log(4 / 3) + LN2 + (LN4 + math.log(4 / 3)) / 2) / 3,
        ),
        (
            BCE(positive_weight=3.0, targets="scores"),
            [(*ODDS, [1.0, 0.25, 0.5])],
            (3 * math.log(4 / 3) + 1.5 * LN2 + (3 * LN4 + math.log(4 / 3)) / 2) / 3,
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
    modules = [f"rdx.losses.{module.name}" for module in pkgutil.iter_modules(rdx.losses.__path__)]
    examples = [doctest.testmod(import_module(name)) for name in modules]
    assert sum(module.failed for module in examples) == 0
    assert sum(module.attempted for module in examples) >= 3 * 12


# --- what every loss promises ---


@EVERY
@pytest.mark.parametrize(("score", "rank"), [(1e4, 1), (NAN, -5), (math.inf, 999)])
def test_padding_changes_nothing(loss, score, rank):
    lists = drawn()
    wide = padded(lists, 12, score=score, rank=rank, teacher=score)
    total, gradient = with_gradient(loss, *wide)
    assert total.item() == close(naive(loss, lists), 1e-11)
    mask = wide[2]
    assert (gradient[~mask] == 0).all()
    bare = with_gradient(loss, *padded(lists))[1]
    torch.testing.assert_close(gradient[:, : bare.shape[1]], bare)


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
    scores, *lists = padded(drawn(ties=loss != ORDINAL))
    if equal_scores:  # the student's ties, too
        scores = scores.round()
    total, gradient = with_gradient(loss, scores, *lists)
    mixed, mixed_gradient = with_gradient(loss, *(tensor.flip(0, 1) for tensor in (scores, *lists)))
    assert mixed.item() == close(total.item())
    torch.testing.assert_close(mixed_gradient.flip(0, 1), gradient)


@each(loss for loss in ALL if loss not in POINTWISE)
def test_a_constant_per_list_does_not_matter(loss):
    lists = drawn()
    moved = [([x + 3.5 * i for x in s], *more) for i, (s, *more) in enumerate(lists)]
    assert value(loss, moved) == close(value(loss, lists), 1e-9)
    taught = [(s, r, [x - 7.0 * i for x in t]) for i, (s, r, t) in enumerate(lists)]
    assert value(loss, taught) == close(value(loss, lists), 1e-9)


@each(POINTWISE)
def test_a_constant_does_matter_to_a_pointwise_loss(loss):
    lists = drawn()
    moved = [([x + 3.5 for x in s], *more) for s, *more in lists]
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
    total, gradient = with_gradient(loss, scores, ranks, mask, teacher)
    assert (total.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    assert total.item() == loss(scores.float(), ranks, mask, teacher).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(scores.float(), ranks, mask, teacher)
    assert inside.dtype == torch.float32
    assert inside.item() == total.item()
    assert loss(scores.double(), ranks, mask, teacher.float()).dtype == torch.float64


@EVERY
def test_extreme_scores_stay_finite(loss):
    lists = [([-1e4, 0.0, 1e4], [1, 2, 3], [900.0, 0.0, -900.0])]
    total, gradient = with_gradient(loss, *padded(lists, dtype=torch.float32))
    assert 0 < total.item() < math.inf
    assert torch.isfinite(gradient).all()


@EVERY
def test_long_lists_stay_finite(loss):
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 400, generator=random)
    ranks = torch.stack([torch.randperm(400, generator=random) + 1 for _ in range(2)])
    teacher = -ranks.float() if loss not in SOFT else 1 / ranks
    total, gradient = with_gradient(loss, scores, ranks, ranks > 0, teacher)
    assert 0 < total.item() < math.inf
    assert torch.isfinite(gradient).all() and (gradient != 0).any()


@EVERY
@pytest.mark.parametrize("case", ["one passage", "empty mask", "an empty list beside", "no list"])
def test_nothing_to_learn_is_a_zero_with_a_gradient(loss, case):
    scores, ranks = torch.tensor([[3.0, -1.0], [0.5, 7.0]]), torch.tensor([[1, 2], [1, 2]])
    mask = torch.zeros(2, 2, dtype=torch.bool)
    if case == "one passage" and loss not in ON_TARGETS:
        mask[:, 1] = True
    if case == "an empty list beside" and loss not in ON_TARGETS:
        mask[0, 0] = True
    size = 0 if case == "no list" else 2
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way back either
        lists = (tensor[:size] for tensor in (scores, ranks, mask, -ranks.float()))
        total, gradient = with_gradient(loss, *lists)
    assert total.item() == 0
    assert (gradient == 0).all()


@ON_ORDER
@pytest.mark.parametrize("teacher", [[2.0, 2.0, 2.0], [3.0, 2.0, 1.0]])
def test_tied_lists_teach_nothing(loss, teacher):
    scores, ranks = torch.tensor([[3.0, -1.0, 0.0]]), torch.tensor([[4, 4, 4]])
    total, gradient = with_gradient(loss, scores, ranks, ranks > 0, torch.tensor([teacher]))
    assert total.item() == 0
    assert (gradient == 0).all()


@ON_ORDER
def test_lists_that_teach_nothing_do_not_thin_the_others(loss):
    lists = drawn(sizes=(5, 3), ties=False)
    more = [*lists, ([3.0, -1.0], [4, 4]), ([2.0], [1]), ([], [])]
    assert value(loss, more) == close(value(loss, lists))


def minimised(loss, ranks, *teacher):
    """The scores of a student that knew nothing, after 150 steps."""
    scores = torch.zeros(ranks.shape, requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        loss(scores, ranks, ranks > 0, *teacher).backward()
        optimiser.step()
    return scores.detach()


@each(loss for loss in ALL if loss not in SPLIT + SOFT)
def test_minimising_gives_the_teachers_order(loss):
    ranks = torch.tensor([[3, 1, 4, 2, 5], [2, 5, 1, 3, 4]])
    scores = minimised(loss, ranks, -ranks.float())
    if loss == MarginMSE(2.0, "best"):
        torch.testing.assert_close(
            (scores.amax(1, keepdim=True) - scores) * 2, ranks.float() - 1, atol=0.05, rtol=0
        )
    assert (scores.argsort(1, descending=True) == ranks.argsort(1)).all()


@each(SPLIT)
def test_minimising_puts_the_relevant_first(loss):
    ranks = torch.tensor([[2, 1, 2, 2, 1], [2, 2, 1, 2, 2]])
    for row, split in zip(minimised(loss, ranks), ranks, strict=True):
        assert row[split == 1].min() > row[split == 2].max() + 1


def test_minimising_a_pointwise_loss_gives_the_targets():
    ranks = torch.tensor([[3, 1, 4, 2], [2, 2, 2, 2]])  # which do not matter
    teacher = torch.tensor([[0.2, 0.9, 0.3, 0.3], [0.5, 0.5, 0.1, 0.8]])
    near = {"atol": 2e-3, "rtol": 0.0}
    torch.testing.assert_close(minimised(MSE(2.0), ranks, teacher) * 2, teacher, **near)
    torch.testing.assert_close(minimised(SOFT[0], ranks, teacher).sigmoid(), teacher, **near)


# --- arguments ---

# Every argument of every loss -> other values than the default, each of which is another loss.
OTHER = {
    RankNet: {"temperature": [2.0], "weights": [loss.weights for loss in WEIGHTED]},
    Hinge: {"margin": [2.0], "pairs": ["best"]},
    MSE: {"teacher_temperature": [2.0]},
    LambdaRank: {
        "temperature": [2.0],
        "gain": ["exponential", "reciprocal"],
        "mu": [10.0],
        "reduction": ["pairs"],
    },
    MarginMSE: {"teacher_temperature": [2.0], "pairs": ["best"]},
    ListNet: {"temperature": [2.0], "teacher_temperature": [2.0]},
    ListMLE: {"temperature": [2.0], "position": ["exponential"]},
    KL: {"temperature": [2.0], "teacher_temperature": [2.0], "direction": ["reverse"]},
    ADRMSE: {"temperature": [2.0], "discount": ["none"], "ties": ["ordinal"]},
    ApproxNDCG: {"temperature": [2.0], "gain": ["exponential", "reciprocal"]},
    ApproxMRR: {"temperature": [2.0]},
    LCE: {"temperature": [2.0]},
    BCE: {"temperature": [2.0], "positive_weight": [2.0], "targets": ["scores"]},
    Sum: {"losses": [[RankNet(), ADRMSE()]], "weights": [[1, 2]]},
}
DEFAULT = {Sum: {"losses": [RankNet(), LCE()], "weights": [1, 1]}}
CHANGES = [
    (cls, {name: other}) for cls, names in OTHER.items() for name in names for other in names[name]
]


@pytest.mark.parametrize(("cls", "change"), CHANGES, ids=str)
def test_every_argument_changes_the_value(cls, change):
    lists, default = drawn(), DEFAULT.get(cls, {})
    assert abs(value(cls(**default), lists) - value(cls(**(default | change)), lists)) > 1e-3


def test_no_argument_was_forgotten():
    arguments = {cls: {field.name for field in dataclasses.fields(cls)} for cls in map(type, ALL)}
    assert {cls: set(names) for cls, names in OTHER.items()} == arguments
    assert {cls.__name__ for cls in arguments} | {"Divisible", "Loss"} == set(rdx.losses.__all__)


WARM = [RankNet, LambdaRank, ListNet, ListMLE, KL, ADRMSE, ApproxNDCG, ApproxMRR, LCE, BCE]


@pytest.mark.parametrize("loss", WARM)
def test_temperature_divides(loss):
    lists = drawn()
    doubled = [([2 * s for s in scores], *rest) for scores, *rest in lists]
    assert value(loss(temperature=2.0), doubled) == close(value(loss(), lists))


@pytest.mark.parametrize("loss", [MarginMSE, KL, MSE])
def test_the_teachers_temperature_divides(loss):
    lists = drawn()
    doubled = [(scores, ranks, [2 * t for t in teacher]) for scores, ranks, teacher in lists]
    assert value(loss(teacher_temperature=2.0), doubled) == close(value(loss(), lists))


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        *((cls, {"temperature": 0.0}) for cls in WARM),
        *((cls, {"teacher_temperature": 0.0}) for cls in (ListNet, MarginMSE, MSE)),
        (RankNet, {"weights": "rank"}),
        (Hinge, {"margin": 0.0}),
        (Hinge, {"pairs": "first"}),
        (KL, {"direction": "both"}),
        (BCE, {"targets": "labels"}),
        (ADRMSE, {"temperature": -1.0}),
        (LCE, {"temperature": NAN}),
        (KL, {"teacher_temperature": -2.0}),
        (MarginMSE, {"pairs": "first"}),
        (ADRMSE, {"discount": "ln"}),
        (ADRMSE, {"ties": "random"}),
        (ListMLE, {"position": "log2"}),
        (LambdaRank, {"gain": "square"}),
        (ApproxNDCG, {"gain": "square"}),
        (LambdaRank, {"mu": -1.0}),
        (LambdaRank, {"mu": NAN}),
        (LambdaRank, {"reduction": "mean"}),
        (BCE, {"positive_weight": 0.0}),
        (Sum, {"losses": [], "weights": []}),
        (Sum, {"losses": [RankNet()], "weights": [1.0, 2.0]}),
        (Sum, {"losses": [RankNet(), LCE()], "weights": [0.0, 0.0]}),
        (Sum, {"losses": [RankNet()], "weights": [-1.0], "told": "weights[0]=-1.0"}),
    ],
)
def test_bad_values_name_their_key(cls, values):
    check_refused("loss", cls, **values)


@EVERY
def test_shapes_must_agree(loss):
    ranks, mask = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\[B, N\].*\(2, 1\)"):
        loss(torch.zeros(2, 1), ranks, mask)
    with pytest.raises(ValueError, match=r"\[B, N\]"):
        loss(torch.zeros(2), ranks[0], mask[0])


# --- what they need of a teacher ---


def test_needs():
    of_scores = (MarginMSE, KL, MSE)
    for loss in ALL:
        if isinstance(loss, of_scores) or loss in SOFT or loss == WEIGHTED[2]:
            assert loss.needs == "scores"
        elif not isinstance(loss, Sum):
            assert loss.needs == ("labels" if isinstance(loss, BCE) else "ranks")
    assert Sum([RankNet(), ADRMSE()], [1, 1]).needs == "ranks"
    assert Sum([BCE(), RankNet()], [1, 1]).needs == "labels"
    assert Sum([BCE(), Sum([KL()], [1]), RankNet()], [1, 1, 1]).needs == "scores"


def test_scales():
    """Probabilities are what soft labels must be; nothing else minds."""
    probabilities = ("minmax", "quantile", "probability")
    for loss in ALL:
        assert getattr(loss, "scales", None) == (probabilities if loss in SOFT else None)


@each(loss for loss in ALL if loss.needs == "scores")
def test_a_teacher_without_scores_is_refused(loss):
    scores, ranks, mask, teacher = padded(drawn())
    for absent in ((), (None,)):
        with pytest.raises(ValueError, match="scores"):
            loss(scores, ranks, mask, *absent)
    for missing in (NAN, float("-inf")):
        teacher[0, 1] = missing
        with pytest.raises(ValueError, match="1 of 18"):
            loss(scores, ranks, mask, teacher)
    with pytest.raises(ValueError, match="teacher_scores"):
        loss(scores, ranks, mask, teacher[:, 1:])


@ON_RANKS
def test_who_does_not_need_scores_ignores_them(loss):
    scores, ranks, mask, teacher = padded(drawn())
    expected = loss(scores, ranks, mask).item()
    for ignored in (None, teacher, torch.full_like(teacher, NAN)):
        assert loss(scores, ranks, mask, ignored).item() == expected


@each(SPLIT)
def test_relevant_are_the_best_rank_and_the_rest(loss):
    scores, ranks, mask, _ = padded(drawn(1))
    best = torch.where(mask, ranks, 99).amin(1, keepdim=True)
    split = torch.where(ranks == best, 1, 2)
    assert loss(scores, split, mask).item() == loss(scores, ranks, mask).item()


# --- how they belong together ---


def test_adr_mse_pulls_tied_passages_together():
    ranks, mask = torch.tensor([[4, 4, 4]]), torch.ones(1, 3, dtype=torch.bool)
    equal, gradient = with_gradient(ADRMSE(), torch.zeros(1, 3), ranks, mask)
    assert equal.item() == 0
    assert (gradient == 0).all()
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
    undecided, gradient = with_gradient(LambdaRank(), torch.zeros(1, 3), ranks, mask)
    # as in the order 3, 2, 1, just before which it stands
    worst = LambdaRank()(torch.tensor([[0.0, 1e-6, 2e-6]]), ranks, mask)
    assert undecided.item() == close(worst.item(), 1e-5)
    assert gradient[0, 0] < gradient[0, 1] < gradient[0, 2]


LISTWISE = [
    ListNet(),
    ListMLE(),
    KL(),
    KL(direction="reverse"),
    ADRMSE(),
    ApproxNDCG(),
    ApproxMRR(),
    LambdaRank(),
]


@each(LISTWISE)
def test_listwise_losses_weigh_lists_equally(loss):
    mean = (value(loss, [SHORT]) + value(loss, [LONG])) / 2
    assert value(loss, [SHORT]) != pytest.approx(mean)
    assert value(loss, [SHORT, LONG]) == close(mean)
    assert value(loss, [SHORT, LONG, ([], [], [])]) == close(mean)


# --- in groups of lists ---


def in_groups(loss, scores, *lists, groups):
    """The value of a loss, and its gradient, from one group of lists after the other."""
    scores = scores.detach().clone().requires_grad_()
    taught = [[tensor[group] for tensor in lists] for group in groups]
    total = 0.0
    for group, targets, parts in zip(groups, taught, divided(loss, lists, taught), strict=True):
        value = weighted(parts, scores[group], *targets)
        value.backward()
        total += value.item()
    return total, scores.grad


@EVERY
def test_groups_of_lists_make_up_the_batch(loss):
    """With a list that is tied throughout, one of one passage, and an empty one."""
    odd = [([3.0, -1.0], [4, 4]), ([2.0], [1]), ([], [])]
    for ties in (False, True):
        batch = padded([*drawn(ties=ties)[:3], *odd])
        expected, whole = with_gradient(loss, *batch)
        for groups in ([range(6)], [[3], [5, 0, 4], [1, 2]], [[i] for i in range(6)]):
            value, gradient = in_groups(loss, *batch, groups=groups)
            assert value == close(expected.item())
            torch.testing.assert_close(gradient, whole, rtol=1e-12, atol=1e-14)


@EVERY
def test_groups_without_anything_to_learn(loss):
    ranks = torch.tensor([[1, 0], [1, 0]])
    mask = (ranks > 0) & (loss not in ON_TARGETS)
    batch = torch.ones(2, 2), ranks, mask, -ranks.float()
    value, gradient = in_groups(loss, *batch, groups=[[0], [1]])
    assert value == 0 and (gradient == 0).all()


def test_denominators():
    """Lists of 4, 3, 2 and 1; relevant are the first two of the second; the third is tied."""
    ranks = torch.tensor([[1, 2, 3, 4], [1, 1, 2, 0], [4, 4, 0, 0], [1, 0, 0, 0]])
    counts = {
        RankNet(): 6 + 2,
        LambdaRank(reduction="pairs"): 6 + 2,
        **dict.fromkeys([*WEIGHTED, Hinge(), MarginMSE()], 6 + 2),
        **dict.fromkeys([Hinge(pairs="best"), MarginMSE(pairs="best")], 3 + 2),
        **dict.fromkeys([MSE(), *SOFT], 10),
        LCE(): 1 + 2,
        BCE(): 4 + 3,
        ADRMSE(): 4,
        **dict.fromkeys([LambdaRank(), ListNet(), ListMLE(), KL(), ApproxNDCG(), ApproxMRR()], 2),
    }
    assert {type(loss) for loss in counts} | {Sum} == set(map(type, ALL))
    for loss, count in counts.items():
        assert loss.denominator(ranks, ranks > 0, -ranks.float()).item() == count
        assert divisible(loss)
    wide = torch.nn.functional.pad(ranks, (0, 1), value=3)
    mask = torch.nn.functional.pad(ranks > 0, (0, 1))
    for loss, count in counts.items():
        assert loss.denominator(wide, mask, -wide.float()).item() == count


def test_a_loss_without_a_denominator_is_not_divided():
    def plain(scores, ranks, mask):
        return scores.sum()

    assert not divisible(plain) and not divisible(Sum([RankNet(), Whole()], [1, 1]))
    scores, *lists = padded(drawn())
    assert in_groups(Whole(), scores, *lists, groups=[range(len(scores))])[0] == scores.max().item()


class Whole:
    """A loss that no group of lists tells anything of."""

    needs = "ranks"

    def __call__(self, student_scores, teacher_ranks, mask, teacher_scores=None):
        return student_scores.max()
