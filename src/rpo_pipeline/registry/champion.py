"""Who is champion, who was before it, and how old it is."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.registry.aliases import CHAMPION, PREVIOUS
from rpo_pipeline.registry.outage import needs_registry

SECONDS_PER_DAY = 86_400


class Champion(NamedTuple):
    """A version that holds the alias ``champion``."""

    version: str
    previous: str | None
    """The version that a rollback would restore."""
    age_days: float
    """Since it was registered; 0 if the clock was moved back behind that."""


@needs_registry
def find_champion(run: Mapping[str, str], model_name: str) -> Champion | None:
    """Look up the champion; None before there is one.

    Args:
        run: ``tracking_uri`` and ``registry_wait_seconds``.
        model_name: Registered model.

    Returns:
        The version, the one before it and its age.

    Raises:
        RegistryError: If the registry does not answer.
    """
    client = MlflowClient(run["tracking_uri"])
    try:
        aliases = client.get_registered_model(model_name).aliases
        if CHAMPION not in aliases:
            return None
        version = str(aliases[CHAMPION])
        registered = client.get_model_version(model_name, version).creation_timestamp / 1000
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise RegistryError(f"the registry does not say who is champion: {err}") from err
    previous = str(aliases[PREVIOUS]) if PREVIOUS in aliases else None
    return Champion(version, previous, max(0.0, time.time() - registered) / SECONDS_PER_DAY)
