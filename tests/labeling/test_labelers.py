"""Which labeler a row's reward is from, and what stands beside it."""

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.labeling.labeling import build_labeler, label_feedback, label_responses
from rpo_pipeline.params import ColumnParams, RulesParams
from tests.conftest import block

COLUMN = {"type": "column"}
RULES = {
    "type": "rules",
    "weights": {"sentiment": 0.5, "toxicity": -2.0},
    "offset": 0.1,
    "toxic_words": ["fool"],
}
LENGTH = {"type": "rules", "name": "brief", "weights": {"length": 1.0}, "target_words": 4}
TEXTS = ["Thank you, happy to help!", "You fool."]


def feedback(*rewards):
    return pd.DataFrame(
        {
            "row_id": [f"r{i:02}" for i in range(len(rewards))],
            "prompt_id": [f"p{i // 2}" for i in range(len(rewards))],
            "prompt": "Help!",
            "response": (TEXTS * len(rewards))[: len(rewards)],
            "raw_reward": pd.Series(rewards, dtype=float),
        }
    )


def label(table, *labelers, **changes):
    return label_feedback(table, block("labeling", labelers=list(labelers), **changes), None)


@pytest.mark.parametrize("labelers", [(COLUMN, RULES), (RULES, COLUMN)])
def test_people_outrank_labels_whatever_the_order_and_each_row_says_who_labelled_it(labelers):
    labels = label(feedback(-0.75, None), *labelers)
    assert labels["labeler"].tolist() == ["column", "rules"]
    assert labels["raw_reward"][0] == -0.75
    assert labels["raw_reward"][1] < -1
    rules = build_labeler(RulesParams(**RULES), None)
    assert labels["labeler_fingerprint"].tolist() == ["column:1:0", rules.fingerprint]


def test_what_labelers_say_of_rated_rows_stands_beside_the_rating_and_changes_no_reward():
    labels = label(feedback(-0.75, None), COLUMN, RULES)
    assert labels["rules"][0] > 0 > labels["raw_reward"][0]
    assert labels["sentiment"].notna().all()
    unasked = label(feedback(-0.75, None), COLUMN, RULES, agreement_rows=0)
    assert unasked["rules"].isna().tolist() == [True, False]


def test_rated_rows_are_compared_prompt_by_prompt_and_the_same_ones_when_more_come():
    few, more = feedback(*[0.5] * 20), feedback(*[0.5] * 60)
    for table in (few, more):
        table["prompt_id"] = [f"{i // 2:02}{i // 2 * 7 % 10}" for i in range(len(table))]
    asked = [label(t, COLUMN, RULES, agreement_rows=8)["rules"].notna() for t in (few, more)]
    assert [mask.sum() for mask in asked] == [8, 8]
    assert few["prompt_id"][asked[0].to_numpy()].nunique() == 4
    old = few["prompt_id"][asked[0].to_numpy()]
    kept = more["prompt_id"][asked[1].to_numpy()]
    assert {*kept} & {*few["prompt_id"]} <= {*old}


def test_the_raw_reward_of_rules_is_the_weighted_sum_of_its_components_plus_the_offset():
    labels = label_responses(["Help!"] * 2, TEXTS, [RulesParams(**RULES)], None)
    expected = 0.1 + 0.5 * labels["sentiment"] - 2.0 * labels["toxicity"]
    np.testing.assert_allclose(labels["raw_reward"], expected)
    assert labels["toxicity"].tolist() == [0.0, 1.0]


def test_a_name_keeps_the_components_of_two_labelers_of_one_type_apart():
    labelers = [RulesParams(**RULES), RulesParams(**LENGTH)]
    labels = label_responses(["Help!"] * 2, TEXTS, labelers, None, every=True)
    assert {"rules", "sentiment", "brief", "brief_sentiment", "brief_length"} <= {*labels}
    pd.testing.assert_series_equal(labels["raw_reward"], labels["rules"], check_names=False)
    assert (labels["length"] != labels["brief_length"]).any()
    first = label_responses(["Help!"] * 2, TEXTS, labelers, None)
    assert "brief" not in first


def test_a_component_that_is_called_as_another_is_refused():
    labelers = [RulesParams(**RULES), RulesParams(**LENGTH | {"name": "sentiment"})]
    with pytest.raises(
        ConfigError, match="'sentiment', which the table already has: give the labeler"
    ):
        label_responses(["Help!"], ["Hi"], labelers, None, every=True)


def test_scale_and_offset_put_a_labeler_on_another_scale():
    plain, scaled = RulesParams(**RULES), RulesParams(**RULES | {"scale": 2.0, "offset": -1.0})
    raw, moved = (
        label_responses(["Help!"] * 2, TEXTS, [rules], None)["raw_reward"]
        for rules in (plain, scaled)
    )
    np.testing.assert_allclose(moved, 2 * (raw - 0.1) - 1)


def test_rows_that_no_labeler_can_label_are_left_out_with_a_warning(caplog):
    labels = label(feedback(1.0, None), COLUMN)
    assert labels["row_id"].tolist() == ["r00"]
    assert "1 rows have no reward" in caplog.text


def test_ratings_that_nothing_reads_are_warned_of(caplog):
    assert label(feedback(1.0, None), RULES)["labeler"].eq("rules").all()
    assert "people rated 1 rows, and nothing reads their ratings" in caplog.text


def test_no_reward_at_all_is_an_error_that_says_what_to_add():
    with pytest.raises(DataError, match="add `rules`"):
        label(feedback(None, None), COLUMN)


def test_ratings_cannot_label_new_text():
    with pytest.raises(ConfigError, match="can score new text"):
        label_responses(["Help!"], ["Hi"], [ColumnParams()], None)
