import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.errors import DataError
from rpo_pipeline.partition.estimates import partition_rows
from tests.conftest import block

NO_SAMPLES = pd.DataFrame(columns=["prompt_id", "reward", "labeler"])


def rpo(**settings):
    return block("rpo", **({"prior_strength": 0.0, "estimator": "monte_carlo"} | settings))


def estimate(rows, samples=NO_SAMPLES, tau=0.5, **settings):
    return partition_rows(rows, samples, rpo(**settings), tau=tau)


def warns_of(health, words):
    return any(words in warning for warning in health["warnings"])


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
            "labeler": "rules",
            "behaviour_logps": np.nan,
            "prompt_is_cut": False,
            "response_is_cut": False,
        }
    )
    table.loc[table["prompt_id"] == "p5", "reward"] = 0.25
    return table


@pytest.fixture
def samples():
    """Four samples for each of the prompts with one response."""
    rewards = [-0.5, 0.0, 0.25, 1.0, -1.0, 0.5, 0.5, 0.75]
    prompt_ids = np.repeat(["p0", "p1"], 4)
    return pd.DataFrame({"prompt_id": prompt_ids, "reward": rewards, "labeler": "rules"})


def test_there_is_one_line_a_prompt_with_its_count_targets_and_effective_sizes(labelled):
    table, targets, _ = estimate(labelled)
    assert table["n"].tolist() == table["n_used"].tolist() == [1, 1, 2, 5, 8, 4]
    assert (table["ess"] <= table["n"] + 1e-9).all()
    prompt = labelled[labelled["prompt_id"] == "p3"]
    target = prompt["reward"] / 0.5 - table["log_z"][3]
    assert table["target_mean"][3] == pytest.approx(target.mean())
    assert table["target_std"][3] == pytest.approx(target.std(ddof=0))
    assert table["reward_std_over_tau"][3] == pytest.approx(prompt["reward"].std() / 0.5)
    of_prompt = targets[targets["row_id"].isin(prompt["row_id"])]
    assert of_prompt["target"].tolist() == pytest.approx(target.tolist())


def test_the_order_of_the_rows_does_not_change_the_tables(labelled, samples):
    shuffled = labelled.sample(frac=1, random_state=3)
    settings = {"estimator": "reference_samples", "prior_strength": 2.0}
    again = estimate(shuffled, samples.sample(frac=1, random_state=4), **settings)
    for got, expected in zip(again[:2], estimate(labelled, samples, **settings), strict=False):
        pd.testing.assert_frame_equal(got, expected)


def test_samples_replace_what_was_logged_of_their_prompts_and_of_no_other(labelled, samples):
    table, targets, health = estimate(labelled, samples, estimator="reference_samples")
    logged, _, _ = estimate(labelled)
    assert table["n"].tolist() == [1, 1, 2, 5, 8, 4]
    assert table["n_used"].tolist() == [4, 4, 2, 5, 8, 4]
    assert table["log_z"][0] == pytest.approx(np.log(np.exp(samples["reward"][:4] / 0.5).mean()))
    assert table["log_z"][2:].tolist() == logged["log_z"][2:].tolist()
    assert len(targets) == len(labelled)
    assert targets["target"][0] == pytest.approx(labelled["reward"][0] / 0.5 - table["log_z"][0])
    assert (health["num_sampled_prompts"], health["num_samples"]) == (2, 8)
    assert not warns_of(health, "teaches nothing")


def test_a_log_of_which_no_prompt_is_sampled_for_is_estimated_as_by_monte_carlo(labelled):
    table, _, health = estimate(labelled, estimator="reference_samples")
    pd.testing.assert_frame_equal(table, estimate(labelled)[0])
    assert health["num_sampled_prompts"] == 0


def test_the_prior_of_reference_samples_is_fitted_on_the_rows_that_it_uses(labelled, samples):
    more = estimate(labelled, samples, estimator="reference_samples", prior_strength=2.0)[0]
    lone = labelled[labelled["prompt_id"].isin(["p0", "p1"])].assign(reward=99.0)
    rest = labelled[~labelled["prompt_id"].isin(["p0", "p1"])]
    again = estimate(
        pd.concat([lone, rest]), samples, estimator="reference_samples", prior_strength=2.0
    )[0]
    np.testing.assert_allclose(more["log_z"], again["log_z"])


