"""Documents of a version: its provenance, its parameters, and with what it is served."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.ingestion import ROLES
from rpo_pipeline.params import Params, PolicyParams
from rpo_pipeline.registry.licence import base_licence
from rpo_pipeline.storage import model_fingerprint


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
