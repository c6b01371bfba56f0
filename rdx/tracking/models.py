"""Students as MLflow models: named by their scores, logged with weights, registered."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

import rdx

MODEL = "model"  # folder among a run's artifacts
NAME, EXTERNAL = "student", "mlflow.model.isExternal"  # mlflow.utils.mlflow_tags
ABSENT = (404, 501)  # of HTTP: the server does not have what is asked for
ALIAS = "best"
STUDENT = "rdx_student.json"  # what `rdx.students.scoring` builds the student from
NEEDS = ("torch", "transformers", "safetensors", "numpy", "pandas")
LEAVE_OUT = ("checkpoint*", "manifest.json", "curve.json", "lists*", "*.parquet")


def logged(client: MlflowClient, experiment: str, run_id: str, tags: dict[str, str]) -> str | None:
    """Id of the model that a run trained, made at need; its weights are not in MLflow.

    None where the server is older than such models (MLflow 3): scores do not name one there.
    """
    try:
        found = client.search_logged_models(
            [experiment], f"source_run_id = '{run_id}'", max_results=1
        )
        model = next(iter(found), None) or client.create_logged_model(
            experiment, NAME, run_id, {EXTERNAL: "true", **tags}, model_type="cross-encoder"
        )
        model_id = str(model.model_id)
        if model.status != LoggedModelStatus.READY:
            client.finalize_logged_model(model_id, LoggedModelStatus.READY)
        outputs = client.get_run(run_id).outputs
        known = outputs.model_outputs if outputs else []
        if not any(output.model_id == model_id for output in known):
            client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        return model_id
    except MlflowException as error:
        if error.get_http_status_code() in ABSENT:
            return None
        raise


def log_model(client: MlflowClient, run_id: str, folder: Path, student: dict[str, Any]) -> None:
    """Log a trained student as a pyfunc model: a frame of (query, passage) to scores.

    It brings rdx's own code with it and is read without pickle.

    Parameters
    ----------
    folder
        Checkpoint of the student.
    student
        Its configuration.
    """
    example = pd.DataFrame(
        [["what is a cross-encoder", "A cross-encoder reads query and passage together."]],
        columns=["query", "passage"],
    )
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "query"), ColSpec("string", "passage")]),
        outputs=Schema([ColSpec("float", "score")]),
    )
    with tempfile.TemporaryDirectory() as scratch:
        weights, out = Path(scratch, "student"), Path(scratch, MODEL)
        shutil.copytree(folder, weights, ignore=shutil.ignore_patterns(*LEAVE_OUT))
        (weights / STUDENT).write_text(json.dumps(student), encoding="utf-8")
        mlflow.pyfunc.save_model(
            str(out),
            loader_module="rdx.students.scoring",
            data_path=str(weights),
            code_paths=[str(Path(rdx.__file__).parent)],
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={_version(name)}" for name in NEEDS],
        )
        client.log_artifacts(run_id, str(out), MODEL)


def register(client: MlflowClient, run_id: str, name: str) -> None:
    """Register the model of a run under a name and point the alias "best" to it."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    source = f"{client.get_run(run_id).info.artifact_uri}/{MODEL}"
    version = known[0] if known else client.create_model_version(name, source, run_id)
    client.set_registered_model_alias(name, ALIAS, version.version)


def _version(name: str) -> str:
    return importlib.metadata.version(name).partition("+")[0]
