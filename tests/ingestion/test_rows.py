from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rpo_pipeline.ingestion.formats import flatten
from rpo_pipeline.ingestion.quarantine import Reason, RejectedError
from rpo_pipeline.ingestion.rows import UNREAD_TIME, parse_record, prompt_key, row_key
from rpo_pipeline.params import RatingParams, SourceParams

SOURCE = SourceParams(
    path="log.jsonl",
    ratings=[
        RatingParams(column="thumbs", values={"up": 1, "down": -1}),
        RatingParams(column="stars", scale=(1, 5)),
        RatingParams(column="reward"),
    ],
)


def parse(**fields):
    return parse_record({"prompt": "Hello", "response": "Hi", **fields}, SOURCE)


@pytest.mark.parametrize(
    ("fields", "raw_reward", "source"),
    [
        ({"thumbs": "down"}, -1.0, "thumbs"),
        ({"stars": 1}, -1.0, "stars"),
        ({"stars": "4"}, 0.5, "stars"),
        ({"reward": -7.25}, -7.25, "reward"),
        ({"thumbs": "up", "stars": 1}, 1.0, "thumbs"),
        ({"thumbs": None, "stars": ""}, None, None),
        ({}, None, None),
    ],
)
def test_the_first_rating_that_holds_a_value_becomes_the_raw_reward(fields, raw_reward, source):
    row = parse(**fields)
    assert (row["raw_reward"], row["reward_source"]) == (raw_reward, source)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"response": ""}, Reason.MISSING_RESPONSE),
        ({"response": "  \n"}, Reason.MISSING_RESPONSE),
        ({"prompt": None}, Reason.MISSING_PROMPT),
        ({"prompt": ["Hello"]}, Reason.NOT_A_CHAT),
        ({"prompt": 3}, Reason.NOT_TEXT),
        ({"response": "a\0b"}, Reason.INVALID_TEXT),
        ({"response": "\ud800"}, Reason.INVALID_TEXT),
        ({"prompt": float("nan")}, Reason.MISSING_PROMPT),
        ({"prompt": "\u200b\u2060"}, Reason.MISSING_PROMPT),
        ({"prompt": [{"role": "system", "content": "Be brief."}]}, Reason.MISSING_PROMPT),
        ({"prompt": [{"role": "user", "content": " \n"}]}, Reason.MISSING_PROMPT),
        ({"response": "x" * 1_000_001}, Reason.TOO_LONG),
        ({"reward": "inf"}, Reason.REWARD_NOT_FINITE),
        ({"reward": 1e200}, Reason.REWARD_OUT_OF_RANGE),
        ({"reward": 10**400}, Reason.REWARD_NOT_FINITE),
        ({"reward": "4,5"}, Reason.REWARD_NOT_A_NUMBER),
        ({"reward": "4/5"}, Reason.REWARD_NOT_A_NUMBER),
        ({"reward": "very good"}, Reason.REWARD_NOT_A_NUMBER),
        ({"reward": True}, Reason.REWARD_NOT_A_NUMBER),
        ({"reward": [1]}, Reason.REWARD_NOT_A_NUMBER),
        ({"thumbs": "sideways"}, Reason.REWARD_NOT_A_NUMBER),
        ({"stars": 11}, Reason.REWARD_OFF_SCALE),
        ({"model_version": "\ud800"}, Reason.INVALID_TEXT),
        ({"behaviour_logps": 0.5}, Reason.BAD_BEHAVIOUR_LOGPS),
    ],
)
def test_a_record_that_cannot_be_used_says_why(fields, reason):
    with pytest.raises(RejectedError) as rejected:
        parse(**fields)
    assert rejected.value.reason is reason


NAN = float("nan")


@pytest.mark.parametrize(
    ("fields", "raw_reward"),
    [
        ({"thumbs": NAN, "stars": 5}, 1.0),
        ({"thumbs": "n/a", "stars": "NaN", "reward": 0.5}, 0.5),
        ({"thumbs": NAN, "stars": "null"}, None),
    ],
)
def test_a_missing_rating_is_not_a_bad_rating_and_the_next_column_counts(fields, raw_reward):
    assert parse(**fields)["raw_reward"] == raw_reward


