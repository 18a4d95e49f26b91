"""How rows get their rewards."""

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
    """How rows get their reward."""

    labelers: list[LabelerParams] = Field(min_length=1)
    """By rank: a row takes the raw_reward of the first that gives one, but for ratings: where
    ``column`` is among them it comes first, wherever it stands."""
    agreement_rows: int = Field(ge=0)
    """Rated rows, at most, that other labelers, those of evaluation among them, label too, to be
    compared with people."""
    drift_rows: int = Field(ge=0)
    """Rows of the previous run, at most, that each labeler labels again without its cache."""
    max_drift: float = Field(gt=0)
    """A mean absolute change of those labels above this warns; in standard deviations of them."""
    normaliser: Literal["zscore", "rank", "per_prompt", "none"]
    """From raw_reward to reward, fitted on train rows: mean 0 and standard deviation 1; the rank
    among the train rows; each prompt to a mean of 0 and a standard deviation of 1; as it is."""
    winsorise: tuple[float, float] | None = None
    """Quantiles of the train rows, such as ``[0.01, 0.99]``, that raw rewards are drawn in to."""
    length_penalty: Annotated[float | Literal["auto"] | None, PlainValidator(_penalty)] = None
    """Raw reward taken off a response whose log length is one standard deviation above the mean of
    train, and added to one below. ``auto``: what length earns within the prompts of train."""

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
