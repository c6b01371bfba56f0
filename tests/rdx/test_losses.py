"""Losses: naive loops, hand-worked and published values, and the properties that were declared."""

import json
import math
from pathlib import Path

import pytest
import torch

from rdx.losses import ADRMSE, LCE, RankNet

REFERENCE = Path(__file__).parents[2] / ".." / "shared" / "reference" / "losses.json"
ALL = [
    RankNet(),
    RankNet(2.0),
    ADRMSE(),
    ADRMSE(0.5, "none"),
    ADRMSE(1.0, "log2", "ordinal"),
    LCE(),
    LCE(0.5),
]


def naive_ranknet(lists, temperature):
    values = [
        math.log(1 + math.exp(-(s_i - s_j) / temperature))
        for scores, ranks in lists
        for s_i, r_i in zip(scores, ranks, strict=True)
        for s_j, r_j in zip(scores, ranks, strict=True)
        if r_i < r_j
    ]
    return sum(values) / len(values) if values else 0.0


def naive_adr_mse(lists, temperature, discount, ties):
    means = []
    for scores, ranks in lists:
        errors = []
        for i in range(len(scores)):
            others = [j for j in range(len(scores)) if j != i]
            target = 1.0 + sum(ranks[j] < ranks[i] for j in others)
            if ties == "average":
                target += sum(ranks[j] == ranks[i] for j in others) / 2
            else:
                target += sum(ranks[j] == ranks[i] for j in others if j < i)
            found = 1.0
            for j in others:
                found += 1 / (1 + math.exp(-(scores[j] - scores[i]) / temperature))
            weight = 1 / math.log2(target + 1) if discount == "log2" else 1.0
            errors.append(weight * (found - target) ** 2)
        if errors:
            means.append(sum(errors) / len(errors))
    return sum(means) / len(means) if means else 0.0


def naive_lce(lists, temperature):
    values = []
    for scores, ranks in lists:
        powers = [math.exp(s / temperature) for s in scores]
        best = min(ranks, default=0)
        rest = sum(p for p, r in zip(powers, ranks, strict=True) if r > best)
        if rest:
            positives = [p for p, r in zip(powers, ranks, strict=True) if r == best]
            values += [-math.log(p / (p + rest)) for p in positives]
    return sum(values) / len(values) if values else 0.0


def naive(loss, lists):
    if isinstance(loss, RankNet):
        return naive_ranknet(lists, loss.temperature)
    if isinstance(loss, LCE):
        return naive_lce(lists, loss.temperature)
    return naive_adr_mse(lists, loss.temperature, loss.discount, loss.ties)


def padded(lists, width=None, dtype=torch.float64, score=0.0, rank=0):
    """Lists of (scores, ranks) as tensors; padding holds `score` and `rank`."""
    width = width or max(len(scores) for scores, _ in lists)
    fill = [width - len(scores) for scores, _ in lists]
    scores = [[*s, *[score] * n] for (s, _), n in zip(lists, fill, strict=True)]
    ranks = [[*r, *[rank] * n] for (_, r), n in zip(lists, fill, strict=True)]
    mask = [[True] * (width - n) + [False] * n for n in fill]
    return torch.tensor(scores, dtype=dtype), torch.tensor(ranks), torch.tensor(mask)


def value(loss, lists, **options):
    return loss(*padded(lists, **options)).item()


def drawn(seed=0, sizes=(5, 3, 7, 1, 2), ties=True):
    random = torch.Generator().manual_seed(seed)
    lists = []
    for size in sizes:
        scores = torch.randn(size, generator=random, dtype=torch.float64).tolist()
        high = max(size - 1, 2) if ties else None
        ranks = (
            torch.randint(1, high, (size,), generator=random)
            if ties
            else torch.randperm(size, generator=random) + 1
        )
        lists.append((scores, ranks.tolist()))
    return lists


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_naive_loops(loss, ties, seed):
    lists = drawn(seed, ties=ties)
    expected = naive(loss, lists)
    assert expected > 0
    assert value(loss, lists) == pytest.approx(expected, rel=1e-12)
    assert value(loss, lists, dtype=torch.float32) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_ranks_may_have_gaps_and_start_anywhere(loss):
    scores = [0.3, -1.0, 2.0, 0.1]
    dense = value(loss, [(scores, [2, 1, 4, 3])])
    assert value(loss, [(scores, [70, 4, 99, 71])]) == dense > 0


