"""What the tracking server keeps of a prompt: reports that quote it, and models that saw it."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from rpo_pipeline.params import TrackingParams
from rpo_pipeline.registry.tracking import resolve_tracking_uri


def erase_reports(
    tracking: TrackingParams, project: Path, quotes: Callable[[str], bool]
) -> list[str]:
    """Delete reports of runs that quote a prompt.

    Args:
        tracking: Server and experiment.
        project: A relative sqlite path starts there.
        quotes: Whether a text does.

    Returns:
        What was deleted: run and artifact, for people.
    """
    client = _client(tracking, project)
    if client is None:
        return []
    experiment = client.get_experiment_by_name(tracking.experiment)
    if experiment is None:
        return []
    deleted = []
    for run_id, artifact_uri in _runs(client, experiment.experiment_id):
        for artifact in client.list_artifacts(run_id):
            if artifact.is_dir or not artifact.path.endswith(".html"):
                continue
            with tempfile.TemporaryDirectory() as folder:
                copy = mlflow.artifacts.download_artifacts(
                    run_id=run_id,
                    artifact_path=artifact.path,
                    dst_path=folder,
                    tracking_uri=client.tracking_uri,
                )
                text = Path(copy).read_text(errors="replace")
            if quotes(text):
                repository = get_artifact_repository(artifact_uri, tracking_uri=client.tracking_uri)
                repository.delete_artifacts(artifact.path)
                deleted.append(f"MLflow run {run_id}: {artifact.path}")
    return deleted


def registered_versions(tracking: TrackingParams, project: Path, model_name: str) -> list[str]:
    """Versions of a registered model with their aliases, for people."""
    client = _client(tracking, project)
    if client is None:
        return []
    versions = client.search_model_versions(f"name = '{model_name}'")
    aliases: dict[str, list[str]] = {}
    if versions:
        for alias, version in client.get_registered_model(model_name).aliases.items():
            aliases.setdefault(str(version), []).append(alias)
    numbers = sorted((str(version.version) for version in versions), key=int)
    return [" ".join([n, *(f"@{alias}" for alias in aliases.get(n, []))]) for n in numbers]


def _client(tracking: TrackingParams, project: Path) -> MlflowClient | None:
    """None where there is no database yet: asking for it would make one."""
    uri = resolve_tracking_uri(tracking.tracking_uri, project)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    return MlflowClient(uri)


def _runs(client: MlflowClient, experiment_id: str) -> Iterator[tuple[str, str]]:
    token = None
    while True:
        page = client.search_runs([experiment_id], run_view_type=ViewType.ALL, page_token=token)
        for run in page:
            yield run.info.run_id, str(run.info.artifact_uri)
        token = page.token
        if not token:
            return
