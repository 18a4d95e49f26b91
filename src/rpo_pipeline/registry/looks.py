"""How often a champion was looked at: each new set of numbers is one more chance for luck.

Looks are kept on the registered model, so that they outlive versions that are deleted, data folders
and killed runs; the model is deleted with its champion only.
"""

from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from rpo_pipeline.params import PromotionParams
from rpo_pipeline.records import Evidence, Measured, RunAddress, Summary, to_json
from rpo_pipeline.registry.aliases import NOBODY
from rpo_pipeline.registry.gate import decide
from rpo_pipeline.storage import value_digest
from rpo_pipeline.tracking import needs_registry

LOOK = "gate_look"
DIGITS = 16
"""Of the digest of the numbers."""


def summarise(
    run: RunAddress,
    measured: Measured,
    labelers: Mapping[str, Any],
    champion: str | None,
    promotion: PromotionParams,
) -> Summary:
    """Take a look at the numbers of a challenger, and let the gate decide.

    Args:
        run: Address of the registry.
        measured: The numbers.
        labelers: What judges, as ``measure_labelers`` gives it.
        champion: Version that was compared with; None: the reference.
        promotion: Registered model and gates.

    Returns:
        The numbers, with the look that they are and the decision.
    """
    look = take_look(run, promotion.model_name, champion, to_json(measured))
    evidence = Evidence(**vars(measured), champion_version=champion, look=look, labelers=labelers)
    return Summary(**vars(evidence), gate=decide(evidence, promotion))


@needs_registry
def take_look(
    run: RunAddress, model_name: str, champion: str | None, numbers: Mapping[str, Any]
) -> int:
    """Number a look at the challengers of a champion, from 1, and keep that it was taken.

    Args:
        run: Tracking server.
        model_name: Registered model; made if it is new.
        champion: Version that is challenged; None: the reference, before there is a champion.
        numbers: What the challenger is judged by. The very same numbers are the same look; other
            ones are another look, whichever version they are of.

    Returns:
        The number that these numbers have, or one more than the largest so far.
    """
    client = MlflowClient(run.tracking_uri)
    looks = f"{LOOK}.{champion or NOBODY}."
    own = looks + value_digest(numbers)[:DIGITS]
    tags = _tags(client, model_name)
    if tags.get(own, "").isdecimal():
        return int(tags[own])
    found = [number for tag, number in tags.items() if tag.startswith(looks)]
    # Earlier releases kept looks on the versions alone.
    for version in client.search_model_versions(f"name = '{model_name}'"):
        if version.tags.get("gate_champion") == (champion or NOBODY):
            found.append(version.tags.get(LOOK, ""))
    # Whatever is no number is not ours: other tools may tag the same model.
    look = 1 + max((int(number) for number in found if number.isdecimal()), default=0)
    client.set_registered_model_tag(model_name, own, str(look))
    return look


def _tags(client: MlflowClient, model_name: str) -> dict[str, str]:
    try:
        tags: dict[str, str] = client.get_registered_model(model_name).tags
    except MlflowException as err:
        if err.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(model_name)
        return {}
    return tags
