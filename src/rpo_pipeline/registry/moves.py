"""A change of champion that is written down before it is made.

MLflow sets one alias a call, and a run may be killed between two of them. So the move stands in a
tag of the registered model until its last call is made. Who finds it there looks at the champion:
if it is the version that was to enter, the rest of the move is made up for; if not, nothing of the
move can be seen, and it is dropped. Either way ``previous`` is the champion before this one.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
MOVE_TAG = "rpo.move"
"""Of a registered model, while its champion changes."""
PROMOTION_TAG, ROLLBACK_TAG = "promotion", "rolled_back"
"""Of a version: what became of it, in words; why it was champion and is no longer."""
NO_SUCH = "RESOURCE_DOES_NOT_EXIST"
MAX_TAG_CHARACTERS = 100_000
"""MLflow's limit for a tag of a version."""


@dataclass(frozen=True)
class Move:
    """One version enters as champion, another leaves."""

    kind: Literal["promotion", "rollback"]
    enters: str
    leaves: str | None
    """None: there was no champion."""
    reason: str
    """For people; it becomes a tag of the version that is promoted, or rolled back."""


@dataclass(frozen=True)
class Standing:
    """Who is champion, and who was before it."""

    champion: str | None
    previous: str | None
    """The version that a rollback would restore."""
    age_days: float | None = None
    """Since the champion was registered, where that was asked for; 0 if the clock was moved back
    behind that."""


def read_standing(client: MlflowClient, name: str) -> Standing:
    """Who is champion and who was before, also in the middle of a move.

    Args:
        client: Of the registry.
        name: Registered model; one that does not exist has no champion.

    Returns:
        Versions, as numbers in text.
    """
    model = _find_model(client, name)
    if model is None:
        return Standing(None, None)
    standing, move = _aliases(model), _pending(model)
    if move is None or move.enters != standing.champion:
        return standing
    return Standing(standing.champion, move.leaves if move.kind == "promotion" else None)


def begin(client: MlflowClient, name: str, move: Move) -> None:
    """Write a move down, and make its champion."""
    client.set_registered_model_tag(name, MOVE_TAG, json.dumps(asdict(move)))
    client.set_registered_model_alias(name, CHAMPION, move.enters)


def finish(client: MlflowClient, name: str) -> Move | None:
    """Make up for what is left of a move that was written down.

    Args:
        client: Of the registry.
        name: Registered model.

    Returns:
        The move, if it came about; None if there was none, or nothing of it was made.
    """
    model = _find_model(client, name)
    if model is None or MOVE_TAG not in model.tags:
        return None
    move = _pending(model)
    came_about = move is not None and _aliases(model).champion == move.enters
    if move is not None and came_about:
        _complete(client, name, move)
    # Another host may have begun a move of its own meanwhile.
    still = _find_model(client, name)
    if still is not None and still.tags.get(MOVE_TAG) == model.tags[MOVE_TAG]:
        client.delete_registered_model_tag(name, MOVE_TAG)
    return move if came_about else None


def tag(client: MlflowClient, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Tag a version; what is longer than MLflow allows is cut."""
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value[:MAX_TAG_CHARACTERS])


def _complete(client: MlflowClient, name: str, move: Move) -> None:
    """All calls after the champion is set; each can be made twice."""
    leaves = move.leaves if move.leaves and _exists(client, name, move.leaves) else None
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


def _find_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as err:
        if err.error_code == NO_SUCH:
            return None
        raise


def _exists(client: MlflowClient, name: str, version: str) -> bool:
    try:
        client.get_model_version(name, version)
    except MlflowException as err:
        if err.error_code == NO_SUCH:
            return False
        raise
    return True


def _aliases(model: RegisteredModel) -> Standing:
    # Numbers or texts, depending on the store.
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
