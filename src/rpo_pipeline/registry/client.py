"""The MLflow model registry: log a version, find the champion, move the aliases.

Every call names its tracking server and its run, so nothing depends on MLflow's global run. The
exceptions are ``Model.log``, which takes neither server nor experiment, and ``models:/`` addresses,
which are looked up at the global server whatever server is passed: it is set for both.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.params import PromotionParams

logger = logging.getLogger(__name__)

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
CHECKPOINT = "checkpoint"
SERVING_MODEL = Path(__file__).with_name("serving_model.py")
SERVED_WITH = ("mlflow", "torch", "transformers")
MAX_TAG_CHARACTERS = 5000


def find_version(client: MlflowClient, model_name: str, alias: str) -> str | None:
    """The version that holds an alias; None before there is one."""
    try:
        # A number or a text, depending on the store.
        return str(client.get_model_version_by_alias(model_name, alias).version)
    except MlflowException as err:
        # A missing alias and a missing model, in MLflow's words.
        if err.error_code in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}:
            return None
        raise


def has_version(run: Mapping[str, str], model_name: str, version: Mapping[str, str]) -> bool:
    """Whether the registry still holds a version, as ``register_version`` returned it."""
    try:
        found = MlflowClient(run["tracking_uri"]).get_model_version(model_name, version["version"])
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return bool(found.source == f"models:/{version['model_id']}")


def fetch_champion(run: Mapping[str, str], model_name: str, directory: Path) -> dict[str, Any]:
    """Download the champion's checkpoint, once per version.

    Args:
        run: Tracking server (``tracking_uri``).
        model_name: Registered model.
        directory: Gets a folder per version.

    Returns:
        ``version`` and ``path``, both None while there is no champion.

    Raises:
        RegistryError: If the version exists but its checkpoint cannot be had.
    """
    version = find_version(MlflowClient(run["tracking_uri"]), model_name, CHAMPION)
    if version is None:
        logger.info("%s has no champion yet: the reference is the baseline", model_name)
        return {"version": None, "path": None}
    target = directory / version
    if not target.is_dir():
        mlflow.set_tracking_uri(run["tracking_uri"])
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            try:
                path = mlflow.artifacts.download_artifacts(
                    f"models:/{model_name}/{version}/artifacts/{CHECKPOINT}",
                    dst_path=folder,
                    tracking_uri=run["tracking_uri"],
                )
            except (MlflowException, OSError) as err:
                raise RegistryError(
                    f"version {version} of {model_name} is champion, but its checkpoint "
                    f"cannot be downloaded: {err}"
                ) from err
            shutil.move(path, target)
    return {"version": version, "path": str(target)}


def register_version(
    run: Mapping[str, str],
    model_name: str,
    checkpoint: Path,
    documents: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> dict[str, str]:
    """Log the policy to a run and register it as the challenger.

    Args:
        run: ``tracking_uri``, ``experiment_id`` and ``run_id``.
        model_name: Registered model; made if it is new.
        checkpoint: Model directory.
        documents: JSON documents that travel with the version, by name.
        metrics: Numbers to bind to the logged model.

    Returns:
        ``version`` and ``model_id``.
    """
    mlflow.set_tracking_uri(run["tracking_uri"])
    mlflow.set_experiment(experiment_id=run["experiment_id"])
    client = MlflowClient(run["tracking_uri"])
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
        # MLflow stores a folder under its own name. Links: the weights are not copied for that.
        staged = shutil.copytree(checkpoint, Path(folder) / CHECKPOINT, copy_function=os.link)
        artifacts = {CHECKPOINT: str(staged)}
        for name, document in documents.items():
            file = Path(folder) / f"{name}.json"
            file.write_text(json.dumps(document, indent=2))
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
                {"max_new_tokens": 80, "sampling_temperature": 0.0, "seed": 0},
            ),
            pip_requirements=[f"{name}=={installed_version(name)}" for name in SERVED_WITH],
        )
    for name, value in metrics.items():
        client.log_metric(run["run_id"], name, value, model_id=info.model_id)
    if not client.search_registered_models(f"name = '{model_name}'"):
        client.create_registered_model(model_name)
    created = client.create_model_version(
        model_name, f"models:/{info.model_id}", run["run_id"], model_id=info.model_id
    )
    client.set_registered_model_alias(model_name, CHALLENGER, created.version)
    return {"version": str(created.version), "model_id": info.model_id}


def apply_decision(
    run: Mapping[str, str],
    version: str,
    gate: Mapping[str, Any],
    promotion: PromotionParams,
    lock_file: Path,
) -> dict[str, Any]:
    """Move the aliases as the gate decided, and write the decision on the version.

    Args:
        run: Tracking server.
        version: The challenger.
        gate: Decision of ``gate.decide``.
        promotion: Registered model and mode.
        lock_file: Held while aliases move, so that two promotions on one host queue.

    Returns:
        version, promoted, champion_before, champion_after and reason.

    Raises:
        RegistryError: If another host moved the alias at the same moment.
    """
    client, name = MlflowClient(run["tracking_uri"]), promotion.model_name
    with FileLock(lock_file):
        before = find_version(client, name, CHAMPION)
        if before == version:
            return _result(version, before, before, "it is champion already")
        reason = _refusal(gate, before, promotion.mode)
        if reason is None:
            _promote(client, name, version, before)
        after = find_version(client, name, CHAMPION)
    checks = json.dumps([{k: c[k] for k in ("metric", "passed", "reason")} for c in gate["checks"]])
    tags = {
        "gate": "passed" if gate["passed"] else "failed",
        "gate_checks": checks[:MAX_TAG_CHARACTERS],
        "promotion": reason or f"promoted over {before or 'no champion'}",
    }
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    logger.info("version %s of %s: %s", version, name, tags["promotion"])
    return _result(version, before, after, tags["promotion"])


def _result(version: str, before: str | None, after: str | None, reason: str) -> dict[str, Any]:
    return {
        "version": version,
        "promoted": before != after == version,
        "champion_before": before,
        "champion_after": after,
        "reason": reason,
    }


def _refusal(gate: Mapping[str, Any], champion: str | None, mode: str) -> str | None:
    if not gate["passed"]:
        failed = "; ".join(check["reason"] for check in gate["checks"] if not check["passed"])
        return f"not promoted: {failed}"
    if champion != gate["champion_version"]:
        return (
            f"not promoted: the evaluation compared with champion {gate['champion_version']}, but "
            f"today's is {champion}; evaluate again"
        )
    if mode == "manual":
        return "not promoted: promotion.mode is manual, so it stays challenger"
    return None


def _promote(client: MlflowClient, name: str, version: str, before: str | None) -> None:
    if before is not None:
        client.set_registered_model_alias(name, PREVIOUS, before)
    client.set_registered_model_alias(name, CHAMPION, version)
    after = find_version(client, name, CHAMPION)
    if after != version:
        raise RegistryError(
            f"version {version} of {name} was made champion, but the registry now names {after}: "
            "another host promoted at the same moment"
        )
    client.delete_registered_model_alias(name, CHALLENGER)
