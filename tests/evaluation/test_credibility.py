"""Which ratings the labelers of evaluation are held to."""

import numpy as np
import pandas as pd

from rpo_pipeline.evaluation.credibility import measure_labelers
from tests.conftest import block
from tests.labeling.test_labelers import RULES
from tests.labeling.test_reward_model import save_reward_model

TEXTS = ["You fool.", "Thank you so much, we are happy to help!", "No."]


def rated(num_prompts=40, **columns):
    """People like the kind response best, and the short one better than the rude one."""
    rows = [
        (f"r{i}{j}", f"p{i}", f"Help {i}!", text, rating, "train" if i % 2 else "test")
        for i in range(num_prompts)
        for j, (text, rating) in enumerate(zip(TEXTS, (-1.0, 1.0, 0.0), strict=True))
    ]
    names = ["row_id", "prompt_id", "prompt", "response", "raw_reward", "split"]
    return pd.DataFrame(rows, columns=names).assign(**columns)


def measure(table, *labelers, folder=None, num_rows=1000):
    settings = block("evaluation", labelers=list(labelers)).labelers
    return measure_labelers(table, settings, num_rows, folder)


def test_rules_are_held_out_from_every_rating_and_their_components_are_compared_too():
    found = measure(rated(), RULES)
    assert (found["num_rated"], found["judge"]) == (120, "rules")
    assert found["columns"]["rules"]["num_prompts"] == 40
    assert found["columns"]["rules"]["agreement"] == 1
    assert {"rules", "sentiment", "toxicity"} <= found["columns"].keys()
    low, high = found["ranges"]["raw_reward"]
    assert low < -1 < high


def test_a_model_that_may_have_learned_from_the_ratings_of_train_is_held_out_from_them(tmp_path):
    model = save_reward_model(tmp_path / "model").model_dump(exclude_none=True)
    members = [RULES, model]
    ensemble = {"type": "ensemble", "name": "jury", "members": members, "combine": "mean"}
    for labeler, name in ((model, "reward_model"), (ensemble, "jury")):
        assert measure(rated(80), labeler, folder=tmp_path)["columns"][name]["num_prompts"] == 40


def test_no_more_rows_are_labelled_than_agreement_rows_says():
    assert measure(rated(), RULES, num_rows=9)["columns"]["rules"]["num_prompts"] <= 9
    assert measure(rated(), RULES, num_rows=0)["columns"] == {}


def test_a_log_without_ratings_is_compared_with_nothing():
    found = measure(rated(raw_reward=np.nan), RULES)
    assert (found["num_rated"], found["columns"]) == (0, {})
