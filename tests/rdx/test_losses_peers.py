"""Losses against other libraries: stored values, and sentence-transformers run as it is.

A small cross-encoder with random weights scores texts of one word each; sentence-transformers'
losses see model, texts and labels, ours the scores of the same model and teacher ranks.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from naive_losses import below, gains
from transformers import BertForSequenceClassification

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
)
from tests.rdx import tiny

REFERENCE = Path(__file__).parents[2] / ".." / "shared" / "reference" / "losses.json"
RANKS = [[2, 4, 1, 3, 5], [3, 1, 2, 5, 4]]
SHORTER = [[2, 4, 1, 3, 5], [3, 1, 2]]
TIED = [[2, 2, 1, 3, 3], [1, 2, 2, 2]]
LISTS = {"equal": RANKS, "shorter": SHORTER, "tied": TIED}
EACH = pytest.mark.parametrize("ranks", LISTS.values(), ids=LISTS)


def close(expected):
    return pytest.approx(expected, rel=2e-5)


@pytest.mark.skipif(not REFERENCE.exists(), reason="no reference values")
def test_equals_stored_values_of_other_libraries():
    ours = {"ranknet": RankNet(), "adr_mse (log2 discount)": ADRMSE()}
    compared = 0
    for case in json.loads(REFERENCE.read_text()):
        scores, ranks = torch.tensor(case["scores"]), torch.tensor(case["teacher_ranks"])
        mask = torch.ones_like(scores, dtype=torch.bool)
        for name, loss in ours.items():
            for library, expected in case["expected"][name].items():
                value = loss(scores, ranks, mask).item()
                assert value == pytest.approx(expected, rel=1e-5), (name, library)
                compared += 1
    assert compared >= 20


SCORES = [[0.3, -1.0, 2.0, 0.1, 1.2], [-0.4, 0.9, 1.5, -2.0, 0.2]]
TEACHER = [[1.5, -0.5, 3.0, 0.7, -2.0], [0.2, 4.0, 2.5, -3.0, -1.0]]
# What the loss classes of lightning-ir 0.0.6 return for SCORES.
LIGHTNING_IR = [
    (RankNet(0.5), 0.6484911),  # RankNet(temperature=2.0), which multiplies; targets 6 - rank
    (ADRMSE(0.5, "none"), 1.4323293),  # ApproxRankMSE(0.5), targets 6 - rank
    (ApproxNDCG(0.5), 0.1427327),  # ApproxNDCG(0.5, scale_gains=False), targets (5 - rank) / 4
    (ApproxMRR(0.5), 0.3464351),  # ApproxMRR(0.5), targets 1 for rank 1, else 0
    (LCE(), 0.9493824),  # InfoNCE(), targets 6 - rank
    (KL(), 0.4460768),  # KLDivergence(), targets TEACHER
]
KL_ON_RANKS = 0.2961633  # KLDivergence(), targets 6 - rank


@pytest.mark.parametrize(("loss", "expected"), LIGHTNING_IR, ids=str)
def test_equals_lightning_ir(loss, expected):
    ranks = torch.tensor(RANKS)
    value = loss(torch.tensor(SCORES), ranks, ranks > 0, torch.tensor(TEACHER))
    assert value.item() == close(expected)


def test_equals_lightning_ir_where_ranks_follow_scores():
    teacher = torch.tensor(TEACHER)
    ranks = (-teacher).argsort(1).argsort(1) + 1
    value = MarginMSE()(torch.tensor(SCORES), ranks, ranks > 0, teacher)
    assert value.item() == close(6.3620000)  # SupervisedMarginMSE()


def test_listnet_is_lightning_irs_kl_on_rank_targets_plus_their_entropy():
    ranks = torch.tensor(RANKS)
    target = (6.0 - ranks).softmax(1)
    entropy = -(target * target.log()).sum(1).mean()
    divergence = ListNet()(torch.tensor(SCORES), ranks, ranks > 0) - entropy
    assert divergence.item() == pytest.approx(KL_ON_RANKS, abs=1e-6)


@pytest.fixture(scope="module")
def peers():
    """sentence_transformers.cross_encoder.losses, or a skip."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.cross_encoder import losses

    return losses