def rate(values, value):
    rating = RatingParams(column="thumbs", values=values)
    source = SourceParams(path="log.csv", ratings=[rating])
    return parse_record({"prompt": "Hi", "response": "Yo", "thumbs": value}, source)["raw_reward"]


@pytest.mark.parametrize("value", ["1.0", 1.0, 1, "1", " +1 ", True, Decimal("1.00")])
def test_one_is_the_word_1_however_it_was_written(value):
    assert rate({1: 1, 0: -1}, value) == 1


@pytest.mark.parametrize("value", ["yes", "Yes", "YES ", "on", "true", "t", True, 1.0])
def test_yes_without_quotes_is_what_yaml_made_of_it_and_the_words_that_mean_it(value):
    assert rate(yaml.safe_load("{yes: 1, no: -1}"), value) == 1


def test_a_quoted_word_is_that_word_alone():
    assert rate({"yes": 1, "no": -1}, "no") == -1
    with pytest.raises(RejectedError):
        rate({"yes": 1, "no": -1}, "false")


def test_a_word_for_nothing_is_a_word_where_it_is_declared():
    assert rate({"good": 1, "none": 0}, "None") == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": {None: 0, "up": 1}}, "quote it"),
        ({"values": {"up": float("nan")}}, "finite number"),
        ({"values": {"Up": 1, "up": 2}}, "'up' is given twice"),
        ({"scale": (1, float("inf"))}, "finite number"),
    ],
)
def test_words_and_scales_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        RatingParams(column="thumbs", **settings)


def test_a_time_that_cannot_be_read_costs_the_time_and_not_the_row():
    row = parse(timestamp="last week", stars=5)
    assert (row["timestamp"], row["raw_reward"], row[UNREAD_TIME]) == (None, 1.0, True)


def test_ids_of_responses_that_pandas_made_floats_are_the_same_ids():
    source = SourceParams(path="log.csv", ratings_path="r.csv", key="id")
    ids = [
        parse_record({"prompt": "Hi", "response": "Yo", "id": one}, source)["response_id"]
        for one in (12, "12", 12.0, "12.0", NAN, "nan")
    ]
    assert ids == ["12"] * 4 + [None] * 2


def test_columns_are_read_by_the_names_of_the_source():
    columns = {"prompt": "question", "response": "answer"}
    source = SourceParams(path="log.csv", format="flat", columns=columns)
    [flat] = flatten({"question": "Why?", "answer": "Because.", "reward": "2"}, source)
    row = parse_record(flat, source)
    assert (row["prompt"], row["response"], row["raw_reward"]) == ("Why?", "Because.", 2.0)


def test_timestamps_of_any_zone_are_the_same_instant_in_utc():
    times = ["2026-01-05T10:00:00+02:00", "2026-01-05T08:00:00Z", "2026-01-05 08:00:00"]
    times += [1767600000, 1767600000.0, "1767600000000", 1767600000000000]
    assert len({parse(timestamp=time)["timestamp"] for time in times}) == 1
    assert parse(timestamp="20260105")["timestamp"] == parse(timestamp=20260105)["timestamp"]


@given(st.text(min_size=1), st.text(min_size=1))
def test_row_ids_do_not_run_together_where_prompt_and_response_do(prompt, response):
    joined = row_key(prompt + response[:1], response[1:])
    assert row_key(prompt, response) != joined


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_split_point_depends_on_the_prompt_alone_and_is_a_share(prompt):
    try:
        row = parse(prompt=prompt, stars=3)
    except RejectedError:
        return
    assert 0 <= row["split_point"] < 1
    assert row["prompt_id"] == prompt_key(prompt)
    assert row["split_point"] == parse(prompt=prompt, response="other")["split_point"]


def test_a_nul_in_a_chat_is_no_text_though_json_can_write_it():
    chat = [{"role": "system", "content": "a\0b"}, {"role": "user", "content": "Hello"}]
    with pytest.raises(RejectedError) as rejected:
        parse(prompt=chat)
    assert rejected.value.reason is Reason.INVALID_TEXT
