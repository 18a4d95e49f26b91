"""Erases rows from Parquet files in place, batch by batch, and records the erased prompts."""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
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

    def add(self, line: dict[str, Any]) -> None:
        """Add what the file of another data folder says of the same prompt."""
        for name in _TRACES:  # files of earlier versions hold only hashes
            getattr(self, name).update(line.get(name) or ())
        self.is_done &= line.get("is_done", True)


class Memory:
    """Record of prompts that were erased or are to be erased, the same in every data folder.

    A missing file is created. ``damaged`` is called for one that cannot be read, which is not
    replaced; a DataError says that none can be read.
    """

    def __init__(self, files: Iterable[Path], damaged: Callable[[str], None]) -> None:
        self.traces: dict[str, Traces] = {}
        self._files = []
        words = ""
        for file in sorted(files):
            try:
                for line in pq.read_table(file).to_pylist() if file.exists() else []:
                    self.of(line["prompt_id"]).add(line)
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


def is_any(column: str, ids: set[str]) -> pc.Expression:
    """Build the condition on rows that a column has one of these ids."""
    return pc.field(column).cast(pa.string()).isin(pa.array(ids, pa.string()))


def name_matches(
    columns: list[str], *, prompt_ids: set[str], row_ids: set[str]
) -> pc.Expression | None:
    """Build the condition on rows that name one of these prompts or rows.

    ``row_id`` and columns whose names end in ``prompt_id`` are compared; the result is None if
    there is no such column.
    """
    conditions = [
        is_any(name, row_ids if name == "row_id" else prompt_ids)
        for name in columns
        if name == "row_id" or name.endswith("prompt_id")
    ]
    return reduce(operator.or_, conditions) if conditions else None


def take_out(file: Path, matches: pc.Expression) -> int:
    """Remove rows from a file, and return their number; a file without any is not written.

    The column ``position``, if there is one, is numbered anew from 0.
    """
    table = ds.dataset(file)
    num_removed: int = table.count_rows(filter=matches)
    if num_removed:
        num_kept, index = 0, table.schema.get_field_index("position")
        with replacing(file) as prepared, pq.ParquetWriter(prepared, table.schema) as writer:
            for batch in table.to_batches(filter=~matches):
                end = num_kept + batch.num_rows
                if index >= 0:
                    position = table.schema.field(index)
                    positions = pa.array(range(num_kept, end), position.type)
                    batch = batch.set_column(index, position, positions)
                writer.write_batch(batch)
                num_kept = end
    return num_removed


def find_rows(file: Path, matches: pc.Expression) -> list[dict[str, object]]:
    """Return the matching rows with all their columns."""
    found: list[dict[str, object]] = ds.dataset(file).to_table(filter=matches).to_pylist()
    return found
