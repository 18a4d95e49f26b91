"""Counts the looks at a champion, which are comparisons of challengers with it by the gate.

Each new set of numbers is another look, and another chance of a false promotion. Looks are stored
on the registered model, so that deleted versions, other data folders and killed runs do not undo
them.
"""

from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient

from rpo_pipeline.params import PromotionParams
from rpo_pipeline.records import Evidence, Measured, RunAddress, Summary, to_json
from rpo_pipeline.registry.aliases import NOBODY
from rpo_pipeline.registry.gate import decide
from rpo_pipeline.registry.moves import if_there
from rpo_pipeline.storage import value_digest
from rpo_pipeline.tracking import needs_registry

LOOK = "gate_look"
DIGITS = 16
"""Length of the digest of the numbers in a tag."""


def summarise(
    run: RunAddress,
    measured: Measured,
    labelers: Mapping[str, Any],
    champion: str | None,
    promotion: PromotionParams,
) -> Summary:
    """Take a look at the numbers of a challenger, and let the gate decide.

    ``labelers`` is what judges, as ``measure_labelers`` gives it. ``champion`` is the version that
    was compared with; None: the reference.
    """
    look = take_look(run, promotion.model_name, champion, to_json(measured))
    evidence = Evidence(**vars(measured), champion_version=champion, look=look, labelers=labelers)
    return Summary(**vars(evidence), gate=decide(evidence, promotion))


@needs_registry
def take_look(
    run: RunAddress, model_name: str, champion: str | None, numbers: Mapping[str, Any]
) -> int:
    """Number a look at the challengers of a champion, from 1, and store it on the registered model.

    Equal numbers are the same look; others are one look more, also for the same version.
    """
    client = MlflowClient(run.tracking_uri)
    looks = f"{LOOK}.{champion or NOBODY}."
    own = looks + value_digest(numbers)[:DIGITS]
    model = if_there(client.get_registered_model, model_name)
    tags: dict[str, str] = (model or client.create_registered_model(model_name)).tags
    if tags.get(own, "").isdecimal():
        return int(tags[own])
    found = [number for tag, number in tags.items() if tag.startswith(looks)]
    # Earlier releases stored looks only on versions.
    for version in client.search_model_versions(f"name = '{model_name}'"):
        if version.tags.get("gate_champion") == (champion or NOBODY):
            found.append(version.tags.get(LOOK, ""))
    # Tags without a number come from other tools, which may tag the same model.
    look = 1 + max((int(number) for number in found if number.isdecimal()), default=0)
    client.set_registered_model_tag(model_name, own, str(look))
    return look
