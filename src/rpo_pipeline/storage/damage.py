"""Errors of damaged files, which are cut, overwritten, or no files at all."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DAMAGED = (pa.ArrowException, OSError)
"""Errors that pyarrow raises for a file that is no whole Parquet file."""


def first_line(error: BaseException) -> str:
    """Write an error in one line of at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def is_whole_parquet(file: Path) -> bool:
    """Tell whether a file exists and ends like Parquet; its pages are not read."""
    try:
        pq.read_metadata(file)
    except DAMAGED:
        return False
    return True
