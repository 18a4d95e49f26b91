"""Client of the MLflow model registry: it registers and lists versions, and downloads artifacts.

Every call names its tracking server and its run, so nothing depends on MLflow's global run. The
exceptions are ``Model.log``, which takes neither server nor experiment, and ``models:/`` addresses,
which always refer to the global server; for both the global server is set.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.params import TrackingParams, database_file
from rpo_pipeline.records import Champion, Registration, RunAddress
from rpo_pipeline.registry.aliases import ARTIFACTS
from rpo_pipeline.registry.moves import (
    CHALLENGER,
    LOGGED,
    PROMOTION_TAG,
    if_there,
    model_id_of,
    read_standing,
)
from rpo_pipeline.secrets import without_password
from rpo_pipeline.storage import (
    first_line,
    link_or_copy,
    model_fingerprint,
    put_in_place,
    temporary_folder,
)
from rpo_pipeline.tracking import describe, is_refusal, needs_registry

logger = logging.getLogger(__name__)

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

CHECKPOINT = "checkpoint"
SERVING_MODEL = Path(__file__).with_name("serving_model.py")
SERVED_WITH = ("mlflow", "torch", "transformers")
POLICY_TAG = "policy"
"""Tag of a version with the fingerprint of its checkpoint."""
EXAMPLE = (
    ["Hello"],
    {
        "max_new_tokens": -1,  # the default of a served model
        **dict.fromkeys(("sampling_temperature", "temperature"), 0.0),
        "seed": -1,
    },
)
"""Request from which MLflow infers the signature of the model."""
ANOTHER_CHAMPION = (
    "To make another version champion: `kedro run --pipelines rollback` for the one before, "
    "`kedro run --pipelines promotion --params promotion.version=N`, or `MlflowClient()."
    "delete_registered_model_alias(NAME, 'champion')` to begin with none"
)


@needs_registry
def has_version(run: RunAddress, model_name: str, registration: Registration) -> bool:
    """Tell whether the registry still holds a registered version."""
    client = MlflowClient(run.tracking_uri)
    found = if_there(client.get_model_version, model_name, registration.version)
    return found is not None and model_id_of(found) == registration.model_id


@needs_registry
def fetch_champion(run: RunAddress, model_name: str, directory: Path) -> Champion:
    """Return the champion, without a version if there is none, as ``fetch_checkpoint`` gets it."""
    version = read_standing(MlflowClient(run.tracking_uri), model_name).champion
    if version is None:
        logger.info("%s has no champion yet: the reference is the baseline", model_name)
        return Champion()
    return Champion(version, fetch_checkpoint(run, model_name, version, directory))


@needs_registry
def fetch_checkpoint(run: RunAddress, model_name: str, version: str, directory: Path) -> Path:
    """Download the checkpoint of a version unless it exists locally.

    Its folder in the directory is named by the id of the logged model, which is unique over all
    registered models and servers. Its content is checked against the registered fingerprint.

    A ``RegistryError`` is raised if it cannot be downloaded, or differs from what was registered.
    """
    found = _require_ours(MlflowClient(run.tracking_uri), model_name, version)
    target, registered = directory / model_id_of(found), found.tags[POLICY_TAG]
    if target.is_dir() and model_fingerprint(target) == registered:
        return target
    with temporary_folder(directory) as folder:
        fetched = Path(_download(run, model_name, version, CHECKPOINT, folder))
        if model_fingerprint(fetched) != registered:
            raise RegistryError(
                f"the checkpoint of version {version} of {model_name} is not what was registered: "
                f"its files in the artifact store were changed or damaged. {ANOTHER_CHAMPION}"
            )
        put_in_place(fetched, target)
    return target


@needs_registry
def require_champion(run: RunAddress, model_name: str) -> None:
    """Check before any work that the champion, if there is one, can be evaluated.

    A ``RegistryError`` is raised if the champion was not registered by this project, or its
    checkpoint is missing.
    """
    client = MlflowClient(run.tracking_uri)
    version = read_standing(client, model_name).champion
    if version is None:
        return
    model_id = model_id_of(_require_ours(client, model_name, version))
    try:
        kept = client.list_logged_model_artifacts(model_id, f"{ARTIFACTS}/{CHECKPOINT}")
    except Exception as err:  # stores of artifacts raise errors of any type
        raise _gone(model_name, version, describe(err, run.tracking_uri)) from err
    if not kept:
        raise _gone(model_name, version, "there is no such folder")


@needs_registry
def fetch_document(run: RunAddress, model_name: str, version: str, name: str) -> Any:  # noqa: ANN401 (JSON)
    """Read a JSON document of a version by its file name.

    A ``RegistryError`` is raised if there is no such version, or it has no such document.
    """
    with TemporaryDirectory() as folder:
        return json.loads(Path(_download(run, model_name, version, name, folder)).read_text())


@needs_registry
def register_version(
    run: RunAddress,
    model_name: str,
    checkpoint: Path,
    documents: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    tags: Mapping[str, Any],
) -> Registration:
    """Log the policy to a run and register it as the challenger.

    A version of the same policy that still waits for its decision was made by a run that was
    killed before it could note so: it is the challenger then, and no second one is made. The
    registered model is made if it is new.

    ``documents`` are texts, and values for JSON, by file name. Metrics, which are bound to the
    logged model, and tags of the version may be None where they are not known.
    """
    mlflow.set_tracking_uri(run.tracking_uri)
    mlflow.set_experiment(experiment_id=run.experiment_id)
    client = MlflowClient(run.tracking_uri)
    fingerprint = model_fingerprint(checkpoint)
    same_policy = client.search_model_versions(
        f"name = '{model_name}' and tags.{POLICY_TAG} = '{fingerprint}'"
    )
    for found in same_policy:
        if PROMOTION_TAG not in found.tags:
            logger.info("version %s of %s is this policy already", found.version, model_name)
            client.set_registered_model_alias(model_name, CHALLENGER, found.version)
            return Registration(str(found.version), model_id_of(found), fingerprint)
    model_id = _log_model(run, checkpoint, documents)
    for name, value in metrics.items():
        if value is not None:
            client.log_metric(run.run_id, name, value, model_id=model_id)
    if not client.search_registered_models(f"name = '{model_name}'"):
        client.create_registered_model(model_name)
    facts = {name: str(value) for name, value in tags.items() if value is not None}
    created = client.create_model_version(
        model_name,
        f"{LOGGED}{model_id}",
        run.run_id,
        tags={**facts, POLICY_TAG: fingerprint},
        model_id=model_id,
    )
    client.set_registered_model_alias(model_name, CHALLENGER, created.version)
    return Registration(str(created.version), model_id, fingerprint)


def registered_versions(tracking: TrackingParams, project: Path, model_name: str) -> list[str]:
    """List the version numbers of a registered model with their aliases, as texts.

    A ``RegistryError`` is raised if the tracking server does not answer.
    """
    aliases: dict[str, list[str]] = {}
    with answering(tracking, project) as client:
        versions = client.search_model_versions(f"name = '{model_name}'") if client else []
        if client and versions:
            for alias, version in client.get_registered_model(model_name).aliases.items():
                aliases.setdefault(str(version), []).append(alias)
    numbers = sorted((str(version.version) for version in versions), key=int)
    return [" ".join([n, *(f"@{alias}" for alias in aliases.get(n, []))]) for n in numbers]


@contextmanager
def answering(tracking: TrackingParams, project: Path) -> Iterator[MlflowClient | None]:
    """Open a client, and raise a ``RegistryError`` if its server does not answer.

    Where there is no database yet, there is no client: asking for the database would make one.
    """
    uri = tracking.address(project)
    file = database_file(uri)
    try:
        yield MlflowClient(uri) if file is None or file.is_file() else None
    except (MlflowException, OSError) as err:
        raise RegistryError(
            f"the tracking server at {without_password(uri)} does not answer as it must "
            f"({first_line(err)}): make the same call again when it does (conf/base/mlflow.yml, "
            "MLFLOW_TRACKING_URI)"
        ) from err


def _log_model(run: RunAddress, checkpoint: Path, documents: Mapping[str, Any]) -> str:
    """Log a checkpoint and documents as a model that MLflow can serve, and return its id."""
    with temporary_folder(checkpoint.parent) as folder:
        # MLflow stores a folder under its own name; links avoid a copy of the weights.
        staged = shutil.copytree(checkpoint, folder / CHECKPOINT, copy_function=link_or_copy)
        artifacts = {CHECKPOINT: str(staged)}
        for name, document in documents.items():
            text = document if isinstance(document, str) else json.dumps(document, indent=2)
            (folder / name).write_text(text)
            artifacts[name] = str(folder / name)
        info = Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            run_id=run.run_id,
            name="policy",
            python_model=str(SERVING_MODEL),
            artifacts=artifacts,
            input_example=EXAMPLE,
            pip_requirements=[f"{name}=={installed_version(name)}" for name in SERVED_WITH],
        )
    return str(info.model_id)


def _require_ours(client: MlflowClient, model_name: str, version: str) -> ModelVersion:
    """Return a version if this project registered it, as another tool may use the same name."""
    try:
        found = client.get_model_version(model_name, version)
    except MlflowException as err:
        if not is_refusal(err):
            raise
        raise RegistryError(
            f"there is no version {version} of {model_name} (promotion.model_name, "
            "promotion.version)"
        ) from err
    if POLICY_TAG not in found.tags or not str(found.source).startswith(LOGGED):
        raise RegistryError(
            f"version {version} of {model_name} was not registered by this project: it has no tag "
            f"{POLICY_TAG!r}. Give the project a registered model of its own "
            f"(conf/*/parameters_promotion.yml: promotion.model_name). {ANOTHER_CHAMPION}"
        )
    return found


def _gone(model_name: str, version: str, reason: str) -> RegistryError:
    return RegistryError(
        f"the checkpoint of version {version} of {model_name}, its champion, cannot be had: "
        f"{reason}. {ANOTHER_CHAMPION}"
    )


def _download(
    run: RunAddress, model_name: str, version: str, artifact: str, folder: Path | str
) -> str:
    mlflow.set_tracking_uri(run.tracking_uri)
    try:
        path: str = mlflow.artifacts.download_artifacts(
            f"models:/{model_name}/{version}/artifacts/{artifact}",
            dst_path=str(folder),
            tracking_uri=run.tracking_uri,
        )
    except (MlflowException, OSError) as err:
        raise RegistryError(
            f"{artifact} of version {version} of {model_name} cannot be downloaded: {err} "
            "(promotion.model_name, promotion.version)"
        ) from err
    return path
