"""Reads files record by record in constant memory; a broken record does not affect others."""

from collections.abc import Iterator
from pathlib import Path

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.archives import COMPRESSIONS
from rpo_pipeline.ingestion.records import WHERE, Record
from rpo_pipeline.ingestion.table_readers import TABLES, read_table
from rpo_pipeline.ingestion.text_readers import TEXTS, read_text

ENDINGS = (
    *TEXTS,
    *(f"{ending}{compression}" for ending in TEXTS for compression in COMPRESSIONS),
    *TABLES,
)


def can_read(name: str) -> bool:
    """Tell whether the ending of a file's name is known, in capitals or not."""
    return name.lower().endswith(ENDINGS)


def read_records(path: Path, encoding: str = "utf-8") -> Iterator[Record]:
    """Read every record of a file with one of the ``ENDINGS``, also those that cannot be used.

    The encoding is that of a text file without a byte order mark. ``DataError`` is raised if the
    ending is unknown, or the file is not of the type that it names.
    """
    if not can_read(path.name):
        raise DataError(
            f"{path} ends in none of {', '.join((*TEXTS, *TABLES))} ({WHERE}; text files may also "
            f"end in {', '.join(COMPRESSIONS)} behind that)"
        )
    if path.stat().st_size == 0:
        return iter(())
    return read_table(path) if path.suffix.lower() in TABLES else read_text(path, encoding)
