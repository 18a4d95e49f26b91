"""Reads sources into parts (see parts.py) and parts into rows; only changed files are read."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.columns import check_columns
from rpo_pipeline.ingestion.files import find_files, find_ratings, same_file
from rpo_pipeline.ingestion.late_ratings import rated_rows, unknown_ratings
from rpo_pipeline.ingestion.parts import (
    QUARANTINE,
    ROWS,
    SourceFile,
    ensure_part,
    read_about,
    remove_other_parts,
)
from rpo_pipeline.ingestion.quarantine import QUARANTINE_SCHEMA, quarantine_table
from rpo_pipeline.ingestion.records import WHERE
from rpo_pipeline.ingestion.redaction import Privacy
from rpo_pipeline.ingestion.rows import NOTHING_PRIVATE, ROW_SCHEMA
from rpo_pipeline.params import IngestionParams, SourceParams

logger = logging.getLogger(__name__)

BATCH_ROWS = 1000
AT_MOST_NAMED = 5
"""Number of files that a message names."""
Part = dict[str, Any]
"""Entry of one file: its ``path``, its ``key`` (the part's folder), the numbers ``rows``, ``rated``
and ``rejected``; for a ratings file also ``ratings_of``, the keys of the logs that it may rate."""


def read_log(
    ingestion: IngestionParams, folder: Path, forgotten: pd.DataFrame | None
) -> list[Part]:
    """Read new files of the log without the prompts that were erased on request.

    The erased prompts are given by prompt_id and is_done. The parts lie in the folder and are
    returned as ``read_sources`` returns them.
    """
    erased = frozenset() if forgotten is None else frozenset(forgotten["prompt_id"])
    if forgotten is not None and not forgotten.get("is_done", pd.Series(dtype=bool)).all():
        logger.warning("an erasure is not complete: `kedro forget` continues it")
    return read_sources(ingestion.sources, folder, Privacy(ingestion.redaction, erased))


def read_sources(
    sources: Sequence[SourceParams], folder: Path, privacy: Privacy = NOTHING_PRIVATE
) -> list[Part]:
    """Read new files of the sources into parts, which are returned in order of reading.

    Paths are relative to the current directory. Parts that no source refers to any more are removed
    from the folder. ``DataError`` is raised if a path names no file, leaves the project, has an
    unknown ending, cannot be read as its type, or if a source holds no record at all, or none with
    a column that it names.
    """
    files: dict[Path, tuple[SourceFile, int]] = {}
    logs: list[list[Path]] = []
    for number, source in enumerate(sources):
        logged = find_files(source)
        logs.append([same_file(file.path, source) for file in logged])
        for file in [*logged, *find_ratings(source)]:
            known, _ = files.setdefault(same_file(file.path, source), (file, number))
            if known is not file:
                logger.warning(
                    "%s is in more than one source%s: the first counts",
                    file.name,
                    "" if known.name == file.name else f", also as {known.name}",
                )
    found = {
        path: _ensure_part(folder, file, sources[number], privacy)
        for path, (file, number) in files.items()
    }
    num_read = sum(is_new for _, is_new in found.values())
    logger.info("sources: %d files unchanged, %d read", len(found) - num_read, num_read)
    remove_other_parts(folder, [part for part, _ in found.values()])
    parts: list[Part] = []
    for number, source in enumerate(sources):
        own = [(file, found[path][0]) for path, (file, of) in files.items() if of == number]
        # A source may rate a log that an earlier source has read.
        keys = [found[path][0].name for path in logs[number]]
        described = [_describe(file, part, keys) for file, part in own]
        abouts = [
            {**read_about(part), "path": file.name, "holds_ratings": file.holds_ratings}
            for file, part in own
        ]
        num_rows, num_rated = (sum(part[n] for part in described) for n in ("rows", "rated"))
        _check_source(source, abouts, num_rows, num_rated)
        parts += described
    return parts


def _ensure_part(
    folder: Path, file: SourceFile, source: SourceParams, privacy: Privacy
) -> tuple[Path, bool]:
    try:
        return ensure_part(folder, file, source, privacy)
    except OSError as err:
        if err.filename != str(file.path):  # the folder of the parts
            raise
        raise DataError(f"{file.name} cannot be read: {err.strerror} ({WHERE})") from err


def _check_source(
    source: SourceParams, files: Sequence[dict[str, Any]], num_rows: int, num_rated: int
) -> None:
    """Warn of gaps in a source, and refuse one without records or without a named column."""
    filled = [file for file in files if file["records"]]
    empty = [file["path"] for file in files if not file["records"] and not file["holds_ratings"]]
    logs = [file for file in filled if not file["holds_ratings"]]
    if empty and not logs:
        raise DataError(f"{source.path} holds no record: {_some(empty)} ({WHERE})")
    if empty:
        logger.warning("%s: no record in %s", source.path, _some(empty))
    check_columns(source, filled, with_ratings=num_rows > 0)
    if logs and not num_rated and source.ratings_path is None:
        logger.warning(
            "no row of %s is rated: looked for %s, and the fields are %s "
            "(ingestion.sources[].ratings names the columns of ratings)",
            source.path,
            ", ".join(sorted({rating.column for rating in source.rating_columns})),
            ", ".join(dict.fromkeys(name for file in logs for name in file["fields"])),
        )
    num_unread = sum(file["unread_times"] for file in filled)
    if num_unread:
        first = next(file for file in filled if file["unread_times"])
        logger.warning(
            "%s: %d timestamps cannot be read as a time, first in %s:%d; their rows have none "
            "(docs/data.md lists what can be read)",
            source.path,
            num_unread,
            first["path"],
            first["first_unread_time"],
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - AT_MOST_NAMED} more" if len(names) > AT_MOST_NAMED else ""
    return ", ".join(names[:AT_MOST_NAMED]) + more


def _describe(file: SourceFile, part: Path, logs: Sequence[str]) -> Part:
    rewards = pq.read_table(part / ROWS, columns=["raw_reward"])["raw_reward"]
    return {
        "path": file.name,
        "key": part.name,
        "rows": len(rewards),
        "rated": len(rewards) - rewards.null_count,
        "rejected": pq.read_metadata(part / QUARANTINE).num_rows,
    } | ({"ratings_of": logs} if file.holds_ratings else {})


def read_rows(parts: Sequence[Part], folder: Path) -> pa.RecordBatchReader:
    """Read the rows of the parts (``ROW_SCHEMA``) in order, batch by batch."""

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for part in parts:
            for batch in _batches(part, folder):
                positions = pa.array(range(start, start + len(batch)), pa.int64())
                start += len(batch)
                yield batch.drop_columns("response_id").append_column("position", positions)

    return pa.RecordBatchReader.from_batches(ROW_SCHEMA, batches())


def _batches(part: Part, folder: Path) -> Iterator[pa.RecordBatch]:
    file = folder / part["key"] / ROWS
    if "ratings_of" in part:
        return rated_rows(file, _logs(part, folder))
    batches: Iterator[pa.RecordBatch] = pq.ParquetFile(file).iter_batches(BATCH_ROWS)
    return batches


def _logs(part: Part, folder: Path) -> list[Path]:
    return [folder / key / ROWS for key in part["ratings_of"]]


def read_rejected(parts: Sequence[Part], folder: Path) -> pd.DataFrame:
    """Read the records that could not be used: origin, line, reason, raw."""
    tables = [pq.read_table(folder / part["key"] / QUARANTINE) for part in parts]
    tables += [
        unknown_ratings(folder / part["key"] / ROWS, _logs(part, folder))
        for part in parts
        if "ratings_of" in part
    ]
    return quarantine_table(pa.concat_tables([QUARANTINE_SCHEMA.empty_table(), *tables]))
