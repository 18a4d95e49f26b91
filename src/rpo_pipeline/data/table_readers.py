"""Records of Parquet and Arrow files, batch by batch."""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rpo_pipeline.data.quarantine import Reason
from rpo_pipeline.data.records import WHERE, Record, escape, refuse_repeated_names
from rpo_pipeline.errors import DataError

BATCH_ROWS = 1000
"""Rows that are decoded at once."""
BATCH_BYTES = 2**26
"""Bytes that they may take, by what the file says of itself."""
BUFFER_BYTES = 2**20
"""Bytes of a Parquet column that are read at once; else a whole row group is."""

Part = tuple[int, Callable[[], Iterable[pa.RecordBatch]]]
"""Rows before a part of a table, and its batches."""
Opening = Callable[[Path], tuple[list[str], list[Part]]]
"""From a file to the names of its columns, and its parts."""


def read_table(path: Path) -> Iterator[Record]:
    """Read a file row by row.

    Args:
        path: Of Parquet or Arrow.

    Yields:
        Every row; for a group of rows that cannot be read, a broken record.

    Raises:
        DataError: If the file is not of its type, or names a column twice.
    """
    try:
        names, parts = TABLES[path.suffix.lower()](path)
    except (pa.ArrowException, OSError) as err:
        kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
        raise DataError(f"{path} is no {kind} file: {err} ({WHERE})") from err
    refuse_repeated_names(names, path)
    for start, batches in parts:
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


def _open_parquet(path: Path) -> tuple[list[str], list[Part]]:
    file = pq.ParquetFile(path, buffer_size=BUFFER_BYTES)
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    starts = accumulate((group.num_rows for group in groups), initial=0)
    return file.schema_arrow.names, [
        (start, partial(file.iter_batches, _batch_rows(group), row_groups=[number]))
        for (number, group), start in zip(enumerate(groups), starts, strict=False)
    ]


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """Rows that are decoded at once: fewer where they are large."""
    row_bytes = group.total_byte_size // max(group.num_rows, 1) + 1
    return int(max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes)))


def _open_arrow(path: Path) -> tuple[list[str], list[Part]]:
    """An Arrow file, or the stream that a saved Hugging Face dataset consists of."""
    source = pa.memory_map(str(path))
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
    if not is_file:
        return reader.schema.names, [(0, partial(iter, reader))]
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    return reader.schema.names, [(0, partial(iter, batches))]


def _decode(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any] | Reason, str | None]]:
    """Values of each row; row by row only where one of them is not what its type says."""
    try:
        yield from ((fields, None) for fields in batch.to_pylist())
    except (ValueError, OverflowError):
        for row in range(batch.num_rows):
            yield _decode_row(batch.slice(row, 1))


def _decode_row(row: pa.RecordBatch) -> tuple[dict[str, Any] | Reason, str | None]:
    try:
        return row.to_pylist()[0], None
    except (ValueError, OverflowError) as err:
        invalid = isinstance(err, UnicodeDecodeError)
        cells = {name: _decode_cell(row[name]) for name in row.schema.names}
        raw = json.dumps(cells, default=str, ensure_ascii=False)
        return Reason.INVALID_TEXT if invalid else Reason.BROKEN_RECORD, raw


def _decode_cell(column: pa.Array) -> object:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        value = column.cast(pa.large_binary())[0].as_py()
        return value if value is None else value.decode(errors="backslashreplace")
    try:
        return column[0].as_py()
    except (ValueError, OverflowError) as err:
        return str(err)


TABLES: dict[str, Opening] = {".parquet": _open_parquet, ".arrow": _open_arrow}
