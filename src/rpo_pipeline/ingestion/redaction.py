"""Redacts e-mail addresses, phone and card numbers before a text is stored."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import ibis
import pandas as pd
from ibis.expr.types import Table, Value

from rpo_pipeline.ingestion.chats import parse_prompt, write_prompt
from rpo_pipeline.params import RedactionParams

Redact = Callable[[str], str]

PLACEHOLDERS = {"email": "<EMAIL>", "card": "<CARD>", "phone": "<PHONE>"}
"""Placeholders in the order of redaction: addresses may hold numbers, and cards phone numbers."""

# The lookbehind and the possessive quantifiers make the pattern read each run of characters once,
# so that the time grows with the length of the text, not with its square.
_EMAIL = re.compile(
    r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]++@(?:[\w-]++\.)+[^\W\d_][\w-]*+"
)
_GAP = "[ \u00a0.-]"
# Digits as cards show them (4-4-4-4-3, 4-4-4-4, 4-6-5 and 4-6-4, one run), the longest first.
_CARDS = [
    re.compile(rf"(?<![0-9]){digits}(?![0-9])")
    for digits in (
        rf"[2-6][0-9]{{3}}({_GAP})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{3}}",
        rf"[2-6][0-9]{{3}}({_GAP})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}",
        rf"3[0-9]{{3}}({_GAP})[0-9]{{6}}\1[0-9]{{4,5}}",
        r"[2-6][0-9]{12,18}",
    )
]
# A text with fewer digits holds no phone number; this test avoids the slow search.
_MAYBE_PHONE = re.compile(r"\d(?:[^\d\n]{0,4}\d){5}")
_ESCAPE = re.compile(r'\\(?:u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|["/bfnrt])')


@dataclass(frozen=True)
class Privacy:
    """What is redacted from texts, and which prompts are forgotten."""

    redaction: RedactionParams | None = None
    """Kinds of personal data to redact; None for no redaction."""
    forgotten: frozenset[str] = frozenset()
    """prompt_id of prompts that were erased on request."""

    @cached_property
    def redact(self) -> Redact:
        """Function that redacts a text before it is hashed or stored."""
        return build_redactor(self.redaction)

    def redact_prompt(self, prompt: str) -> str:
        """Redact a prompt; each message of a chat is redacted without the escapes of its JSON."""
        parsed = parse_prompt(prompt)
        if self.redaction is None or isinstance(parsed, str):
            return self.redact(prompt)
        return write_prompt([{**turn, "content": self.redact(turn["content"])} for turn in parsed])


def build_redactor(settings: RedactionParams | None) -> Redact:
    """Build the function that replaces personal data in a text by placeholders.

    Without settings it changes nothing. A second redaction changes nothing.
    """
    if settings is None:
        return lambda text: text
    makers: dict[str, Callable[[RedactionParams], Redact]] = {
        "email": _emails,
        "card": _cards,
        "phone": _phones,
    }
    steps = [makers[kind](settings) for kind in PLACEHOLDERS if kind in settings.entities]

    def redact(text: str) -> str:
        before = None
        while text != before:  # a replaced address may have hidden the start of another
            before = text
            for step in steps:
                text = step(text)
        return text

    return redact


def redact_raw(raw: str, redact: Redact) -> str:
    """Redact the raw text of a record, in which JSON may escape characters.

    The text is the same if nothing was found; otherwise JSON's escapes are resolved in it.
    """
    plain = _ESCAPE.sub(lambda escape: str(json.loads(f'"{escape[0]}"')), raw)
    redacted = redact(plain)
    return raw if redacted == plain else redacted


def count_redactions(
    rows: Table, quarantine: pd.DataFrame, settings: RedactionParams | None
) -> dict[str, object]:
    """Count the placeholders in prompts and responses of all rows, and in quarantined texts.

    The rows include those that earlier runs read. The result holds ``entities`` and ``regions`` of
    the settings (empty without any); ``rows`` and ``quarantine``, the number of placeholders of
    each kind in them; ``num_rows``, the number of rows with any placeholder.
    """
    if settings is None:
        return {"entities": [], "regions": [], "rows": {}, "quarantine": {}, "num_rows": 0}
    marks = {kind: mark for kind, mark in PLACEHOLDERS.items() if kind in settings.entities}
    texts = rows.prompt + "\n" + rows.response
    counts = {kind: _occurrences(texts, mark) for kind, mark in marks.items()}
    touched = sum(counts.values(), start=ibis.literal(0)) > 0
    totals = rows.aggregate(
        num_rows=touched.sum(), **{kind: count.sum() for kind, count in counts.items()}
    )
    found = totals.execute().fillna(0).astype(int).iloc[0].to_dict()
    num_rows = found.pop("num_rows")
    raw = quarantine["raw"].astype(str)
    return {
        "entities": settings.entities,
        "regions": settings.regions,
        "rows": found,
        "quarantine": {kind: int(raw.str.count(mark).sum()) for kind, mark in marks.items()},
        "num_rows": num_rows,
    }


def _occurrences(texts: Value, mark: str) -> Value:
    return (texts.length() - texts.replace(mark, "").length()) / len(mark)


def _emails(_: RedactionParams) -> Redact:
    return lambda text: _EMAIL.sub(PLACEHOLDERS["email"], text) if "@" in text else text


def _cards(_: RedactionParams) -> Redact:
    from stdnum import luhn  # noqa: PLC0415 (an extra)

    def check(match: re.Match[str]) -> str:
        digits = re.sub("[^0-9]", "", match[0])
        return PLACEHOLDERS["card"] if luhn.is_valid(digits) else match[0]

    def redact(text: str) -> str:
        for pattern in _CARDS:
            text = pattern.sub(check, text)
        return text

    return redact


def _phones(settings: RedactionParams) -> Redact:
    import phonenumbers  # noqa: PLC0415 (an extra)

    regions = settings.regions or ["ZZ"]  # the unknown region: only numbers that begin with +

    def redact(text: str) -> str:
        if not _MAYBE_PHONE.search(text):
            return text
        for region in regions:
            found = phonenumbers.PhoneNumberMatcher(text, region, max_tries=sys.maxsize)
            for match in reversed(list(found)):
                text = text[: match.start] + PLACEHOLDERS["phone"] + text[match.end :]
        return text

    return redact
