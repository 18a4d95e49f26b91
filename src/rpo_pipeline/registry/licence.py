"""Reads the licence of the base model from its card."""

import logging
import re
from pathlib import Path

import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.repocard import metadata_load

from rpo_pipeline.params import PolicyParams

logger = logging.getLogger(__name__)

CARD = "README.md"
UNKNOWN, NONE = "unknown", "none: no base model, built from scratch"
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_-]{0,63}")
"""Identifier of a licence, short enough for tags and model cards."""


def base_licence(policy: PolicyParams) -> str:
    """Read the licence that the card of the base model states.

    It is an identifier such as ``apache-2.0``, several with commas between them; ``unknown``, with
    a warning, if the card states none, or something that is no identifier.
    """
    if policy.name_or_path is None:
        return NONE
    try:
        directory = Path(policy.name_or_path)
        card = (
            directory / CARD
            if directory.is_dir()
            else hf_hub_download(policy.name_or_path, CARD, revision=policy.revision)
        )
        stated = metadata_load(card)
    except (OSError, ValueError, yaml.YAMLError) as err:
        logger.info("no readable card of %s: %s", policy.name_or_path, err)
        stated = None
    metadata = stated if isinstance(stated, dict) else {}
    licence = metadata.get("license")
    if licence == "other":
        licence = metadata.get("license_name") or licence
    if not licence:
        logger.warning(
            "no card states the licence of %s: find out before you pass the model on",
            policy.name_or_path,
        )
        return UNKNOWN
    names = [str(one).strip() for one in (licence if isinstance(licence, list) else [licence])]
    if all(IDENTIFIER.fullmatch(name) for name in names):
        return ", ".join(names)
    logger.warning(
        "the card of %s states as its licence what is no identifier, %.200r: it counts as %s; "
        "read the terms before you pass the model on",
        *(policy.name_or_path, licence, UNKNOWN),
    )
    return UNKNOWN
