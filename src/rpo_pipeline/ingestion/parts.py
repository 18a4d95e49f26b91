"""Reads each source file once into a part, the folder of its rows and its quarantined records.

The name of a part is a hash of the file's content, of the source's settings and of the code that
reads it, so a file that did not change is not read again.
"""

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rpo_pipeline.ingestion.columns import Columns, named_columns
from rpo_pipeline.ingestion.formats import detect_format, flatten
from rpo_pipeline.ingestion.quarantine import QUARANTINE_SCHEMA, Reason, RejectedError
from rpo_pipeline.ingestion.readers import read_records
from rpo_pipeline.ingestion.records import Record, partition_fields
from rpo_pipeline.ingestion.redaction import Privacy, redact_raw
from rpo_pipeline.ingestion.rows import (
    NOTHING_PRIVATE,
    RATING_SCHEMA,
    ROW_SCHEMA,
    UNREAD_TIME,
    parse_rating,
    parse_record,
)
from rpo_pipeline.params import RedactionParams, SourceParams
from rpo_pipeline.storage import is_whole_parquet, put_in_place, result_key, temporary_folder

logger = logging.getLogger(__name__)

BATCH_ROWS, BATCH_CHARACTERS = 20_000, 2**24
"""Rows, and characters of text, that are held in memory before they are written."""
DETECTION_RECORDS = 50
"""Number of records at the start of a file from which its format is detected."""

ROWS, QUARANTINE, ABOUT = "rows.parquet", "quarantine.parquet", "about.json"
KEPT_OF_RAW, KEPT_OF_NEXT = 2**16, 2**10
"""Characters of a record that quarantine keeps for its first bad response, and for later ones."""
PART_SCHEMA = ROW_SCHEMA.remove(ROW_SCHEMA.get_field_index("position")).append(
    RATING_SCHEMA.field("response_id")
)


class SourceFile(NamedTuple):
    """A file of a source."""

    path: Path
    name: str
    """Printable path, for messages and for the origin of rows."""
    holds_ratings: bool = False
    """Whether it rates responses that another file logs."""


def part_key(file: SourceFile, source: SourceParams, redaction: RedactionParams | None) -> str:
    """Hash everything that decides the content of a part: 32 hexadecimal digits.

    Forgotten prompts do not count, because an erasure removes them from the parts.
    """
    with file.path.open("rb") as stream:
        content = hashlib.file_digest(stream, "blake2b").hexdigest()
    settings = source.model_dump(mode="json", exclude={"path", "revision"})
    private = redaction and redaction.model_dump(mode="json")
    return result_key(
        *(content, file.name, file.holds_ratings, settings, private),
        code=[_write_part],
        without=frozenset(),  # code in `params/ingestion.py` decides how a rating is read
    )


def ensure_part(
    folder: Path, file: SourceFile, source: SourceParams, privacy: Privacy
) -> tuple[Path, bool]:
    """Read a file, unless its part exists in the folder of all parts.

    Returns the part's folder, and whether the file was read. ``DataError`` is raised if the file
    cannot be read as its type.
    """
    part = folder / part_key(file, source, privacy.redaction)
    if part.is_dir():
        if _is_whole(part):
            return part, False
        logger.warning("%s is damaged: %s is read again", part, file.name)
    before = file.path.stat()
    with temporary_folder(folder) as prepared:
        _write_part(prepared, file, source, privacy)
        after = file.path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            logger.warning("%s changed while it was read; the next run reads it again", file.name)
            part = folder / uuid.uuid4().hex  # a key of no content
        put_in_place(prepared, part)
    return part, True


def _is_whole(part: Path) -> bool:
    try:
        read_about(part)
    except (OSError, ValueError):
        return False
    return all(is_whole_parquet(part / name) for name in (ROWS, QUARANTINE))


def read_about(part: Path) -> dict[str, Any]:
    """Read the description of a part.

    It holds ``records``, their number; ``unread_times``, the number of times that could not be
    read, and ``first_unread_time``, the line of the first; ``unseen``, columns that the source
    names and no record has; ``fields``, names of fields in the first records.
    """
    about: dict[str, Any] = json.loads((part / ABOUT).read_text(encoding="utf-8"))
    return about


