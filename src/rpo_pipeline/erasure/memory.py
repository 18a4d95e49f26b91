"""Erasing rows from Parquet files in place, a batch at a time, and remembering what was erased."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rpo_pipeline.errors import DataError
from rpo_pipeline.storage import DAMAGED, first_line, put_in_place, temporary_sibling

FORGOTTEN = Path("03_primary/forgotten.parquet")
"""In a data folder: the prompts that were erased or are to be."""
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
"""Which rows of a batch are meant, as booleans."""


@dataclass
class Traces:
    """What the tables said of a prompt before it was erased."""

    prompts: set[str] = field(default_factory=set)
    """Its text; empty once the erasure is done."""
    row_ids: set[str] = field(default_factory=set)
    origins: set[str] = field(default_factory=set)
    learned_in: set[str] = field(default_factory=set)
    """Environments in which it was in train or validation."""
    is_done: bool = True
    """Whether nothing of it is left to be erased."""

    def add(self, other: "Traces") -> None:
        """Take in what another data folder remembers of the same prompt."""
        for name in _TRACES:
            getattr(self, name).update(getattr(other, name))
        self.is_done &= other.is_done


class Memory:
    """What is known of prompts that were or are to be erased, the same in every data folder.

    Args:
        files: One for each data folder; those that are not there yet are made.
        damaged: Is told of a file that cannot be read; that one is not replaced.

    Raises:
        DataError: If none can be read.
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
        """The traces of a prompt."""
        return self.traces.setdefault(prompt_id, Traces())

    def gathered(self, ids: set[str], name: str) -> set[str]:
        """One kind of traces of some prompts."""
        return {one for prompt_id in ids for one in getattr(self.of(prompt_id), name)}

    def write(self, ids: set[str], *, is_done: bool) -> None:
        """Remember prompts; their texts only for as long as they are needed."""
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
            prepared = temporary_sibling(file)
            pq.write_table(pa.Table.from_pylist(lines, _SCHEMA), prepared)
            put_in_place(prepared, file)


def _read_memory(file: Path) -> dict[str, Traces]:
    if not file.exists():
        return {}
    return {
        line["prompt_id"]: Traces(
            **{name: set(line.get(name) or ()) for name in _TRACES},
            is_done=line.get("is_done", True),  # files of earlier versions hold hashes alone
        )
        for line in pq.read_table(file).to_pylist()
    }


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
