"""Sources to parts: what each file held, read once for as long as the file stays as it is."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from rpo_pipeline.data.quarantine import (
    QUARANTINE_SCHEMA,
    Reason,
    RejectedError,
    quarantine_table,
)
from rpo_pipeline.data.readers import BATCH_ROWS, Record, read_hub, read_records
from rpo_pipeline.data.rows import ROW_SCHEMA, parse_record
from rpo_pipeline.errors import DataError
from rpo_pipeline.io.digests import code_digest, path_digest, value_digest
from rpo_pipeline.io.durable import put_in_place, temporary_sibling
from rpo_pipeline.params import SourceParams

logger = logging.getLogger(__name__)

HUB = "hf://"
ROWS, REJECTED = "rows.parquet", "rejected.parquet"

Part = dict[str, Any]
"""What was made of one file: its ``path``, ``key`` (the part's folder), ``rows``, ``rejected``."""


def read_sources(sources: Sequence[SourceParams], folder: Path) -> list[Part]:
    """Read the files that were not read before as they are now.

    A part is known by the content of its file, the settings of its source and the code that reads,
    so new files of a growing log are the only ones that are read. Parts of files that no source
    names any more are removed.

    Args:
        sources: Files, directories or globs, relative to the current directory, or hub datasets.
        folder: Of the parts.

    Returns:
        The parts, in order of reading.

    Raises:
        DataError: If a path names no file, leaves the project, has an unknown ending, cannot be
            read as its type, or holds no record at all.
    """
    parts: list[Part] = []
    num_read = 0
    for path, source in [(path, one) for one in sources for path in _paths(one)]:
        key = _part_key(path, source)
        if not (folder / key).is_dir():
            _write_part(path, source, folder / key)
            num_read += 1
        counts = json.loads((folder / key / "counts.json").read_text())
        parts.append({"path": path, "key": key, **counts})
    logger.info("%d files read, %d known as they are", num_read, len(parts) - num_read)
    named = {part["key"] for part in parts}
    for known in folder.iterdir():
        if known.name not in named:
            shutil.rmtree(known, ignore_errors=True)
    return parts


def read_rows(parts: Sequence[Part], folder: Path) -> pa.RecordBatchReader:
    """The rows of the parts (``ROW_SCHEMA``), in order of reading, batch by batch."""

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for part in parts:
            for batch in pq.ParquetFile(folder / part["key"] / ROWS).iter_batches(BATCH_ROWS):
                positions = pa.array(range(start, start + len(batch)), pa.int64())
                start += len(batch)
                yield batch.append_column("position", positions)

    return pa.RecordBatchReader.from_batches(ROW_SCHEMA, batches())


def read_rejected(parts: Sequence[Part], folder: Path) -> pd.DataFrame:
    """What could not be used: origin, line, reason, raw."""
    tables = [pq.read_table(folder / part["key"] / REJECTED) for part in parts]
    return quarantine_table(pa.concat_tables(tables))


def _paths(source: SourceParams) -> list[str]:
    """Paths of a source, as they stand in ``origin``."""
    pattern = source.path
    if pattern.startswith(HUB):
        return [pattern]
    if not Path(pattern).is_absolute() and ".." in Path(pattern).parts:
        raise _leaves(pattern)
    base = Path(Path(pattern).anchor)
    relative = Path(pattern).relative_to(base) if Path(pattern).is_absolute() else Path(pattern)
    found = sorted(
        path
        for path in base.glob(str(relative))
        if path.is_file() or any(path.glob("dataset*.json"))
    )
    if not found:
        raise DataError(
            f"no file matches {pattern!r} in {Path.cwd()} (ingestion.sources[].path; "
            "`python -m rpo_pipeline sample-data` writes the sample log)"
        )
    for path in found:
        if not Path(pattern).is_absolute() and not path.resolve().is_relative_to(Path.cwd()):
            raise _leaves(str(path))
    return [str(path) for path in found]


def _leaves(path: str) -> DataError:
    return DataError(
        f"source {path!r} leaves the project folder "
        "(ingestion.sources[].path: a path inside it, or an absolute one)"
    )


def _part_key(path: str, source: SourceParams) -> str:
    content = source.revision if path.startswith(HUB) else path_digest(Path(path))
    settings = source.model_dump(exclude={"path"}, mode="json")
    return value_digest([path, content, settings, code_digest(_write_part)])


def _write_part(path: str, source: SourceParams, target: Path) -> None:
    """Read a file into a folder of its own, put in place when it is complete."""
    if path.startswith(HUB):
        records = read_hub(path.removeprefix(HUB), str(source.revision))
    else:
        records = read_records(Path(path))
    prepared = temporary_sibling(target)
    prepared.mkdir(parents=True)
    try:
        counts = _write_records(records, path, source, prepared)
        if not sum(counts.values()):
            raise DataError(f"{path} holds no record (ingestion.sources[].path)")
        (prepared / "counts.json").write_text(json.dumps(counts))
        put_in_place(prepared, target)
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    logger.info("read %d rows of %s, %d rejected", counts["rows"], path, counts["rejected"])


def _write_records(
    records: Iterator[Record], path: str, source: SourceParams, folder: Path
) -> dict[str, int]:
    counts = Counter(rows=0, rejected=0)
    schema = ROW_SCHEMA.remove(ROW_SCHEMA.get_field_index("position"))
    with (
        _BatchWriter(folder / ROWS, schema) as rows,
        _BatchWriter(folder / REJECTED, QUARANTINE_SCHEMA) as rejected,
        tqdm(records, desc=f"reading {path}", unit="record", disable=None, leave=None) as bar,
    ):
        for record in bar:
            for row in _rows_of(record, source):
                if isinstance(row, RejectedError):
                    where = {"origin": path, "line": record.line}
                    rejected.add({**where, "reason": row.reason.value, "raw": record.raw})
                    counts["rejected"] += 1
                else:
                    rows.add({**row, "origin": f"{path}:{record.line}"})
                    counts["rows"] += 1
    return dict(counts)


def _rows_of(record: Record, source: SourceParams) -> Iterator[dict[str, Any] | RejectedError]:
    if isinstance(record.fields, Reason):
        yield RejectedError(record.fields)
    else:
        yield from parse_record(record.fields, source)


class _BatchWriter:
    """A Parquet file, written in batches."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema)
        self._schema = schema
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> "_BatchWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; it is on disk once its batch is full."""
        self._waiting.append(row)
        if len(self._waiting) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(pa.RecordBatch.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []
