"""Documents of a registered version with which it is served as it was trained."""

from collections.abc import Mapping
from typing import Any

from rpo_pipeline.ingestion import ROLES

SETTINGS, CODE = "serving.json", "encoding.py"


def serving_documents(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the limits of the served model, and the code by which it reads prompts.

    Args:
        policy: Parameter block that the version was trained with.

    Returns:
        Documents by file name, for ``register_version``.
    """
    from rpo_pipeline.engine import SOURCE  # noqa: PLC0415 (torch)

    names = ("max_prompt_tokens", "max_response_tokens", "dtype")
    settings = {name: policy[name] for name in names} | {"roles": ROLES}
    return {SETTINGS: settings, CODE: SOURCE.read_text()}
