"""Files to records, one at a time: one broken record never costs another."""

import codecs
import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import pyarrow as pa
import pyarrow.parquet as pq

from rpo_pipeline.data.quarantine import Reason, RejectedError
from rpo_pipeline.errors import DataError

BATCH_ROWS = 20_000
CHUNK_CHARACTERS = 1 << 16
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CUT_SHORT = (EOFError, gzip.BadGzipFile, OSError)
# From the end of an object in an array to the start of the next.
NEXT_ELEMENT = re.compile(r"\}\s*,\s*(?=\{)")


@dataclass(frozen=True)
class Record:
    """One record as its file holds it."""

    line: int
    raw: str
    fields: dict[str, Any] | Reason
    """Values by name, or why there are none."""


def read_records(path: Path) -> Iterator[Record]:
    """Read a file, or a Hugging Face dataset directory, in memory that does not grow with it.

    Args:
        path: Its ending tells its type.

    Yields:
        Records, numbered by the line where they start, or by their place where a file has no lines;
        from 1.

    Raises:
        DataError: If the ending is unknown, or the file is not what its ending says.
    """
    if path.is_dir():
        return _read_dataset(path)
    for ending, reader in READERS.items():
        if path.name.endswith((ending, f"{ending}.gz")):
            return reader(path)
    raise DataError(
        f"{path} ends in none of {', '.join(READERS)}, and is no directory of a Hugging Face "
        "dataset (ingestion.sources[].path)"
    )


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))


def _encoding(path: Path) -> str:
    with _open(path) as file:
        try:
            return "utf-16" if file.read(2) in UTF_16 else "utf-8-sig"
        except CUT_SHORT:
            return "utf-8-sig"


def _open_text(path: Path, newline: str | None = None) -> io.TextIOWrapper:
    """Bytes that are no text become lone surrogates, which the check of each field rejects."""
    encoding = _encoding(path)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    return io.TextIOWrapper(_open(path), encoding=encoding, errors=errors, newline=newline)


def _read_jsonl(path: Path) -> Iterator[Record]:
    number = 0
    with _open_text(path, newline="\n") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _json_record(number, line.rstrip("\r\n"))
        except CUT_SHORT as err:
            yield Record(number + 1, f"{type(err).__name__}: {err}", Reason.TRUNCATED)


def _json_record(number: int, text: str) -> Record:
    raw = _printable(text)
    if raw != text:
        return Record(number, raw, Reason.INVALID_TEXT)
    try:
        fields = DECODER.decode(text.strip())
        if isinstance(fields, str):  # an object that was encoded twice
            fields = DECODER.decode(fields)
    except RejectedError as rejected:
        return Record(number, raw, rejected.reason)
    except (ValueError, RecursionError):
        return Record(number, raw, Reason.BROKEN_RECORD)
    return Record(number, raw, fields if isinstance(fields, dict) else Reason.NOT_AN_OBJECT)


