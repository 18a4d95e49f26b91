"""What travels with a registered version so that it is served as it was trained."""

from collections.abc import Mapping
from typing import Any

from rpo_pipeline.ingestion import ROLES

SETTINGS, CODE = "serving.json", "encoding.py"


def serving_documents(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Limits of the served model, and the code by which it reads prompts.

    Args:
        policy: The parameter block, as the version was trained with it.

    Returns:
        Documents by file name, as ``register_version`` takes them.
    """
    from rpo_pipeline.engine import SOURCE  # noqa: PLC0415 (torch)

    names = ("max_prompt_tokens", "max_response_tokens", "dtype")
    settings = {name: policy[name] for name in names} | {"roles": ROLES}
    return {SETTINGS: settings, CODE: SOURCE.read_text()}
