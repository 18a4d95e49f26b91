"""Finds the champion, the champion before it, and its age."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from mlflow import MlflowClient

from rpo_pipeline.registry.moves import read_standing
from rpo_pipeline.tracking import needs_registry

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
    standing = read_standing(client, model_name)
    if standing.champion is None:
        return None
    found = client.get_model_version(model_name, standing.champion)
    age = max(0.0, time.time() - found.creation_timestamp / 1000) / SECONDS_PER_DAY
    return Champion(standing.champion, standing.previous, age)
