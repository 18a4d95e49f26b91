"""Under which terms the base model was published."""

import logging
from pathlib import Path

import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.repocard import metadata_load

from rpo_pipeline.params import PolicyParams

logger = logging.getLogger(__name__)

CARD = "README.md"
UNKNOWN, NONE = "unknown", "none: no base model, built from scratch"


def base_licence(policy: PolicyParams) -> str:
    """Licence of the base model, as its card states it.

    Args:
        policy: Where the model comes from: a directory, or a hub id.

    Returns:
        An identifier such as ``apache-2.0``; ``unknown``, with a warning, where no card states one.
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
        stated = metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError) as err:
        logger.info("no readable card of %s: %s", policy.name_or_path, err)
        stated = {}
    licence = stated.get("license")
    if licence == "other":
        licence = stated.get("license_name", licence)
    if not licence:
        logger.warning(
            "no card states the licence of %s: find out before you pass the model on",
            policy.name_or_path,
        )
    return str(licence or UNKNOWN)
