"""Reads records of Parquet and Arrow files batch by batch."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.quarantine import Reason
from rpo_pipeline.ingestion.records import WHERE, Record, escape, refuse_repeated_names

BATCH_ROWS = 1000
"""Number of rows that are decoded at once."""
BATCH_BYTES = 2**26
"""Bytes of a batch, by the sizes in the file's metadata."""
BUFFER_BYTES = 2**20
"""Bytes of a Parquet column that are read at once, instead of a whole row group."""

UNREADABLE = (ValueError, OverflowError, LookupError)
"""Errors that a value raises if Python cannot hold it or does not know its time zone."""

RowGroup = tuple[int, Callable[[], Iterable[pa.RecordBatch]]]
"""Number of rows before a row group (an Arrow file counts as one), and its batches."""
Opening = Callable[[Path], tuple[list[str], list[RowGroup]]]
"""Function from a file to the names of its columns and its row groups."""


def read_table(path: Path) -> Iterator[Record]:
    """Read a Parquet or Arrow file row by row.

    A row group that cannot be read gives one broken record. ``DataError`` is raised if the file is
    not of its type, or names a column twice.
    """
    try:
        names, row_groups = TABLES[path.suffix.lower()](path)
    except (pa.ArrowException, OSError) as err:
        kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
        raise DataError(f"{path} is no {kind} file: {err} ({WHERE})") from err
    refuse_repeated_names(names, path)
    for start, batches in row_groups:
        number = start
        try:
            for batch in batches():
                for piece in range(0, batch.num_rows, BATCH_ROWS):
                    for fields, raw in _decode(batch.slice(piece, BATCH_ROWS)):
                        number += 1
                        yield Record(number, raw, fields)
        except (pa.ArrowException, OSError) as err:
            text = f"no row from here to the next group can be read: {type(err).__name__}: {err}"
            yield Record(number + 1, escape(text), Reason.BROKEN_RECORD)


def _open_parquet(path: Path) -> tuple[list[str], list[RowGroup]]:
    file = pq.ParquetFile(path, buffer_size=BUFFER_BYTES)
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    starts = accumulate((group.num_rows for group in groups), initial=0)
    return file.schema_arrow.names, [
        (start, partial(file.iter_batches, _batch_rows(group), row_groups=[number]))
        for (number, group), start in zip(enumerate(groups), starts, strict=False)
    ]


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """Choose the number of rows to decode at once; large rows give a small number."""
    row_bytes = group.total_byte_size // max(group.num_rows, 1) + 1
    return int(max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes)))


def _open_arrow(path: Path) -> tuple[list[str], list[RowGroup]]:
    """Open an Arrow file, or the stream that a saved Hugging Face dataset consists of."""
    source = pa.memory_map(str(path))
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
    if not is_file:
        return reader.schema.names, [(0, partial(iter, reader))]
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    return reader.schema.names, [(0, partial(iter, batches))]


@dataclass(frozen=True)
class Unread:
    """A value that Python cannot hold, such as a day of the year 10000, or text in no encoding."""

    text: str
    is_text: bool = False

    def __str__(self) -> str:
        return self.text


def _decode(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any] | Reason, str | None]]:
    """Decode the rows of a batch; values are decoded one by one only if one of them fails."""
    try:
        yield from ((fields, None) for fields in batch.to_pylist())
    except UNREADABLE:
        columns = [_values(column) for column in batch.columns]
        for values in zip(*columns, strict=True):
            fields = dict(zip(batch.schema.names, values, strict=True))
            if any(isinstance(value, Unread) and value.is_text for value in values):
                yield Reason.INVALID_TEXT, json.dumps(fields, default=str, ensure_ascii=False)
            else:
                yield fields, None


def _values(column: pa.Array) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UNREADABLE:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:  # noqa: ANN401 (whatever the table holds)
    """Decode a value; only the unreadable parts of an object or a list become ``Unread``."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as err:
        return Unread(err.object.decode(errors="backslashreplace"), is_text=True)
    except UNREADABLE as err:
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(scalar[name]) for name in scalar.type.names}
        if isinstance(scalar, pa.ListScalar) and not isinstance(scalar, pa.MapScalar):
            return [_value(item) for item in scalar.values]
        if pa.types.is_timestamp(scalar.type) and scalar.type.tz not in (None, "UTC"):
            # Python does not know the zone; in UTC the instant is the same.
            return _value(scalar.cast(pa.timestamp(scalar.type.unit, "UTC")))
        return Unread(str(err))


TABLES: dict[str, Opening] = {".parquet": _open_parquet, ".arrow": _open_arrow}
