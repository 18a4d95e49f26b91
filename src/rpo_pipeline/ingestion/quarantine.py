"""Quarantine holds the records that cannot be used, each with origin, line, reason and raw text."""

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum

import pandas as pd
import pyarrow as pa

QUARANTINE_SCHEMA = pa.schema(
    [
        ("origin", pa.string()),  # the file
        ("line", pa.int64()),  # line on which the record starts, or its number in a table; from 1
        ("reason", pa.string()),
        ("raw", pa.string()),  # the record as it was; undecodable bytes are escaped
    ]
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
    """A record or text above the largest length; only its start is kept."""
    INVALID_TEXT = "invalid_text"
    """Bytes that are not UTF-8, a lone surrogate, or a NUL."""
    MISSING_PROMPT = "missing_prompt"
    """No prompt, or an empty one; a chat in which no user says anything."""
    MISSING_RESPONSE = "missing_response"
    """No response, or an empty one."""
    TOOL_CALL = "tool_call"
    """A response that calls a tool instead of answering."""
    NOT_TEXT = "not_text"
    """A prompt or response that is no text."""
    NOT_A_LIST = "not_a_list"
    """No list where the format has one, such as ``responses``."""
    UNEVEN_LISTS = "uneven_lists"
    """Lists of responses and rewards of different lengths."""
    NOT_A_CHAT = "not_a_chat"
    """Messages without a role or a text."""
    REWARD_NOT_A_NUMBER = "reward_not_a_number"
    """A rating that is neither a number nor one of the declared values."""
    REWARD_NOT_FINITE = "reward_not_finite"
    """A rating that is infinite."""
    REWARD_OFF_SCALE = "reward_off_scale"
    """A rating outside the declared scale."""
    REWARD_OUT_OF_RANGE = "reward_out_of_range"
    """A rating absurdly far from the others of its column, or above 1e38."""
    BAD_BEHAVIOUR_LOGPS = "bad_behaviour_logps"
    """A behaviour_logps that is not a finite number of at most 0."""
    MISSING_RATING = "missing_rating"
    """A record of a ratings file that rates nothing."""
    UNKNOWN_RESPONSE = "unknown_response"
    """A rating whose response_id no log has, or several different responses have."""
    FORGOTTEN = "forgotten"
    """Its prompt was erased on request; the raw text is not kept."""
    CONFLICTING_REWARDS = "conflicting_rewards"
    """Ratings of one row that differ, under ``ingestion.conflicts: quarantine``."""


class RejectedError(Exception):
    """Signals a record that cannot be used; parts.py catches it and quarantines the record."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def reject_rows(reason: Reason, rows: Iterable[tuple[str, Mapping[str, object]]]) -> pa.Table:
    """Write rows, each as its origin (``file:line``) and its fields, for quarantine."""
    lines = []
    for origin, fields in rows:
        file, _colon, line = origin.rpartition(":")
        raw = json.dumps(fields, ensure_ascii=False)
        lines.append({"origin": file, "line": int(line), "reason": reason.value, "raw": raw})
    return pa.Table.from_pylist(lines, QUARANTINE_SCHEMA)


def quarantine_table(rejected: pa.Table) -> pd.DataFrame:
    """Convert a table of ``QUARANTINE_SCHEMA`` to pandas."""
    table: pd.DataFrame = rejected.to_pandas()
    return table.astype({"origin": "str", "line": "int64", "reason": "str", "raw": "str"})
