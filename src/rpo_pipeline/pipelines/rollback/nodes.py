"""The node of a rollback."""

from pathlib import Path
from typing import Any

from rpo_pipeline.params import PromotionParams
from rpo_pipeline.records import RunAddress


def roll_back(
    workspace: Path, promotion: PromotionParams, mlflow_run: RunAddress
) -> dict[str, Any]:
    """Make the previous champion champion again."""
    from rpo_pipeline.registry import roll_back

    return roll_back(mlflow_run, promotion.model_name, workspace, cause="asked for by hand")
