"""Labels that are handed on: the lists that were trained on, for other libraries."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import DatasetCard

from rdx import rankings
from rdx.artifacts import Evaluated, Selected, TeacherRanking
from rdx.commands import export as verb
from rdx.data import PyDocs
from rdx.export import ExportError, export_labels
from rdx.export.labels import licences
from rdx.rankings import read_trec
from rdx.store import Store

FILES = {
    *("labels.run.gz", "labels.ir_metadata.yaml", "labels.parquet"),
    *("audit.json", "croissant.json", "README.md"),
}


@pytest.fixture(scope="module")
def cell(finished):
    return finished


@pytest.fixture(scope="module")
def store(cell):
    return Path(cell.cfg["store"])


@pytest.fixture(scope="module")
def out(cell, store, tmp_path_factory):
    return export_labels(store, cell.signature, tmp_path_factory.mktemp("out") / "my-labels")


def texts(world, name):
    lines = (world.folder / name).read_text().splitlines()
    return dict(line.split("\t") for line in lines)


def test_the_lists_are_those_that_were_trained_on(cell, store, out, world):
    assert {path.name for path in out.iterdir()} == FILES
    selected = Selected(store / "select" / cell.keys["select"]).ranking
    queries, passages = texts(world, "queries.tsv"), texts(world, "corpus.tsv")
    expected = {}
    for query_id, rows in selected.groupby("query_id", sort=False):
        docs = [d for _, d in sorted(zip(rows.teacher_rank, rows.doc_id, strict=True))]
        expected[query_id] = docs
    run = read_trec(out / "labels.run.gz")
    assert {q: list(rows.doc_id) for q, rows in run.groupby("query_id")} == expected
    lists = pd.read_parquet(out / "labels.parquet")
    assert list(lists.columns) == ["query", "docs", "labels"]
    order = list(dict.fromkeys(run.query_id))
    for (query, docs, labels), query_id in zip(lists.itertuples(index=False), order, strict=True):
        n = len(expected[query_id])
        assert query == queries[query_id]
        assert list(docs) == [passages[d] for d in expected[query_id]]
        assert list(labels) == list(range(n - 1, -1, -1))
    assert 0 < len(lists) <= 8 and max(map(len, lists.docs)) <= 5


def test_sentence_transformers_trains_on_them(out, world):
    from sentence_transformers.cross_encoder import CrossEncoder, losses

    lists = pd.read_parquet(out / "labels.parquet")
    torch.manual_seed(0)
    model = CrossEncoder(str(world.folder / "bert"), num_labels=1, device="cpu")
    [head] = [p for name, p in model.named_parameters() if name.endswith("classifier.weight")]
    torch.nn.init.normal_(head, std=3)
    loss = losses.RankNetLoss(model)
    inputs = [list(lists["query"]), [list(docs) for docs in lists["docs"]]]
    labels = [torch.tensor(own) for own in lists["labels"]]
    model.eval()
    value = loss(inputs, labels)
    # by hand: over the pairs of every list, of which the first stands above the second; log base 2
    pairs = []
    for query, docs in zip(*inputs, strict=True):
        scores = model.predict([(query, d) for d in docs], activation_fn=torch.nn.Identity())
        pairs += [
            math.log2(1 + math.exp(float(scores[j] - scores[i])))
            for i in range(len(docs))
            for j in range(i + 1, len(docs))
        ]
    assert value.item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-4)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(15):
        optimiser.zero_grad()
        loss(inputs, labels).backward()
        optimiser.step()
    assert loss(inputs, labels).item() < 0.8 * value.item()


def test_croissant_names_every_file_of_data_and_its_columns(out):
    described = json.loads((out / "croissant.json").read_text())
    for file in described["distribution"]:
        content = (out / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["contentSize"] == f"{len(content)} B"
    [records] = described["recordSet"]
    columns = [field["source"]["extract"]["column"] for field in records["field"]]
    assert columns == list(pd.read_parquet(out / "labels.parquet").columns)


def test_mlcroissant_reads_the_lists(out):
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=out / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    lists = pd.read_parquet(out / "labels.parquet")
    rows = list(dataset.records("lists"))
    assert len(rows) == len(lists)
    for row, (query, docs, labels) in zip(rows, lists.itertuples(index=False), strict=True):
        assert row["lists/query"].decode() == query
        assert [text.decode() for text in row["lists/docs"]] == list(docs)
        assert list(row["lists/labels"]) == list(labels)


def test_the_trainer_of_sentence_transformers_reads_the_file(out, world, tmp_path):
    datasets = pytest.importorskip("datasets")
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    lists = datasets.Dataset.from_parquet(str(out / "labels.parquet"), cache_dir=str(tmp_path))
    model = CrossEncoder(str(world.folder / "bert"), num_labels=1, device="cpu")
    arguments = CrossEncoderTrainingArguments(
        str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=2, report_to="none"
    )
    trainer = CrossEncoderTrainer(model, arguments, lists, loss=losses.ADRMSELoss(model))
    assert math.isfinite(trainer.train().training_loss)


def test_without_texts_no_file_has_any(cell, store, tmp_path, world):
    out = export_labels(store, cell.signature[:9], tmp_path / "ids", texts=False)
    lists = pd.read_parquet(out / "labels.parquet")
    assert list(lists.columns) == ["query_id", "doc_ids", "labels"]
    run = read_trec(out / "labels.run.gz")
    assert [d for docs in lists.doc_ids for d in docs] == list(run.doc_id)
    known = [*texts(world, "queries.tsv").values(), *texts(world, "corpus.tsv").values()]
    content = b"".join(path.read_bytes() for path in out.iterdir())
    assert not [text for text in known if text.encode() in content]


def test_a_teacher_ranking_is_exported_whole(cell, store, tmp_path):
    teach = TeacherRanking(store / "teach" / cell.keys["teach"])
    with pytest.raises(ExportError, match="gives an order"):
        export_labels(store, cell.keys["teach"], tmp_path / "whole", values="score")
    out = export_labels(store, cell.keys["teach"], tmp_path / "whole")
    usable = teach.ranking[teach.ranking.state.isin(rankings.USABLE)]
    assert len(read_trec(out / "labels.run.gz")) == len(usable)
    assert pd.read_parquet(out / "labels.parquet").labels.map(len).sum() == len(usable)
    assert (out / "audit.json").read_bytes() == (teach.folder / "audit.json").read_bytes()


def test_scores_are_the_teacher_s_own(cell, store, tmp_path):
    teach = TeacherRanking(store / "teach" / cell.keys["teach"])
    some = teach.ranking[teach.ranking.query_id == teach.ranking.query_id.iloc[0]]
    some = some.sort_values("teacher_rank")
    some["score"] = (-0.5 * some.teacher_rank).astype("float32")
    failed = some.assign(query_id="failed", state="malformed")

    def make(folder):
        TeacherRanking.write(folder, pd.concat([failed, some], ignore_index=True))
        TeacherRanking.write_audit(folder, teach.audit)
        TeacherRanking.write_config(folder, teach.config)

    Store(tmp_path).cached("teach", "ab12", make)
    out = export_labels(tmp_path, "ab12", tmp_path / "out", texts=False, values="score")
    [row] = pd.read_parquet(out / "labels.parquet").itertuples(index=False)
    assert list(row.labels) == [-0.5 * rank for rank in range(1, len(some) + 1)]
    assert list(row.doc_ids) == list(some.doc_id)


def test_the_card_says_what_is_in_there_and_its_terms(cell, out, world, monkeypatch):
    card = DatasetCard.load(out / "README.md")
    assert card.data.license == "unknown" and card.data.pretty_name == "my-labels"
    assert cell.keys["teach"] in card.text and cell.signature in card.text
    assert "texts of the collection are in it" in card.text
    assert str(world.folder) not in (out / "README.md").read_text()
    assert "rdx knows no terms" in card.text  # of a user's own files
    [numpy] = PyDocs(libraries=("numpy",)).licences()
    assert "BSD" in numpy


def test_terms_are_those_that_the_data_are_known_under(cell):
    cfg = cell.cfg | {"data": {"_target_": "rdx.data.PyDocs", "libraries": ["scipy", "numpy"]}}
    assert [text.split(":")[0] for text in licences(cfg)] == [
        "docstrings of scipy",
        "docstrings of numpy",
    ]


def test_changed_files_have_no_texts_for_the_labels(cell, store, tmp_path, world):
    corpus = world.folder / "corpus.tsv"
    before = corpus.read_text()
    try:
        corpus.write_text(before.replace("river", "rivers"))
        with pytest.raises(ExportError, match="have changed"):
            export_labels(store, cell.signature, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        export_labels(store, cell.signature, tmp_path / "out", texts=False)
    finally:
        corpus.write_text(before)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"values": "gain"}, "gain"),
        ({"licence": "My Own"}, "licence"),
        ({"signature": "f" * 9}, "fff"),
    ],
)
def test_bad_values_name_their_key(cell, store, tmp_path, values, word):
    known = {"store": store, "signature": cell.signature, "out": tmp_path / "out"}
    with pytest.raises(ExportError, match=word):
        export_labels(**known | values)
    assert not (tmp_path / "out").exists()


def test_a_cell_without_a_teacher_has_no_labels(cell, store, tmp_path):
    known = Evaluated(store / "evaluate" / cell.signature)
    facts = replace(known.facts, signatures={"prefinetune": "p"})

    def make(folder):
        Evaluated.write(folder, facts, known.per_query, known.config)

    Store(tmp_path).cached("evaluate", "ab12", make)
    with pytest.raises(ExportError, match="no labels"):
        export_labels(tmp_path, "ab12", tmp_path / "out")


def test_damaged_labels_are_refused(cell, store, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    (copy / "select" / cell.keys["select"] / "ranking.parquet").write_bytes(b"x")
    with pytest.raises(ExportError, match="damaged"):
        export_labels(copy, cell.signature, tmp_path / "out", texts=False)


def test_the_verb(cell, store, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["labels", cell.signature, str(out), "--store", str(store), "--without-texts"]
    verb([*arguments, "--licence", "cc-by-4.0"])
    printed = capsys.readouterr().out
    assert "cc-by-4.0" in printed and str(out) in printed
    assert DatasetCard.load(out / "README.md").data.license == "cc-by-4.0"
