"""Turns rows into feedback: duplicates, repeated ratings, the row account (Ibis expressions)."""

import logging
from datetime import UTC, datetime

import ibis
import pandas as pd
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.quarantine import Reason, quarantine_table, reject_rows
from rpo_pipeline.params import Conflicts

logger = logging.getLogger(__name__)

REJECTED = "02_intermediate/rejected_rows.parquet in the data folder of the environment"
"""File of the records that cannot be read; it is written before the run stops because of them."""
CONTENT = ["row_id", "raw_reward", "reward_source", "timestamp", "model_version", "behaviour_logps"]
FEEDBACK = (
    "row_id prompt_id prompt response raw_reward num_ratings reward_source split leaked origin "
    "timestamp model_version behaviour_logps"
).split()

MIN_RATINGS = 40
"""Smallest number of ratings of a column for a check of their range."""
OUT_OF_RANGE = 1000.0
"""Distance from the median, in widths of the middle 90 % of a column's ratings, from which on a
rating is taken for a mistake, which would outweigh all others."""


def usable_rows(rows: Table, conflicts: Conflicts) -> Table:
    """Leave out ratings out of range and, if asked to, rows whose ratings disagree.

    With ``quarantine`` every record of a row with different ratings is left out. Equal ratings, and
    records without one, are no conflict.
    """
    rows = rows.anti_join(_out_of_range(rows), "position")
    return rows if conflicts != "quarantine" else rows.anti_join(_conflicting(rows), "row_id")


def distinct_records(rows: Table) -> Table:
    """Merge exact duplicates, which are records equal in every field that the log holds.

    Identical lines with a timestamp are one rating logged twice. Identical lines without one may be
    the ratings of two people who agree, so each counts. The result is ``CONTENT`` of each distinct
    record, with its first and last position and num_ratings.
    """
    records = rows.group_by(CONTENT).agg(
        copies=_.count(), position=_.position.min(), last_position=_.position.max()
    )
    counted = ibis.cases((_.raw_reward.isnull(), 0), (_.timestamp.notnull(), 1), else_=_.copies)
    return records.mutate(num_ratings=counted).drop("copies")


def build_feedback(rows: Table, splits: Table, conflicts: Conflicts) -> Table:
    """Merge the records of each row (``ROW_SCHEMA``) and add its split (prompt_id, split, leaked).

    The setting says how different ratings of one row are merged. The feedback table is ordered by
    prompt_id and row_id.
    """
    rows = usable_rows(rows, conflicts)
    merged = _merge(distinct_records(rows), conflicts)
    # Texts are joined from the first record by its position, so that no aggregate holds them.
    texts = rows.select("position", "prompt_id", "prompt", "response", "origin", "model_version")
    return (
        merged.join(texts, "position")
        .join(splits, "prompt_id")
        .select(*FEEDBACK)
        .order_by("prompt_id", "row_id")
    )


def quarantine_conflicts(rows: Table, rejected: pd.DataFrame, conflicts: Conflicts) -> pd.DataFrame:
    """Add ratings out of range, and conflicting ratings if asked to, to the rejected records.

    With ``quarantine`` each record of a row with different ratings is added. The columns are
    origin, line, reason and raw; the raw text of an added record is JSON of its fields.
    """
    outliers = rows.semi_join(_out_of_range(rows), "position")
    tables = [_rejected(outliers, Reason.REWARD_OUT_OF_RANGE)]
    if conflicts == "quarantine":
        within = usable_rows(rows, "mean")
        conflicting = within.semi_join(_conflicting(within), "row_id")
        tables.append(_rejected(conflicting, Reason.CONFLICTING_REWARDS))
    num_far = tables[0].num_rows + int((rejected["reason"] == Reason.REWARD_OUT_OF_RANGE).sum())
    if num_far:
        logger.warning(
            "%d ratings are absurdly far from all others of their column and go to quarantine as "
            "%s; declare a `scale` if the column has one (ingestion.sources[].ratings)",
            num_far,
            Reason.REWARD_OUT_OF_RANGE.value,
        )
    added = [quarantine_table(table) for table in tables if table.num_rows]
    return pd.concat([rejected, *added], ignore_index=True) if added else rejected


def account_rows(
    rows: Table,
    rejected: pd.DataFrame,
    quarantine: pd.DataFrame,
    feedback: Table,
    conflicts: Conflicts,
) -> dict[str, int]:
    """Count what became of every record: read, kept, quarantined, exact_duplicates and merged.

    The table of quarantine is what ``quarantine_conflicts`` made of rows and rejected records,
    feedback what ``build_feedback`` made of the rows, both with the same setting. ``read`` is the
    sum of the other numbers; a record that was lost or counted twice raises ``DataError``.
    """
    usable = usable_rows(rows, conflicts)
    num_usable = int(usable.count().execute())
    num_records = int(distinct_records(usable).count().execute())
    kept = int(feedback.count().execute())
    account = {
        "read": int(rows.count().execute()) + len(rejected),
        "kept": kept,
        "quarantined": len(quarantine),
        "exact_duplicates": num_usable - num_records,
        "merged": num_records - kept,
    }
    num_distinct = int(usable.row_id.nunique().execute())
    if kept != num_distinct:
        raise DataError(f"{num_distinct} different rows were read, but feedback holds {kept}")
    if account["read"] != sum(account.values()) - account["read"]:
        raise DataError(f"the row account does not balance, so records were lost: {account}")
    return account


