"""Opens the experiment and the run at the start, and explains why that fails."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from rpo_pipeline.errors import RegistryError, RpoError
from rpo_pipeline.params import database_file
from rpo_pipeline.secrets import without_password
from rpo_pipeline.tracking.outage import ACCOUNT, ADDRESS, describe, is_refusal

logger = logging.getLogger(__name__)

JOINED_RUN = "RPO_MLFLOW_RUN_ID"
"""Environment variable with the run that a scheduler opened for several ``kedro run``."""
EXPERIMENT = "conf/base/mlflow.yml: experiment"
DELETED = "deleted"
SCHEMA, NO_ACCOUNT = "database schema", ("UNAUTHENTICATED", "PERMISSION_DENIED")
LOCKED = "database is locked"


def find_experiment(client: MlflowClient, name: str, location: str | None) -> str:
    """Find or create an experiment, and return its id.

    ``location`` is the folder of its artifacts, as a ``file:`` address; None: the server's default.

    A ``RegistryError`` is raised if it was deleted, or its folder of artifacts does not exist.
    """
    found = _look_up(client, name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=location))
    if location:
        _check_place(found, local_file_uri_to_path(location))
    return str(found.experiment_id)


def _check_place(experiment: Experiment, here: str) -> None:
    """Check the folder of artifacts: MLflow stores an absolute path, also if a project is moved."""
    there, own = Path(local_file_uri_to_path(experiment.artifact_location)), Path(here)
    if there.resolve() == own.resolve():
        return
    keeps = f"the experiment {experiment.name!r} keeps its artifacts in {there}"
    if own.is_dir() and not there.is_dir():
        raise RegistryError(
            f"{keeps}, which is not there: the project was moved to {own.parent}. MLflow cannot "
            f"move an experiment, so link the old place to the new one (`mkdir -p {there.parent} "
            f"&& ln -s {own} {there}`), or begin anew by moving mlflow.db away: the next run "
            "registers its policy again"
        )
    logger.warning(
        "%s, outside this project: if it is a copy of another one, move its mlflow.db away, or "
        "both write there (%s)",
        keeps,
        EXPERIMENT,
    )


def check_experiment(tracking_uri: str, name: str) -> None:
    """Raise a ``RegistryError`` if no run could be opened, without creating anything.

    The server must answer; a file of SQLite may not exist yet.
    """
    file = database_file(tracking_uri)
    if file is None or file.exists():
        with explaining(tracking_uri):
            _look_up(MlflowClient(tracking_uri), name)


def _look_up(client: MlflowClient, name: str) -> Experiment | None:
    found = client.get_experiment_by_name(name)
    if found is None:
        return None
    if found.lifecycle_stage == DELETED:
        raise RegistryError(
            f"the experiment {name!r} was deleted. To have it back, with "
            f"MLFLOW_TRACKING_URI={without_password(client.tracking_uri)}: `mlflow experiments "
            f"restore --experiment-id {found.experiment_id}`; or name another one ({EXPERIMENT})"
        )
    return found


def join_run(client: MlflowClient, run_id: str) -> str:
    """Open a run again, which a failed attempt may have closed, and return its experiment's id.

    A ``RegistryError`` is raised if there is no such run, or it was deleted.
    """
    try:
        info = client.get_run(run_id).info
    except MlflowException as err:
        if not is_refusal(err):
            raise
        raise RegistryError(
            f"there is nothing to join: {describe(err, client.tracking_uri)} (environment "
            f"variable {JOINED_RUN})"
        ) from err
    if info.lifecycle_stage == DELETED:
        raise RegistryError(
            f"MLflow run {run_id} was deleted. To have it back: `mlflow runs restore --run-id "
            f"{run_id}`; or join another one (environment variable {JOINED_RUN})"
        )
    client.update_run(run_id, "RUNNING")
    return str(info.experiment_id)


@contextmanager
def explaining(tracking_uri: str) -> Iterator[None]:
    """Explain errors by which no run can be opened."""
    try:
        yield
    except RpoError:
        raise
    except Exception as err:  # whatever the store raises: HTTP, SQL, operating system
        raise RegistryError(explain(tracking_uri, err)) from err


def explain(tracking_uri: str, error: Exception) -> str:
    """Explain why no run can be opened, and where to change that."""
    shown, said = without_password(tracking_uri), describe(error, tracking_uri)
    code = error.error_code if isinstance(error, MlflowException) else None
    if code in NO_ACCOUNT:
        return f"the tracking server at {shown} refuses this account: {said} ({ACCOUNT})"
    if SCHEMA in said:
        return (
            f"the database {shown} was made by another version of MLflow than "
            f"{installed_version('mlflow')}, which is installed. If by an older one: keep a copy "
            f"of it, then `mlflow db upgrade {shown}`. If by a newer one: install that version, or "
            f"name another database ({ADDRESS})"
        )
    if LOCKED in said:
        return f"another process holds the database {shown}; try again once it is done ({said})"
    if isinstance(error, ModuleNotFoundError):
        return f"{shown} needs the package {error.name}, which is not installed ({ADDRESS})"
    if is_refusal(error):
        return f"the tracking server at {shown} refuses a request: {said} ({ADDRESS})"
    return f"the tracking server at {shown} does not answer as it must: {said} ({ADDRESS})"
