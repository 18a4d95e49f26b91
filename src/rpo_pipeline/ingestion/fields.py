"""Reads the fields of a record: by name, as a missing value, a number or an instant.

Logs come through pandas, databases and spreadsheets, so one value is written in many ways: an
object may be JSON text or a list of pairs, and a missing number may be ``nan``.
"""

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from rpo_pipeline.ingestion.quarantine import Reason, RejectedError

ABSENT: Final = object()
"""Value of ``look_up`` that tells a missing field from a null."""

MISSING_WORDS = frozenset(
    ["", *r"nan -nan null none na n/a #n/a <na> nat \n undefined".split()]  # \n as a word
)
"""How pandas, databases and spreadsheets write a missing value, in lower case."""
LONGEST_MISSING = max(map(len, MISSING_WORDS))

MAX_LITERAL = 2**20
"""Characters of the longest Python literal that is read; parsing takes a hundred times as much."""

EPOCH = re.compile(r"\d{9,}(\.\d*)?|\d\.\d+[eE]\+?(?:0?9|1\d)")
"""A number of seconds (or parts of them) since 1970; eight digits are a date instead."""
NUMBERS = (int, float, str, Decimal)
ZONED = re.compile(
    r"(?P<time>\d{4}.*?\d)\s*(?P<offset>[+-]\d{2}(?::?\d{2})?)?\s*"
    r"(?:\[?(?P<zone>UTC|GMT|Z|[A-Za-z_]+/[A-Za-z0-9_/+-]+)\]?)?"
)
"""A time followed by its zone, as BigQuery, Trino, Java and Go write it."""
RFC_2822 = re.compile(
    r"(?:[A-Za-z]{3}, ?)?\d{1,2} [A-Za-z]{3} \d{4} \d\d:\d\d(?::\d\d)?"
    r" ?(?:[+-]\d{4}|UTC?|GMT|Z|[ECMP][SD]T)?"
)
WRITTEN = ("%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y")
"""Formats of times that web servers, Twitter and ``ctime`` write."""


def look_up(record: Mapping[str, Any], name: str, absent: object = None) -> Any:  # noqa: ANN401
    """Find a field by its name, or by a path of names with dots between them.

    Objects on the path may also be JSON text, or lists of keys with values. ``absent`` is returned
    if the record has no such field.
    """
    if name in record:
        return record[name]
    if "." not in name:
        return absent
    value: Any = record
    for part in name.split("."):
        value = as_object(value)
        if not isinstance(value, Mapping) or part not in value:
            return absent
        value = value[part]
    return value


def as_object(value: Any) -> Any:  # noqa: ANN401 (whatever the log holds)
    """Restore an object that was written as text, or as a list of keys with their values."""
    value = unpack(value)
    if not isinstance(value, list) or not value:
        return value
    pairs: Sequence[Any] = value
    for key in ("key", "name"):
        if all(isinstance(item, Mapping) and {key, "value"} <= item.keys() for item in value):
            pairs = [(item[key], item["value"]) for item in value]
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        return value
    named = {str(key): one for key, one in pairs}
    return named if len(named) == len(pairs) else value


def unpack(value: Any) -> Any:  # noqa: ANN401 (any value that JSON can say)
    """Restore a list or object that was written as text, in JSON or as a Python literal."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return _literal(value)


def list_of(value: object) -> list[Any]:
    """The items of a list or of a text that spells one; a ``RejectedError`` without any."""
    unpacked = unpack(value)
    if not isinstance(unpacked, list):
        raise RejectedError(Reason.NOT_A_LIST)
    if not unpacked:
        raise RejectedError(Reason.MISSING_RESPONSE)
    return unpacked


def _literal(text: str) -> object:
    """Parse a Python literal, which is how pandas writes lists and objects to a CSV file."""
    if len(text) > MAX_LITERAL or not text.rstrip().endswith(("]", "}")):
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash in the text makes Python warn
            value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
    return value if isinstance(value, list | dict) else text


def is_missing(value: object) -> bool:
    """Tell whether a field holds no value, in any of the ways that this is written."""
    if value is None:
        return True
    if isinstance(value, str):
        word = value.strip()
        return len(word) <= LONGEST_MISSING and word.casefold() in MISSING_WORDS
    return value != value  # NaN alone is not equal to itself


def plain(value: Any) -> Any:  # noqa: ANN401
    """Unwrap the objects by which MongoDB names a type, such as ``{"$numberInt": "5"}``."""
    while isinstance(value, dict) and len(value) == 1 and next(iter(value)).startswith("$"):
        value = next(iter(value.values()))
    return value


def read_number(value: object) -> float | None:
    """Read a number, also from text; the result is None if it is none, infinite if too large."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        return None
    if isinstance(value, str) and "_" in value:  # Python's way of writing 1000 as 1_000
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return float("inf")


def read_time(value: object) -> datetime | None:
    """Read an instant, in UTC; the result is None if the value cannot be read as one.

    The value may be ISO 8601 (UTC unless it names a zone), a number since 1970 (in seconds, milli-,
    micro- or nanoseconds), or a time as databases, mails and web servers write it. Dates whose day
    and month could be exchanged are not read.
    """
    value = plain(value)
    try:
        if isinstance(value, datetime):
            time = value
        elif isinstance(value, NUMBERS) and EPOCH.fullmatch(text := str(value).strip()):
            return _since_1970(float(text))
        else:
            time = _read_text(str(value).strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError, KeyError):
        return None


def _since_1970(number: float) -> datetime | None:
    """Read a number in the unit, from seconds to nanoseconds, that gives a year of 1973 to 5138."""
    seconds = (number / unit for unit in (1, 1e3, 1e6, 1e9))
    return next((datetime.fromtimestamp(one, UTC) for one in seconds if 1e8 <= one < 1e11), None)


def _read_text(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if len(text) > 99:  # no time is so long, and the expressions below are slow on long texts
            raise
    if match := ZONED.fullmatch(text):
        time = match["time"].replace("/", "-", 2) + (match["offset"] or "")
        read = datetime.fromisoformat(time)
        zone = match["zone"]
        if zone is None or match["offset"]:
            return read
        return read.replace(tzinfo=ZoneInfo(zone) if "/" in zone else UTC)
    if RFC_2822.fullmatch(text):
        return parsedate_to_datetime(text)
    for form in WRITTEN:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise ValueError(text)
