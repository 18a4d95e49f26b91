"""What an evaluation asks of the logged rows of the held-out prompts."""

import pandas as pd
import pytest

from rpo_pipeline.engine import Engine
from rpo_pipeline.evaluation.rows import best_responses, hold_out, log_ratios, prompts_of
from tests.conftest import block, build_small

FEEDBACK = pd.DataFrame(
    [
        ("r1", "b", "B?", "no", "test", False),
        ("r2", "b", "B?", "yes", "test", False),
        ("r3", "a", "A?", "maybe", "test", False),
        ("r4", "c", "C?", "sure", "test", True),
        ("r5", "d", "D?", "sure", "train", False),
        ("r6", "e", "E?", "sure", "test", False),
    ],
    columns=["row_id", "prompt_id", "prompt", "response", "split", "leaked"],
).assign(raw_reward=9.0)
REWARDS = pd.DataFrame(
    {"row_id": ["r2", "r1", "r5", "r4"], "raw_reward": [1, 0, 1, 1], "reward": [0.5, -0.5, 1, 1]}
)
LOGPS = pd.DataFrame({"row_id": ["r1", "r2", "r3", "r5"], "logps": [-1.0, -2.0, -3.0, -5.0]})


def held_out(num_prompts=2, tau=0.25):
    return hold_out(FEEDBACK, REWARDS, LOGPS, num_prompts, tau=tau)


def test_the_rows_are_those_of_the_first_unleaked_test_prompts_in_the_order_of_the_log():
    rows = held_out()
    assert rows["row_id"].tolist() == ["r1", "r2", "r3"]
    assert prompts_of(rows)["prompt"].tolist() == ["A?", "B?"]


def test_a_row_carries_the_labelers_reward_over_tau_and_what_the_reference_gives_it():
    rows = held_out().set_index("row_id")
    assert rows.loc["r2", ["raw_reward", "reward", "scaled_reward"]].tolist() == [1, 0.5, 2]
    assert rows["ref_logps"].tolist() == [-1, -2, -3]
    assert rows.loc["r3", ["raw_reward", "reward", "scaled_reward"]].isna().all()


def test_the_best_response_is_that_of_the_highest_reward_and_an_unlabelled_prompt_has_none():
    assert best_responses(held_out()).to_dict() == {"b": "yes"}


def test_without_a_tau_no_reward_is_scaled():
    assert held_out(tau=float("nan"))["scaled_reward"].isna().all()


def test_a_log_ratio_is_over_the_reference_and_may_be_per_token(tmp_path):
    build_small("llama").save(tmp_path)
    engine = Engine(tmp_path, block("policy"), block("training"))
    rows = held_out()[::-1]
    scored = engine.logps(rows)
    rows = rows.assign(ref_logps=scored["logps"].to_numpy() - 3)
    assert log_ratios(rows, engine, per_token=False) == pytest.approx([3, 3, 3], rel=1e-4)
    expected = 3 / scored["num_tokens"].to_numpy()
    assert log_ratios(rows, engine, per_token=True) == pytest.approx(expected, rel=1e-4)
