"""Decides whether a run has work: a pure function from numbers to a decision with reasons."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rpo_pipeline.params import RefreshParams


@dataclass(frozen=True)
class Situation:
    """Numbers that a decision is made from."""

    unfinished: str | None
    """Reason why the last run did not finish; None if it did."""
    new_rows: int | None = None
    """Number of records that the last run had not read; None if no trigger needs it."""
    new_ratings: int | None = None
    """Number of ratings that the last run had not read; None if no trigger needs it."""
    drift: float | None = None
    """Largest drift among the labelers, in standard deviations of their labels; None if no trigger
    needs it, or no labeler has one."""
    age_days: float | None = None
    """Days since the champion was registered or the last run finished, whichever is less; None if
    no trigger needs it."""


def count_new(
    parts: Sequence[Mapping[str, Any]], consumed: Mapping[str, Any] | None
) -> tuple[int, int]:
    """Count the rows and ratings of source files that the last finished run had not read.

    Growth of a known file counts; a file with a new name counts as new. A part has ``path``,
    ``rows`` and ``rated``; the last finished run consumed ``parts``, or None if there was none.
    """
    before = {part["path"]: part for part in (consumed or {}).get("parts", [])}
    rows, ratings = (
        sum(max(0, part[name] - before.get(part["path"], {}).get(name, 0)) for part in parts)
        for name in ("rows", "rated")
    )
    return rows, ratings


def decide(situation: Situation, refresh: RefreshParams) -> dict[str, Any]:
    """Decide whether a run has ``work``, with ``reasons`` for the decision and its ``numbers``."""
    if refresh.when == "always":
        checks = [(True, "refresh.when is `always`")]
    elif situation.unfinished is not None:
        checks = [(True, situation.unfinished)]
    else:
        checks = list(_checks(situation, refresh))
    work = any(is_met for is_met, _ in checks)
    reasons = [reason for is_met, reason in checks if is_met == work]
    return {"work": work, "reasons": reasons, "numbers": asdict(situation)}


def _checks(situation: Situation, refresh: RefreshParams) -> Iterator[tuple[bool, str]]:
    for trigger, observed, what in (
        ("min_new_rows", situation.new_rows, "new rows"),
        ("min_new_ratings", situation.new_ratings, "new ratings"),
        ("max_drift", situation.drift, "standard deviations of drift in the labels"),
        ("max_age_days", situation.age_days, "days since the champion or the last run"),
    ):
        limit = getattr(refresh, trigger)
        if limit is None:
            continue
        if observed is None:
            yield False, f"{what} were not measured (refresh.{trigger}: {limit:g})"
        elif trigger.startswith("min"):
            yield observed >= limit, f"{observed:g} {what} (refresh.{trigger}: {limit:g})"
        else:
            yield observed > limit, f"{observed:.3g} {what} (refresh.{trigger}: {limit:g})"
