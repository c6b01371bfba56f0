"""The equations of `rdx.losses` once more, as plain loops over Python numbers.

A list is (student scores, teacher ranks) or (student scores, teacher ranks, teacher scores);
without the third, teacher scores follow from the ranks.
"""

import math

import torch

from rdx import losses


def ranknet(lists, loss):
    return pooled(
        math.log(1 + math.exp(-(s[i] - s[j]) / loss.temperature))
        for s, r, _ in lists
        for i, j in pairs(r)
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
    found = []
    for s, r, _ in ordered(lists):
        p = softmax([below(r, i) / loss.teacher_temperature for i in range(len(r))])
        q = softmax([one / loss.temperature for one in s])
        found.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    return pooled(found)


def list_mle(lists, loss):
    found = []
    for s, r, _ in ordered(lists):
        powers = [math.exp(one / loss.temperature) for one in s]
        weights = [1.0] * len(r)
        if loss.position == "exponential":
            weights = [2.0 ** below(r, i) - 1 for i in range(len(r))]
            weights = [weight / sum(weights) for weight in weights]
        total = 0.0
        for i, weight in enumerate(weights):
            rest = sum(power for power, rank in zip(powers, r, strict=True) if rank > r[i])
            total -= weight * math.log(powers[i] / (powers[i] + rest))
        found.append(total)
    return pooled(found)


def kl(lists, loss):
    found = []
    for s, _, t in ordered(lists):
        p = softmax([one / loss.teacher_temperature for one in t])
        q = softmax([one / loss.temperature for one in s])
        found.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return pooled(found)


def adr_mse(lists, loss):
    means = []
    for s, r, _ in lists:
        found = approximate_ranks(s, loss.temperature)
        errors = []
        for i in range(len(s)):
            others = [j for j in range(len(s)) if j != i]
            target = 1.0 + sum(r[j] < r[i] for j in others)
            if loss.ties == "average":
                target += sum(r[j] == r[i] for j in others) / 2
            else:
                target += sum(r[j] == r[i] for j in others if j < i)
            weight = 1 / math.log2(target + 1) if loss.discount == "log2" else 1.0
            errors.append(weight * (found[i] - target) ** 2)
        if errors:
            means.append(sum(errors) / len(errors))
    return pooled(means)


def approx_ndcg(lists, loss):
    found = []
    for s, r, _ in ordered(lists):
        gain = gains(r, loss.gain)
        best = sum(g / math.log2(1 + p) for p, g in enumerate(sorted(gain, reverse=True), 1))
        ranks = approximate_ranks(s, loss.temperature)
        dcg = sum(g / math.log2(1 + p) for g, p in zip(gain, ranks, strict=True))
        found.append(1 - dcg / best)
    return pooled(found)


def approx_mrr(lists, loss):
    found = []
    for s, r, _ in ordered(lists):
        ranks = approximate_ranks(s, loss.temperature)
        first = min(a for a, rank in zip(ranks, r, strict=True) if rank == min(r))
        found.append(1 - 1 / first)
    return pooled(found)


def lce(lists, loss):
    values = []
    for s, r, _ in ordered(lists):
        powers = [math.exp(one / loss.temperature) for one in s]
        rest = sum(p for p, rank in zip(powers, r, strict=True) if rank > min(r))
        positives = [p for p, rank in zip(powers, r, strict=True) if rank == min(r)]
        values += [-math.log(p / (p + rest)) for p in positives]
    return pooled(values)


def bce(lists, loss):
    values = []
    for s, r, _ in ordered(lists):
        for score, rank in zip(s, r, strict=True):
            probability = 1 / (1 + math.exp(-score / loss.temperature))
            if rank == min(r):
                values.append(-loss.positive_weight * math.log(probability))
            else:
                values.append(-math.log(1 - probability))
    return pooled(values)


NAIVE = {
    losses.RankNet: ranknet,
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
        return sum(w * naive(one, lists) for w, one in zip(loss.weights, loss.losses, strict=True))
    return NAIVE[type(loss)]([(one[0], one[1], teacher_of(one)) for one in lists], loss)


def teacher_of(one):
    """Teacher scores of a list: its own, or out of its ranks."""
    return one[2] if len(one) > 2 else [-0.7 * rank**0.8 for rank in one[1]]


def pairs(ranks):
    """(i, j) with i ranked strictly before j."""
    every = range(len(ranks))
    return [(i, j) for i in every for j in every if ranks[i] < ranks[j]]


def ordered(lists):
    """Lists with at least two different ranks."""
    return [one for one in lists if len(set(one[1])) > 1]


def below(ranks, i):
    """Number of passages ranked strictly below i."""
    return sum(rank > ranks[i] for rank in ranks)


def gains(ranks, gain):
    """Gains as the docstrings of LambdaRank and ApproxNDCG state them."""
    n = len(ranks)
    found = []
    for i in range(n):
        w = below(ranks, i)
        grade = 4 * w / max(n - 1, 1)
        found.append(
            {
                "linear": w / max(n - 1, 1),
                "exponential": (2**grade - 1) / 15,
                "reciprocal": 2 ** (1 / (n - w)) - 1,
            }[gain]
        )
    return found


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
    width = width or max(len(one[0]) for one in lists)
    fill = [width - len(one[0]) for one in lists]
    scores = [[*one[0], *[score] * n] for one, n in zip(lists, fill, strict=True)]
    ranks = [[*one[1], *[rank] * n] for one, n in zip(lists, fill, strict=True)]
    given = [[*teacher_of(one), *[teacher] * n] for one, n in zip(lists, fill, strict=True)]
    mask = [[True] * (width - n) + [False] * n for n in fill]
    return (
        torch.tensor(scores, dtype=dtype),
        torch.tensor(ranks),
        torch.tensor(mask),
        torch.tensor(given, dtype=torch.float64),
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
        high = max(size - 1, 2) if ties else None
        ranks = (
            torch.randint(1, high, (size,), generator=random)
            if ties
            else torch.randperm(size, generator=random) + 1
        )
        teacher = torch.randn(size, generator=random, dtype=torch.float64).tolist()
        lists.append((scores, ranks.tolist(), teacher))
    return lists