@pytest.fixture(scope="module")
def model(peers, tmp_path_factory):
    from sentence_transformers import CrossEncoder

    # scores that differ by 1 or 2
    settings = {"num_labels": 1, "initializer_range": 0.4, "max_position_embeddings": 512}
    settings["cls"] = BertForSequenceClassification
    words = [f"word{i}" for i in range(20)]
    folder = tiny.bert(tmp_path_factory.mktemp("model"), words, seed=3, **settings)
    return CrossEncoder(str(folder), device="cpu").eval()


class Batch:
    """Texts for the peer, and the same lists as tensors for us."""

    def __init__(self, model, ranks):
        self.ranks = ranks
        self.queries = [f"word{i}" for i in range(len(ranks))]
        self.passages = [[f"word{10 + j}" for j in range(len(row))] for row in ranks]
        pairs = [(q, p) for q, row in zip(self.queries, self.passages, strict=True) for p in row]
        scores = model.predict(pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True)
        parts = scores.cpu().split([len(row) for row in ranks])
        self.scores = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        self.matrix = torch.nn.utils.rnn.pad_sequence([*map(torch.tensor, ranks)], batch_first=True)
        self.spread = scores.std().item()

    def ours(self, loss, teacher=None):
        return loss(self.scores, self.matrix, self.matrix > 0, teacher).item()

    def theirs(self, loss, label):
        """The peer's value; `label` makes the labels of a list out of its ranks."""
        labels = [torch.tensor([*map(float, label(ranks))]) for ranks in self.ranks]
        return loss([self.queries, self.passages], labels).item()

    def in_order(self):
        """The same lists with every list in teacher order."""
        for row, ranks in zip(self.passages, self.ranks, strict=True):
            row[:] = [p for _, p in sorted(zip(ranks, row, strict=True))]
        return self


def minus(ranks):
    return [-rank for rank in ranks]


def from_five(ranks):
    return [5 - rank for rank in ranks]


@EACH
def test_ranknet(peers, model, ranks):
    batch = Batch(model, ranks)
    assert batch.spread > 0.3
    natural = batch.theirs(peers.RankNetLoss(model, reduction_log="natural"), from_five)
    assert batch.ours(RankNet()) == close(natural)
    binary = batch.theirs(peers.RankNetLoss(model), from_five)
    assert batch.ours(RankNet()) == close(binary * math.log(2))
    sharp = batch.theirs(peers.RankNetLoss(model, sigma=2.0, reduction_log="natural"), from_five)
    assert batch.ours(RankNet(0.5)) == close(sharp)


@EACH
@pytest.mark.parametrize("gain", ["linear", "exponential", "reciprocal"])
@pytest.mark.parametrize("mu", [0.0, 10.0])
def test_lambda_loss(peers, model, ranks, gain, mu):
    batch = Batch(model, ranks)
    scheme = peers.NDCGLoss2PPScheme(mu=mu) if mu else peers.LambdaRankScheme()
    theirs = peers.LambdaLoss(model, scheme, sigma=2.0, reduction_log="natural")

    def label(ranks):
        return [math.log2(1 + g) for g in gains(ranks, gain)]

    ours = LambdaRank(temperature=0.5, gain=gain, mu=mu, reduction="pairs")
    assert batch.ours(ours) == close(batch.theirs(theirs, label))


def test_lambda_loss_with_the_labels_of_rank_gpt(peers, model):
    batch = Batch(model, RANKS)
    theirs = batch.theirs(peers.LambdaLoss(model), lambda ranks: [1 / rank for rank in ranks])
    ours = batch.ours(LambdaRank(gain="reciprocal", mu=10.0, reduction="pairs"))
    assert ours == close(theirs * math.log(2))


@pytest.mark.parametrize("ranks", [RANKS, SHORTER], ids=["equal", "shorter"])
def test_listnet(peers, model, ranks):
    batch = Batch(model, ranks)
    assert batch.ours(ListNet()) == close(batch.theirs(peers.ListNetLoss(model), minus))
    tied = Batch(model, TIED)
    theirs = tied.theirs(peers.ListNetLoss(model), lambda r: [below(r, i) for i in range(len(r))])
    assert tied.ours(ListNet()) == close(theirs)
    warm = batch.theirs(peers.ListNetLoss(model), lambda ranks: [-rank / 3 for rank in ranks])
    assert batch.ours(ListNet(teacher_temperature=3.0)) == close(warm)