@pytest.fixture
def few_quantiles(labelled, samples):
    return labelled[labelled["prompt_id"].isin(["p0", "p1"])].assign(reward=[0.1, 0.5]), samples


def test_quantile_places_each_response_among_the_samples_of_its_prompt(few_quantiles):
    table, targets, health = estimate(*few_quantiles, estimator="quantile", tau=0.4)
    expected = np.array([0.5, 0.5]) / 0.4 - table["log_z"]
    assert targets["target"].tolist() == pytest.approx(expected.tolist())
    assert table["n_used"].tolist() == [4, 4]
    assert (table["ess"] <= 4).all()
    assert health["num_samples"] == 8


def test_quantile_refuses_rows_whose_prompt_has_no_samples(labelled, samples):
    with pytest.raises(DataError, match="19 rows have no samples"):
        estimate(labelled, samples, estimator="quantile")


def test_samples_of_an_earlier_run_do_not_reach_an_estimator_of_the_log(labelled, samples):
    pd.testing.assert_frame_equal(estimate(labelled, samples)[0], estimate(labelled)[0])


def test_quantile_has_no_jackknife_and_no_calibration(few_quantiles):
    table, _, health = estimate(*few_quantiles, estimator="quantile")
    assert table[["log_z_se", "log_z_bias"]].isna().all(axis=None)
    assert health["log_z_se_mean"] is health["log_z_bias_mean"] is health["calibration"] is None


def test_self_normalized_without_behaviour_logps_is_called_a_heuristic_and_counted(labelled):
    _, _, health = estimate(labelled, estimator="self_normalized")
    assert health["num_behaviour_prompts"] == 0
    assert warns_of(health, "6 of 6 prompts lack behaviour_logps")
    assert warns_of(health, "a heuristic")


def test_self_normalized_takes_the_behaviour_logps_of_prompts_that_have_them_all(labelled):
    heuristic, _, _ = estimate(labelled, estimator="self_normalized")
    logged = labelled["prompt_id"].isin(["p2", "p3"])
    noise = np.linspace(-1, 1, len(labelled))
    with_some = labelled.assign(behaviour_logps=(labelled["logps"] + noise).where(logged))
    with_some.loc[with_some["row_id"] == "r05", "behaviour_logps"] = np.nan  # one of p3
    table, _, health = estimate(with_some, estimator="self_normalized")
    changed = ~np.isclose(table["log_z"], heuristic["log_z"])
    assert table["prompt_id"][changed].tolist() == ["p2"]
    assert health["num_behaviour_prompts"] == 1
    everywhere = labelled.assign(behaviour_logps=labelled["logps"])
    assert not warns_of(estimate(everywhere, estimator="self_normalized")[2], "heuristic")


def test_samples_on_the_scale_of_another_labeler_are_warned_of(labelled, samples):
    rated = labelled.assign(labeler=labelled["prompt_id"].map({"p0": "column"}).fillna("rules"))
    _, _, health = estimate(rated, samples, estimator="reference_samples")
    assert health["other_labeler_share"] == 0.5
    assert warns_of(health, "50% of the rows that are compared with samples")
    _, _, same = estimate(labelled, samples, estimator="reference_samples")
    assert not warns_of(same, "another labeler")


def test_the_jackknife_is_empty_for_lone_responses_without_a_prior(labelled):
    assert estimate(labelled)[0]["log_z_se"].isna().tolist() == [True, True] + [False] * 4
    assert estimate(labelled, prior_strength=2.0)[0]["log_z_se"].notna().all()


def test_a_log_of_lone_responses_takes_log_z_from_the_levels_of_its_prompts(labelled):
    """The reward of the row itself moves its target by reward / tau, and not its log_z."""
    lone = labelled.drop_duplicates("prompt_id").assign(level=[0.1, 0.0, -0.1, 0.2, 0.3, 0.0])
    table, targets, health = estimate(lone, prior_strength=2.0)
    deviations = (lone["reward"] - lone["level"]) / 0.5
    expected = lone["level"].to_numpy() / 0.5 + np.log(np.exp(deviations).mean())
    np.testing.assert_allclose(table["log_z"], expected, rtol=1e-12)
    np.testing.assert_allclose(targets["target"], lone["reward"] / 0.5 - expected, rtol=1e-12)
    assert table["log_z_se"].isna().all()
    assert health["from_other_prompts"]
    assert not warns_of(health, "teaches nothing")


