"""A trained student logged as an MLflow model: loaded again, it scores as the student does."""

import json
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import pytest
import torch

from rdx.students.scoring import BATCH, Scorer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def grid(world, rdx, tmp_path_factory):
    """A grid of two cells with logged models: its folder, an MLflow client, the trials."""
    folder = tmp_path_factory.mktemp("models")
    uri = f"sqlite:///{folder}/mlflow.db"
    more = (f"tracking.uri={uri}", f"tracking.artifacts={folder}/a", "tracking.wait=120")
    cells = world.recorded(folder / "store", *more, "tracking.log_model=true", "seed=1,2")
    rdx(["-m", *cells], folder, status=0)
    import mlflow
    from mlflow import MlflowClient

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("rdx").experiment_id
    yield folder, client, client.search_runs([experiment])
    mlflow.set_tracking_uri(before)


def of_kind(runs, kind):
    return [run for run in runs if run.data.tags["rdx.kind"] == kind]


def student_of(folder, client, run):
    """The student of a trial, as rdx itself loads it, and its texts."""
    facts = json.loads(Path(client.download_artifacts(run.info.run_id, "trial.json")).read_text())
    from rdx.students import Student

    checkpoint = folder / "store" / "distill" / facts["signatures"]["distill"]
    settings = {"head": "interaction", "query_length": 8, "passage_length": 16}
    return Student(run.data.params["student.model"], **settings).load(checkpoint).eval()


def pairs_of(world, count):
    queries = [line.split("\t")[1] for line in (world.folder / "queries.tsv").open()]
    passages = [line.split("\t")[1] for line in (world.folder / "corpus.tsv").open()]
    pairs = [(q.strip(), p.strip()) for q in queries for p in passages][:count]
    return pd.DataFrame(pairs, columns=["query", "passage"])


def test_a_logged_model_scores_as_the_student_does(grid, world):
    import mlflow

    folder, client, runs = grid
    frame = pairs_of(world, 2 * BATCH + 3)
    for run in of_kind(runs, "trial"):
        model = mlflow.pyfunc.load_model(f"{run.info.artifact_uri}/model")
        student = student_of(folder, client, run)
        with torch.inference_mode():
            texts = list(frame.itertuples(index=False, name=None))
            expected = student(*student.pairs.batch(texts)).numpy()
        scores = model.predict(frame)
        assert scores.dtype == np.float32 and len(set(expected)) > 10
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
        # the scores of a pair do not depend on its neighbours; none are asked, none are given
        shuffled = frame.sample(frac=1, random_state=0)
        np.testing.assert_allclose(
            model.predict(shuffled), expected[shuffled.index], rtol=1e-5, atol=1e-6
        )
        assert model.predict(frame[:0]).shape == (0,)


def test_its_signature_refuses_other_columns_and_its_example_scores(grid):
    import mlflow
    from mlflow.exceptions import MlflowException

    _, _, runs = grid
    run = of_kind(runs, "trial")[0]
    model = mlflow.pyfunc.load_model(f"{run.info.artifact_uri}/model")
    assert model.metadata.signature.inputs.input_names() == ["query", "passage"]
    assert np.isfinite(model.predict(model.input_example)).all()
    with pytest.raises(MlflowException, match="passage"):
        model.predict(pd.DataFrame({"query": ["a"], "document": ["b"]}))
    needed = Path(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/model"))
    assert not list(needed.rglob("*.pkl")) and list(needed.rglob("*.safetensors"))
    assert "torch==" in (needed / "requirements.txt").read_text()


def test_the_best_cell_of_the_grid_is_registered_under_an_alias(grid, world):
    import mlflow

    _, client, runs = grid
    [parent] = of_kind(runs, "grid")
    best = max(of_kind(runs, "trial"), key=lambda run: run.data.metrics["nDCG_at_10/student/files"])
    name = parent.data.tags["rdx.grid"]
    registered = client.get_run(client.get_model_version_by_alias(name, "best").run_id)
    measure = "nDCG_at_10/student/files"
    assert registered.data.metrics[measure] == best.data.metrics[measure]
    by_alias = mlflow.pyfunc.load_model(f"models:/{name}@best")
    frame = pairs_of(world, 5)
    own = mlflow.pyfunc.load_model(f"{registered.info.artifact_uri}/model")
    np.testing.assert_array_equal(by_alias.predict(frame), own.predict(frame))


def test_a_scorer_ignores_how_the_student_was_trained(grid, tmp_path, world):
    """A compiled student, or one trained with low-rank updates, is loaded plainly."""
    import shutil

    folder, _, runs = grid
    run = of_kind(runs, "trial")[0]
    data = next(Path(urlparse(run.info.artifact_uri).path).glob("model/data/*"))
    copy = shutil.copytree(data, tmp_path / "copy")
    settings = json.loads((copy / "rdx_student.json").read_text())
    settings |= {"compile": True, "lora": {"rank": 4}}
    (copy / "rdx_student.json").write_text(json.dumps(settings))
    frame = pairs_of(world, 4)
    np.testing.assert_array_equal(Scorer(copy).predict(frame), Scorer(data).predict(frame))
