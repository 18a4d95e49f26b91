"""The MLflow model registry: log a version, and fetch what a version carries.

Every call names its tracking server and its run, so nothing depends on MLflow's global run. The
exceptions are ``Model.log``, which takes neither server nor experiment, and ``models:/`` addresses,
which are looked up at the global server whatever server is passed: it is set for both.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.io.digests import model_fingerprint
from rpo_pipeline.io.durable import link_or_copy, temporary_folder
from rpo_pipeline.registry.aliases import CHALLENGER, CHAMPION, PROMOTION_TAG, find_version
from rpo_pipeline.registry.outage import needs_registry

logger = logging.getLogger(__name__)

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

CHECKPOINT = "checkpoint"
SERVING_MODEL = Path(__file__).with_name("serving_model.py")
SERVED_WITH = ("mlflow", "torch", "transformers")
POLICY_TAG = "policy"


@needs_registry
def has_version(run: Mapping[str, str], model_name: str, version: Mapping[str, str]) -> bool:
    """Whether the registry still holds a version, as ``register_version`` returned it."""
    try:
        found = MlflowClient(run["tracking_uri"]).get_model_version(model_name, version["version"])
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return bool(found.source == f"models:/{version['model_id']}")


@needs_registry
def fetch_champion(run: Mapping[str, str], model_name: str, directory: Path) -> dict[str, Any]:
    """Download the champion's checkpoint, once per version.

    Args:
        run: Tracking server (``tracking_uri``).
        model_name: Registered model.
        directory: Gets a folder per version.

    Returns:
        ``version`` and ``path``, both None while there is no champion.

    Raises:
        RegistryError: If there is a champion, but its checkpoint cannot be had.
    """
    version = find_version(MlflowClient(run["tracking_uri"]), model_name, CHAMPION)
    if version is None:
        logger.info("%s has no champion yet: the reference is the baseline", model_name)
        return {"version": None, "path": None}
    return {"version": version, "path": str(fetch_checkpoint(run, model_name, version, directory))}


@needs_registry
def fetch_checkpoint(
    run: Mapping[str, str], model_name: str, version: str, directory: Path
) -> Path:
    """Download the checkpoint of a version, once.

    Args:
        run: Tracking server.
        model_name: Registered model.
        version: Of it.
        directory: Gets a folder per version.

    Returns:
        The version's folder.

    Raises:
        RegistryError: If it cannot be had.
    """
    target = directory / version
    if not target.is_dir():
        with temporary_folder(directory) as folder:
            shutil.move(_download(run, model_name, version, CHECKPOINT, folder), target)
    return target


@needs_registry
def fetch_document(run: Mapping[str, str], model_name: str, version: str, name: str) -> Any:  # noqa: ANN401 (JSON)
    """Read a JSON document that travels with a version.

    Args:
        run: Tracking server.
        model_name: Registered model.
        version: Of it.
        name: Of the document's file.

    Returns:
        The document.

    Raises:
        RegistryError: If there is no such version, or it carries no such document.
    """
    with TemporaryDirectory() as folder:
        return json.loads(Path(_download(run, model_name, version, name, folder)).read_text())


@needs_registry
def register_version(
    run: Mapping[str, str],
    model_name: str,
    checkpoint: Path,
    documents: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> dict[str, str]:
    """Log the policy to a run and register it as the challenger.

    A version of the same policy that still waits for its decision was made by a run that was
    killed before it could note so: it is the challenger then, and no second one is made.

    Args:
        run: ``tracking_uri``, ``experiment_id`` and ``run_id``.
        model_name: Registered model; made if it is new.
        checkpoint: Model directory.
        documents: What travels with the version, by file name: texts, and values for JSON.
        metrics: Numbers to bind to the logged model.
        tags: Of the version.

    Returns:
        ``version`` and ``model_id``.
    """
    mlflow.set_tracking_uri(run["tracking_uri"])
    mlflow.set_experiment(experiment_id=run["experiment_id"])
    client = MlflowClient(run["tracking_uri"])
    fingerprint = model_fingerprint(checkpoint)
    found = _undecided(client, model_name, fingerprint)
    if found is not None:
        client.set_registered_model_alias(model_name, CHALLENGER, found["version"])
        return found
    with temporary_folder(checkpoint.parent) as folder:
        # MLflow stores a folder under its own name. Links: the weights are not copied for that.
        staged = shutil.copytree(checkpoint, folder / CHECKPOINT, copy_function=link_or_copy)
        artifacts = {CHECKPOINT: str(staged)}
        for name, document in documents.items():
            file = folder / name
            text = document if isinstance(document, str) else json.dumps(document, indent=2)
            file.write_text(text)
            artifacts[name] = str(file)
        info = Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            run_id=run["run_id"],
            name="policy",
            python_model=str(SERVING_MODEL),
            artifacts=artifacts,
            input_example=(
                ["Hello"],
                {
                    "max_new_tokens": -1,  # what is served unless a request says more
                    "sampling_temperature": 0.0,
                    "temperature": 0.0,
                    "seed": -1,
                },
            ),
            pip_requirements=[f"{name}=={installed_version(name)}" for name in SERVED_WITH],
        )
    for name, value in metrics.items():
        client.log_metric(run["run_id"], name, value, model_id=info.model_id)
    if not client.search_registered_models(f"name = '{model_name}'"):
        client.create_registered_model(model_name)
    created = client.create_model_version(
        model_name,
        f"models:/{info.model_id}",
        run["run_id"],
        tags={**tags, POLICY_TAG: fingerprint},
        model_id=info.model_id,
    )
    client.set_registered_model_alias(model_name, CHALLENGER, created.version)
    return {"version": str(created.version), "model_id": info.model_id}


def _undecided(client: MlflowClient, model_name: str, fingerprint: str) -> dict[str, str] | None:
    found = client.search_model_versions(
        f"name = '{model_name}' and tags.{POLICY_TAG} = '{fingerprint}'"
    )
    for version in found:
        if PROMOTION_TAG not in version.tags:
            logger.info("version %s of %s is this policy already", version.version, model_name)
            model_id = str(version.source).removeprefix("models:/")
            return {"version": str(version.version), "model_id": model_id}
    return None


def _download(
    run: Mapping[str, str], model_name: str, version: str, artifact: str, folder: Path | str
) -> str:
    mlflow.set_tracking_uri(run["tracking_uri"])
    try:
        path: str = mlflow.artifacts.download_artifacts(
            f"models:/{model_name}/{version}/artifacts/{artifact}",
            dst_path=str(folder),
            tracking_uri=run["tracking_uri"],
        )
    except (MlflowException, OSError) as err:
        raise RegistryError(
            f"{artifact} of version {version} of {model_name} cannot be downloaded: {err} "
            "(promotion.model_name, promotion.version)"
        ) from err
    return path
