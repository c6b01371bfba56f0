"""Late interaction against naive loops, and which checkpoints are read as what."""

import json
import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from rdx import rankings, samplers
from rdx.collection import Collection
from rdx.samplers import BM25, Random, Recorded, maxsim, plaid
from tests.rdx import tiny

ColBERT = partial(samplers.ColBERT, precision="fp32")  # the same values on every machine
WORDS = "river engine garden planet violin market stone tower".split()


def whole(low: int, high: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Small whole numbers: every product and sum of them is exact, so ties are."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).float()


def naive(queries, passages) -> list[list[float]]:
    """Sum over query tokens of the best passage token, with loops."""
    scores = []
    for query in queries:
        row = []
        for passage in passages:
            products = [[float(sum(a * b)) for b in passage.double()] for a in query.double()]
            row.append(sum(max(of_token) for of_token in products) if len(passage) else -math.inf)
        scores.append(row)
    return scores


def texts(seed: int, sizes: list[int], width: int = 6) -> list[torch.Tensor]:
    return list(whole(-3, 4, sum(sizes), width, seed=seed).split(sizes))


# --- MaxSim ---


def test_maxsim_of_hand_worked_vectors():
    query = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    tokens = torch.tensor([[3.0, 1.0], [1.0, 4.0], [-1.0, -1.0]])
    assert maxsim.maxsim([query], tokens, torch.tensor([2, 1])).tolist() == [[3 + 8, -1 - 2]]


def test_maxsim_equals_a_naive_double_loop():
    def scores(queries, passages):
        return maxsim.maxsim(queries, torch.cat(passages), torch.tensor([*map(len, passages)]))

    whole_numbers = texts(1, [3, 1, 5]), texts(2, [4, 1, 7, 2])
    assert scores(*whole_numbers).tolist() == naive(*whole_numbers)
    query, *passages = (
        torch.randn(n, 8, generator=torch.Generator().manual_seed(n)) for n in (3, 9, 4, 6)
    )
    expected = torch.tensor(naive([query], passages))
    torch.testing.assert_close(scores([query], passages), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("products", [1, 40, 10**6])
@pytest.mark.parametrize("block", [1, 7, 100])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_search_is_a_full_sort_whatever_the_blocks(products, block, k):
    # few distinct vectors: many passages tie, at the cut too; three have no token
    sizes = [1 + i % 3 for i in range(50)]
    sizes[4] = sizes[17] = sizes[49] = 0
    passages, queries = texts(3, sizes, width=2), texts(4, [2, 1, 4], width=2)
    places = np.random.default_rng(0).permutation(50)
    expected = [
        sorted((i for i in range(50) if sizes[i]), key=lambda i: (row[i], places[i]), reverse=True)[
            :k
        ]
        for row in naive(queries, passages)
    ]
    parts = [range(at, min(at + block, 50)) for at in range(0, 50, block)]
    blocks = [(torch.cat([passages[i] for i in p]), [sizes[i] for i in p]) for p in parts]
    best = maxsim.search(queries, blocks, torch.tensor(places), k, products=products)
    assert [positions.tolist() for positions, _ in best] == expected
    for row, (positions, values) in zip(naive(queries, passages), best, strict=True):
        assert values.tolist() == [row[i] for i in positions]


def test_search_without_queries_or_passages():
    assert maxsim.search([], [(whole(0, 2, 3, 2), [3])], torch.tensor([0]), 5) == []
    ((positions, scores),) = maxsim.search([whole(0, 2, 3, 2)], [], torch.zeros(0), 5)
    assert len(positions) == len(scores) == 0


def test_pieces_are_whole_and_small():
    assert maxsim.pieces([3, 3, 3, 9, 1], 6) == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert maxsim.pieces([], 6) == []
    assert maxsim.pieces([0, 0], 1) == [(0, 2)]


# --- the sampler ---


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A random BERT with a vocabulary of its own, as Transformers saves it."""
    words = ["[unused0]", "[unused1]", ".", ",", *WORDS]
    return tiny.bert(tmp_path_factory.mktemp("models") / "bert", words)


@pytest.fixture(scope="module")
def stanford(encoder) -> Path:
    """The same as a ColBERT checkpoint of the form of colbert-ir/colbertv2.0."""
    from shutil import copytree

    from safetensors.torch import load_file, save_file

    folder = encoder.with_name("stanford")
    copytree(encoder, folder)
    weights = {f"bert.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    weights["linear.weight"] = torch.randn(8, 16, generator=torch.Generator().manual_seed(5))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    metadata = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
    metadata |= {"query_maxlen": 8, "doc_maxlen": 20, "mask_punctuation": True}
    (folder / "artifact.metadata").write_text(json.dumps(metadata))
    return folder


@pytest.fixture(scope="module")
def pylate(encoder) -> Path:
    """The same as a checkpoint of PyLate: modules Transformer and Dense, its own configuration."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.base.modules.dense import Dense

    folder = encoder.with_name("pylate")
    torch.manual_seed(1)
    dense = Dense(16, 8, bias=False, activation_function=torch.nn.Identity())
    dense.module_input_name = dense.module_output_name = "token_embeddings"
    MultiVectorEncoder(modules=[Transformer(str(encoder)), dense]).save(str(folder))
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    settings = {"model_type": "ColBERT", "similarity_fn_name": "MaxSim"}
    settings |= {"query_prefix": "[unused0]", "document_prefix": "[unused1]"}
    settings |= {"query_length": 8, "document_length": 20, "skiplist_words": [".", ","]}
    settings |= {"do_query_expansion": True, "attend_to_expansion_tokens": False}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    # PyLate's Transformer knows no lengths of its own
    [of_transformer] = folder.rglob("sentence_bert_config.json")
    of_transformer.write_text(json.dumps({"max_seq_length": 60, "do_lower_case": False}))
    return folder


@pytest.fixture(scope="module")
def world() -> Collection:
    draw = np.random.default_rng(1)
    passages = {
        f"d{i}": " ".join(draw.choice(WORDS, size=1 + i % 9)) + (" ." if i % 2 else "")
        for i in draw.permutation(60)
    }
    passages["copy"] = passages["d7"]
    queries = {f"q{i}": " ".join(draw.choice(WORDS, size=1 + i % 4)) for i in range(6)}
    qrels = pd.DataFrame([], columns=["query_id", "doc_id", "relevance"])
    return Collection("toy", queries, passages, qrels)


def by_query(collection, queries, passages) -> dict[str, dict[str, float]]:
    """Scores of token vectors, by loops: query id -> doc id -> score, the best first."""
    return {
        query_id: dict(sorted(zip(collection.passages, row, strict=True), key=lambda p: -p[1]))
        for query_id, row in zip(collection.queries, naive(queries, passages), strict=True)
    }


def same(ranking: pd.DataFrame, scores: dict[str, dict[str, float]], k: int) -> None:
    """The scores agree; so do the passages, save where two scores are nearly equal."""
    rankings.check(ranking)
    assert list(ranking.query_id.unique()) == list(scores)
    for query_id, rows in ranking.groupby("query_id", sort=False):
        wanted = scores[query_id]
        assert len(rows) == k
        assert list(rows.score) == pytest.approx(list(wanted.values())[:k], abs=5e-3)
        for doc_id, score in zip(rows.doc_id, rows.score, strict=True):
            assert score == pytest.approx(wanted[doc_id], abs=5e-3)


def test_token_vectors_of_a_plain_encoder(encoder, world):
    """Against Transformers itself: the last hidden states, normalised."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder)

    def vectors(text: str) -> torch.Tensor:
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return normalize(hidden, dim=-1)

    queries, passages = ([*map(vectors, t.values())] for t in (world.queries, world.passages))
    ranking = ColBERT(str(encoder)).candidates(world, 20)
    same(ranking, by_query(world, queries, passages), 20)
    # the same text in the same block ties, and the ids decide
    both = ranking[ranking.doc_id.isin(["d7", "copy"])].groupby("query_id").doc_id.apply(list)
    assert all(doc_ids[:1] == ["d7"] for doc_ids in both) and len(both)


@pytest.mark.parametrize("form", ["stanford", "pylate"])
def test_late_interaction_checkpoints(form, world, request):
    from sentence_transformers import MultiVectorEncoder

    folder = request.getfixturevalue(form)
    model = MultiVectorEncoder(str(folder), device="cpu")
    # what makes it a ColBERT: a projection, a marker, [MASK] up to the query length, no punctuation
    assert model.encode_query("river").shape == (8, 8)
    assert len(model.encode_document("river garden .")) == 5
    queries = [q.cpu() for q in model.encode_query([*world.queries.values()])]
    passages = [p.cpu() for p in model.encode_document([*world.passages.values()])]
    sampler = ColBERT(str(folder), kind="colbert")
    same(sampler.candidates(world, 15), by_query(world, queries, passages), 15)
    longer = ColBERT(str(folder), kind="colbert", query_length=12)
    assert len(longer._queries(["river"])[0]) == 12


def test_a_checkpoint_without_projection_is_no_colbert(encoder, world):
    with pytest.raises(ValueError, match=r"^sampler\.model="):
        ColBERT(str(encoder), kind="colbert").candidates(world, 3)


def test_an_index_is_what_is_computed_without_and_goes_on(encoder, world, tmp_path, monkeypatch):
    sampler = ColBERT(str(encoder))
    monkeypatch.setattr("rdx.samplers.colbert.BLOCK", 25)
    sampler.prepare(world, tmp_path)
    files = sorted(path.name for path in tmp_path.glob("lengths.*"))
    assert files == [f"lengths.{i:06}.npy" for i in range(3)]
    assert np.load(tmp_path / "tokens.000000.npy").dtype == np.float16
    whole = sampler.candidates(world, 10, tmp_path)
    pd.testing.assert_frame_equal(sampler.candidates(world, 10), whole)
    # an interrupted one computes only what is missing
    kept = (tmp_path / "tokens.000000.npy").stat().st_mtime_ns
    (tmp_path / "lengths.000001.npy").unlink()
    (tmp_path / "tokens.000001.npy").write_bytes(b"half")
    sampler.prepare(world, tmp_path)
    assert (tmp_path / "tokens.000000.npy").stat().st_mtime_ns == kept
    pd.testing.assert_frame_equal(sampler.candidates(world, 10, tmp_path), whole)


def test_over_ranks_the_top_of_another_sampler_again(encoder, world, monkeypatch):
    alone = ColBERT(str(encoder)).candidates(world, 61).set_index(["query_id", "doc_id"]).score
    first = BM25(stopwords="none", stemmer="none")
    monkeypatch.setattr("rdx.samplers.colbert.BLOCK", 4)
    again = ColBERT(str(encoder), over=first, top=9).candidates(world, 5)
    rankings.check(again)
    pool = first.candidates(world, 9)
    for query_id, rows in again.groupby("query_id", sort=False):
        mine = [(query_id, d) for d in pool[pool.query_id == query_id].doc_id]
        best = alone[mine].sort_values(ascending=False)
        assert list(rows.score) == pytest.approx(best[:5].tolist(), abs=5e-3)
        assert set(rows.doc_id) <= {doc_id for _, doc_id in mine}
    assert again.groupby("query_id").size().tolist() == [
        min(5, n) for n in pool.groupby("query_id").size()
    ]


def test_over_takes_index_and_queries_of_the_other(encoder, tmp_path):
    run = tmp_path / "a.run"
    run.write_text("q1 Q0 d1 1 5 x\n")
    over = Recorded(str(run))
    sampler = ColBERT(str(encoder), over=over)
    assert sampler.covered(["q0", "q1"]) == ["q1"]
    assert sampler.index_of("corpus") == over.index_of("corpus")
    assert ColBERT(str(encoder)).covered(["q0", "q1"]) == ["q0", "q1"]


def test_every_argument_changes_something(encoder, pylate, world):
    base = ColBERT(str(encoder))

    def scores(sampler) -> list[float]:
        return sampler.candidates(world, 61).score.round(3).tolist()

    scores_of_base = scores(base)
    others = [
        ColBERT(str(pylate), kind="colbert"),
        ColBERT(str(encoder), query_length=3),
        ColBERT(str(encoder), passage_length=4),
        ColBERT(str(encoder), over=Random(), top=10),
        ColBERT(str(encoder), over=Random(), top=11),
        ColBERT(str(encoder), precision="bf16"),
    ]
    assert len({tuple(scores(sampler)) for sampler in (base, *others)}) == 7
    assert scores(others[-1]) == pytest.approx(scores_of_base, abs=0.1)
    single = ColBERT(str(encoder), max_tokens=1, device="cpu")
    assert scores(single) == pytest.approx(scores_of_base, abs=2e-3)
    keys = [str(sampler.index_of("c")) for sampler in (base, *others[:4])]
    assert len(set(keys)) == 4  # another query length needs no other index
    assert keys[0] == keys[2]


def test_the_fingerprint_says_what_it_is(encoder, stanford):
    plain, real = ColBERT().fingerprint(), ColBERT(str(stanford), kind="colbert").fingerprint()
    assert plain["engine"] == "MaxSim, token vectors of an encoder, no ColBERT"
    assert plain["model"] == "asset:all-MiniLM-L6-v2" and "sha256" not in plain
    assert real["engine"] == "MaxSim, ColBERT" and real["model"] == "stanford"
    assert real["sha256"] != ColBERT(str(encoder)).fingerprint()["sha256"]
    over = ColBERT(over=BM25(k1=1.5), top=7).fingerprint()
    assert over["over"]["k1"] == 1.5 and over["top"] == 7
    assert set(plain["versions"]) == {"sentence-transformers", "transformers"}


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "splade"},
        {"index": "hnsw"},
        {"precision": "fp8"},
        {"device": "tpu"},
        {"top": 0},
        {"query_length": 0},
        {"over": 1000},
        {"model": "asset:none"},
        {"index": "plaid", "over": BM25()},
    ],
)
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match=next(reversed(values))):
        ColBERT(**values)


# --- PLAID ---


def test_plaid_is_refused_where_it_would_crash(monkeypatch):
    """A wheel for another torch ends the process; a missing one is named."""
    here = torch.__version__.split("+")[0]
    monkeypatch.setattr(plaid.importlib.metadata, "requires", lambda name: ["torch==1.2.3"])
    version = plaid.importlib.metadata.version
    monkeypatch.setattr(
        plaid.importlib.metadata, "version", lambda n: "9.9" if n == "fast-plaid" else version(n)
    )
    with pytest.raises(ValueError, match=rf"fast-plaid 9\.9 .*1\.2\.3.*{re.escape(here)}"):
        ColBERT(index="plaid").check()


def test_plaid_finds_nearly_what_exact_search_finds(encoder, world):
    try:
        plaid.check()
    except ValueError as error:
        pytest.skip(str(error))
    exact = ColBERT(str(encoder)).candidates(world, 5)
    approximate = ColBERT(str(encoder), index="plaid").candidates(world, 5)
    rankings.check(approximate)
    merged = exact.merge(approximate, on=["query_id", "doc_id"])
    assert len(merged) > 0.7 * len(exact)
    assert (merged.score_x - merged.score_y).abs().max() < 0.2
