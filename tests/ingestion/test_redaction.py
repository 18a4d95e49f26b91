"""Personal data leaves a text before it is hashed or stored."""

import json
import time

import ibis
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.ingestion.chats import parse_prompt
from rpo_pipeline.ingestion.quarantine import Reason, RejectedError
from rpo_pipeline.ingestion.redaction import Privacy, build_redactor, count_redactions, redact_raw
from rpo_pipeline.ingestion.rows import parse_record, prompt_key
from rpo_pipeline.params import RedactionParams, SourceParams
from tests.conftest import read_log

ALL = RedactionParams(entities=["email", "phone", "card"], regions=["US", "FR"])
redact = build_redactor(ALL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to Bob.Smith+x@mail.example.co.uk.", "write to <EMAIL>."),
        ("müller@bücher.example, (a@b.io)", "<EMAIL>, (<EMAIL>)"),
        ("https://x.io/?to=mailto:bob@example.com", "https://x.io/?to=mailto:<EMAIL>"),
        ("call (415) 555-2671 or 06 12 34 56 78!", "call <PHONE> or <PHONE>!"),
        ("from abroad +49 30 901820", "from abroad <PHONE>"),
        ("card 4111 1111 1111 1111 123", "card <CARD> 123"),
        ("4111-1111-1111-1111, 378282246310005", "<CARD>, <CARD>"),
        ("3782 822463 10005 and 5555555555554444", "<CARD> and <CARD>"),
        ("4155552671@example.com", "<EMAIL>"),
    ],
)
def test_addresses_phone_and_card_numbers_become_placeholders(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "bob@localhost met @alice at 5 p.m.",
        "4111 1111 1111 1112 fails Luhn's check",
        "order 20240117-99812 of 2024-01-17 10:00, 3.14159265358979",
        "the <EMAIL> of <PHONE>",
    ],
)
def test_other_text_stays_as_it_is(text):
    assert redact(text) == text


def test_only_the_named_kinds_are_redacted_and_national_numbers_need_their_region():
    text = "bob@example.com 06 12 34 56 78 +33 6 12 34 56 78"
    phone = build_redactor(RedactionParams(entities=["phone"]))
    assert phone(text) == "bob@example.com 06 12 34 56 78 <PHONE>"
    assert build_redactor(None)(text) == text


PIECES = ["bob@example.com", "+33612345678", "4111 1111 1111 1111", " ", "x", ",", "\n", "é", "7"]


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text())
def test_redacting_twice_changes_nothing_more(text):
    assert redact(redact(text)) == redact(text)


@given(st.text(alphabet="abc .,!é\n"), st.text(alphabet="abc .,!é\n"))
def test_what_stands_around_an_address_is_kept(before, after):
    address = "bob@example.com"
    assert redact(f"{before} {address} {after}") == f"{before} <EMAIL> {after}"


@pytest.mark.parametrize("text", ["a" * 10**6, "a." * 10**6 + "@", "a@" * 10**5, "7 " * 30_000])
def test_a_megabyte_of_anything_is_read_in_seconds(text):
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 10


def test_ids_are_of_the_redacted_text():
    record = {"prompt": "I am bob@example.com", "response": "Hi bob@example.com"}
    row = parse_record(record, SourceParams(path="log.jsonl"), Privacy(ALL))
    assert (row["prompt"], row["response"]) == ("I am <EMAIL>", "Hi <EMAIL>")
    assert row["prompt_id"] == prompt_key("I am <EMAIL>")


def test_every_message_of_a_chat_is_redacted_and_it_stays_a_chat():
    chat = [
        {"role": "system", "content": "Be kind.\n06 12 34 56 78"},
        {"role": "user", "content": 'I am "bob@example.com"'},
    ]
    record = {"prompt": chat, "response": "Hi"}
    row = parse_record(record, SourceParams(path="log.jsonl"), Privacy(ALL))
    assert [turn["content"] for turn in parse_prompt(row["prompt"])] == [
        "Be kind.\n<PHONE>",
        'I am "<EMAIL>"',
    ]


def test_a_record_of_a_forgotten_prompt_is_rejected_as_that_whatever_else_is_wrong_with_it():
    record = {"prompt": "I am bob@example.com", "response": "", "reward": "x"}
    with pytest.raises(RejectedError) as rejected:
        parse_record(
            record,
            SourceParams(path="log.jsonl"),
            Privacy(ALL, frozenset({prompt_key("I am <EMAIL>")})),
        )
    assert rejected.value.reason is Reason.FORGOTTEN


def test_escapes_do_not_hide_anything_in_raw_text():
    raw = json.dumps({"prompt": "bob@example.com\n06 12 34 56 78"}).replace("@", "\\u0040")
    assert redact_raw(raw, redact) == '{"prompt": "<EMAIL>\n<PHONE>"}'
    assert redact_raw('{"prompt": "a\\n\\ud800"', redact) == '{"prompt": "a\\n\\ud800"'


def test_nothing_that_is_stored_holds_what_was_redacted_and_it_is_counted(tmp_path):
    secret = "bob@example.com"
    records = [
        {"prompt": f"I am {secret}", "response": f"Hi {secret}", "reward": 1},
        {"prompt": "Hello", "response": "Hi", "reward": 1},
        {"prompt": f"I am {secret}", "response": "", "reward": 1},
    ]
    lines = [*map(json.dumps, records), f'{{"prompt": "{secret}']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    source = SourceParams(path=str(tmp_path / "log.jsonl"))
    rows, quarantine = read_log(source, folder=tmp_path / "parts", privacy=Privacy(ALL))
    assert secret not in str(rows.to_pylist()) + str(quarantine.to_dict())
    counted = count_redactions(ibis.memtable(rows), quarantine, ALL)
    assert counted["rows"] == {"email": 2, "card": 0, "phone": 0}
    assert counted["quarantine"] == {"email": 2, "card": 0, "phone": 0}
    assert counted["num_rows"] == 1


def test_without_redaction_nothing_is_counted():
    empty = ibis.memtable({"prompt": ["<EMAIL>"], "response": ["x"]})
    assert count_redactions(empty, pd.DataFrame({"raw": []}), None)["rows"] == {}
