"""The labeler `judge`: components, weights, its cache, and settings that cannot work."""

import json
import re

import pandas as pd
import pytest
from pydantic import ValidationError

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.labeling.judge import JudgeLabeler
from rpo_pipeline.labeling.labeling import build_labeler
from rpo_pipeline.params import JudgeParams, validate_blocks
from tests.conftest import raw_parameters
from tests.judge.judge_server import Answer, serve


def settings(url="http://nowhere/v1", weights=(1.0, 0.5), limits=None, **changes):
    values = {
        "endpoint": {"base_url": url, "model": "judge", "max_retries": 0, **(limits or {})},
        "criteria": {
            name: {"meaning": "?", "weight": weight}
            for name, weight in zip(("helpful", "polite"), weights, strict=True)
        },
        "answer_scale": (0, 4),
    }
    return JudgeParams(**values | changes)


@pytest.fixture
def feedback():
    table = pd.DataFrame({"response": ["Hi 4", "No 0", "Well 3"]}, index=[7, 3, 5])
    return table.assign(prompt="Help!", prompt_id="p", row_id=["a", "b", "c"], raw_reward=None)


def think(sent, _):
    """Rate by the number in the response; nothing above 9."""
    number = int(re.findall(r" (\d+)\n</text", sent["messages"][-1]["content"])[-1])
    return Answer(json.dumps({"helpful": number, "polite": 2}) if number <= 9 else "?")


def test_the_raw_reward_is_the_weighted_sum_of_the_components(feedback, tmp_path):
    with serve(think) as server:
        labels = JudgeLabeler(settings(server.url, weights=(1.0, -2.0)), tmp_path).label(feedback)
    assert labels.index.tolist() == [7, 3, 5]
    assert labels["helpful"].tolist() == [1.0, -1.0, 0.5]
    expected = labels["helpful"] - 2 * labels["polite"]
    assert labels["raw_reward"].tolist() == expected.tolist()


def test_its_name_and_scale_come_from_the_settings(feedback, tmp_path):
    with serve(think) as server:
        labeler = build_labeler(settings(server.url, name="jury", scale=2.0), tmp_path)
        labels = labeler.label(feedback)
    assert labeler.name == "jury"
    assert labels["raw_reward"].tolist() == (2 * labels["jury_helpful"]).tolist()


def test_what_was_paid_for_is_never_asked_again_whatever_the_weights(feedback, tmp_path):
    with serve(think) as server:
        one = JudgeLabeler(settings(server.url), tmp_path)
        one.label(feedback.iloc[:2])
        other = JudgeLabeler(settings(server.url, weights=(0.0, 1.0)), tmp_path)
        assert other.label(feedback)["raw_reward"].tolist() == [0.0, 0.0, 0.0]
        assert one.fingerprint != other.fingerprint
    assert len(server.requests) == 3


def test_rows_without_an_answer_stay_null_and_are_asked_for_in_the_next_run(
    feedback, tmp_path, caplog
):
    feedback.loc[3, "response"] = "No 5"  # beyond the scale
    with serve(think) as server:
        labels = JudgeLabeler(settings(server.url), tmp_path).label(feedback)
        assert labels["raw_reward"].isna().tolist() == [False, True, False]
        assert labels["polite"].isna().tolist() == [False, True, False]
        JudgeLabeler(settings(server.url), tmp_path).label(feedback)
    assert "no usable answer for 1 of 3 rows" in caplog.text
    assert "not in the form asked for: 1" in caplog.text
    assert len(server.requests) == 4 + 2


def test_a_ceiling_ends_a_pass_and_the_next_one_goes_on_from_there(feedback, tmp_path, caplog):
    limits = {"max_tokens": 2500, "concurrency": 1}
    answer = Answer('{"helpful": 1, "polite": 1}', tokens=(1500, 10))
    with serve(lambda *_: answer) as server:
        for num_labelled in (1, 2, 3):
            labels = JudgeLabeler(settings(server.url, limits=limits), tmp_path).label(feedback)
            assert labels["raw_reward"].notna().sum() == len(server.requests) == num_labelled
    assert "the next could pass max_tokens = 2500, 1510 are used" in caplog.text


def test_a_table_without_rows_asks_nobody(feedback, tmp_path):
    labels = JudgeLabeler(settings(), tmp_path).label(feedback.iloc[:0])
    assert labels.columns.tolist() == ["helpful", "polite", "raw_reward"]


def test_the_fingerprint_knows_the_rubric_but_not_the_patience(tmp_path):
    def name(**changes):
        return JudgeLabeler(settings(**changes), tmp_path).fingerprint

    assert name() == name(limits={"timeout_seconds": 3, "max_tokens": 9, "concurrency": 1})
    others = [
        name(answer_scale=(0, 5)),
        name(template="{{ prompt }} {{ response }}"),
        name(limits={"model": "other"}),
        name(limits={"request": {"top_p": 0.5}}),
        name(weights=(1.0, 1.0)),
    ]
    assert len({name(), *others}) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer_scale": (5, 1)}, "answer_scale must rise"),
        ({"weights": (0.0, 0.0)}, "whose weight is not 0"),
        ({"criteria": {"reward": {"meaning": "?", "weight": 1}}}, "cannot be called 'reward'"),
        ({"template": "{{ prompt }}"}, "{{ response }} does not stand in it"),
        ({"template": "{{ prompt }} {{ response }} {{ mood }}"}, "there is no {{ mood }}"),
        ({"template": "{{ prompt }"}, "template: line 1"),
        ({"limits": {"max_cost": 3.0}}, "max_cost needs prompt_price"),
        ({"limits": {"prompt_price": 3.0}}, "give both of prompt_price and answer_price"),
        ({"url": "https://me:word@host/v1"}, "must not hold a password"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        settings(**changes)


def test_a_wrong_field_of_the_endpoint_is_refused_with_its_place():
    judge = settings().model_dump(mode="json")
    judge["endpoint"]["modle"] = judge["endpoint"].pop("model")
    labeling = raw_parameters()["labeling"] | {"labelers": [{"type": "column"}, judge]}
    with pytest.raises(ConfigError) as error:
        validate_blocks(raw_parameters() | {"labeling": labeling})
    assert "labeling.labelers.1.endpoint.model is missing" in str(error.value)
    assert "labeling.labelers.1.endpoint.modle: no such parameter (conf" in str(error.value)
