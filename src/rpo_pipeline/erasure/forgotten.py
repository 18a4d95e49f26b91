"""Erases rows from Parquet files in place, batch by batch, and records the erased prompts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rpo_pipeline.errors import DataError
from rpo_pipeline.storage import DAMAGED, first_line, replacing

FORGOTTEN = Path("03_primary/forgotten.parquet")
"""File, in a data folder, of the prompts that were erased or are to be erased."""
REMEDY = "restore it from a backup, or copy that of another environment"
_TRACES = ("prompts", "row_ids", "origins", "learned_in")
_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("is_done", pa.bool_()),
        *((name, pa.list_(pa.string())) for name in _TRACES),
    ]
)

Matches = Callable[[pa.RecordBatch], pa.Array]
"""Function that tells for each row of a batch whether it is to be erased."""


@dataclass
class Traces:
    """What the tables held about a prompt before it was erased."""

    prompts: set[str] = field(default_factory=set)
    """Text of the prompt; empty once the erasure is done."""
    row_ids: set[str] = field(default_factory=set)
    origins: set[str] = field(default_factory=set)
    learned_in: set[str] = field(default_factory=set)
    """Environments in which it was in train or validation."""
    is_done: bool = True
    """Whether the erasure is complete."""

    def add(self, other: "Traces") -> None:
        """Add the traces of the same prompt from another data folder."""
        for name in _TRACES:
            getattr(self, name).update(getattr(other, name))
        self.is_done &= other.is_done


class Memory:
    """Record of prompts that were erased or are to be erased, the same in every data folder.

    Args:
        files: One file per data folder; missing files are created.
        damaged: Function that is called for a file that cannot be read, which is not replaced.

    Raises:
        DataError: If no file can be read.
    """

    def __init__(self, files: Iterable[Path], damaged: Callable[[str], None]) -> None:
        self.traces: dict[str, Traces] = {}
        self._files = []
        words = ""
        for file in sorted(files):
            try:
                for prompt_id, traces in _read_memory(file).items():
                    self.of(prompt_id).add(traces)
                self._files.append(file)
            except DAMAGED as err:
                words = f"{file} cannot be read ({first_line(err)}): {REMEDY}"
                damaged(f"memory of erased prompts: {words}")
        if not self._files:
            raise DataError(f"{words}. Nothing was erased, because nothing could be remembered")

    def of(self, prompt_id: str) -> Traces:
        """Return the traces of a prompt."""
        return self.traces.setdefault(prompt_id, Traces())

    def gathered(self, ids: set[str], name: str) -> set[str]:
        """Collect one kind of traces of several prompts."""
        return {one for prompt_id in ids for one in getattr(self.of(prompt_id), name)}

    def write(self, ids: set[str], *, is_done: bool) -> None:
        """Record prompts; their texts are removed when the erasure is done."""
        for prompt_id in ids:
            traces = self.of(prompt_id)
            traces.is_done = is_done
            if is_done:
                traces.prompts.clear()
        lines = [
            {
                "prompt_id": prompt_id,
                "is_done": one.is_done,
                **{name: sorted(getattr(one, name)) for name in _TRACES},
            }
            for prompt_id, one in sorted(self.traces.items())
        ]
        for file in self._files:
            with replacing(file) as prepared:
                pq.write_table(pa.Table.from_pylist(lines, _SCHEMA), prepared)


def _read_memory(file: Path) -> dict[str, Traces]:
    if not file.exists():
        return {}
    return {
        line["prompt_id"]: Traces(
            **{name: set(line.get(name) or ()) for name in _TRACES},
            is_done=line.get("is_done", True),  # files of earlier versions hold only hashes
        )
        for line in pq.read_table(file).to_pylist()
    }


def column_names(file: Path) -> list[str]:
    """Read the names of the columns of a Parquet file."""
    return list(pq.read_schema(file).names)


def name_matches(columns: list[str], *, prompt_ids: set[str], row_ids: set[str]) -> Matches | None:
    """Build the function that finds rows by the prompts or rows that they name.

    Args:
        columns: Columns of the file; ``row_id`` and names that end in ``prompt_id`` are compared.
        prompt_ids: Prompts to find.
        row_ids: Rows to find.

    Returns:
        The function; None if the file names neither prompts nor rows.
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
    """Remove rows from a file; a file without any of them is not written.

    The column ``position``, if there is one, is numbered anew from 0.

    Args:
        file: Parquet file.
        matches: Function that finds the rows to remove.

    Returns:
        The removed rows.
    """
    removed = find_rows(file, matches)
    if removed:
        kept = 0
        with (
            pq.ParquetFile(file) as source,
            replacing(file) as prepared,
            pq.ParquetWriter(prepared, source.schema_arrow) as writer,
        ):
            for batch in source.iter_batches():
                left = batch.filter(pc.invert(matches(batch)))
                writer.write_batch(_renumbered(left, kept))
                kept += left.num_rows
    return removed


def find_rows(file: Path, matches: Matches) -> list[dict[str, object]]:
    """Return the matching rows with all their columns."""
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