def remove_other_parts(folder: Path, parts: Sequence[Path]) -> None:
    """Remove parts that no source refers to, and unfinished parts of a killed run."""
    for part in set(folder.iterdir()) - set(parts):
        shutil.rmtree(part, ignore_errors=True)


class _Writer(AbstractContextManager["_Writer"]):
    """Writes dictionaries to a Parquet file, a batch at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.num_rows = 0
        self._schema = schema
        self._parquet = pq.ParquetWriter(path, schema)
        self._rows: list[dict[str, Any]] = []
        self._characters = 0

    def add(self, row: dict[str, Any], num_characters: int) -> None:
        self.num_rows += 1
        self._rows.append(row)
        self._characters += num_characters
        if len(self._rows) == BATCH_ROWS or self._characters > BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._characters = [], 0

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._parquet.close()


def _write_part(folder: Path, file: SourceFile, source: SourceParams, privacy: Privacy) -> None:
    records = _read(file, source)
    first = list(islice(records, DETECTION_RECORDS))
    if source.format == "auto" and not file.holds_ratings:
        fields = [one.fields for one in first if not isinstance(one.fields, Reason)]
        detected = detect_format(fields, source, file.name)
        source = source.model_copy(update={"format": detected})
    columns = Columns(named_columns(source, holds_ratings=file.holds_ratings))
    num_records, unread_times = 0, []
    with (
        _Writer(folder / ROWS, RATING_SCHEMA if file.holds_ratings else PART_SCHEMA) as rows,
        _Writer(folder / QUARANTINE, QUARANTINE_SCHEMA) as quarantine,
    ):
        for record in chain(first, records):
            num_records += 1
            raw = None
            for row in rows_of_record(
                record, source, privacy, columns, holds_ratings=file.holds_ratings
            ):
                if isinstance(row, Reason):
                    if raw is None:
                        raw = redact_raw(record.raw[:KEPT_OF_RAW], privacy.redact)
                    else:
                        raw = raw[:KEPT_OF_NEXT]
                    kept = "" if row is Reason.FORGOTTEN else raw
                    line = {"origin": file.name, "line": record.line, "reason": row, "raw": kept}
                    quarantine.add(line, len(kept))
                else:
                    row["origin"] = f"{file.name}:{record.line}"
                    if row.pop(UNREAD_TIME, False):
                        unread_times.append(record.line)
                    rows.add(row, len(row.get("prompt", "")) + len(row.get("response", "")))
    about = {
        "records": num_records,
        "unread_times": len(unread_times),
        "first_unread_time": min(unread_times, default=None),
        "unseen": sorted(columns.unseen),
        "fields": list(columns.fields),
    }
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    logger.info(
        "%s: %d rows, %d quarantined, read as %s",
        file.name,
        rows.num_rows,
        quarantine.num_rows,
        "ratings" if file.holds_ratings else source.format,
    )


def _read(file: SourceFile, source: SourceParams) -> Iterator[Record]:
    """Add to each record the fields that the names of its folders hold, where it lacks them."""
    shared = partition_fields(file.name)
    for record in read_records(file.path, source.encoding):
        if shared and not isinstance(record.fields, Reason):
            yield record._replace(fields={**shared, **record.fields})
        else:
            yield record


def rows_of_record(
    record: Record,
    source: SourceParams,
    privacy: Privacy = NOTHING_PRIVATE,
    columns: Columns | None = None,
    *,
    holds_ratings: bool = False,
) -> Iterator[dict[str, Any] | Reason]:
    """Yield a row, or the reason why there is none, for each response (or the rating) of a record.

    A record that cannot be used as a whole gives one reason. Its columns are noted in ``columns``.
    """
    if isinstance(record.fields, Reason):
        yield record.fields
        return
    try:
        flat_records = [record.fields] if holds_ratings else flatten(record.fields, source)
    except RejectedError as rejected:
        yield rejected.reason
        return
    for flat in flat_records:
        if columns:
            columns.note(record.fields, flat)
        try:
            if holds_ratings:
                yield parse_rating(flat, source)
            else:
                yield parse_record(flat, source, privacy)
        except RejectedError as rejected:
            yield rejected.reason
