"""Labels beside length, on made-up ratings."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.labeling.length_baseline import against_length


def make_rows(*, quality=0.0, length=0.0, responses=4, num_prompts=80, seed=0):
    """Labels that hold so much of what people rate, whose ratings hold so much of length."""
    rng = np.random.default_rng(seed)
    shape = num_prompts * responses
    good, words = rng.normal(size=shape), rng.integers(5, 40, shape)
    longer = (words - words.mean()) / words.std()
    return pd.DataFrame(
        {
            "prompt_id": np.repeat([f"p{i}" for i in range(num_prompts)], responses),
            "response": ["word " * count for count in words],
            "rating": good + length * longer,
            "label": quality * good + rng.normal(size=shape),
        }
    )


def test_labels_that_say_what_people_rate_are_above_length_and_noise_is_not():
    good, noise = (against_length(make_rows(quality=quality)) for quality in (2.0, 0.0))
    assert good["pairs"] == "within prompts"
    assert good["num_prompts"] == 80
    assert good["agreement"] > 0.75 > 0.6 > good["length_agreement"]
    assert good["low"] > 0 > noise["low"]


@pytest.mark.parametrize("likes_long", [2.0, -2.0])
def test_labels_that_say_less_than_length_are_below_it_whichever_way_people_prefer(likes_long):
    found = against_length(make_rows(quality=0.5, length=likes_long))
    assert found["length_agreement"] > 0.75
    assert found["value"] < 0
    assert found["low"] < found["value"]


def test_a_log_of_one_response_a_prompt_is_compared_across_prompts():
    rows = make_rows(quality=2.0, responses=1, num_prompts=200)
    found = against_length(rows)
    assert (found["pairs"], found["num_prompts"]) == ("across prompts", 200)
    assert found["low"] > 0 > against_length(make_rows(responses=1, num_prompts=200))["low"]


def test_across_prompts_the_shares_are_those_of_all_pairs():
    rows = make_rows(quality=1.0, responses=1, num_prompts=30)
    rating, label = rows["rating"].to_numpy(), rows["label"].to_numpy()
    pairs = [(i, j) for i in range(30) for j in range(30) if rating[i] > rating[j]]
    share = np.mean([label[i] > label[j] for i, j in pairs])
    assert against_length(rows)["agreement"] == pytest.approx(share)


def test_a_few_prompts_that_all_agree_are_no_proof():
    rows = make_rows(responses=1, num_prompts=3)
    rows["label"] = rows["rating"]
    assert against_length(rows)["low"] < 0


def test_ratings_that_never_differ_tell_nothing():
    found = against_length(make_rows().assign(rating=1.0))
    assert (found["num_prompts"], found["low"]) == (0, None)


@pytest.mark.parametrize(("responses", "num_prompts"), [(3, 40), (1, 60)])
def test_noise_seldom_passes(responses, num_prompts):
    passed = [
        against_length(make_rows(responses=responses, num_prompts=num_prompts, seed=seed))["low"]
        > 0
        for seed in range(100)
    ]
    assert np.mean(passed) <= 0.08  # 0.025 and three standard errors


def test_no_more_than_some_responses_of_one_prompt_are_compared():
    rows = make_rows(responses=20_000, num_prompts=1).assign(prompt_id="many")
    tracemalloc.start()
    assert against_length(pd.concat([make_rows(), rows]))["num_prompts"] == 81
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e8
