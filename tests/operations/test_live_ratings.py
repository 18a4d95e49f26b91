import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import ttest_ind

from rpo_pipeline.operations.live_ratings import clustered_difference, compare_ratings, read_ratings
from rpo_pipeline.params import LiveRatingsParams

SETTINGS = LiveRatingsParams(min_ratings=20, margin=0.1, confidence=0.95)


def simulate(rng, *, num_prompts, per_prompt, shift=0.0):
    """Ratings of two versions on prompts of their own, alike within a prompt."""
    sides = []
    for name, mean in (("7", shift), ("6", 0.0)):
        prompts = np.repeat([f"{name}-{i}" for i in range(num_prompts)], per_prompt)
        level = np.repeat(rng.normal(mean, 1, num_prompts), per_prompt)
        rewards = level + rng.normal(0, 0.3, len(level))
        sides.append(
            pd.DataFrame({"prompt_id": prompts, "model_version": name, "raw_reward": rewards})
        )
    return pd.concat(sides, ignore_index=True)


def test_the_interval_is_somewhat_wider_than_that_of_a_two_sample_test():
    table = simulate(np.random.default_rng(0), num_prompts=200, per_prompt=1)
    one, other = (rows for _, rows in table.groupby("model_version"))
    found = clustered_difference(one, other, confidence=0.95)
    test = ttest_ind(one["raw_reward"], other["raw_reward"], equal_var=False)
    welch = test.confidence_interval(0.95)
    assert found["value"] == pytest.approx(one["raw_reward"].mean() - other["raw_reward"].mean())
    width = (found["high"] - found["low"]) / (welch.high - welch.low)
    assert 1 < width < 2


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_champion_that_is_as_good_is_seldom_an_alarm_where_few_ratings_are_good_or_bad(share):
    rng, alarms = np.random.default_rng(5), 0
    settings = SETTINGS.model_copy(update={"margin": 0.0})
    for _ in range(60):
        table = pd.DataFrame(
            {
                "prompt_id": [f"p{i}" for i in range(600)],
                "model_version": ["7"] * 100 + ["6"] * 500,
                "raw_reward": (rng.random(600) < share).astype(float),
            }
        )
        alarms += compare_ratings(table, champion="7", previous="6", settings=settings)["alarm"]
    assert alarms <= 5  # 0.025 of 60, and three standard errors


def test_repeating_every_rating_makes_nothing_surer():
    table = simulate(np.random.default_rng(1), num_prompts=30, per_prompt=2)
    once, twice = (
        compare_ratings(rows, champion="7", previous="6", settings=SETTINGS)["difference"]
        for rows in (table, pd.concat([table, table]))
    )
    assert once == pytest.approx(twice)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        table = simulate(rng, num_prompts=12, per_prompt=4, shift=-0.5)
        found = compare_ratings(table, champion="7", previous="6", settings=SETTINGS)["difference"]
        covered += found["low"] <= -0.5 <= found["high"]
    assert 0.93 <= covered / 200 <= 1


@pytest.mark.parametrize(("shift", "alarm"), [(-1.0, True), (0.0, False), (1.0, False)])
def test_an_alarm_is_a_champion_that_is_worse_with_confidence(shift, alarm):
    table = simulate(np.random.default_rng(3), num_prompts=60, per_prompt=3, shift=shift)
    found = compare_ratings(table, champion="7", previous="6", settings=SETTINGS)
    assert found["alarm"] is alarm
    assert found["champion"]["num_ratings"] == 180


def test_too_few_ratings_or_prompts_say_nothing():
    table = simulate(np.random.default_rng(4), num_prompts=1, per_prompt=50, shift=-9.0)
    found = compare_ratings(table, champion="7", previous="6", settings=SETTINGS)
    assert (found["alarm"], found["difference"]) == (False, None)
    found = compare_ratings(table, champion="7", previous="5", settings=SETTINGS)
    assert "previous 5 has 0; 20 are needed" in found["reason"]


def test_only_rated_rows_of_the_two_versions_count():
    rows = pa.RecordBatch.from_pylist(
        [
            {"prompt_id": "p", "model_version": version, "raw_reward": reward, "prompt": "text"}
            for version, reward in (("7", 1.0), ("7", None), ("5", 1.0), (None, 1.0))
        ]
    )
    assert len(read_ratings([rows, rows], {"7", "6"})) == 2