def check_quarantine(rows: Table, quarantine: pd.DataFrame, *, max_share: float) -> None:
    """Refuse sources with too many unusable records.

    A file without a valid row, or a share of quarantined records above ``max_share``, raises
    ``DataError``. Records of forgotten prompts are no fault of the source and do not count.
    """
    quarantine = quarantine[quarantine["reason"] != Reason.FORGOTTEN]
    if quarantine.empty:
        return
    where = f"see {REJECTED}"
    files = rows.origin.re_replace(r":\d+$", "").name("file").as_table().distinct()
    with_rows = set(files.execute()["file"])
    for file, rejected in quarantine.groupby("origin"):
        if file not in with_rows:
            example = rejected.iloc[0]
            raise DataError(
                f"{file} has no valid row: {_reasons(rejected)}. For example, line "
                f"{example['line']}: {example['raw'][:120]} "
                f"(ingestion.sources[].columns and .ratings name the columns; {where})"
            )
    read = {Reason.CONFLICTING_REWARDS, Reason.REWARD_OUT_OF_RANGE}  # `rows` holds these as well
    num_rows = int(quarantine["reason"].isin(read).sum())
    share = len(quarantine) / (len(quarantine) - num_rows + int(rows.count().execute()))
    if share > max_share:
        raise DataError(
            f"{share:.1%} of the rows read are quarantined, more than "
            f"ingestion.max_quarantine_share = {max_share:.1%}: {_reasons(quarantine)} ({where})"
        )


def _merge(records: Table, conflicts: Conflicts) -> Table:
    rated, logps = _.raw_reward.notnull(), records.behaviour_logps
    merged = records.group_by("row_id").agg(
        position=_.position.min(),
        raw_reward=_mean(records.raw_reward, records.num_ratings),
        num_ratings=_.num_ratings.sum().cast("int64"),
        reward_source=_.reward_source.argmax(_.position, where=rated),
        timestamp=_.timestamp.max(),
        behaviour_logps=_mean(logps, logps.notnull().cast("int64")),
    )
    if conflicts != "latest":
        return merged
    return merged.drop("raw_reward", "reward_source").left_join(_latest(records), "row_id")


def _mean(value: ibis.Value, weight: ibis.Value) -> ibis.Value:
    """Return the weighted mean: exact if all values are equal, otherwise rounded.

    Threads add in any order, and unchanged data must give the same file. The mean is rounded to 12
    decimals after a division by the power of two of the largest value, so small values keep theirs.
    """
    low, high = value.min(), value.max()
    largest = ibis.greatest(low.abs(), high.abs()).nullif(0)
    unit = ibis.literal(2.0) ** largest.log2().floor()
    mean = (value * weight).sum() / weight.sum().nullif(0)
    return ibis.ifelse(low == high, low, (mean / unit).round(12) * unit)


def _latest(records: Table) -> Table:
    """Return the latest rating of each row; one without a timestamp counts as the oldest."""
    moments = (
        records.filter(records.raw_reward.notnull())
        .group_by("row_id", "timestamp")
        .agg(**{name: _[name].argmax(_.last_position) for name in ("raw_reward", "reward_source")})
    )
    undated = _.timestamp.isnull()
    return moments.group_by("row_id").agg(
        **{
            name: ibis.coalesce(_[name].argmax(_.timestamp), _[name].max(where=undated))
            for name in ("raw_reward", "reward_source")
        }
    )


def _conflicting(rows: Table) -> Table:
    rewards = rows.group_by("row_id").agg(low=_.raw_reward.min(), high=_.raw_reward.max())
    return rewards.filter(_.low < _.high).select("row_id")


def _out_of_range(rows: Table) -> Table:
    """Find the positions of ratings that are absurdly far from the others of their column.

    Columns with a declared scale, or words, are checked when they are read, and not here. The width
    is that of the middle 90 % of ratings, or of 98 % if nine in ten are equal.
    """
    free = rows.raw_reward.notnull() & ~rows.is_declared
    ratings = rows.filter(free).select("position", "raw_reward", "reward_source")
    columns = ratings.group_by("reward_source").agg(
        num_ratings=_.count(), points=_.raw_reward.quantile([0.01, 0.05, 0.5, 0.95, 0.99])
    )
    columns = columns.filter(_.num_ratings >= MIN_RATINGS).select(
        "reward_source",
        median=_.points[2],
        width=ibis.coalesce((_.points[3] - _.points[1]).nullif(0), _.points[4] - _.points[0]),
    )
    distance = (_.raw_reward - _.median).abs()
    far = ratings.join(columns, "reward_source").filter(
        (_.width > 0) & (distance > OUT_OF_RANGE * _.width)
    )
    return far.select("position")


def _rejected(rows: Table, reason: Reason) -> pa.Table:
    fields = ["prompt", "response", *CONTENT[1:]]
    records = rows.order_by("position").select("origin", *fields).to_pyarrow().to_pylist()
    return reject_rows(reason, ((one.pop("origin"), _held(**one)) for one in records))


def _held(timestamp: datetime | None, **fields: object) -> dict[str, object]:
    held = {name: value for name, value in fields.items() if value is not None}
    # Spark returns times in UTC without a zone, as in statistics.py.
    return {**held, "timestamp": timestamp and timestamp.replace(tzinfo=UTC).isoformat()}


def _reasons(quarantine: pd.DataFrame) -> str:
    counts = quarantine["reason"].value_counts()
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
