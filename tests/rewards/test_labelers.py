import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.params import LabelerParams
from rpo_pipeline.rewards.labelers import label_feedback, label_responses

COLUMN = LabelerParams(type="column")
RULES = LabelerParams(
    type="rules", weights={"sentiment": 0.5, "toxicity": -2.0}, offset=0.1, toxic_words=["fool"]
)


def feedback(*rewards):
    return pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(len(rewards))],
            "prompt": "Help!",
            "response": ["Thank you, happy to help!", "You fool."][: len(rewards)],
            "raw_reward": pd.Series(rewards, dtype=float),
        }
    )


def test_people_outrank_rules_and_each_row_says_who_labelled_it():
    labels = label_feedback(feedback(-0.75, None), [COLUMN, RULES])
    assert labels["labeler"].tolist() == ["column", "rules"]
    assert labels["raw_reward"][0] == -0.75
    assert labels["raw_reward"][1] < -1


def test_the_raw_reward_of_rules_is_the_weighted_sum_of_its_components_plus_the_offset():
    labels = label_responses(["Help!"] * 2, ["Thank you, happy to help!", "You fool."], [RULES])
    expected = 0.1 + 0.5 * labels["sentiment"] - 2.0 * labels["toxicity"]
    np.testing.assert_allclose(labels["raw_reward"], expected)
    assert labels["toxicity"].tolist() == [0.0, 1.0]


def test_rows_that_no_labeler_can_label_are_left_out_with_a_warning(caplog):
    labels = label_feedback(feedback(1.0, None), [COLUMN])
    assert labels["row_id"].tolist() == ["r0"]
    assert "1 rows have no reward" in caplog.text


def test_no_reward_at_all_is_an_error_that_says_what_to_add():
    with pytest.raises(DataError, match="add `rules`"):
        label_feedback(feedback(None, None), [COLUMN])


def test_ratings_cannot_label_new_text():
    with pytest.raises(ConfigError, match="can score new text"):
        label_responses(["Help!"], ["Hi"], [COLUMN])
