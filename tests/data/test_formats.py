"""Records in the shapes that feedback is kept in, as their makers write them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.data.chats import parse_prompt, render_prompt
from rpo_pipeline.data.formats import SHAPES
from rpo_pipeline.data.quarantine import Reason, RejectedError
from rpo_pipeline.data.rows import parse_record
from rpo_pipeline.params import RatingParams, SourceParams

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Why is the sky blue?"}
ANSWER = {"role": "assistant", "content": "Rayleigh scattering."}
WORSE = {"role": "assistant", "content": "It just is."}
CHAT = json.dumps([SYSTEM, ASK])

ULTRAFEEDBACK = {
    "source": "sharegpt",
    "instruction": "Why is the sky blue?",
    "models": ["alpaca-7b", "gpt-4"],
    "completions": [
        {
            "model": "alpaca-7b",
            "response": "It just is.",
            "overall_score": 1.0,
            "annotations": {"helpfulness": {"Rating": "2", "Rationale": "thin"}},
        },
        {
            "model": "gpt-4",
            "response": "Rayleigh scattering.",
            "overall_score": None,
            "annotations": {"helpfulness": {"Rating": "5"}, "honesty": {"Rating": "N/A"}},
        },
    ],
}
OPENAI = {
    "request": {"model": "m", "messages": [SYSTEM, ASK]},
    "response": {
        "model": "m-2026",
        "created": 1767600000,
        "choices": [{"message": ANSWER}, {"message": WORSE}],
    },
    "thumbs": "up",
}


def parse(record, **settings):
    return list(parse_record(record, SourceParams(path="log.jsonl", **settings)))


def pairs(rows):
    return [(row["prompt"], row["response"], row["raw_reward"]) for row in rows]


PLAIN = ASK["content"]
GOOD, BAD = ANSWER["content"], WORSE["content"]


@pytest.mark.parametrize(
    ("shape", "record", "rows"),
    [
        ("flat", {"prompt": PLAIN, "response": GOOD, "reward": 2}, [(PLAIN, GOOD, 2)]),
        ("flat", {"prompt": [SYSTEM, ASK], "response": [ANSWER]}, [(CHAT, GOOD, None)]),
        (
            "grouped",
            {"prompt": PLAIN, "responses": [GOOD, BAD], "rewards": [1, -1]},
            [(PLAIN, GOOD, 1), (PLAIN, BAD, -1)],
        ),
        (
            "grouped",
            {"prompt": PLAIN, "responses": [{"text": GOOD, "score": "0.5"}, {"response": BAD}]},
            [(PLAIN, GOOD, 0.5), (PLAIN, BAD, None)],
        ),
        ("messages", {"messages": [SYSTEM, ASK, ANSWER], "reward": 1}, [(CHAT, GOOD, 1)]),
        ("messages", {"messages": json.dumps([ASK, ANSWER])}, [(PLAIN, GOOD, None)]),
        (
            "trl_unpaired",
            {"prompt": PLAIN, "completion": GOOD, "label": False},
            [(PLAIN, GOOD, -1)],
        ),
        (
            "trl_unpaired",
            {"prompt": [ASK], "completion": [ANSWER], "label": True},
            [(PLAIN, GOOD, 1)],
        ),
        (
            "trl_preference",
            {"prompt": PLAIN, "chosen": GOOD, "rejected": BAD},
            [(PLAIN, GOOD, 1), (PLAIN, BAD, -1)],
        ),
        (
            "trl_preference",
            {"chosen": [SYSTEM, ASK, ANSWER], "rejected": [SYSTEM, ASK, WORSE]},
            [(CHAT, GOOD, 1), (CHAT, BAD, -1)],
        ),
        (
            "trl_preference",
            {"prompt": PLAIN, "chosen": [ASK, ANSWER], "rejected": [ASK, WORSE]},
            [(PLAIN, GOOD, 1), (PLAIN, BAD, -1)],
        ),
        (
            "trl_preference",
            {"chosen": "Human: Why?\n\nBot: Yes.", "rejected": "Human: Why?\n\nBot: No."},
            [("Human: Why?\n\nBot:", "Yes.", 1), ("Human: Why?\n\nBot:", "No.", -1)],
        ),
        ("ultrafeedback", ULTRAFEEDBACK, [(PLAIN, BAD, -1), (PLAIN, GOOD, 1)]),
        ("openai_chat", OPENAI, [(CHAT, GOOD, None), (CHAT, BAD, None)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("named", [True, False])
def test_each_shape_is_read_whether_it_is_named_or_told_from_its_fields(shape, record, rows, named):
    settings = {"format": shape} if named else {}
    assert pairs(parse(record, **settings)) == rows


def test_the_model_and_the_time_of_a_response_come_along():
    row = parse(OPENAI, ratings=[RatingParams(column="thumbs", values={"up": 1})])[0]
    assert (row["model_version"], row["timestamp"].year, row["raw_reward"]) == ("m-2026", 2026, 1)
    assert parse(ULTRAFEEDBACK)[0]["model_version"] == "alpaca-7b"


def test_one_bad_response_does_not_cost_the_others_of_its_record():
    record = {"prompt": PLAIN, "responses": [GOOD, "", {"text": 3}, BAD], "rewards": [1, 1, 1, "x"]}
    rows = parse(record)
    assert rows[0]["response"] == GOOD
    assert [row.reason for row in rows[1:]] == [
        Reason.MISSING_RESPONSE,
        Reason.NOT_TEXT,
        Reason.REWARD_NOT_A_NUMBER,
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": PLAIN, "responses": []}, Reason.MISSING_RESPONSE),
        ({"prompt": PLAIN, "responses": [GOOD], "rewards": [1, 2]}, Reason.UNEVEN_LISTS),
        ({"prompt": PLAIN, "responses": GOOD}, Reason.NOT_A_LIST),
        ({"messages": [SYSTEM, ASK]}, Reason.MISSING_RESPONSE),
        ({"messages": [{"role": "robot", "content": "x"}]}, Reason.NOT_A_CHAT),
        ({"prompt": [ASK, ANSWER], "response": GOOD}, Reason.NOT_A_CHAT),
        ({"chosen": 3, "rejected": 4}, Reason.NOT_TEXT),
        ({"question": PLAIN}, Reason.MISSING_PROMPT),
    ],
)
def test_a_record_that_cannot_be_used_says_why_once(record, reason):
    (rejected,) = parse(record)
    assert rejected.reason is reason


def test_parts_of_a_message_are_joined_and_pictures_are_refused():
    parts = [{"type": "text", "text": "Why is "}, {"type": "text", "text": "the sky blue?"}]
    record = {"messages": [{"role": "user", "content": parts}, ANSWER]}
    assert pairs(parse(record)) == [(PLAIN, GOOD, None)]
    parts.append({"type": "image_url", "image_url": {"url": "x"}})
    assert parse(record)[0].reason is Reason.NOT_A_CHAT


def test_a_chat_is_the_same_prompt_however_it_was_written():
    spaced = json.dumps([SYSTEM, {**ASK, "name": "Ada"}], indent=2)
    rows = [
        *parse({"prompt": spaced, "response": GOOD}),
        *parse({"prompt": CHAT, "response": GOOD}),
    ]
    assert rows[0]["row_id"] == rows[1]["row_id"]
    assert parse_prompt(rows[0]["prompt"]) == [SYSTEM, ASK]
    assert render_prompt(rows[0]["prompt"]) == "system: Be brief.\nuser: Why is the sky blue?"


@pytest.mark.parametrize("text", ["[1, 2]", '{"a": 1}', "[{not JSON", '[{"role": "user"}]', "[{}]"])
def test_a_prompt_that_only_looks_like_a_chat_stays_a_text(text):
    assert pairs(parse({"prompt": text, "response": GOOD})) == [(text, GOOD, None)]
    assert parse_prompt(text) == text


FIELD = st.sampled_from(
    "prompt response responses rewards reward messages role content completion completions "
    "label chosen rejected instruction annotations request choices message timestamp "
    "behaviour_logps".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=3),
    max_leaves=9,
)


@given(record=st.dictionaries(FIELD, VALUES), shape=st.sampled_from(["auto", *SHAPES]))
def test_no_record_raises_and_none_vanishes(record, shape):
    rows = parse(record, format=shape)
    assert rows
    assert all(isinstance(row, dict | RejectedError) for row in rows)
