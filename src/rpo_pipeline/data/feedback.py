"""Rows to feedback: duplicates, repeated ratings, the row account. Ibis expressions throughout."""

import ibis
import pandas as pd
from ibis import _
from ibis.expr.types import Table

from rpo_pipeline.data.quarantine import Reason
from rpo_pipeline.errors import DataError

CONTENT = ["row_id", "raw_reward", "reward_source", "timestamp", "model_version", "behaviour_logps"]


def distinct_records(rows: Table) -> Table:
    """Fold exact duplicates: records equal in every field that the log holds.

    Identical lines with a timestamp are one rating logged twice; without one, nothing tells them
    from two people who agree, so each counts.

    Args:
        rows: As read (``ROW_SCHEMA``).

    Returns:
        One line per distinct record, with ``num_ratings``.
    """
    records = rows.group_by(CONTENT).agg(
        copies=_.count(),
        position=_.position.min(),
        **{
            name: _[name].argmin(_.position)
            for name in ("prompt_id", "prompt", "response", "origin")
        },
    )
    counted = ibis.cases((_.raw_reward.isnull(), 0), (_.timestamp.notnull(), 1), else_=_.copies)
    return records.mutate(num_ratings=counted).drop("copies")


def build_feedback(rows: Table, splits: Table) -> Table:
    """Merge the records of each row and give it its split.

    A row rated more than once takes the mean over its ratings.

    Args:
        rows: As read (``ROW_SCHEMA``).
        splits: prompt_id, split.

    Returns:
        The feedback table, ordered by prompt_id and row_id.
    """
    rated = _.raw_reward.notnull()
    merged = (
        distinct_records(rows)
        .group_by("row_id")
        .agg(
            **{
                name: _[name].argmin(_.position)
                for name in ("prompt_id", "prompt", "response", "origin", "model_version")
            },
            raw_reward=(_.raw_reward * _.num_ratings).sum() / _.num_ratings.sum().nullif(0),
            num_ratings=_.num_ratings.sum(),
            reward_source=_.reward_source.argmax(_.position, where=rated),
            timestamp=_.timestamp.max(),
            behaviour_logps=_.behaviour_logps.mean(),
        )
    )
    return (
        merged.join(splits, "prompt_id")
        .select(
            "row_id",
            "prompt_id",
            "prompt",
            "response",
            "raw_reward",
            "num_ratings",
            "reward_source",
            "split",
            "origin",
            "timestamp",
            "model_version",
            "behaviour_logps",
        )
        .order_by("prompt_id", "row_id")
    )


def account_rows(rows: Table, feedback: Table, quarantine: pd.DataFrame) -> dict[str, int]:
    """Count where every record went.

    Args:
        rows: As read.
        feedback: What was made of them.
        quarantine: What could not be used.

    Returns:
        read, kept, quarantined, exact_duplicates, merged; read is the sum of the others.

    Raises:
        DataError: If a row got lost between reading and feedback.
    """
    num_rows = int(rows.count().execute())
    num_records = int(distinct_records(rows).count().execute())
    num_distinct = int(rows.row_id.nunique().execute())
    kept = int(feedback.count().execute())
    if kept != num_distinct:
        raise DataError(f"{num_distinct} different rows were read, but feedback holds {kept}")
    return {
        "read": num_rows + len(quarantine),
        "kept": kept,
        "quarantined": len(quarantine),
        "exact_duplicates": num_rows - num_records,
        "merged": num_records - kept,
    }


def check_quarantine(rows: Table, quarantine: pd.DataFrame, *, max_share: float) -> None:
    """Stop a run whose sources are mostly unusable.

    Records of forgotten prompts are no fault of the source and do not count.

    Args:
        rows: As read.
        quarantine: What could not be used.
        max_share: Largest share of the records that may be quarantined.

    Raises:
        DataError: If a file has no valid row, or the quarantined share is above the limit.
    """
    quarantine = quarantine[quarantine["reason"] != Reason.FORGOTTEN]
    if quarantine.empty:
        return
    where = "see data/02_intermediate/quarantine.parquet"
    files = rows.origin.re_replace(r":\d+$", "").name("file").as_table().distinct()
    for file, rejected in quarantine.groupby("origin"):
        if file not in set(files.execute()["file"]):
            example = rejected.iloc[0]
            raise DataError(
                f"{file} has no valid row: {_reasons(rejected)}. For example, line "
                f"{example['line']}: {example['raw'][:120]} "
                f"(ingestion.sources[].columns and .ratings name the columns; {where})"
            )
    share = len(quarantine) / (len(quarantine) + int(rows.count().execute()))
    if share > max_share:
        raise DataError(
            f"{share:.1%} of the rows read are quarantined, more than "
            f"ingestion.max_quarantine_share = {max_share:.1%}: {_reasons(quarantine)} ({where})"
        )


def _reasons(quarantine: pd.DataFrame) -> str:
    counts = quarantine["reason"].value_counts()
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
