import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.rewards.partition import partition_rows
from tests.conftest import block


def rpo(**settings):
    return block("rpo", **({"tau": 0.5, "logp_reduction": "sum", "prior_strength": 0.0} | settings))


@pytest.fixture
def labelled():
    rng = np.random.default_rng(0)
    sizes = [1, 1, 2, 5, 8, 4]
    prompt_ids = np.repeat([f"p{i}" for i in range(len(sizes))], sizes)
    num_tokens = rng.integers(3, 30, len(prompt_ids))
    table = pd.DataFrame(
        {
            "row_id": [f"r{i:02}" for i in range(len(prompt_ids))],
            "prompt_id": prompt_ids,
            "split": "train",
            "reward": rng.normal(0, 0.5, len(prompt_ids)),
            "logps": -1.5 * num_tokens,
            "num_tokens": num_tokens,
        }
    )
    table.loc[table["prompt_id"] == "p5", "reward"] = 0.25
    return table


def test_there_is_one_line_a_prompt_with_its_count_targets_and_effective_sizes(labelled):
    table, _ = partition_rows(labelled, rpo())
    assert table["n"].tolist() == [1, 1, 2, 5, 8, 4]
    assert (table["ess"] <= table["n"] + 1e-9).all()
    prompt = labelled[labelled["prompt_id"] == "p3"]
    target = prompt["reward"] / 0.5 - table["log_z"][3]
    assert table["target_mean"][3] == pytest.approx(target.mean())
    assert table["target_std"][3] == pytest.approx(target.std(ddof=0))


def test_the_order_of_the_rows_does_not_change_the_table(labelled):
    shuffled = labelled.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(
        partition_rows(shuffled, rpo())[0], partition_rows(labelled, rpo())[0]
    )


def test_the_health_report_counts_singletons_and_constant_rewards(labelled):
    _, health = partition_rows(labelled, rpo())
    assert health["singleton_share"] == pytest.approx(2 / 6)
    assert health["constant_reward_share"] == pytest.approx(3 / 6)


def test_singletons_without_a_prior_are_said_to_teach_nothing(labelled):
    _, health = partition_rows(labelled, rpo())
    assert any("teaches nothing" in warning for warning in health["warnings"])
    _, with_prior = partition_rows(labelled, rpo(prior_strength=2.0))
    assert not any("teaches nothing" in warning for warning in with_prior["warnings"])


def test_a_temperature_so_small_that_the_best_response_rules_is_warned_of(labelled):
    _, health = partition_rows(labelled, rpo(tau=0.05))
    assert any("best-of-n" in warning for warning in health["warnings"])


def test_the_published_estimator_is_warned_of(labelled):
    _, health = partition_rows(labelled, rpo(estimator="reference_weighted"))
    assert any("not normalised" in warning for warning in health["warnings"])


def test_the_prior_is_fitted_on_train_rows_only(labelled):
    test_rows = labelled.assign(
        split="test", prompt_id="t" + labelled["prompt_id"], row_id="t" + labelled["row_id"]
    )
    test_rows["reward"] *= 40
    both, _ = partition_rows(pd.concat([labelled, test_rows]), rpo(prior_strength=2.0))
    alone, _ = partition_rows(labelled, rpo(prior_strength=2.0))
    merged = both.merge(alone, on="prompt_id")
    np.testing.assert_allclose(merged["log_z_x"], merged["log_z_y"])
