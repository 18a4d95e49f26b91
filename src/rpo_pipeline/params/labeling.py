"""Parameters of labeling: labelers, normaliser, length penalty."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from rpo_pipeline.params.base import Params
from rpo_pipeline.params.labelers import LabelerParams, check_titles


def _penalty(value: object) -> float | Literal["auto"] | None:
    if value is None or value == "auto":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError("must be a number, `auto`, or null")


class LabelingParams(Params):
    """How rows get their rewards."""

    labelers: list[LabelerParams] = Field(min_length=1)
    """Labelers by rank; a row takes the raw_reward of the first that can label it. ``column`` (the
    ratings) always comes first."""
    agreement_rows: int = Field(ge=0)
    """Largest number of rated rows that labelers of text, also those of evaluation, label to be
    compared with people."""
    drift_rows: int = Field(ge=0)
    """Largest number of rows of the previous run that each labeler labels again without a cache."""
    max_drift: float = Field(gt=0)
    """Mean absolute change of these labels, in their standard deviations, above which a warning is
    logged."""
    normaliser: Literal["zscore", "rank", "per_prompt", "none"]
    """How raw_rewards become rewards, fitted on train rows. ``zscore``: mean 0 and standard
    deviation 1; ``rank``: rank among the train rows; ``per_prompt``: mean 0 and standard deviation
    1 for each prompt; ``none``: unchanged."""
    winsorise: tuple[float, float] | None = None
    """Quantiles of the train rows, such as ``[0.01, 0.99]``, that raw rewards are clipped to."""
    length_penalty: Annotated[float | Literal["auto"] | None, PlainValidator(_penalty)] = None
    """Raw reward subtracted for each standard deviation of log length above the mean of train, and
    added for each below. ``auto`` removes the effect of length within the prompts of train."""

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Self:
        if self.winsorise and not 0 <= self.winsorise[0] < self.winsorise[1] <= 1:
            raise ValueError(
                f"winsorise must be two rising quantiles from 0 to 1, got {list(self.winsorise)}"
            )
        return self

    @model_validator(mode="after")
    def _labelers_differ(self) -> Self:
        check_titles(self.labelers)
        return self
