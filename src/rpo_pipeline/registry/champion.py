"""Finds the champion, the champion before it, and its age."""

import time
from dataclasses import replace

from mlflow import MlflowClient

from rpo_pipeline.records import RunAddress
from rpo_pipeline.registry.moves import Standing, read_standing
from rpo_pipeline.tracking import needs_registry

SECONDS_PER_DAY = 86_400


@needs_registry
def find_standing(run: RunAddress, model_name: str) -> Standing:
    """Look up the champion, and the one before it.

    Args:
        run: Address of the registry.
        model_name: Registered model; one that does not exist has no champion.

    Returns:
        Versions, and the age of the champion.

    Raises:
        RegistryError: If the registry does not answer.
    """
    client = MlflowClient(run.tracking_uri)
    standing = read_standing(client, model_name)
    if standing.champion is None:
        return standing
    found = client.get_model_version(model_name, standing.champion)
    age = max(0.0, time.time() - found.creation_timestamp / 1000) / SECONDS_PER_DAY
    return replace(standing, age_days=age)
