"""Reads records of text files: JSON Lines, JSON and CSV, in any encoding."""

import codecs
import csv
import io
import json
import re
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.archives import READ_ERRORS, open_binary, without_compression
from rpo_pipeline.ingestion.json_stream import ElementSplitter
from rpo_pipeline.ingestion.quarantine import Reason, RejectedError
from rpo_pipeline.ingestion.records import WHERE, Record, escape, refuse_repeated_names

MAX_RECORD = 2**26
"""Characters of the longest record; a longer one is a sign of another type or lost line ends."""
KEPT_OF_TOO_LONG = 2**16
"""Characters that quarantine keeps of a longer record."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it starts with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
NULS = {
    "utf-16-le": [False, True, False, True],
    "utf-16-be": [True, False, True, False],
    "utf-32-le": [False, True, True, True],
    "utf-32-be": [True, True, True, False],
}
"""Which of the first four bytes are NUL in a file without a byte order mark."""
WITH_MARKS = {"utf-8": "utf-8", "utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}
"""Encodings whose files may have a byte order mark, and the encoding to use without one."""
DELIMITERS = ",;\t|"
QUOTED = re.compile(r'"(?:[^"]|"")*(?:"|$)')
NAMED_DELIMITER = re.compile(r"sep=(.)\s*", re.IGNORECASE)
"""First line of a CSV file in which Excel names the delimiter."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RejectedError(Reason.DUPLICATE_KEY)
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=_unique)
PLAIN_DECODER = json.JSONDecoder()


class Line(NamedTuple):
    """A line of a text file."""

    number: int
    text: str
    is_whole: bool


def read_text(path: Path, encoding: str) -> Iterator[Record]:
    """Read every record of a file, also those that cannot be used.

    The file's name ends in one of ``TEXTS``, or in that and the ending of a compression. Python's
    name of the encoding counts if there is no byte order mark. ``DataError`` is raised if the
    header of a CSV file cannot be used.
    """
    name = without_compression(path.name.lower())
    reader = next(reader for ending, reader in TEXTS.items() if name.endswith(ending))
    with _open_text(path, encoding, newline="" if reader is _read_csv else "\n") as file:
        yield from reader(file)


def _open_text(path: Path, encoding: str, newline: str) -> TextIO:
    """Open a file without translating line ends; undecodable bytes become lone surrogates."""
    with open_binary(path) as file:
        try:
            start = file.read(4)
        except READ_ERRORS:  # the reader meets the error again and reports it
            start = b""
    encoding = _find_encoding(start, encoding)
    return io.TextIOWrapper(open_binary(path), encoding, errors="keep_invalid", newline=newline)


