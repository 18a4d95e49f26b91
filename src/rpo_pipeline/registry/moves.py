"""A change of champion, a move, is recorded before it is made.

MLflow sets one alias per call, and a run may be killed between two calls. So a tag of the
registered model holds the move until its last call. If a later call finds the tag and the champion
is the move's new version, it makes the remaining calls; if not, the move had no effect yet, and is
dropped. In both cases ``previous`` is the champion before this one.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from rpo_pipeline.records import RunAddress
from rpo_pipeline.tracking import needs_registry

logger = logging.getLogger(__name__)

LOGGED = "models:/"
"""Start of the address of a logged model, before its id."""
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
MOVE_TAG = "rpo.move"
"""Tag of a registered model while its champion changes."""
PROMOTION_TAG, ROLLBACK_TAG = "promotion", "rolled_back"
"""Tags of a version: the outcome of its gate, and the reason of its rollback, as texts."""
MAX_TAG_CHARACTERS = 100_000
"""MLflow's limit for a tag of a version."""
SECONDS_PER_DAY = 86_400

Found = TypeVar("Found")


@dataclass(frozen=True)
class Move:
    """Change of champion from one version to another."""

    kind: Literal["promotion", "rollback"]
    enters: str
    leaves: str | None
    """Former champion; None if there was none."""
    reason: str
    """Text that becomes a tag of the version that is promoted, or rolled back."""


@dataclass(frozen=True)
class Standing:
    """The champion and the champion before it."""

    champion: str | None
    previous: str | None
    """The version that a rollback would restore."""
    age_days: float | None = None
    """Since the champion was registered, where that was asked for; 0 if the clock was moved back
    behind that."""


@needs_registry
def find_standing(run: RunAddress, model_name: str) -> Standing:
    """Look up the champion with its age, and the one before it."""
    client = MlflowClient(run.tracking_uri)
    standing = read_standing(client, model_name)
    if standing.champion is None:
        return standing
    found = client.get_model_version(model_name, standing.champion)
    age = max(0.0, time.time() - found.creation_timestamp / 1000) / SECONDS_PER_DAY
    return replace(standing, age_days=age)


def read_standing(client: MlflowClient, name: str) -> Standing:
    """Find the champion and the one before it, also during a move; a new model has neither."""
    model = if_there(client.get_registered_model, name)
    if model is None:
        return Standing(None, None)
    standing, move = _aliases(model), _pending(model)
    if move is None or move.enters != standing.champion:
        return standing
    return Standing(standing.champion, move.leaves if move.kind == "promotion" else None)


def begin(client: MlflowClient, name: str, move: Move) -> None:
    """Record a move, and set the champion."""
    client.set_registered_model_tag(name, MOVE_TAG, json.dumps(asdict(move)))
    client.set_registered_model_alias(name, CHAMPION, move.enters)


def finish(client: MlflowClient, name: str) -> Move | None:
    """Make the remaining calls of a recorded move, and return it if it took effect."""
    model = if_there(client.get_registered_model, name)
    if model is None or MOVE_TAG not in model.tags:
        return None
    move = _pending(model)
    if move and move.enters == _aliases(model).champion:
        _complete(client, name, move)
    else:
        move = None
    # Another host may have begun another move meanwhile.
    still = if_there(client.get_registered_model, name)
    if still is not None and still.tags.get(MOVE_TAG) == model.tags[MOVE_TAG]:
        client.delete_registered_model_tag(name, MOVE_TAG)
    return move


def if_there(find: Callable[..., Found], *names: Any) -> Found | None:  # noqa: ANN401 (of MLflow)
    """Return what a call finds in the registry; None if there is no such model or version."""
    try:
        return find(*names)
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def tag(client: MlflowClient, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Tag a version; values above MLflow's limit are cut."""
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value[:MAX_TAG_CHARACTERS])


def _complete(client: MlflowClient, name: str, move: Move) -> None:
    """Make all calls after the champion is set; each may be repeated."""
    leaves = move.leaves
    if leaves and not if_there(client.get_model_version, name, leaves):
        leaves = None
    if move.kind == "promotion":
        if leaves:
            client.set_registered_model_alias(name, PREVIOUS, leaves)
        client.delete_model_version_tag(name, move.enters, ROLLBACK_TAG)
        tag(client, name, move.enters, {PROMOTION_TAG: move.reason})
        model = client.get_registered_model(name)
        if str(model.aliases.get(CHALLENGER)) == move.enters:
            client.delete_registered_model_alias(name, CHALLENGER)
    else:
        if leaves:
            tag(client, name, leaves, {ROLLBACK_TAG: move.reason})
        client.delete_registered_model_alias(name, PREVIOUS)


def model_id_of(version: ModelVersion) -> str:
    """Return the id of the logged model that a version is of."""
    return str(version.source).removeprefix(LOGGED)


def _aliases(model: RegisteredModel) -> Standing:
    # Stores return versions as numbers or as texts.
    numbers = {alias: str(version) for alias, version in model.aliases.items()}
    return Standing(numbers.get(CHAMPION), numbers.get(PREVIOUS))


def _pending(model: RegisteredModel) -> Move | None:
    text = model.tags.get(MOVE_TAG)
    if text is None:
        return None
    try:
        return Move(**json.loads(text))
    except (ValueError, TypeError):
        logger.warning(
            "tag %s of %s tells of no move, and is dropped: %s", MOVE_TAG, model.name, text
        )
        return None
