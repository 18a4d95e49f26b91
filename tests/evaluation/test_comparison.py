import numpy as np
import pandas as pd
import pytest
import torch

from rpo_pipeline.core.bounds import lower_bound
from rpo_pipeline.evaluation.comparison import compare_models


def table_of(gains, num_prompts=40, responses=2):
    """Generations in which each model's reward is the prompt's own level plus a gain."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 2, num_prompts)
    tables = []
    for model, gain in gains.items():
        noise = rng.normal(0, 0.2, (num_prompts, responses))
        rewards = (level[:, None] + gain + noise).ravel()
        tables.append(
            pd.DataFrame(
                {
                    "model": model,
                    "prompt_id": np.repeat([f"p{i:02}" for i in range(num_prompts)], responses),
                    "sample": list(range(responses)) * num_prompts,
                    "response": [f"{model} says {i}" for i in range(num_prompts * responses)],
                    "raw_reward": rewards,
                    "toxicity": 0.0,
                    "logps": -9.0,
                    "reference_sample_logps": -9.0,
                    "ref_logps": -9.0 if model == "reference" else -10.0,
                    "num_tokens": 4,
                }
            )
        )
    return pd.concat(tables).sample(frac=1, random_state=0)


HELDOUT = pd.DataFrame(
    {
        "prompt_id": ["a", "a", "b", "b"],
        "log_ratio": [0.1, 0.2, 3.0, 3.4],
        "raw_reward": [0.0, 1.0, 0.0, 1.0],
        "scaled_reward": [0.0, 0.5, 0.0, 0.5],
    }
)
NOT_JUDGED = pd.DataFrame(columns=["kind", "prompt_id", "win", "orders_agree", "longer"])


def compare(gains, seed=0):
    return compare_models(table_of(gains), HELDOUT, NOT_JUDGED, {}, num_resamples=500, seed=seed)


def test_differences_are_paired_by_prompt_so_that_the_prompts_own_level_cancels():
    numbers = compare({"reference": 0.0, "challenger": 0.5})
    difference = numbers.difference["vs_reference"]["reward_mean"]
    own = numbers.challenger["reward_mean"]
    assert difference["value"] == pytest.approx(0.5, abs=0.1)
    assert difference["low"] > 0.35
    assert difference["high"] - difference["low"] < 0.2 * (own["high"] - own["low"])


def test_without_a_champion_its_numbers_are_null():
    numbers = compare({"reference": 0.0, "challenger": 0.5})
    assert numbers.champion is None
    assert numbers.difference["vs_champion"] is None


def test_with_a_champion_the_challenger_is_compared_with_both():
    numbers = compare({"reference": 0.0, "challenger": 0.5, "champion": 0.7})
    assert numbers.difference["vs_reference"]["reward_mean"]["low"] > 0
    assert numbers.difference["vs_champion"]["reward_mean"]["high"] < 0


def test_every_metric_of_the_contract_is_there_with_its_interval():
    numbers = compare({"reference": 0.0, "challenger": 0.5})
    for metric in (
        "reward_mean",
        "win_rate",
        "toxicity_mean",
        "distinct_2",
        "kl_reference",
        "length_mean",
        "rank_correlation",
    ):
        assert set(numbers.challenger[metric]) == {"value", "low", "high"}


def test_the_same_seed_gives_the_same_intervals():
    gains = {"reference": 0.0, "challenger": 0.5}
    assert compare(gains) == compare(gains)
    assert compare(gains) != compare(gains, seed=1)


def test_the_win_rate_over_a_baseline_is_counted_against_that_baseline():
    numbers = compare({"reference": 0.0, "challenger": 2.0, "champion": 9.0})
    assert numbers.difference["vs_reference"]["win_rate"]["value"] == 0.5
    assert numbers.difference["vs_champion"]["win_rate"]["value"] == -0.5


def test_a_true_gain_as_large_as_is_detectable_passes_the_first_look_four_times_in_five():
    numbers = compare({"reference": 0.0, "challenger": 0.0})
    spread = numbers.by_prompt["vs_reference"]["reward_mean"]
    rng, deviation = np.random.default_rng(0), np.std(spread["values"], ddof=1)
    gaps = torch.tensor(rng.normal(numbers.detectable_difference, deviation, (1000, 40)))
    worst = torch.full((1000,), spread["worst"], dtype=gaps.dtype)
    passed = (lower_bound(gaps, worst, error=0.025) > 0).double().mean()
    assert passed == pytest.approx(0.8, abs=0.06)


def test_a_prompt_could_lose_as_much_as_rewards_lie_apart_in_the_evaluation_or_in_the_log():
    tables = table_of({"reference": 0.0, "challenger": 0.5})
    rewards = tables["raw_reward"]
    for ranges, apart in (
        ({}, rewards.max() - rewards.min()),
        ({"raw_reward": [-50.0, 0.0]}, rewards.max() + 50),
    ):
        numbers = compare_models(tables, HELDOUT, NOT_JUDGED, ranges, num_resamples=100, seed=0)
        spread = numbers.by_prompt["vs_reference"]["reward_mean"]
        assert spread["worst"] == pytest.approx(-apart)
        assert np.mean(spread["values"]) == pytest.approx(
            numbers.difference["vs_reference"]["reward_mean"]["value"]
        )


def test_p_values_pay_for_the_metrics_beside_them_and_a_metric_that_never_differs_has_1():
    p_holm = compare({"reference": 0.0, "challenger": 0.5}).p_holm["vs_reference"]
    assert p_holm["reward_mean"] < 0.001
    assert p_holm["toxicity_mean"] == p_holm["toxicity_p95"] == 1


def test_a_log_ratio_that_rises_with_reward_over_tau_is_calibrated_within_prompts():
    slope = compare({"reference": 0.0, "challenger": 0.5}).challenger["calibration_slope"]
    assert slope["value"] == pytest.approx((0.1 + 0.4) / 2 / 0.5)
    assert slope["low"] < slope["value"] < slope["high"]


def test_an_objective_without_tau_has_no_calibration():
    heldout = HELDOUT.assign(scaled_reward=np.nan)
    tables = table_of({"reference": 0.0, "challenger": 0.5})
    numbers = compare_models(tables, heldout, NOT_JUDGED, {}, num_resamples=100, seed=0)
    assert "calibration_slope" not in numbers.challenger


def test_a_judges_verdicts_become_win_rates_over_each_baseline():
    verdicts = pd.DataFrame(
        {
            "kind": ["reference"] * 4 + ["champion"] * 4 + ["ratings"] * 2,
            "prompt_id": ["a", "b", "c", "d"] * 2 + ["a", "b"],
            "win": [1, 1, 1, 0.5, 0, 0, 0.5, 0.5, 1, 0],
            "orders_agree": [1, 1, 1, 0, 1, 1, 1, 0, 1, 1],
            "longer": 1.0,
        }
    )
    tables = table_of({"reference": 0.0, "challenger": 0.5, "champion": 0.5})
    numbers = compare_models(tables, HELDOUT, verdicts, {}, num_resamples=200, seed=0)
    assert numbers.challenger["judge_win_rate"]["value"] == 0.875
    assert numbers.difference["vs_reference"]["judge_win_rate"]["value"] == 0.375
    assert numbers.difference["vs_champion"]["judge_win_rate"]["value"] == -0.25
    assert numbers.judge["orders_agree"] == 0.8
    assert numbers.judge["agreement_with_ratings"]["value"] == 0.5
    assert numbers.judge["against_length"]["length_agreement"] == 1
    assert numbers.by_prompt["vs_champion"]["judge_win_rate"] == {
        **{"values": [-0.5, -0.5, 0, 0], "worst": -0.5, "best": 0.5}
    }
