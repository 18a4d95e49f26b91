"""A record as its file holds it, before it is parsed into rows."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.quarantine import Reason

WHERE = "ingestion.sources[].path"
"""Parameter that names the files to read, for messages."""

MISSING_PARTITION = "__HIVE_DEFAULT_PARTITION__"
INVALID_BYTE = re.compile("[\udc00-\udcff]")


class Record(NamedTuple):
    """One record as its file holds it."""

    line: int
    """First line, or number of the row in a Parquet or Arrow file; from 1."""
    text: str | None
    """Raw text, of a record in a text file."""
    fields: dict[str, Any] | Reason
    """Values by name, or the reason why it cannot be used."""

    @property
    def raw(self) -> str:
        """The record as text for quarantine."""
        if self.text is not None:
            return self.text
        return json.dumps(self.fields, default=str, ensure_ascii=False)


def partition_fields(path: str) -> dict[str, str]:
    """Read the fields in the folder names of a partitioned log, such as Hive's ``date=2026-11-01``.

    The values are decoded; those that Hive marks as missing are left out.
    """
    pairs = [folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder]
    return {name: unquote(value) for name, value in pairs if value != MISSING_PARTITION}


def refuse_repeated_names(names: Sequence[str], path: str | Path) -> None:
    """Raise ``DataError`` if two columns have one name, because a name must mean one column."""
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        raise DataError(f"{path} has more than one column {repeated[0]!r} ({WHERE})")


def escape(text: str) -> str:
    r"""Escape what UTF-8 cannot hold: invalid bytes as ``\xff``, lone surrogates as ``\ud800``."""
    text = INVALID_BYTE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
    return text.encode(errors="backslashreplace").decode()
