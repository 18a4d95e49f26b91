"""What reading a damaged file ends in: one cut off, filled with something else, or no file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DAMAGED = (pa.ArrowException, OSError)
"""What pyarrow raises for a file that is no whole Parquet file."""


def first_line(error: BaseException) -> str:
    """An error in one line of at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def is_whole_parquet(file: Path) -> bool:
    """Whether a file is there and ends as Parquet does; its pages are not read."""
    try:
        pq.read_metadata(file)
    except DAMAGED:
        return False
    return True
