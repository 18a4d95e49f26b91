"""Provenance of a version: hash of the data, reference, base model and its licence."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import Params, PolicyParams
from rpo_pipeline.registry.licence import base_licence
from rpo_pipeline.storage import model_fingerprint


def trace(feedback: pd.DataFrame, reference: Path, policy: PolicyParams) -> dict[str, Any]:
    """Collect the provenance of a policy.

    Args:
        feedback: Columns row_id (a hash of prompt and response), split, raw_reward.
        reference: Directory of the reference.
        policy: Parameters with the base model.

    Returns:
        data_digest, reference_fingerprint, base_model, base_revision and base_licence.
    """
    return {
        "data_digest": data_digest(feedback),
        "reference_fingerprint": model_fingerprint(reference),
        "base_model": policy.name_or_path,
        "base_revision": policy.revision,
        "base_licence": base_licence(policy),
    }


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
