"""Documents of a version: its provenance, its parameters, and with what it is served."""

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.repocard import metadata_load

from rpo_pipeline.ingestion import ROLES
from rpo_pipeline.params import Params, PolicyParams
from rpo_pipeline.storage import model_fingerprint

logger = logging.getLogger(__name__)

CARD = "README.md"
UNKNOWN, NONE = "unknown", "none: no base model, built from scratch"
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_-]{0,63}")
"""Identifier of a licence, short enough for tags and model cards."""


def trace(feedback: pd.DataFrame, reference: Path, policy: PolicyParams) -> dict[str, Any]:
    """Collect the provenance of a policy: data, reference, base model and its licence.

    The feedback has the columns row_id (a hash of prompt and response), split and raw_reward.
    """
    return {
        "data_digest": data_digest(feedback),
        "reference_fingerprint": model_fingerprint(reference),
        "base_model": policy.name_or_path,
        "base_revision": policy.revision,
        "base_licence": base_licence(policy),
    }


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


def data_digest(feedback: pd.DataFrame) -> str:
    """Hash the feedback's content independently of the order of rows and the format of the file."""
    rows = feedback[["row_id", "split", "raw_reward"]].sort_values("row_id")
    digest = hashlib.sha256()
    for row_id, split, reward in rows.itertuples(index=False):
        digest.update(f"{row_id} {split} {reward}\n".encode())
    return digest.hexdigest()[:32]


def resolved_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Convert blocks of parameters, typed or not, to values for JSON, without YAML's helpers."""
    return {
        name: block.model_dump(mode="json") if isinstance(block, Params) else block
        for name, block in parameters.items()
        if not name.startswith("_")
    }


def serving_documents(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the limits of a policy that is served, and the code by which it reads prompts."""
    from rpo_pipeline.engine import SOURCE  # noqa: PLC0415 (torch)

    names = ("max_prompt_tokens", "max_response_tokens", "dtype")
    settings = {name: policy[name] for name in names} | {"roles": ROLES}
    return {"serving.json": settings, "encoding.py": SOURCE.read_text()}
