"""Reading feedback logs record by record; one broken record never costs another."""

import csv
import gzip
import json
import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rpo_pipeline.data.quarantine import Reason, RejectedError, Rejection, quarantine_table
from rpo_pipeline.data.redaction import Redact, redact_raw, unchanged
from rpo_pipeline.data.rows import ROW_SCHEMA, parse_record
from rpo_pipeline.errors import DataError
from rpo_pipeline.params import SourceParams

logger = logging.getLogger(__name__)

BATCH_ROWS = 20_000


@dataclass(frozen=True)
class Record:
    """One record as its file holds it."""

    line: int
    raw: str
    fields: dict[str, Any] | Reason
    """Values by name, or why there are none."""


def read_sources(
    sources: Sequence[SourceParams],
    *,
    redact: Redact = unchanged,
    forgotten: Collection[str] = (),
) -> tuple[pa.Table, pd.DataFrame]:
    """Read every record of every source.

    Args:
        sources: Files or globs, relative to the current directory.
        redact: What every text goes through before it is hashed or stored.
        forgotten: prompt_id of prompts that were erased on request; their records go to quarantine
            without their text.

    Returns:
        Rows in order of reading (``ROW_SCHEMA``), and the quarantine.

    Raises:
        DataError: If a path names no file, leaves the project, has an unknown ending, cannot be
            read as its type, or holds no record at all.
    """
    batches: list[pa.RecordBatch] = []
    rejections: list[Rejection] = []
    position = 0
    for path, source in [(path, one) for one in sources for path in _files(one.path)]:
        rows: list[dict[str, Any]] = []
        records = 0
        for record in _READERS[_ending(path)](path):
            records += 1
            try:
                row = _to_row(record, source, redact, forgotten)
            except RejectedError as rejected:
                raw = "" if rejected.reason is Reason.FORGOTTEN else redact_raw(record.raw, redact)
                rejections.append(Rejection(str(path), record.line, rejected.reason, raw))
                continue
            rows.append({**row, "origin": f"{path}:{record.line}", "position": position})
            position += 1
            if len(rows) == BATCH_ROWS:
                batches.append(pa.RecordBatch.from_pylist(rows, schema=ROW_SCHEMA))
                rows = []
        batches.append(pa.RecordBatch.from_pylist(rows, schema=ROW_SCHEMA))
        if not records:
            raise DataError(f"{path} holds no record (ingestion.sources[].path)")
        logger.info("read %d records of %s", records, path)
    return pa.Table.from_batches(batches, ROW_SCHEMA), quarantine_table(rejections)


def _to_row(
    record: Record, source: SourceParams, redact: Redact, forgotten: Collection[str]
) -> dict[str, Any]:
    if isinstance(record.fields, Reason):
        raise RejectedError(record.fields)
    row = parse_record(record.fields, source, redact)
    if row["prompt_id"] in forgotten:
        raise RejectedError(Reason.FORGOTTEN)
    return row


def _files(pattern: str) -> list[Path]:
    if not Path(pattern).is_absolute() and ".." in Path(pattern).parts:
        raise DataError(
            f"source {pattern!r} leaves the project folder "
            "(ingestion.sources[].path: a path inside it, or an absolute one)"
        )
    base = Path(Path(pattern).anchor)
    relative = Path(pattern).relative_to(base) if Path(pattern).is_absolute() else Path(pattern)
    files = sorted(path for path in base.glob(str(relative)) if path.is_file())
    if not files:
        raise DataError(
            f"no file matches {pattern!r} in {Path.cwd()} (ingestion.sources[].path; "
            "`python -m rpo_pipeline sample-data` writes the sample log)"
        )
    return files


def _ending(path: Path) -> str:
    for ending in _READERS:
        if path.name.endswith(ending):
            return ending
    raise DataError(f"{path} ends in none of {', '.join(_READERS)} (ingestion.sources[].path)")


def _read_jsonl(path: Path) -> Iterator[Record]:
    opening = gzip.open if path.suffix == ".gz" else open
    number = 0
    with opening(path, "rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if content.strip():
                    yield _json_record(number, content.rstrip(b"\r\n"))
        except (EOFError, gzip.BadGzipFile, OSError) as err:
            yield Record(number + 1, f"{type(err).__name__}: {err}", Reason.TRUNCATED)


def _json_record(number: int, line: bytes) -> Record:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Record(number, line.decode(errors="backslashreplace"), Reason.INVALID_TEXT)
    try:
        fields = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RejectedError as rejected:
        return Record(number, text, rejected.reason)
    except (ValueError, RecursionError):
        return Record(number, text, Reason.BROKEN_RECORD)
    return Record(number, text, fields if isinstance(fields, dict) else Reason.NOT_AN_OBJECT)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RejectedError(Reason.DUPLICATE_KEY)
    return fields


def _refuse_constant(_: str) -> NoReturn:
    raise RejectedError(Reason.REWARD_NOT_FINITE)


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    # Bytes that are not UTF-8 become lone surrogates, which the field check rejects by row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as err:
                yield Record(line, str(err), Reason.BROKEN_RECORD)
                continue
            if values:
                raw = ",".join(values).encode(errors="surrogateescape")
                yield Record(
                    line,
                    raw.decode(errors="backslashreplace"),
                    dict(zip(header, values, strict=False))
                    if len(values) == len(header)
                    else Reason.BROKEN_RECORD,
                )


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as err:
        raise DataError(f"{path} is no Parquet file: {err} (ingestion.sources[].path)") from err
    number = 0
    for batch in file.iter_batches(BATCH_ROWS):
        for fields in batch.to_pylist():
            number += 1
            yield Record(number, json.dumps(fields, default=str, ensure_ascii=False), fields)


_READERS = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