def _printable(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RejectedError(Reason.DUPLICATE_KEY)
    return fields


def _refuse_constant(_: str) -> NoReturn:
    raise RejectedError(Reason.REWARD_NOT_FINITE)


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
PLAIN_DECODER = json.JSONDecoder()  # where an element ends, whatever is wrong inside


def _read_json_array(path: Path) -> Iterator[Record]:
    """Read the elements of an array; where one is broken, go on at the next that looks like one."""
    with _open_text(path) as file:
        window = _Window(file)
        if not window.skip("["):
            raise DataError(
                f"{path} does not start with [: a .json file holds one array of records; lines of "
                "records are .jsonl (ingestion.sources[].path)"
            )
        number = 0
        while not window.skip("]") and not window.is_empty:
            number += 1
            element = window.take_element()
            if element is None:
                yield Record(number, _printable(window.take_broken()), Reason.BROKEN_RECORD)
            else:
                yield _json_record(number, element)
            window.skip(",")
        if window.cut_short:
            yield Record(number + 1, window.cut_short, Reason.TRUNCATED)


class _Window:
    """The unread part of a file, as much of it as the next element needs."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self._text = ""
        self._ended = False
        self.cut_short = ""
        """Why the file ended before its end; empty if it did not."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing but space is left."""
        while not self._text.strip() and self._grow():
            pass
        return not self._text.strip()

    def skip(self, character: str) -> bool:
        """Go past a character if it comes next."""
        if self.is_empty:
            return False
        self._text = self._text.lstrip()
        found = self._text.startswith(character)
        self._text = self._text[len(character) * found :]
        return found

    def take_element(self) -> str | None:
        """The next value as text; None if it is broken."""
        while True:
            try:
                end = PLAIN_DECODER.raw_decode(self._text)[1]
                # A number at the end may go on.
                if end < len(self._text) or not self._grow():
                    element, self._text = self._text[:end], self._text[end:]
                    return element
            except RecursionError:
                return None
            except json.JSONDecodeError as err:
                may_go_on = err.pos > len(self._text) - 16 or err.msg.startswith("Unterminated")
                if not (may_go_on and self._grow()):
                    return None

    def take_broken(self) -> str:
        """What stands before the next element, or all that is left."""
        start = 0
        while True:
            found = NEXT_ELEMENT.search(self._text, start)
            if found or not self._grow():
                end = found.start() + 1 if found else len(self._text)
                broken, self._text = self._text[:end], self._text[end:]
                return broken
            start = 0

    def _grow(self) -> bool:
        try:
            # Twice as much each time, so that a long element is not decoded again and again.
            more = self._file.read(max(CHUNK_CHARACTERS, len(self._text)))
        except CUT_SHORT as err:
            self.cut_short, more = f"{type(err).__name__}: {err}", ""
        self._text += more
        return bool(more)


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    with _open_text(path, newline="") as file:
        reader = csv.reader(file)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as err:
                yield Record(line, str(err), Reason.BROKEN_RECORD)
                continue
            except CUT_SHORT as err:
                yield Record(line, f"{type(err).__name__}: {err}", Reason.TRUNCATED)
                return
            if header is None:
                header = values
            elif values:
                whole = len(values) == len(header)
                fields = dict(zip(header, values, strict=True)) if whole else Reason.BROKEN_RECORD
                yield Record(line, _printable(",".join(values)), fields)


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as err:
        raise DataError(f"{path} is no Parquet file: {err} (ingestion.sources[].path)") from err
    number = 0
    for batch in file.iter_batches(BATCH_ROWS):
        for fields in batch.to_pylist():
            number += 1
            yield _value_record(number, fields)


def _read_dataset(path: Path) -> Iterator[Record]:
    from datasets import Dataset, load_from_disk  # noqa: PLC0415 (slow, and few sources need it)

    try:
        loaded = load_from_disk(path)
    except (FileNotFoundError, IndexError, ValueError, pa.ArrowInvalid) as err:
        raise DataError(
            f"{path} is no directory of a Hugging Face dataset with rows: {err} "
            "(ingestion.sources[].path: what `save_to_disk` wrote)"
        ) from err
    number = 0
    for part in [loaded] if isinstance(loaded, Dataset) else loaded.values():
        for fields in part.with_format(None):
            number += 1
            yield _value_record(number, fields)


def read_hub(name: str, revision: str) -> Iterator[Record]:
    """Stream a dataset of the Hugging Face hub.

    Args:
        name: ``owner/name``.
        revision: Commit.

    Yields:
        Records, numbered from 1 over all splits.

    Raises:
        DataError: If it cannot be had.
    """
    from datasets import load_dataset  # noqa: PLC0415 (slow, and few sources need it)

    try:
        splits = load_dataset(name, revision=revision, streaming=True)
    except (OSError, ValueError) as err:
        raise DataError(
            f"the dataset {name!r} at revision {revision!r} cannot be read from the hub: "
            f"{str(err).splitlines()[0]} (ingestion.sources[].path and .revision)"
        ) from err
    number = 0
    for split in splits.values():
        for fields in split:
            number += 1
            yield _value_record(number, fields)


def _value_record(number: int, fields: dict[str, Any]) -> Record:
    return Record(number, json.dumps(fields, default=str, ensure_ascii=False), fields)


READERS = {
    ".jsonl": _read_jsonl,
    ".json": _read_json_array,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""By the ending of the file's name; each but Parquet may be followed by ``.gz``."""
