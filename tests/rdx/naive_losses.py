"""The equations of `rdx.losses` once more, as plain loops over Python numbers.

A list is (student scores, teacher ranks) or (student scores, teacher ranks, teacher scores);
without the third, teacher scores follow from the ranks.
"""

import math

import torch

from rdx import losses


def ranknet(lists, loss):
    return pooled(
        pair_weight(loss.weights, i, j, s, r, t)
        * math.log(1 + math.exp(-(s[i] - s[j]) / loss.temperature))
        for s, r, t in lists
        for i, j in pairs(r)
    )


def pair_weight(weights, i, j, s, r, t):
    taught, own = mean_ranks(r), mean_ranks([-score for score in s])
    return {
        "none": 1.0,
        "reciprocal_sum": 1 / (taught[i] + taught[j]),
        "reciprocal": 1 / taught[i] - 1 / taught[j],
        "score_difference": abs(t[i] - t[j]),
        "student_rank": 1 / (own[i] + own[j]),
    }[weights]


def hinge(lists, loss):
    return pooled(
        max(0.0, loss.margin - (s[i] - s[j]))
        for s, r, _ in lists
        for i, j in pairs(r)
        if loss.pairs == "all" or r[i] == min(r)
    )


def mse(lists, loss):
    return pooled(
        (a - b / loss.teacher_temperature) ** 2
        for s, _, t in lists
        for a, b in zip(s, t, strict=True)
    )


def lambda_rank(lists, loss):
    sums = []
    for s, r, _ in lists:
        gain = gains(r, loss.gain)
        best = sum(g / math.log2(1 + p) for p, g in enumerate(sorted(gain, reverse=True), 1))
        order = sorted(range(len(s)), key=lambda i: -s[i])
        position = {i: p for p, i in enumerate(order, 1)}
        values = []
        for i, j in pairs(r):
            swap = abs(1 / math.log2(1 + position[i]) - 1 / math.log2(1 + position[j]))
            apart = abs(position[i] - position[j])
            step = abs(1 / math.log2(1 + apart) - 1 / math.log2(2 + apart))
            weight = abs(gain[i] - gain[j]) / best * (swap + loss.mu * step)
            values.append(weight * math.log(1 + math.exp(-(s[i] - s[j]) / loss.temperature)))
        sums.append(values)
    if loss.reduction == "pairs":
        return pooled(value for values in sums for value in values)
    return pooled(sum(values) for values in sums if values)


def margin_mse(lists, loss):
    return pooled(
        ((s[i] - s[j]) - (t[i] - t[j]) / loss.teacher_temperature) ** 2
        for s, r, t in lists
        for i, j in pairs(r)
        if loss.pairs == "all" or r[i] == min(r)
    )


def listnet(lists, loss):
    values = []
    for s, r, _ in ordered(lists):
        p = softmax([below(r, i) / loss.teacher_temperature for i in range(len(r))])
        q = softmax([score / loss.temperature for score in s])
        values.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    return pooled(values)


def list_mle(lists, loss):
    values = []
    for s, r, _ in ordered(lists):
        powers = [math.exp(score / loss.temperature) for score in s]
        weights = [1.0] * len(r)
        if loss.position == "exponential":
            weights = [2.0 ** below(r, i) - 1 for i in range(len(r))]
            weights = [weight / sum(weights) for weight in weights]
        total = 0.0
        for i, weight in enumerate(weights):
            rest = sum(power for power, rank in zip(powers, r, strict=True) if rank > r[i])
            total -= weight * math.log(powers[i] / (powers[i] + rest))
        values.append(total)
    return pooled(values)


def kl(lists, loss):
    values = []
    for s, _, t in ordered(lists):
        p = softmax([score / loss.teacher_temperature for score in t])
        q = softmax([score / loss.temperature for score in s])
        p, q = (p, q) if loss.direction == "forward" else (q, p)
        values.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return pooled(values)


def adr_mse(lists, loss):
    means = []
    for s, r, _ in lists:
        approximate = approximate_ranks(s, loss.temperature)
        errors = []
        for i in range(len(s)):
            others = [j for j in range(len(s)) if j != i]
            target = 1.0 + sum(r[j] < r[i] for j in others)
            if loss.ties == "average":
                target += sum(r[j] == r[i] for j in others) / 2
            else:
                target += sum(r[j] == r[i] for j in others if j < i)
            weight = 1 / math.log2(target + 1) if loss.discount == "log2" else 1.0
            errors.append(weight * (approximate[i] - target) ** 2)
        if errors:
            means.append(sum(errors) / len(errors))
    return pooled(means)


def approx_ndcg(lists, loss):
    values = []
    for s, r, _ in ordered(lists):
        gain = gains(r, loss.gain)
        best = sum(g / math.log2(1 + p) for p, g in enumerate(sorted(gain, reverse=True), 1))
        ranks = approximate_ranks(s, loss.temperature)
        dcg = sum(g / math.log2(1 + p) for g, p in zip(gain, ranks, strict=True))
        values.append(1 - dcg / best)
    return pooled(values)


