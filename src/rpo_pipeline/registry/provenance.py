"""What a version was made from: data by content, the reference, the base model, its licence."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import Params, PolicyParams
from rpo_pipeline.registry.licence import base_licence
from rpo_pipeline.storage import model_fingerprint


def trace(feedback: pd.DataFrame, reference: Path, policy: PolicyParams) -> dict[str, Any]:
    """Write down what a policy comes from.

    Args:
        feedback: Columns row_id (a hash of prompt and response), split, raw_reward.
        reference: Its directory.
        policy: Where the base model came from.

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
    """Hash of the feedback's content, whatever the order of its rows and the format of its file."""
    rows = feedback[["row_id", "split", "raw_reward"]].sort_values("row_id")
    digest = hashlib.sha256()
    for row_id, split, reward in rows.itertuples(index=False):
        digest.update(f"{row_id} {split} {reward}\n".encode())
    return digest.hexdigest()[:32]


def resolved_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Blocks of a run as values for JSON, typed or not; without the helpers of the YAML."""
    return {
        name: block.model_dump(mode="json") if isinstance(block, Params) else block
        for name, block in parameters.items()
        if not name.startswith("_")
    }
