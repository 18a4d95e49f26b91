"""The expected reward of a prompt where no prompt has two responses."""

import logging

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.engine import Engine
from rpo_pipeline.partition.levels import add_levels
from tests.conftest import block, build_small, limits


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "reference"
    build_small("llama").save(folder)
    return Engine(folder, limits(32, 16), block("training"))


def log(rewards, prompts=None, num_test=5):
    num_rows = len(rewards)
    prompts = prompts or [f"Question {place}?" for place in range(num_rows)]
    split = ["train"] * (num_rows - num_test) + ["test"] * num_test
    ids = [f"p{place:03}" for place in range(num_rows)]
    return pd.DataFrame(
        {"prompt_id": ids, "prompt": prompts, "split": split, "reward": np.asarray(rewards, float)}
    )


def test_a_train_prompt_of_two_responses_needs_no_levels_and_no_model(tmp_path):
    rows = log([1.0, 0.0, 0.5, 0.2], num_test=1)
    rows.loc[1, "prompt_id"] = "p000"
    nowhere = Engine(tmp_path / "nowhere", limits(32, 16), block("training"))
    assert add_levels(rows, nowhere)["level"].isna().all()


def test_a_few_prompts_of_two_responses_do_not_end_the_levels(tmp_path):
    """Their level is the mean of the rows of other prompts, for both of their responses."""
    rewards = [1.0, 0.0, *([0.5] * 38), 9.0]
    rows = log(rewards, num_test=1)
    rows.loc[1, "prompt_id"] = "p000"
    nowhere = Engine(tmp_path / "nowhere", limits(32, 16), block("training"))
    levels = add_levels(rows, nowhere)["level"]
    assert levels[:2].tolist() == pytest.approx([0.5, 0.5])
    assert levels[2] == pytest.approx((1.0 + 37 * 0.5) / 39)
    assert levels.iloc[-1] == pytest.approx(0.5)


def test_few_prompts_take_the_mean_of_the_other_train_rows(tmp_path):
    nowhere = Engine(tmp_path / "nowhere", limits(32, 16), block("training"))
    levels = add_levels(log([1.0, 0.0, 0.5, 9.0], num_test=1), nowhere)["level"]
    assert levels.tolist() == pytest.approx([0.25, 0.75, 0.5, 0.5])


def test_where_the_prompt_says_nothing_the_level_is_the_mean(engine, caplog):
    caplog.set_level(logging.INFO)
    rewards = np.random.default_rng(0).normal(size=80)
    levels = add_levels(log(rewards), engine)["level"].to_numpy()
    train = rewards[:75]
    np.testing.assert_allclose(levels[:75], (train.sum() - train) / 74)
    np.testing.assert_allclose(levels[75:], train.mean())
    assert "the level of one is the mean reward of train" in caplog.text


def test_where_the_prompt_tells_the_reward_the_level_is_predicted_from_it(engine):
    """Two kinds of prompt, whose rewards differ by 4 standard deviations of the noise."""
    kinds = np.arange(90) % 2
    rewards = 4.0 * kinds + np.random.default_rng(0).normal(size=90)
    prompts = [
        f"{'Please, dear team' if kind else 'Hi'}, it is {i}" for i, kind in enumerate(kinds)
    ]
    levels = add_levels(log(rewards, prompts, num_test=20), engine)["level"].to_numpy()
    for part in (slice(70), slice(70, None)):
        apart = levels[part][kinds[part] == 1].mean() - levels[part][kinds[part] == 0].mean()
        assert 3.0 < apart < 5.0


def test_the_own_reward_of_a_train_prompt_does_not_move_its_level(engine):
    rewards = np.random.default_rng(1).normal(size=80) + 3.0 * (np.arange(80) % 2)
    prompts = [f"{'Please' if i % 2 else 'Hi'} {i}" for i in range(80)]
    before = add_levels(log(rewards, prompts), engine)["level"]
    rewards[10] += 2.0
    after = add_levels(log(rewards, prompts), engine)["level"]
    assert after[10] == pytest.approx(before[10], abs=1e-9)
    assert not np.allclose(after.drop(10), before.drop(10))
