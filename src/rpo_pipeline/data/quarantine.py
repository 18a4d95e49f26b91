"""Where rows go that cannot be used: with origin, line, reason and the raw text."""

from dataclasses import dataclass
from enum import StrEnum

import pandas as pd
import pyarrow as pa

QUARANTINE_SCHEMA = pa.schema(
    [("origin", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("raw", pa.string())]
)


class Reason(StrEnum):
    """Why a row was quarantined."""

    BROKEN_RECORD = "broken_record"
    """Not JSON, or not readable as its file type."""
    NOT_AN_OBJECT = "not_an_object"
    """Valid JSON that is no object with named fields."""
    DUPLICATE_KEY = "duplicate_key"
    """One object names a field twice."""
    TRUNCATED = "truncated"
    """The file ends inside a compressed block, or before its list does."""
    TOO_LONG = "too_long"
    """Longer than any record should be; only its start is kept."""
    INVALID_TEXT = "invalid_text"
    """Bytes that are not UTF-8, a lone surrogate, or a NUL."""
    MISSING_PROMPT = "missing_prompt"
    """No prompt, or an empty one."""
    MISSING_RESPONSE = "missing_response"
    """No response, or an empty one."""
    NOT_TEXT = "not_text"
    """A prompt or response that is neither text nor the messages of a chat."""
    UNEQUAL_LENGTHS = "unequal_lengths"
    """A group whose responses and rewards differ in number."""
    REWARD_NOT_A_NUMBER = "reward_not_a_number"
    """A rating that is neither a number nor one of the declared values."""
    REWARD_NOT_FINITE = "reward_not_finite"
    """NaN or infinity."""
    REWARD_OFF_SCALE = "reward_off_scale"
    """Outside the declared scale."""
    BAD_TIMESTAMP = "bad_timestamp"
    """Neither ISO 8601 nor seconds, milli- or microseconds since 1970."""
    BAD_BEHAVIOUR_LOGPS = "bad_behaviour_logps"
    """Not a finite number of at most 0."""
    FORGOTTEN = "forgotten"
    """Its prompt was erased on request; the raw text is not kept."""


class RejectedError(Exception):
    """A record that cannot be used; caught where records are read."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True)
class Rejection:
    """One quarantined row."""

    origin: str
    """The file."""
    line: int
    """First line of the record, or its number in a Parquet file; from 1."""
    reason: str
    raw: str
    """The record as it was; undecodable bytes are escaped. Redacted where texts are, and empty for
    a forgotten prompt."""


def quarantine_table(rejections: list[Rejection]) -> pd.DataFrame:
    """Columns origin, line, reason, raw."""
    columns = ["origin", "line", "reason", "raw"]
    return pd.DataFrame(rejections, columns=columns).astype(
        {"origin": "str", "line": "int64", "reason": "str", "raw": "str"}
    )
