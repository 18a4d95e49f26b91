"""Erasing rows from Parquet files in place, a batch at a time."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rpo_pipeline.io.durable import put_in_place, temporary_sibling

Matches = Callable[[pa.RecordBatch], pa.Array]
"""Which rows of a batch are meant, as booleans."""


def column_names(file: Path) -> list[str]:
    """Names of the columns of a Parquet file."""
    return list(pq.read_schema(file).names)


def name_matches(columns: list[str], *, prompt_ids: set[str], row_ids: set[str]) -> Matches | None:
    """Rows that name one of some prompts or rows.

    Args:
        columns: Of the file; ``row_id`` and whatever ends in ``prompt_id`` are looked at.
        prompt_ids: Prompts.
        row_ids: Rows.

    Returns:
        None if the file names neither prompts nor rows.
    """
    wanted = {
        name: pa.array(row_ids if name == "row_id" else prompt_ids, pa.string())
        for name in columns
        if name == "row_id" or name.endswith("prompt_id")
    }
    if not wanted:
        return None

    def matches(batch: pa.RecordBatch) -> pa.Array:
        found = pa.repeat(False, batch.num_rows)
        for name, ids in wanted.items():
            found = pc.or_(found, pc.is_in(batch[name].cast(pa.string()), value_set=ids))
        return found

    return matches


def take_out(file: Path, matches: Matches) -> list[dict[str, object]]:
    """Remove rows from a file; one that has none of them is not written.

    ``position``, where there is one, counts from 0 through what is left.

    Args:
        file: Parquet.
        matches: Which rows go.

    Returns:
        The rows that went.
    """
    removed = find_rows(file, matches)
    if removed:
        source = pq.ParquetFile(file)
        prepared = temporary_sibling(file)
        kept = 0
        try:
            with pq.ParquetWriter(prepared, source.schema_arrow) as writer:
                for batch in source.iter_batches():
                    left = batch.filter(pc.invert(matches(batch)))
                    writer.write_batch(_renumbered(left, kept))
                    kept += left.num_rows
            put_in_place(prepared, file)
        finally:
            source.close()
            prepared.unlink(missing_ok=True)
    return removed


def find_rows(file: Path, matches: Matches) -> list[dict[str, object]]:
    """The rows that match, with all their columns."""
    found: list[dict[str, object]] = []
    with pq.ParquetFile(file) as source:
        for batch in source.iter_batches():
            found += batch.filter(matches(batch)).to_pylist()
    return found


def _renumbered(batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
    if "position" not in batch.schema.names:
        return batch
    positions = pa.array(range(start, start + batch.num_rows), batch.schema.field("position").type)
    index = batch.schema.get_field_index("position")
    return batch.set_column(index, batch.schema.field("position"), positions)