def _find_encoding(start: bytes, named: str) -> str:
    """Find the encoding by the byte order mark, by NUL bytes (of a named UTF), or by its name."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return encoding
    if named not in WITH_MARKS:
        return named
    # Files without a mark start with a bracket, a quote or a column name, which are ASCII.
    nul = [byte == 0 for byte in start]
    return next((encoding for encoding, nuls in NULS.items() if nuls == nul), WITH_MARKS[named])


def _keep_invalid(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    invalid = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in invalid), error.end


codecs.register_error("keep_invalid", _keep_invalid)


def _lines(file: TextIO) -> Iterator[Line]:
    number = 0
    while line := file.readline(MAX_RECORD):
        number += 1
        is_whole = True
        if len(line) == MAX_RECORD and not line.endswith("\n"):
            is_whole, line = False, line[:KEPT_OF_TOO_LONG]
            while (rest := file.readline(MAX_RECORD)) and not rest.endswith("\n"):
                pass
        yield Line(number, line.lstrip("\ufeff"), is_whole)


def _read_jsonl(file: TextIO) -> Iterator[Record]:
    number = 0
    try:
        for number, line, is_whole in _lines(file):
            if line.strip():
                yield from _joined(_json_record(number, line.rstrip("\r\n"), is_whole))
    except READ_ERRORS as err:
        yield _truncated(number + 1, err)


def _read_json(file: TextIO) -> Iterator[Record]:
    elements = ElementSplitter(file, MAX_RECORD)
    try:
        for line, text, is_whole in elements:
            yield _json_record(line, text if is_whole else text[:KEPT_OF_TOO_LONG], is_whole)
    except READ_ERRORS as err:
        yield _truncated(elements.line, err)
    else:
        if elements.is_open:
            yield Record(elements.line, "the list is not closed", Reason.TRUNCATED)


def _truncated(line: int, err: Exception) -> Record:
    return Record(line, escape(f"{type(err).__name__}: {err}"), Reason.TRUNCATED)


def _json_record(line: int, text: str, is_whole: bool) -> Record:
    if not text.isascii():
        escaped = escape(text)
        if escaped != text:
            return Record(line, escaped, Reason.INVALID_TEXT)
    if not is_whole:
        return Record(line, text, Reason.TOO_LONG)
    try:
        fields = DECODER.decode(text)
        if isinstance(fields, str):  # an object that was written as JSON twice
            fields = DECODER.decode(fields)
    except RejectedError as rejected:
        return Record(line, text, rejected.reason)
    except (ValueError, RecursionError):
        return Record(line, text, Reason.BROKEN_RECORD)
    return Record(line, text, fields if isinstance(fields, dict) else Reason.NOT_AN_OBJECT)


def _joined(record: Record) -> Iterator[Record]:
    """Split a line that holds several objects, as when files without a last line end are joined."""
    text, start = record.text or "", 0
    while record.fields is Reason.BROKEN_RECORD and (end := _next_object(text, start)):
        yield _json_record(record.line, text[start:end].strip(), is_whole=True)
        start = end
    if start:
        record = _json_record(record.line, text[start:].strip(), is_whole=True)
    yield record


def _next_object(text: str, start: int) -> int | None:
    """Return the end of the object that starts here if another one follows it, else None."""
    try:
        end = PLAIN_DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None
    while text[end : end + 1].isspace():
        end += 1
    return end if text.startswith("{", start) and text.startswith("{", end) else None


class CsvLines:
    """Lines of a CSV file; lines that a broken record consumed can be read again."""

    def __init__(self, file: TextIO) -> None:
        self.used: list[Line] = []
        """Lines of the current record."""
        self._lines = _lines(file)
        self._again = deque(islice(self._lines, 1))
        named = NAMED_DELIMITER.fullmatch(self._again[0].text) if self._again else None
        if named:
            self._again = deque(islice(self._lines, 1))
        header = QUOTED.sub("", self._again[0].text) if self._again else ""
        likely = "\t" if ".tsv" in Path(file.name).name.lower() else DELIMITERS
        delimiter = named[1] if named else max(likely, key=header.count)
        self._dialect: dict[str, Any] = {
            "delimiter": delimiter,
            "strict": True,
            # A header with a space before every name implies a space before every value.
            "skipinitialspace": header.count(delimiter) == header.count(f"{delimiter} ") > 0,
        }

    def next_record(self) -> list[str] | None:
        """Return the values of the next record, or None at the end of the file."""
        self.used = []
        return next(csv.reader(self._feed(), **self._dialect), None)

    def give_back(self) -> None:
        """Keep only the first line of the current record."""
        self._again.extendleft(reversed(self.used[1:]))
        del self.used[1:]

    def _feed(self) -> Iterator[str]:
        length = 0
        while length < MAX_RECORD:
            line = self._again.popleft() if self._again else next(self._lines, None)
            if line is None:
                return
            self.used.append(line)
            length += len(line.text)
            yield line.text


def _read_csv(file: TextIO) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    line = 0
    try:
        lines = CsvLines(file)
        header = _names(lines.next_record() or [])
        refuse_repeated_names(header, file.name)
        while True:
            try:
                values = lines.next_record()
            except csv.Error:
                lines.give_back()
                values = ["broken"] * (len(header) + 1)
            if values is None:
                return
            line = lines.used[-1].number
            if values:
                yield _csv_record(header, values, lines.used)
    except READ_ERRORS as err:
        yield _truncated(line + 1, err)
    except csv.Error as err:
        raise DataError(f"{file.name}: the header is no CSV: {err} ({WHERE})") from err


def _names(header: list[str]) -> list[str]:
    """Remove spaces around the names of the header, unless this makes two of them equal."""
    names = [name.strip() for name in header]
    return names if len(set(names)) == len(set(header)) else header


def _csv_record(header: list[str], values: list[str], lines: list[Line]) -> Record:
    text = "".join(line.text for line in lines).rstrip("\r\n")
    raw = text if text.isascii() else escape(text)
    fields: dict[str, Any] | Reason = dict(zip(header, values, strict=False))
    if raw != text:
        fields = Reason.INVALID_TEXT
    elif not all(line.is_whole for line in lines):
        fields = Reason.TOO_LONG
    elif len(values) != len(header):
        fields = Reason.BROKEN_RECORD
    return Record(lines[0].number, raw, fields)


TEXTS = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".jsonlines": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}
