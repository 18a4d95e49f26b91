"""Erases reports on the tracking server that quote a prompt."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.entities.paged_list import PagedList

from rpo_pipeline.params import TrackingParams
from rpo_pipeline.registry import ARTIFACTS, answering
from rpo_pipeline.storage import first_line


def erase_reports(
    tracking: TrackingParams, project: Path, quotes: Callable[[str], bool]
) -> tuple[list[str], list[str]]:
    """Delete reports of runs and registered versions that quote a prompt.

    The result is the deleted artifacts, and the places that could not be read, each with its owner.
    A RegistryError says that the tracking server does not answer.
    """
    deleted: list[str] = []
    missed: list[str] = []
    with answering(tracking, project) as client:
        experiment = client.get_experiment_by_name(tracking.experiment) if client else None
        if client is None or experiment is None:
            return deleted, missed
        for owner, uri, folder in list(_places(client, experiment.experiment_id)):
            try:
                for name in _erase_quoting(uri, folder, client, quotes):
                    deleted.append(f"{owner}: {name}")
            except (MlflowException, OSError) as err:
                missed.append(f"{owner}: its artifacts cannot be read ({first_line(err)})")
    return deleted, missed


def _erase_quoting(
    uri: str, folder: str | None, client: MlflowClient, quotes: Callable[[str], bool]
) -> Iterator[str]:
    repository = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
    for artifact in repository.list_artifacts(folder):
        if artifact.is_dir or not artifact.path.endswith(".html"):
            continue
        with tempfile.TemporaryDirectory() as copies:
            copy = repository.download_artifacts(artifact.path, copies)
            text = Path(copy).read_text(errors="replace")
        if quotes(text):
            repository.delete_artifacts(artifact.path)
            yield artifact.path


def _places(client: MlflowClient, experiment_id: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield the places of reports: owner, address of its artifacts, folder in it."""
    for run in _every(client.search_runs, [experiment_id], run_view_type=ViewType.ALL):
        yield f"MLflow run {run.info.run_id}", str(run.info.artifact_uri), None
    for model in _every(client.search_logged_models, [experiment_id]):
        yield f"MLflow model {model.model_id}", model.artifact_location, ARTIFACTS


def _every(search: Callable[..., PagedList[Any]], *where: Any, **how: Any) -> Iterator[Any]:  # noqa: ANN401 (of MLflow)
    """Yield what a search finds, page by page."""
    token = None
    while True:
        page = search(*where, **how, page_token=token)
        yield from page
        if not (token := page.token):
            return
