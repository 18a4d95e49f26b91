"""Lists the versions of a registered model as text, without creating a database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.params import TrackingParams, database_file
from rpo_pipeline.secrets import without_password
from rpo_pipeline.storage import first_line


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