def approx_mrr(lists, loss):
    values = []
    for s, r, _ in ordered(lists):
        ranks = approximate_ranks(s, loss.temperature)
        first = min(a for a, rank in zip(ranks, r, strict=True) if rank == min(r))
        values.append(1 - 1 / first)
    return pooled(values)


def lce(lists, loss):
    values = []
    for s, r, _ in ordered(lists):
        powers = [math.exp(score / loss.temperature) for score in s]
        rest = sum(p for p, rank in zip(powers, r, strict=True) if rank > min(r))
        positives = [p for p, rank in zip(powers, r, strict=True) if rank == min(r)]
        values += [-math.log(p / (p + rest)) for p in positives]
    return pooled(values)


def bce(lists, loss):
    values = []
    for s, r, t in lists if loss.targets == "scores" else ordered(lists):
        targets = t if loss.targets == "scores" else [float(rank == min(r)) for rank in r]
        for score, y in zip(s, targets, strict=True):
            probability = 1 / (1 + math.exp(-score / loss.temperature))
            relevant = loss.positive_weight * y * math.log(probability)
            values.append(-relevant - (1 - y) * math.log(1 - probability))
    return pooled(values)


NAIVE = {
    losses.RankNet: ranknet,
    losses.Hinge: hinge,
    losses.MSE: mse,
    losses.LambdaRank: lambda_rank,
    losses.MarginMSE: margin_mse,
    losses.ListNet: listnet,
    losses.ListMLE: list_mle,
    losses.KL: kl,
    losses.ADRMSE: adr_mse,
    losses.ApproxNDCG: approx_ndcg,
    losses.ApproxMRR: approx_mrr,
    losses.LCE: lce,
    losses.BCE: bce,
}


def naive(loss, lists):
    """The value of any loss."""
    if isinstance(loss, losses.Sum):
        return sum(w * naive(p, lists) for w, p in zip(loss.weights, loss.losses, strict=True))
    return NAIVE[type(loss)](with_teacher(lists), loss)


def with_teacher(lists):
    """Lists with teacher scores: their own, or out of their ranks."""
    return [(s, r, *(t or [[-0.7 * rank**0.8 for rank in r]])) for s, r, *t in lists]


def mean_ranks(ranks):
    """Ranks 1 to n; tied passages have the mean of those that they span."""
    return [
        1 + sum(rank < own for rank in ranks) + (sum(rank == own for rank in ranks) - 1) / 2
        for own in ranks
    ]


def pairs(ranks):
    """(i, j) with i ranked strictly before j."""
    every = range(len(ranks))
    return [(i, j) for i in every for j in every if ranks[i] < ranks[j]]


def ordered(lists):
    """Lists with at least two different ranks."""
    return [(s, r, t) for s, r, t in lists if len(set(r)) > 1]


def below(ranks, i):
    """Number of passages ranked strictly below i."""
    return sum(rank > ranks[i] for rank in ranks)


def gains(ranks, gain):
    """Gains as the docstrings of LambdaRank and ApproxNDCG state them."""
    n = len(ranks)
    worse = [below(ranks, i) for i in range(n)]
    share = [w / max(n - 1, 1) for w in worse]
    return {
        "linear": share,
        "exponential": [(2 ** (4 * y) - 1) / 15 for y in share],
        "reciprocal": [2 ** (1 / (n - w)) - 1 for w in worse],
    }[gain]


def approximate_ranks(scores, temperature):
    """1 + the sum of sigmoids."""
    return [
        1 + sum(1 / (1 + math.exp((s - other) / temperature)) for j, other in others(scores, i))
        for i, s in enumerate(scores)
    ]


def others(scores, i):
    return [(j, score) for j, score in enumerate(scores) if j != i]


def softmax(values):
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def pooled(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


# --- lists as tensors, and lists drawn at random ---


def padded(lists, width=None, dtype=torch.float64, score=0.0, rank=0, teacher=float("nan")):
    """Student scores, ranks, mask and teacher scores [B, N]; the last values stand at padding."""
    lists = with_teacher(lists)
    width = width or max(len(s) for s, _, _ in lists)
    scores, ranks, teachers = (
        [[*values, *[fill] * (width - len(values))] for values in columns]
        for columns, fill in zip(zip(*lists, strict=True), (score, rank, teacher), strict=True)
    )
    return (
        torch.tensor(scores, dtype=dtype),
        torch.tensor(ranks),
        torch.tensor([[i < len(s) for i in range(width)] for s, _, _ in lists]),
        torch.tensor(teachers, dtype=torch.float64),
    )


def value(loss, lists, **options):
    """The loss of lists, called with tensors."""
    return loss(*padded(lists, **options)).item()


def drawn(seed=0, sizes=(5, 3, 7, 1, 2), ties=True):
    """Lists with random scores, ranks and teacher scores, which need not agree with the ranks."""
    random = torch.Generator().manual_seed(seed)
    lists = []
    for size in sizes:
        scores = torch.randn(size, generator=random, dtype=torch.float64).tolist()
        if ties:
            ranks = torch.randint(1, max(size - 1, 2), (size,), generator=random)
        else:
            ranks = torch.randperm(size, generator=random) + 1
        teacher = torch.randn(size, generator=random, dtype=torch.float64).tolist()
        lists.append((scores, ranks.tolist(), teacher))
    return lists
