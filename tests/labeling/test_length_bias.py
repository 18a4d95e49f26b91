"""Length: what it earns, what is taken off for it, and what the report says of it."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from rpo_pipeline.errors import DataError
from rpo_pipeline.labeling.length_bias import length_correlations, log_length, report_rewards
from rpo_pipeline.labeling.normaliser import fit_normaliser, normalise
from tests.conftest import block


@pytest.fixture
def rows():
    """Longer responses earn more within a prompt; long prompts earn less."""
    rng = np.random.default_rng(0)
    prompt = np.repeat(np.arange(60), 5)
    length = rng.integers(5, 60, 300) + 8 * prompt
    level = -0.02 * prompt + 0.2 * rng.normal(size=60)[prompt]
    raw = 1.5 * np.log1p(length) - 0.05 * prompt + level + 0.2 * rng.normal(size=300)
    return pd.DataFrame(
        {
            "prompt_id": [f"p{i:02}" for i in prompt],
            "split": np.where(prompt < 45, "train", "test"),
            "response": ["x" * n for n in length],
            "raw_reward": raw,
        }
    )


def report(rows, **changes):
    normaliser = fit_normaliser(rows[rows["split"] == "train"], block("labeling", **changes))
    return report_rewards(rows.assign(reward=normalise(rows, normaliser, rows)), normaliser)


def test_the_correlations_are_pearsons_of_log_length_over_all_rows_and_within_prompts(rows):
    found = length_correlations(rows, rows["raw_reward"])
    lengths = log_length(rows["response"])
    assert found["overall"]["value"] == pytest.approx(pearsonr(lengths, rows["raw_reward"])[0])
    within = [
        values - values.groupby(rows["prompt_id"]).transform("mean")
        for values in (lengths, rows["raw_reward"])
    ]
    assert found["within_prompt"]["value"] == pytest.approx(pearsonr(*within)[0])
    for interval in found.values():
        assert -1 <= interval["low"] < interval["value"] < interval["high"] <= 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(80):
        prompts = np.repeat(np.arange(40), 4)
        x = rng.normal(size=160) + rng.normal(size=40)[prompts]
        y = 0.5 * x + rng.normal(size=160) * 0.5 + rng.normal(size=40)[prompts] * 0.5
        texts = pd.Series(["x" * round(n) for n in np.exp(x + 8)])
        rows = pd.DataFrame({"prompt_id": prompts, "response": texts})
        interval = length_correlations(rows, pd.Series(y))["overall"]
        covered += interval["low"] < np.sqrt(0.5) < interval["high"]
    assert 70 <= covered <= 79


def test_auto_takes_off_what_length_earns_within_prompts_and_no_more(rows):
    found = report(rows, normaliser="zscore", length_penalty="auto")
    correlation = found["train"]["length_correlation"]
    assert correlation["before"]["within_prompt"]["value"] > 0.7
    assert correlation["after"]["within_prompt"]["value"] == pytest.approx(0, abs=1e-9)
    held_out = found["others"]["length_correlation"]["after"]["within_prompt"]
    assert held_out["low"] < 0 < held_out["high"]
    slope = found["length_penalty"]["per_std"] / found["length_penalty"]["std_log_length"]
    assert slope == pytest.approx(1.5, abs=0.1)


def test_a_number_is_taken_off_for_each_standard_deviation_of_log_length(rows):
    normaliser = fit_normaliser(rows, block("labeling", normaliser="none", length_penalty=0.25))
    lengths = log_length(rows["response"])
    expected = 0.25 * (lengths - lengths.mean()) / lengths.std(ddof=0)
    taken_off = rows["raw_reward"] - normalise(rows, normaliser, rows)
    pd.testing.assert_series_equal(taken_off, expected, check_names=False)


def test_rewards_that_follow_length_are_a_loud_warning(rows, caplog):
    assert "follows the length" in report(rows)["warnings"][0]
    assert "follows the length" in caplog.text
    assert report(rows, length_penalty="auto")["warnings"] == []


def test_the_report_counts_what_winsorising_touched_on_train_and_elsewhere(rows):
    found = report(rows, winsorise=[0.1, 0.9])
    low, high = found["winsorise"]
    in_train = rows["split"] == "train"
    for name, part in (("train", rows[in_train]), ("others", rows[~in_train])):
        raw = part["raw_reward"]
        assert found[name]["num_raised"] == (raw < low).sum()
        assert found[name]["num_lowered"] == (raw > high).sum()
    assert found["train"]["num_raised"] == found["train"]["num_lowered"] == 23


def test_nothing_to_compare_is_null_and_no_error(rows):
    same = rows.assign(response="x" * 9)
    found = report(same)["train"]["length_correlation"]
    assert found["before"]["overall"] == {"value": None, "low": None, "high": None}
    alone = report(rows.assign(split="train"))["others"]
    assert alone["num_rows"] == 0
    assert alone["reward"]["mean"] is None


def test_responses_of_one_length_leave_nothing_to_pay_for(rows):
    with pytest.raises(DataError, match=r"labeling\.length_penalty.*equally long"):
        report(rows.assign(response="x" * 9), length_penalty=0.5)
    single = rows.assign(prompt_id=range(300))
    with pytest.raises(DataError, match="of each prompt"):
        report(single, length_penalty="auto")