@pytest.mark.parametrize("ranks", [RANKS, SHORTER], ids=["equal", "shorter"])
def test_list_mle(peers, model, ranks):
    batch = Batch(model, ranks)
    uniform, aware = batch.ours(ListMLE()), batch.ours(ListMLE(position="exponential"))
    by_label = peers.ListMLELoss(model, respect_input_order=False)
    assert uniform == close(batch.theirs(by_label, minus))
    by_order = batch.in_order()
    assert uniform == close(by_order.theirs(peers.ListMLELoss(model), minus))
    assert aware == close(by_order.theirs(peers.PListMLELoss(model), minus))


@pytest.mark.parametrize("ranks", [RANKS, TIED[:1]], ids=["equal", "tied"])
def test_adr_mse(peers, model, ranks):
    batch = Batch(model, ranks)
    assert batch.ours(ADRMSE()) == close(batch.theirs(peers.ADRMSELoss(model), from_five))
    sharp = batch.theirs(peers.ADRMSELoss(model, alpha=2.0), from_five)
    assert batch.ours(ADRMSE(0.5)) == close(sharp)


def test_adr_mse_pools_lists_of_unequal_length_there(peers, model):
    batch = Batch(model, SHORTER)
    parts = [Batch(model, SHORTER).ours(ADRMSE())]
    for i, length in enumerate((5, 3)):
        mask = torch.zeros(2, 5, dtype=torch.bool)
        mask[i, :length] = True
        parts.append(ADRMSE()(batch.scores, batch.matrix, mask).item())
    together, long, short = parts
    assert together == close((long + short) / 2)
    theirs = batch.theirs(peers.ADRMSELoss(model), from_five)
    assert theirs == close((5 * long + 3 * short) / 8)


def test_lce_is_the_cross_entropy_of_the_first_passage(model):
    batch = Batch(model, RANKS)
    first = torch.tensor([2, 1])  # where rank 1 is
    expected = torch.nn.functional.cross_entropy(batch.scores / 0.5, first).item()
    assert batch.ours(LCE(0.5)) == close(expected)


def flat(batch):
    """Queries and passages of all pairs, and which of the padded ones these are."""
    queries = [q for q, row in zip(batch.queries, batch.passages, strict=True) for _ in row]
    return queries, [p for row in batch.passages for p in row], batch.matrix > 0


@EACH
def test_bce(peers, model, ranks):
    batch = Batch(model, ranks)
    queries, passages, _ = flat(batch)
    labels = torch.tensor([float(rank == 1) for row in ranks for rank in row])
    theirs = peers.BinaryCrossEntropyLoss(model)
    assert batch.ours(BCE()) == close(theirs([queries, passages], labels).item())
    heavy = peers.BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(3.0))
    theirs = heavy([queries, passages], labels).item()
    assert batch.ours(BCE(positive_weight=3.0)) == close(theirs)


def test_margin_mse(peers, model):
    # one positive, then negatives, as columns of texts; labels are the teacher's scores
    batch = Batch(model, [[1, 2, 3], [1, 3, 2]])
    teacher = torch.tensor([[7.0, 4.0, 1.5], [3.0, -2.0, 0.5]])
    columns = [list(column) for column in zip(*batch.passages, strict=True)]
    theirs = peers.MarginMSELoss(model)([batch.queries, *columns], teacher).item()
    assert batch.ours(MarginMSE(pairs="best"), teacher) == close(theirs)
    halved = peers.MarginMSELoss(model)([batch.queries, *columns], teacher / 2).item()
    assert batch.ours(MarginMSE(2.0, "best"), teacher) == close(halved)


@EACH
def test_mse(peers, model, ranks):
    batch = Batch(model, ranks)
    queries, passages, real = flat(batch)
    teacher = torch.randn(batch.scores.shape, generator=torch.Generator().manual_seed(0))
    theirs = peers.MSELoss(model)([queries, passages], teacher[real] / 2).item()
    assert batch.ours(MSE(2.0), teacher) == close(theirs)
    torchs = torch.nn.MSELoss()(batch.scores[real], teacher[real]).item()
    assert batch.ours(MSE(), teacher) == close(torchs)


