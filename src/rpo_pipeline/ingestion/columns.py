"""Checks that the columns which a source names are in its records.

A name that no record has is an error, because every row would lose its rating or its time; the
message lists the names that exist.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from typing import Any

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.fields import ABSENT, as_object, look_up
from rpo_pipeline.params import SourceParams

logger = logging.getLogger(__name__)

NAMED_RECORDS = 50
"""Number of records whose field names are kept for messages."""
MAX_NAMES, MAX_NAME = 40, 60
AT_MOST_NAMED = 3
"""Number of files that a message names."""


@dataclass
class Columns:
    """The columns that a source names, and whether a file has them."""

    unseen: set[str]
    """Columns that no record has had so far."""
    fields: dict[str, None] = field(default_factory=dict)
    """Names of fields, in the order in which they were met."""
    num_records: int = 0

    def note(self, *records: Mapping[str, Any]) -> None:
        """Note which missing columns a record has, given as in its file and as flat record."""
        if self.num_records < NAMED_RECORDS:
            self.num_records += 1
            for name in chain.from_iterable(map(_names_in, records)):
                if len(self.fields) < MAX_NAMES:
                    self.fields[name[:MAX_NAME]] = None
        self.unseen -= {
            name
            for name in self.unseen
            if any(look_up(record, name, ABSENT) is not ABSENT for record in records)
        }


def _names_in(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of a record's fields, and the paths to those of its objects."""
    for name, value in record.items():
        yield str(name)
        inner = as_object(value)
        if isinstance(inner, Mapping):
            yield from (f"{name}.{below}" for below in inner)


def named_columns(source: SourceParams, *, holds_ratings: bool) -> set[str]:
    """Return the columns that a source names for its logs, or for its files of ratings."""
    names = _ratings(source) | ({source.key} if source.key else set())
    ours = {"timestamp"} if holds_ratings else source.columns.keys()
    return names | {source.columns[name] for name in ours if name in source.columns}


def suggest(name: str, fields: Iterable[str]) -> str:
    """Return `` (did you mean 'rating'?)``, or an empty text if no field has a similar name."""
    plain = {one.strip().casefold(): one for one in fields}
    close = get_close_matches(name.strip().casefold(), plain, n=1)
    return f" (did you mean {plain[close[0]]!r}?)" if close else ""


def check_columns(
    source: SourceParams, files: Sequence[Mapping[str, Any]], *, with_ratings: bool = True
) -> None:
    """Refuse a source that names a column which none of its records has, by a ``DataError``.

    Each of the files with records is given by ``path``, ``holds_ratings``, ``unseen`` and
    ``fields``. A missing column of ratings is no error for a source without any row: its prompts or
    responses are wrong, which a later check reports.
    """
    logs = [file for file in files if not file["holds_ratings"]]
    later = [file for file in files if file["holds_ratings"]]
    _check(source, named_columns(source, holds_ratings=False) - _ratings(source), logs)
    if source.ratings_path is None:
        if with_ratings:
            _check(source, _ratings(source), logs)
    elif later:
        _check(source, {source.key or ""}, later)
        _check(source, _ratings(source), files, may_lack=logs)


def _ratings(source: SourceParams) -> set[str]:
    return {rating.column for rating in source.ratings or ()}


def _check(
    source: SourceParams,
    names: Iterable[str],
    files: Sequence[Mapping[str, Any]],
    may_lack: Sequence[Mapping[str, Any]] = (),
) -> None:
    for name in sorted(names):
        without = [file for file in files if name in file["unseen"]]
        if files and len(without) == len(files):
            fields = list(dict.fromkeys(one for file in files for one in file["fields"]))
            raise DataError(
                f"no record of {source.path} has the column {name!r}{suggest(name, fields)}; the "
                f"fields are {', '.join(fields)} (ingestion.sources[].ratings, .columns and .key "
                "name columns; take out what is not logged yet)"
            )
        missing = [file["path"] for file in without if file not in may_lack]
        if missing:
            logger.warning(
                "%s: %d of %d files have no column %r, such as %s",
                source.path,
                len(missing),
                len(files),
                name,
                ", ".join(missing[:AT_MOST_NAMED]),
            )
