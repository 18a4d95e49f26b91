import numpy as np
import pandas as pd
import pytest

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


HELDOUT = pd.DataFrame({"prompt_id": ["a", "a"], "log_ratio": [0.1, 0.2], "raw_reward": [0.0, 1.0]})


def compare(gains, seed=0):
    return compare_models(table_of(gains), HELDOUT, num_resamples=500, seed=seed)


def test_differences_are_paired_by_prompt_so_that_the_prompts_own_level_cancels():
    numbers = compare({"reference": 0.0, "challenger": 0.5})
    difference = numbers["difference"]["vs_reference"]["reward_mean"]
    own = numbers["challenger"]["reward_mean"]
    assert difference["value"] == pytest.approx(0.5, abs=0.1)
    assert difference["low"] > 0.35
    assert difference["high"] - difference["low"] < 0.2 * (own["high"] - own["low"])


def test_without_a_champion_its_numbers_are_null():
    numbers = compare({"reference": 0.0, "challenger": 0.5})
    assert numbers["champion"] is None
    assert numbers["difference"]["vs_champion"] is None


def test_with_a_champion_the_challenger_is_compared_with_both():
    numbers = compare({"reference": 0.0, "challenger": 0.5, "champion": 0.7})
    assert numbers["difference"]["vs_reference"]["reward_mean"]["low"] > 0
    assert numbers["difference"]["vs_champion"]["reward_mean"]["high"] < 0


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
        assert set(numbers["challenger"][metric]) == {"value", "low", "high"}


def test_the_same_seed_gives_the_same_intervals():
    gains = {"reference": 0.0, "challenger": 0.5}
    assert compare(gains) == compare(gains)
    assert compare(gains) != compare(gains, seed=1)