@EACH
def test_bce_with_soft_labels(peers, model, ranks):
    batch = Batch(model, ranks)
    queries, passages, real = flat(batch)
    teacher = torch.rand(batch.scores.shape, generator=torch.Generator().manual_seed(0))
    heavy = {"pos_weight": torch.tensor(3.0)}
    theirs = peers.BinaryCrossEntropyLoss(model, **heavy)([queries, passages], teacher[real]).item()
    assert batch.ours(BCE(1.0, 3.0, "scores"), teacher) == close(theirs)
    torchs = torch.nn.BCEWithLogitsLoss(**heavy)(batch.scores[real] / 2, teacher[real]).item()
    assert batch.ours(BCE(2.0, 3.0, "scores"), teacher) == close(torchs)


def in_pairs(ranks):
    """Row, better and worse passage of every pair that the teacher orders."""
    pairs = [
        (row, i, j)
        for row, own in enumerate(ranks)
        for i in range(len(own))
        for j in range(len(own))
        if own[i] < own[j]
    ]
    return [torch.tensor(column) for column in zip(*pairs, strict=True)]


def spread(tensor, row, i, j):
    return tensor[row, i] - tensor[row, j]


def matrix_of(ranks):
    return torch.nn.utils.rnn.pad_sequence([*map(torch.tensor, ranks)], batch_first=True)


@EACH
def test_hinge_is_torchs_margin_ranking_loss(ranks):
    row, i, j = in_pairs(ranks)
    scores, matrix = torch.tensor(SCORES), matrix_of(ranks)
    ours = Hinge(1.5)(scores, matrix, matrix > 0)
    peer = torch.nn.MarginRankingLoss(margin=1.5)
    theirs = peer(scores[row, i], scores[row, j], torch.ones(len(row)))
    assert ours.item() == close(theirs.item())


@pytest.mark.parametrize("weights", ["reciprocal_sum", "reciprocal", "score_difference"])
@pytest.mark.parametrize("ranks", [RANKS, SHORTER], ids=["equal", "shorter"])
def test_weighted_ranknet_is_torchs_weighted_bce_of_pairs(weights, ranks):
    """As FIRST's and RankGPT's `rank_net` call it, with the weights of each."""
    row, i, j = in_pairs(ranks)
    scores, teacher, matrix = torch.tensor(SCORES), torch.tensor(TEACHER), matrix_of(ranks)
    labels = {
        "reciprocal": 1 / matrix.float(),  # RankGPT's
        "score_difference": teacher,
    }.get(weights, matrix)
    weight = spread(labels, row, i, j).abs()
    if weights == "reciprocal_sum":
        weight = 1 / (matrix[row, i] + matrix[row, j])
    peer = torch.nn.BCEWithLogitsLoss(weight=weight)
    theirs = peer(spread(scores, row, i, j), torch.ones(len(row)))
    ours = RankNet(weights=weights)(scores, matrix, matrix > 0, teacher)
    assert ours.item() == close(theirs.item())


# What other people's code returns for SCORES and RANKS.
WEIGHTED = {
    "reciprocal_sum": 0.0860424,  # rank_llm's rank_net(weighted=True), with which FIRST is trained
    "reciprocal": 0.1299950,  # RankGPT's rank_net(weight_by_diff=True), labels 1 / rank
    "student_rank": 0.0953515,  # WeightedRankNet of Pezzuti et al.
}


@pytest.mark.parametrize("weights", WEIGHTED)
def test_weighted_ranknet_equals_the_code_of_its_sources(weights):
    ranks = torch.tensor(RANKS)
    value = RankNet(weights=weights)(torch.tensor(SCORES), ranks, ranks > 0)
    assert value.item() == close(WEIGHTED[weights])


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_kl_is_torchs(direction):
    scores, teacher, ranks = torch.tensor(SCORES), torch.tensor(TEACHER), torch.tensor(RANKS)
    student, target = (scores / 2).log_softmax(1), (teacher / 3).log_softmax(1)
    other = (student, target) if direction == "forward" else (target, student)
    theirs = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)(*other)
    ours = KL(2.0, 3.0, direction)(scores, ranks, ranks > 0, teacher)
    assert ours.item() == close(theirs.item())
