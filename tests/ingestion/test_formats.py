"""Records in the shapes that feedback is kept in, as their makers write them."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.chats import parse_prompt, render_prompt, write_prompt
from rpo_pipeline.ingestion.formats import FORMATS, detect_format
from rpo_pipeline.ingestion.parts import rows_of_record
from rpo_pipeline.ingestion.quarantine import Reason
from rpo_pipeline.ingestion.records import Record
from rpo_pipeline.params import RatingParams, SourceParams

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Why is the sky blue?"}
ANSWER = {"role": "assistant", "content": "Rayleigh scattering."}
WORSE = {"role": "assistant", "content": "It just is."}
CHAT = write_prompt([SYSTEM, ASK])

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
    source = SourceParams(path="log.jsonl", **settings)
    if source.format == "auto":
        name = detect_format([record], source, source.path)
        source = source.model_copy(update={"format": name})
    return list(rows_of_record(Record(1, "", record), source))


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
            [("Human: Why?\n\nBot:", " Yes.", 1), ("Human: Why?\n\nBot:", " No.", -1)],
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
    assert rows[1:] == [
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
        ({"prompt": PLAIN, "responses": [GOOD, BAD], "rewards": {"a": 1}}, Reason.NOT_A_LIST),
        ({"prompt": PLAIN, "responses": [GOOD], "scores": 0.5}, Reason.NOT_A_LIST),
        ({"messages": [SYSTEM, ASK]}, Reason.MISSING_RESPONSE),
        ({"messages": [{"role": "robot", "content": "x"}]}, Reason.NOT_A_CHAT),
        ({"prompt": [ASK, ANSWER], "response": GOOD}, Reason.NOT_A_CHAT),
    ],
)
def test_a_record_that_cannot_be_used_says_why_once(record, reason):
    assert parse(record) == [reason]


def test_parts_of_a_message_are_joined_and_pictures_are_refused():
    parts = [{"type": "text", "text": "Why is "}, {"type": "text", "text": "the sky blue?"}]
    record = {"messages": [{"role": "user", "content": parts}, ANSWER]}
    assert pairs(parse(record)) == [(PLAIN, GOOD, None)]
    parts.append({"type": "image_url", "image_url": {"url": "x"}})
    assert parse(record) == [Reason.NOT_A_CHAT]


def test_a_chat_is_the_same_prompt_however_it_was_written():
    spaced = json.dumps([SYSTEM, {**ASK, "name": "Ada"}], indent=2)
    rows = [
        *parse({"prompt": spaced, "response": GOOD}),
        *parse({"prompt": CHAT, "response": GOOD}),
    ]
    assert rows[0]["row_id"] == rows[1]["row_id"]
    assert parse_prompt(rows[0]["prompt"]) == [SYSTEM, ASK]
    assert render_prompt(rows[0]["prompt"]) == "system: Be brief.\n\nuser: Why is the sky blue?"


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


@given(record=st.dictionaries(FIELD, VALUES), shape=st.sampled_from(list(FORMATS)))
def test_no_record_raises_and_none_vanishes(record, shape):
    rows = parse(record, format=shape)
    assert rows
    assert all(isinstance(row, dict | Reason) for row in rows)


@given(record=st.dictionaries(FIELD, VALUES))
def test_an_unknown_shape_is_an_error_for_people_and_nothing_else(record):
    with suppress(DataError):
        assert parse(record)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"question": "x"}, "no format fits records with the fields 'question'"),
        ({"prompt": "x", "response": "y", "responses": []}, "both flat and grouped fit"),
    ],
)
def test_what_cannot_be_told_names_the_fields_and_every_format(record, problem):
    with pytest.raises(DataError) as error:
        parse(record)
    message = str(error.value)
    assert f"log.jsonl: {problem}" in message
    assert "ingestion.sources[].format" in message
    assert all(name in message for name in FORMATS)


def test_the_format_of_most_records_is_that_of_the_file():
    flat, other = {"prompt": "x", "response": "y"}, {"chosen": "x", "rejected": "y"}
    assert detect_format([flat, other, {}, flat], SourceParams(path="x"), "x") == "flat"
    assert detect_format([], SourceParams(path="x"), "x") == "flat"


def test_columns_rename_fields_of_any_format_and_lead_into_objects():
    record = {"log": {"turns": [ASK, ANSWER]}, "meta": {"stars": "5"}}
    settings = {
        "columns": {"messages": "log.turns"},
        "ratings": [RatingParams(column="meta.stars", scale=(1, 5))],
    }
    assert pairs(parse(record, **settings)) == [(PLAIN, GOOD, 1)]


def test_every_rated_turn_of_a_chat_is_a_row_with_what_was_said_before():
    chat = [
        ASK,
        {**WORSE, "reward": -1},
        {"role": "user", "content": "No?"},
        {**ANSWER, "reward": 1},
    ]
    rows = parse({"messages": chat})
    assert pairs(rows)[0] == (PLAIN, BAD, -1)
    assert parse_prompt(rows[1]["prompt"]) == [ASK, WORSE, chat[2]]
    assert rows[1]["raw_reward"] == 1


def test_scores_of_the_two_sides_of_a_preference_are_ratings_of_their_side():
    record = {
        "prompt": PLAIN,
        "chosen": GOOD,
        "rejected": BAD,
        "score_chosen": 8,
        "score_rejected": 3,
    }
    rows = parse(record, ratings=[RatingParams(column="score")])
    assert pairs(rows) == [(PLAIN, GOOD, 8), (PLAIN, BAD, 3)]


def test_an_implicit_prompt_ends_where_the_assistant_begins():
    start = "\n\nHuman: Why?\n\nAssistant:"
    rows = parse({"chosen": f"{start} It is so.", "rejected": f"{start} It is not."})
    assert pairs(rows) == [(start, " It is so.", 1), (start, " It is not.", -1)]


def test_turns_by_other_names_are_the_same_chat():
    turns = [{"from": "human", "value": PLAIN}, {"from": "gpt", "value": GOOD}]
    assert pairs(parse({"messages": turns})) == [(PLAIN, GOOD, None)]


CALL = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Lyon"}'}}
CALLS = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "function_call": CALL["function"]},
    {
        "role": "Assistant",
        "content": [{"type": "tool_use", "name": "weather", "input": {"city": "Lyon"}}],
    },
]
RESULT = {"role": "function", "content": [{"type": "tool_result", "content": "18 C"}]}


@pytest.mark.parametrize("call", CALLS)
def test_a_prompt_keeps_what_tool_was_called_with_what_and_what_came_of_it(call):
    [row] = parse({"messages": [ASK, call, RESULT, ANSWER], "reward": 1})
    assert (row["response"], row["raw_reward"]) == (GOOD, 1)
    assert parse_prompt(row["prompt"])[1:] == [
        {"role": "assistant", "content": '{"name": "weather", "arguments": {"city": "Lyon"}}'},
        {"role": "tool", "content": "18 C"},
    ]


@pytest.mark.parametrize("call", CALLS)
def test_a_response_that_calls_a_tool_is_no_answer_and_says_so(call):
    assert parse({"messages": [ASK, call]}) == [Reason.TOOL_CALL]
    assert parse({"prompt": PLAIN, "response": call}) == [Reason.TOOL_CALL]


@pytest.mark.parametrize(
    ("user", "assistant"),
    [("human", "gpt"), ("USER", "ASSISTANT"), ("User ", "bot"), ("prompter", "model")],
)
@pytest.mark.parametrize(("role", "content"), [("role", "content"), ("from", "value")])
def test_roles_under_other_names_are_the_same_chat(user, assistant, role, content):
    turns = [{role: user, content: PLAIN}, {role: assistant, content: GOOD}]
    for name in ("messages", "conversations", "conversation"):
        assert pairs(parse({name: turns})) == [(PLAIN, GOOD, None)]
        assert pairs(parse({name: json.dumps(turns)})) == [(PLAIN, GOOD, None)]
        assert pairs(parse({name: str(turns)})) == [(PLAIN, GOOD, None)]


def test_a_system_text_beside_a_chat_is_its_system_message():
    record = {"system": SYSTEM["content"], "conversations": [ASK, ANSWER]}
    assert pairs(parse(record)) == [(CHAT, GOOD, None)]


@pytest.mark.parametrize("prompt", [[ASK], {"messages": [ASK]}, ASK])
def test_a_table_of_requests_and_answers_as_json_text_holds_chats(prompt):
    columns = {"prompt": "input", "response": "output"}
    record = {"input": json.dumps(prompt), "output": json.dumps(ANSWER)}
    assert pairs(parse(record, columns=columns, format="flat")) == [(PLAIN, GOOD, None)]


def test_a_response_that_is_json_of_another_kind_stays_a_text():
    for text in ('{"role": "admin", "content": "x"}', '{"answer": "x"}', '{"role": "user"'):
        assert pairs(parse({"prompt": PLAIN, "response": text})) == [(PLAIN, text, None)]


@pytest.mark.parametrize(
    "names",
    [
        ("chosen-rating", "rejected-rating"),
        ("chosen_score", "rejected_score"),
        ("score_chosen", "score_rejected"),
        ("chosenScore", "rejectedScore"),
        ("meta.chosen", "meta.rejected"),
    ],
)
def test_a_rating_that_names_one_side_is_never_taken_for_both(names):
    ratings = [5, 1]
    fields = dict(zip(names, ratings, strict=True))
    if "." in names[0]:
        fields = {"meta": json.dumps({name.split(".")[1]: r for name, r in fields.items()})}
    record = {"prompt": PLAIN, "chosen": GOOD, "rejected": BAD, **fields}
    for name in names:
        rows = parse(record, ratings=[RatingParams(column=name)])
        assert pairs(rows) == [(PLAIN, GOOD, 5), (PLAIN, BAD, 1)]
    if "." not in names[0]:
        del record[names[1]]
        rows = parse(record, ratings=[RatingParams(column=names[0])])
        assert pairs(rows) == [(PLAIN, GOOD, 5), (PLAIN, BAD, None)]


def test_an_export_that_hides_its_chat_in_an_object_is_told_where_it_is():
    record = {"id": 1, "chat": {"title": "x", "messages": [ASK, ANSWER]}}
    with pytest.raises(DataError, match=r"there is a chat at chat\.messages \(columns:"):
        parse(record)
    assert pairs(parse(record, columns={"messages": "chat.messages"})) == [(PLAIN, GOOD, None)]


def test_a_misspelt_column_is_named_where_no_format_fits():
    with pytest.raises(DataError, match=r"column 'anwser' .did you mean 'answer'"):
        parse({"question": "x", "answer": "y"}, columns={"response": "anwser"})


def test_a_long_chat_is_read_turn_by_turn_and_not_held_as_a_whole():
    chat = Record(1, "", {"messages": [ASK, {**ANSWER, "reward": 1}] * 400})
    source = SourceParams(path="x", format="messages", max_text_characters=10_000)
    started = time.process_time()
    rows = rows_of_record(chat, source)
    assert len(next(rows)["prompt"]) < 100
    assert sum(row is Reason.TOO_LONG for row in rows) > 250
    assert time.process_time() - started < 20


messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text()}
)


@given(st.lists(messages, min_size=1))
def test_a_chat_written_as_a_prompt_is_read_as_it_was(chat):
    prompt = parse_prompt(write_prompt(chat))
    assert prompt == chat or [{"role": "user", "content": prompt}] == chat


def test_a_user_who_types_a_chat_stays_one_user():
    typed = [{"role": "user", "content": CHAT}]
    assert parse_prompt(write_prompt(typed)) == typed


def responses_of(fields, name):
    record = Record(1, None, fields)
    source = SourceParams(path="log.parquet", format=name)
    rows = [row for row in rows_of_record(record, source) if not isinstance(row, Reason)]
    return [(row["response"], row["raw_reward"]) for row in rows]


def test_fields_that_a_parquet_file_fills_with_nulls_are_not_there():
    responses = [
        {"text": "a", "score": 1, "content": None, "reward": None},
        {"text": None, "score": None, "content": "b", "reward": 0},
    ]
    fields = {"prompt": "p", "responses": responses}
    assert responses_of(fields, "grouped") == [("a", 1.0), ("b", 0.0)]
    turns = [{**ASK, "reward": None}, {**ANSWER, "reward": None}]
    rated = {"messages": turns, "reward": 1}
    assert responses_of(rated, "messages") == [(ANSWER["content"], 1.0)]


def test_a_rejected_response_that_is_missing_does_not_cost_the_chosen_one():
    fields = {"chosen": [ASK, ANSWER], "rejected": None}
    assert responses_of(fields, "trl_preference") == [(ANSWER["content"], 1.0)]


@pytest.mark.parametrize(("label", "reward"), [(1, 1.0), (0, -1.0), ("1", 1.0), (False, -1.0)])
def test_labels_may_be_numbers(label, reward):
    fields = {"prompt": "p", "completion": "a", "label": label}
    assert responses_of(fields, "trl_unpaired") == [("a", reward)]


@pytest.mark.parametrize(
    ("record", "ratings"),
    [
        ({"responses": [{"text": GOOD, "reward": 1}], "scores": {"toxic": 0}}, None),
        ({"responses": [GOOD], "rewards": [1], "scores": {"toxic": 0}}, None),
        ({"responses": [GOOD], "scores": {"all": 1}}, [RatingParams(column="scores.all")]),
        ({"responses": [GOOD], "rewards": None, "reward": 1}, None),
    ],
)
def test_scores_that_are_no_list_cost_no_response_that_has_its_rating(record, ratings):
    rows = parse({"prompt": PLAIN, **record}, format="grouped", ratings=ratings)
    assert pairs(rows) == [(PLAIN, GOOD, 1.0)]
