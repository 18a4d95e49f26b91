"""When a scheduled run has work to do, and who hears of it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rpo_pipeline.params.base import Params

Event = Literal["promoted", "not_promoted", "failed", "nothing_to_do", "alarm"]


class LiveRatingsParams(Params):
    """When the champion's ratings in use are worse than those of the previous champion."""

    min_ratings: int = Field(ge=2)
    """Of each of the two versions; fewer say nothing."""
    margin: float = Field(ge=0)
    """Raw reward that the champion may lose; more of it, with confidence, is an alarm."""
    confidence: float = Field(ge=0.5, lt=1)
    """Of the two-sided interval of the difference. It is looked at in every refresh, so a higher
    one makes false alarms rarer."""


class NotificationParams(Params):
    """What is told to the webhook and to the file."""

    events: list[Event]
    """Which events; none of them: nobody is told."""
    attempts: int = Field(ge=1, le=10)
    """How often the webhook is tried."""
    pause_seconds: float = Field(ge=0)
    """Before the second attempt; doubled before each further one."""
    timeout_seconds: float = Field(gt=0)
    """Of one attempt."""


class RefreshParams(Params):
    """When ``kedro run`` has work to do. A trigger that is null does not count."""

    when: Literal["always", "needed"]
    """``needed``: only if one of the triggers says so."""
    min_new_rows: int | None = Field(ge=1)
    """Records that the last finished run had not read."""
    min_new_ratings: int | None = Field(ge=1)
    """Ratings among them, or of responses that were there before."""
    max_drift: float | None = Field(gt=0)
    """Mean absolute change of labels that are given again, in standard deviations of them. It
    costs ``labeling.drift_rows`` labels of each labeler, so it is asked for last."""
    max_age_days: float | None = Field(gt=0)
    """Days since the champion was registered, or since the last finished run if that was later."""
    live_ratings: LiveRatingsParams | None
    """Comparison of the champion's ratings with the previous champion's; null: none."""
    on_alarm: Literal["warn", "rollback"]
    """What follows when they are worse."""
    notifications: NotificationParams

    @model_validator(mode="after")
    def _can_have_work(self) -> Self:
        triggers = (self.min_new_rows, self.min_new_ratings, self.max_drift, self.max_age_days)
        if self.when == "needed" and all(trigger is None for trigger in triggers):
            raise ValueError(
                "`when: needed` needs one of min_new_rows, min_new_ratings, max_drift, max_age_days"
            )
        return self