def test_hand_worked_ranknet():
    # ordered pairs (0, 1): s = 1 and (2, 1): s = 3, (0, 2) tied
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2
    assert value(RankNet(), [([1.0, 0.0, 3.0], [1, 2, 1])]) == pytest.approx(expected)


def test_hand_worked_adr_mse():
    # sigmoid(ln 3) = 3/4: approximate ranks 1.75 and 1.25 where 1 and 2 are due
    lists = [([0.0, math.log(3)], [1, 2])]
    assert value(ADRMSE(), lists) == pytest.approx((0.5625 / 1 + 0.5625 / math.log2(3)) / 2)
    assert value(ADRMSE(discount="none"), lists) == pytest.approx(0.5625)


def test_hand_worked_lce():
    # positives ln 2 and ln 6, negatives sum to 2: 2/4 and 6/8
    lists = [([math.log(2), math.log(6), 0.0, 0.0], [1, 1, 2, 3])]
    assert value(LCE(), lists) == pytest.approx((math.log(2) + math.log(8 / 6)) / 2)


@pytest.mark.skipif(not REFERENCE.exists(), reason="no reference values")
def test_equals_other_libraries():
    ours = {"ranknet": RankNet(), "adr_mse (log2 discount)": ADRMSE()}
    compared = 0
    for case in json.loads(REFERENCE.read_text()):
        scores, ranks = torch.tensor(case["scores"]), torch.tensor(case["teacher_ranks"])
        mask = torch.ones_like(scores, dtype=torch.bool)
        for name, loss in ours.items():
            for library, expected in case["expected"][name].items():
                found = loss(scores, ranks, mask).item()
                assert found == pytest.approx(expected, rel=1e-5), (name, library)
                compared += 1
    assert compared >= 20


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize(("score", "rank"), [(1e4, 1), (float("nan"), -5), (float("inf"), 999)])
def test_padding_changes_nothing(loss, score, rank):
    lists = drawn()
    scores, ranks, mask = padded(lists, 12, score=score, rank=rank)
    scores.requires_grad_()
    found = loss(scores, ranks, mask)
    assert found.item() == pytest.approx(naive(loss, lists), rel=1e-12)
    found.backward()
    assert (scores.grad[~mask] == 0).all()
    bare, ranks, mask = padded(lists)
    bare.requires_grad_()
    loss(bare, ranks, mask).backward()
    torch.testing.assert_close(scores.grad[:, : bare.shape[1]], bare.grad)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_padding_may_lie_anywhere(loss):
    scores, ranks, mask = padded(drawn(), 9)
    moved = [tensor.flip(1) for tensor in (scores, ranks, mask)]
    if loss == ADRMSE(1.0, "log2", "ordinal"):
        ranks, moved[1] = ranks.argsort(1).argsort(1), ranks.argsort(1).argsort(1).flip(1)
    assert loss(*moved).item() == pytest.approx(loss(scores, ranks, mask).item(), rel=1e-12)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_order_of_passages_and_lists_does_not_matter(loss):
    lists = drawn(ties="ordinal" not in str(loss))
    mixed = [(scores[::-1], ranks[::-1]) for scores, ranks in lists[::-1]]
    assert value(loss, mixed) == pytest.approx(value(loss, lists), rel=1e-12)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_a_constant_per_list_does_not_matter(loss):
    lists = drawn()
    moved = [([s + 3.5 * i for s in scores], ranks) for i, (scores, ranks) in enumerate(lists)]
    assert value(loss, moved) == pytest.approx(value(loss, lists), rel=1e-9)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_gradients_are_those_of_finite_differences(loss):
    scores, ranks, mask = padded(drawn(3))
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, ranks, mask), (scores,))


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_half_precision_scores_give_a_float32_loss(loss):
    scores, ranks, mask = padded(drawn(), dtype=torch.bfloat16)
    scores.requires_grad_()
    found = loss(scores, ranks, mask)
    assert found.dtype == torch.float32
    assert found.item() == loss(scores.float(), ranks, mask).item()
    found.backward()
    assert scores.grad.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(scores.float(), ranks, mask)
    assert inside.dtype == torch.float32
    assert inside.item() == found.item()


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_extreme_scores_stay_finite(loss):
    scores, ranks, mask = padded([([-1e4, 0.0, 1e4], [1, 2, 3])], dtype=torch.float32)
    scores.requires_grad_()
    found = loss(scores, ranks, mask)
    found.backward()
    assert math.isfinite(found.item()) and found.item() > 0
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("case", ["one passage", "empty mask", "an empty list beside"])
def test_nothing_to_learn_is_a_zero_with_a_gradient(loss, case):
    scores = torch.tensor([[3.0, -1.0], [0.5, 7.0]], requires_grad=True)
    ranks = torch.tensor([[1, 2], [1, 2]])
    mask = torch.zeros(2, 2, dtype=torch.bool)
    if case == "one passage":
        mask[:, 1] = True
    if case == "an empty list beside":
        mask[0, 0] = True
    found = loss(scores, ranks, mask)
    assert found.item() == 0
    found.backward()
    assert (scores.grad == 0).all()


