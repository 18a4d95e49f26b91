"""What a judge may write without holding a run up."""

import json
import time

import pytest

from rpo_pipeline.judge.client import Preference
from rpo_pipeline.judge.texts import fence, read_answer, request_texts

HOSTILE = {
    "objects within objects": '{"a":' * 20_000,
    "lists within lists": '{"a":' + "[" * 100_000,
    "lists within lists, short enough to be looked at": '{"a":' + "[" * 40_000,
    "a number of 5,000 digits": '{"better": ' + "9" * 5000 + "}",
    "braces without end": '{"a":1 ' * 20_000,
    "braces, short enough to be looked at": '{"a":1 ' * 7000,
    "objects that do not end": '{"a":' * 3000,
    "strings that do not end": '{"' * 9000,
    "infinity": '{"better": Infinity}',
    "nothing": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_of_any_depth_size_or_number_is_no_answer_in_a_moment(name):
    started = time.monotonic()
    assert read_answer(HOSTILE[name], Preference) is None
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ('{"better": "A"} No: {"better": "B"}.', "B"),
        ('In \\frac{a}{b} terms, {"better": "A", "why": {"better": "B"}}', "A"),
        ("{" * 1000 + ' so: {"better": "neither"}', "neither"),
        ('{"better": "A", "why": "\\ud800"}', "A"),
    ],
)
def test_the_last_object_that_fits_is_the_answer(text, better):
    assert read_answer(text, Preference).better == better


def test_half_a_character_can_be_sent_to_a_judge():
    question = request_texts("{{ prompt }}", {"prompt": "a \ud800"}, Preference)[1]
    json.dumps(question, ensure_ascii=False).encode()
    assert fence("a \ud800").splitlines()[1] == "a ?"
