import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.evaluation.metrics import (
    distinct,
    length_controlled_wins,
    pair_accuracies,
    prompt_means,
    rank_correlations,
)
from rpo_pipeline.evaluation.statistics import jackknife_interval, mean_interval, resample_prompts


def generations(*responses, rewards=None, prompts=None):
    count = len(responses)
    return pd.DataFrame(
        {
            "prompt_id": prompts or [f"p{i}" for i in range(count)],
            "response": responses,
            "raw_reward": rewards or [0.0] * count,
            "toxicity": [float("fool" in response) for response in responses],
            "logps": [-10.0] * count,
            "ref_logps": [-12.0] * count,
            "reference_sample_logps": [-11.0] * count,
            "num_tokens": [len(response) for response in responses],
        }
    )


def test_a_better_response_wins_and_a_tie_is_half_a_win():
    reference = generations("a", "b", "c", rewards=[0.0, 0.0, 0.0])
    challenger = generations("a", "b", "c", rewards=[1.0, 0.0, -1.0])
    assert prompt_means(challenger, reference)["win_rate"].tolist() == [1.0, 0.5, 0.0]


def test_responses_of_one_prompt_are_averaged_to_one_number():
    table = generations("a", "b", "c", rewards=[1.0, 0.0, 5.0], prompts=["p", "p", "q"])
    assert prompt_means(table, table)["reward_mean"].tolist() == [0.5, 5.0]


def test_the_kl_estimate_is_the_mean_log_ratio_of_own_samples():
    table = generations("a b")
    assert prompt_means(table, table)["kl_reference"].tolist() == [2.0]


def test_an_empty_response_has_no_words_and_is_counted():
    means = prompt_means(generations("", "two words"), generations("", "two words"))
    assert means["length_mean"].tolist() == [0.0, 2.0]
    assert means["empty_share"].tolist() == [1.0, 0.0]


def test_distinct_n_is_the_share_of_different_ngrams_whatever_their_case():
    value, _ = distinct(generations("the cat", "The dog the cat"), 2)
    assert value == pytest.approx(3 / 4)


words = st.lists(st.sampled_from("a b c d".split()), max_size=6).map(" ".join)


@given(st.lists(words, min_size=2, max_size=6), st.sampled_from([1, 2]))
def test_distinct_without_a_prompt_equals_computing_it_again_without_its_rows(responses, n):
    table = generations(*responses)
    _, without = distinct(table, n)
    for i in range(len(responses)):
        again, _ = distinct(table.drop(index=i), n)
        assert without[i] == pytest.approx(again)


def heldout(prompt_ids, log_ratios, rewards):
    return pd.DataFrame({"prompt_id": prompt_ids, "log_ratio": log_ratios, "raw_reward": rewards})


def test_rank_correlation_is_per_prompt_and_skips_prompts_whose_rewards_are_equal():
    table = heldout(
        ["a", "a", "b", "b", "c", "c", "d"], [1, 2, 2, 1, 1, 2, 9], [1, 2, 1, 2, 5, 5, 1]
    )
    assert rank_correlations(table).tolist() == pytest.approx([1.0, -1.0])


def test_log_ratios_that_are_all_equal_rank_nothing():
    assert rank_correlations(heldout(["a", "a"], [0.0, 0.0], [1, 2])).tolist() == [0.0]


def test_the_bootstrap_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    resamples = resample_prompts(60, 800, seed=1)
    hits = 0
    for _ in range(300):
        interval = mean_interval(rng.exponential(1.0, 60), resamples)
        hits += interval["low"] <= 1.0 <= interval["high"]
    assert 0.88 <= hits / 300 <= 0.98


def test_the_jackknife_interval_of_a_mean_is_the_usual_one():
    values = np.random.default_rng(0).normal(size=200)
    without = (values.sum() - values) / 199
    interval = jackknife_interval(values.mean(), without)
    error = values.std(ddof=1) / np.sqrt(200)
    assert interval["high"] - interval["value"] == pytest.approx(1.96 * error, rel=1e-3)


def test_prompts_without_a_number_do_not_count_and_none_at_all_gives_null():
    resamples = resample_prompts(3, 200, seed=0)
    assert mean_interval(np.array([1.0, np.nan, 1.0]), resamples)["value"] == 1.0
    nothing = mean_interval(np.array([np.nan] * 3), resamples)
    assert nothing == {"value": None, "low": None, "high": None}


def test_a_model_that_wins_only_by_length_does_not_win_at_equal_length():
    noise = np.random.default_rng(0)
    lengths = np.add(noise.integers(1, 30, (2, 200)), [[0], [8]])
    rewards = lengths + noise.normal(0, 8, lengths.shape)
    theirs, ours = (
        generations(*["word " * n for n in row], rewards=list(reward))
        for row, reward in zip(lengths, rewards, strict=True)
    )
    plain = prompt_means(ours, theirs)["win_rate"].mean()
    controlled, without = length_controlled_wins(ours, theirs)
    assert plain > 0.65
    assert controlled == pytest.approx(0.5, abs=0.08)
    assert len(without) == 200


def test_a_model_that_wins_at_any_length_keeps_its_win_rate():
    table = generations("a", "b b", "c c c")
    better = table.assign(raw_reward=1.0)
    assert length_controlled_wins(better, table)[0] == 1.0
    assert length_controlled_wins(table, table)[0] == pytest.approx(0.5)


def test_pairs_are_right_wrong_or_half_right_where_nothing_is_ranked():
    heldout = pd.DataFrame(
        {
            "prompt_id": ["p", "p", "p", "q", "q", "r", "r"],
            "raw_reward": [0.0, 1.0, 2.0, 0.0, 1.0, 1.0, 1.0],
            "log_ratio": [0.0, 2.0, 1.0, 1.0, 1.0, 0.0, 1.0],
        }
    )
    assert pair_accuracies(heldout).tolist() == pytest.approx([2 / 3, 1 / 2])