def test_a_log_of_lone_responses_without_a_prior_is_said_to_teach_nothing(labelled):
    lone = labelled.drop_duplicates("prompt_id").assign(level=0.0)
    assert warns_of(estimate(lone)[2], "teaches nothing")


def test_rho_is_a_number_or_the_error_of_log_z_over_the_variance_of_targets(labelled):
    fixed = estimate(labelled, rho=0.7)[1]
    assert fixed["rho"].tolist() == [0.7] * len(labelled)
    table, targets, _ = estimate(labelled, rho="auto", prior_strength=2.0)
    rows = labelled.sort_values(["prompt_id", "row_id"], ignore_index=True)
    scaled = rows["reward"] / 0.5
    within = (scaled - scaled.groupby(rows["prompt_id"]).transform("mean")).pow(2).sum()
    variance = within / (len(rows) - rows["prompt_id"].nunique())
    errors = rows["prompt_id"].map(table.set_index("prompt_id")["log_z_se"])
    np.testing.assert_allclose(targets["rho"], errors**2 / variance, rtol=1e-9)
    assert (targets["rho"] > 0).sum() >= 20


def test_the_huber_delta_of_a_reward_is_one_of_nats_by_tau(labelled):
    targets = estimate(labelled, huber_delta=3.0)[1]
    assert targets["huber_delta"].tolist() == [3.0 / 0.5] * len(labelled)
    assert estimate(labelled, huber_delta=None)[1]["huber_delta"].isna().all()


def test_rho_is_zero_where_no_error_of_log_z_is_known(labelled):
    assert estimate(labelled[:2], rho="auto")[1]["rho"].tolist() == [0.0, 0.0]


def test_the_health_report_counts_singletons_and_constant_rewards(labelled):
    _, _, health = estimate(labelled)
    assert health["singleton_share"] == pytest.approx(2 / 6)
    assert health["constant_reward_share"] == pytest.approx(3 / 6)


def test_singletons_without_a_prior_are_said_to_teach_nothing(labelled):
    _, _, health = estimate(labelled)
    assert warns_of(health, "teaches nothing")
    _, _, with_prior = estimate(labelled, prior_strength=2.0)
    assert not warns_of(with_prior, "teaches nothing")


def test_a_temperature_so_small_that_the_best_response_rules_is_warned_of(labelled):
    _, _, health = estimate(labelled, tau=0.05, fit_level=False)
    assert warns_of(health, "best-of-n")
    _, _, health = estimate(labelled, tau=0.05, fit_level=True)
    assert health["reward_std_over_tau"] > 2
    assert not warns_of(health, "best-of-n")


def test_the_published_estimator_is_warned_of(labelled):
    _, _, health = estimate(labelled, estimator="reference_weighted")
    assert warns_of(health, "not normalised")


def test_the_prior_is_fitted_on_train_rows_only(labelled):
    test_rows = labelled.assign(
        split="test", prompt_id="t" + labelled["prompt_id"], row_id="t" + labelled["row_id"]
    )
    test_rows["reward"] *= 40
    both, *_ = estimate(pd.concat([labelled, test_rows]), prior_strength=2.0)
    alone, *_ = estimate(labelled, prior_strength=2.0)
    merged = both.merge(alone, on="prompt_id")
    np.testing.assert_allclose(merged["log_z_x"], merged["log_z_y"])


def test_what_the_limits_on_tokens_cut_is_reported_and_loses_its_behaviour_logps(labelled):
    logged = labelled.assign(behaviour_logps=labelled["logps"])
    logged.loc[logged["row_id"] == "r05", "response_is_cut"] = True
    logged.loc[logged["prompt_id"] == "p2", "prompt_is_cut"] = True
    _, _, health = estimate(logged, estimator="self_normalized")
    assert health["cut_response_share"] == pytest.approx(1 / len(logged))
    assert health["cut_prompt_share"] == pytest.approx(1 / 6)
    assert health["num_behaviour_prompts"] == 5
