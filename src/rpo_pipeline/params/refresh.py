"""Parameters of scheduled runs: triggers, live ratings, notifications."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rpo_pipeline.params.base import Params

Event = Literal["promoted", "not_promoted", "failed", "nothing_to_do", "alarm"]


class LiveRatingsParams(Params):
    """When the champion's live ratings count as worse than those of the previous champion."""

    min_ratings: int = Field(ge=2)
    """Smallest number of ratings of each of the two versions for a comparison."""
    margin: float = Field(ge=0)
    """Raw reward that the champion may lose; an alarm is raised if the whole interval of the
    difference is below ``-margin``."""
    confidence: float = Field(ge=0.5, lt=1)
    """Confidence of the two-sided interval of the difference. Every refresh tests again, so a
    higher one makes false alarms rarer."""


class NotificationParams(Params):
    """Notifications by webhook and file."""

    events: list[Event]
    """Events that are notified; may be empty."""
    attempts: int = Field(ge=1, le=10)
    """Number of attempts to call the webhook."""
    pause_seconds: float = Field(ge=0)
    """Pause before the second attempt, which doubles before each further one."""
    timeout_seconds: float = Field(gt=0)
    """Time limit of one attempt."""


class RefreshParams(Params):
    """When ``kedro run`` has work to do. A trigger that is null does not count."""

    when: Literal["always", "needed"]
    """``always``, or ``needed``: only if one of the triggers holds."""
    min_new_rows: int | None = Field(ge=1)
    """Smallest number of records that the last finished run had not read."""
    min_new_ratings: int | None = Field(ge=1)
    """Smallest number of new ratings, of new or known responses."""
    max_drift: float | None = Field(gt=0)
    """Mean absolute change, in standard deviations, of labels that are given again. It costs
    ``labeling.drift_rows`` labels of each labeler, so it is measured last."""
    max_age_days: float | None = Field(gt=0)
    """Days since the champion was registered, or since the last finished run if that was later."""
    live_ratings: LiveRatingsParams | None
    """Comparison of the champion's live ratings with the previous champion's; null for none."""
    on_alarm: Literal["warn", "rollback"]
    """Reaction if they are worse."""
    notifications: NotificationParams

    @model_validator(mode="after")
    def _can_have_work(self) -> Self:
        triggers = (self.min_new_rows, self.min_new_ratings, self.max_drift, self.max_age_days)
        if self.when == "needed" and all(trigger is None for trigger in triggers):
            raise ValueError(
                "`when: needed` needs one of min_new_rows, min_new_ratings, max_drift, max_age_days"
            )
        return self
