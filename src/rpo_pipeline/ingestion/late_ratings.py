"""Later ratings are joined with the response that they refer to, by its ``response_id``.

The record of the log and each rating of it become rows of their own, so every line of every file
counts once; ``ingestion/feedback.py`` merges them like any two records of one row.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import ibis
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from rpo_pipeline.ingestion.parts import PART_SCHEMA
from rpo_pipeline.ingestion.quarantine import Reason, reject_rows
from rpo_pipeline.ingestion.rows import RATING_SCHEMA

BATCH_ROWS = 1000
FROM_LOG = [name for name in PART_SCHEMA.names if name not in RATING_SCHEMA.names]


def rated_rows(ratings: Path, logs: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """Make a row of every rating of a known response.

    The batches (``PART_SCHEMA``) are in the order of the ratings file (``RATING_SCHEMA``). Rating,
    time and origin come from there, all other columns from the logs (``PART_SCHEMA``).
    """
    given = ibis.read_parquet(ratings)
    rows = given.join(_named(given, logs), "response_id").order_by(_line(_.origin), _.origin)
    table = rows.select(*PART_SCHEMA.names).to_pyarrow().cast(PART_SCHEMA)
    yield from table.to_batches(BATCH_ROWS)


def unknown_ratings(ratings: Path, logs: Sequence[Path]) -> pa.Table:
    """Return the ratings of responses that no log names, as a table for quarantine."""
    given = ibis.read_parquet(ratings)
    unknown = given.anti_join(_named(given, logs), "response_id").order_by(_line(_.origin))
    read = unknown.select("origin", "response_id", "raw_reward", "reward_source").to_pyarrow()
    rated = (
        (
            one["origin"],
            {"response_id": one["response_id"], one["reward_source"]: one["raw_reward"]},
        )
        for one in read.to_pylist()
    )
    return reject_rows(Reason.UNKNOWN_RESPONSE, rated)


def _named(given: Table, logs: Sequence[Path]) -> Table:
    """Return the first logged record of each rated response, unless its records differ."""
    logged = ibis.read_parquet([str(log) for log in logs]).semi_join(given, "response_id")
    first = {name: _[name].argmin(_.origin) for name in FROM_LOG}
    named = logged.group_by("response_id").agg(different=_.row_id.nunique(), **first)
    return named.filter(_.different == 1).drop("different")


def _line(origin: ibis.Value) -> ibis.Value:
    return origin.re_extract(r":(\d+)$", 1).cast("int64")
