"""The node of a rollback."""

from pathlib import Path
from typing import Any

from rpo_pipeline.params import PromotionParams


def roll_back(
    workspace: Path, promotion: PromotionParams, mlflow_run: dict[str, str]
) -> dict[str, Any]:
    """Make the previous champion champion again."""
    from rpo_pipeline.registry import aliases

    lock_file = workspace / aliases.LOCK
    return aliases.roll_back(mlflow_run, promotion.model_name, lock_file, cause="asked for by hand")