@pytest.mark.parametrize("loss", [RankNet(), LCE()], ids=str)
def test_tied_lists_teach_nothing(loss):
    scores = torch.tensor([[3.0, -1.0, 0.0]], requires_grad=True)
    found = loss(scores, torch.tensor([[4, 4, 4]]), torch.ones(1, 3, dtype=torch.bool))
    assert found.item() == 0
    found.backward()
    assert (scores.grad == 0).all()


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


def test_adr_mse_average_gives_tied_passages_the_mean_of_their_ranks():
    # ranks 1, 2.5, 2.5; equal scores all have the approximate rank 2
    lists = [([0.0, 0.0, 0.0], [1, 2, 2])]
    assert value(ADRMSE(discount="none"), lists) == pytest.approx((1 + 0.25 + 0.25) / 3)
    ordinal = ADRMSE(discount="none", ties="ordinal")
    assert value(ordinal, lists) == pytest.approx((1 + 0 + 1) / 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RankNet(), RankNet(2.0)),
        (ADRMSE(), ADRMSE(2.0)),
        (ADRMSE(), ADRMSE(discount="none")),
        (ADRMSE(), ADRMSE(ties="ordinal")),
        (LCE(), LCE(2.0)),
    ],
    ids=str,
)
def test_every_argument_changes_the_value(one, other):
    lists = drawn()
    assert abs(value(one, lists) - value(other, lists)) > 1e-3


@pytest.mark.parametrize("loss", [RankNet, ADRMSE, LCE])
def test_temperature_divides(loss):
    lists = drawn()
    doubled = [([2 * s for s in scores], ranks) for scores, ranks in lists]
    assert value(loss(temperature=2.0), doubled) == pytest.approx(value(loss(), lists), rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RankNet(0.0), r"loss\.temperature=0\.0"),
        (lambda: ADRMSE(temperature=-1.0), r"loss\.temperature=-1\.0"),
        (lambda: LCE(float("nan")), r"loss\.temperature=nan"),
        (lambda: ADRMSE(discount="ln"), r"loss\.discount='ln'.*'log2'"),
        (lambda: ADRMSE(ties="random"), r"loss\.ties='random'.*'average'"),
    ],
)
def test_bad_values_name_their_key(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_shapes_must_agree(loss):
    ranks, mask = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\[B, N\].*\(2, 1\)"):
        loss(torch.zeros(2, 1), ranks, mask)
    with pytest.raises(ValueError, match=r"\[B, N\]"):
        loss(torch.zeros(2), ranks[0], mask[0])


SHORT = ([0.0, 0.0], [1, 2])  # one ordered pair, ln 2
LONG = ([2.0, 0.0, 0.0], [2, 1, 1])  # two ordered pairs, each ln(1 + e^2)


def test_ranknet_pools_pairs_over_the_batch():
    expected = (math.log(2) + 2 * math.log(1 + math.exp(2))) / 3
    assert value(RankNet(), [SHORT, LONG]) == pytest.approx(expected, rel=1e-12)


def test_adr_mse_weighs_lists_equally():
    one, two = value(ADRMSE(), [SHORT]), value(ADRMSE(), [LONG])
    assert one != pytest.approx(two)
    assert value(ADRMSE(), [SHORT, LONG]) == pytest.approx((one + two) / 2, rel=1e-12)
    assert value(ADRMSE(), [SHORT, LONG, ([], [])]) == pytest.approx((one + two) / 2, rel=1e-12)


def test_lce_pools_positives_over_the_batch():
    # LONG has two positives of score 0 against one negative of score 2
    expected = (math.log(2) + 2 * math.log(1 + math.exp(2))) / 3
    assert value(LCE(), [SHORT, LONG]) == pytest.approx(expected, rel=1e-12)
