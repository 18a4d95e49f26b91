import math

import pytest
import torch

from rpo_pipeline.core.partition import (
    behaviour_weights,
    calibration,
    estimate_partition,
    fit_prior,
)

TAU = 0.5


def partition(rewards, group, *, weights=None, **settings):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    weights = torch.zeros_like(rewards) if weights is None else torch.tensor(weights).double()
    group = torch.tensor(group)
    return estimate_partition(rewards, weights, group, int(group.max()) + 1, tau=TAU, **settings)


def test_monte_carlo_gives_log_z_zero_to_a_prompt_whose_rewards_are_all_zero():
    assert partition([0.0, 0.0, 0.0], [0, 0, 0]).log_z.tolist() == [0.0]


def test_a_single_response_without_a_prior_has_target_zero_and_no_jackknife_error():
    estimate = partition([0.7], [0])
    assert estimate.log_z.tolist() == [0.7 / TAU]
    assert estimate.log_z_se.isnan().all()


def test_a_single_response_with_a_prior_gets_a_target():
    rewards, group = torch.tensor([1.0, -1.0, 0.8, 0.2]).double(), torch.tensor([0, 0, 1, 1])
    prior = fit_prior(rewards, group, 2, tau=TAU, strength=2)
    estimate = partition([0.7], [0], prior=prior)
    assert abs(0.7 / TAU - float(estimate.log_z)) > 0.1


def test_a_single_response_with_a_prior_has_an_error_as_large_as_what_it_moved():
    rewards, group = torch.tensor([1.0, -1.0, 0.8, 0.2]).double(), torch.tensor([0, 0, 1, 1])
    prior = fit_prior(rewards, group, 2, tau=TAU, strength=2)
    estimate = partition([0.7], [0], prior=prior)
    moved = float(estimate.log_z - estimate.log_z_without)
    assert float(estimate.log_z_se) == pytest.approx(math.sqrt(2 / 3) * abs(moved))
    assert estimate.log_z_bias.isnan().all()


GAUSSIAN = torch.randn(1200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def spread(rewards, *, tau=2.0):
    group = torch.arange(len(rewards)) // 4
    return fit_prior(rewards, group, len(rewards) // 4, tau=tau, strength=2).log_spread


@pytest.mark.parametrize("outlier", [10.0, 33.0, 1e6, -33.0])
def test_one_outlier_does_not_decide_the_spread_that_all_prompts_borrow(outlier):
    spoilt = GAUSSIAN.index_fill(0, torch.tensor([1199]), outlier)
    assert spread(spoilt) == pytest.approx(spread(GAUSSIAN), abs=0.05)
    assert spread(spoilt, tau=1.0) == pytest.approx(spread(GAUSSIAN, tau=1.0), abs=0.2)


@pytest.mark.parametrize(
    "rewards",
    [GAUSSIAN, torch.tensor([9.0, 0.0, 0.0, 0.0] + [0.0] * 96), torch.tensor([9.0] + [0.0] * 999)],
    ids=["gaussian", "rare", "alone"],
)
def test_spread_without_outliers_is_that_of_every_row(rewards):
    rewards = rewards.double()
    deviations = rewards - rewards.view(-1, 4).mean(dim=1).repeat_interleave(4)
    every = (deviations * math.sqrt(4 / 3) / 2).logsumexp(0) - math.log(len(rewards))
    assert spread(rewards) == pytest.approx(float(every), abs=1e-12)


def test_the_published_estimator_gives_a_single_response_a_target_without_its_reward():
    """At n = 1 the target of ``reference_weighted`` is -mean_logps_ref."""
    for reward in (-1.0, 0.0, 2.0):
        estimate = partition([reward], [0], weights=[-0.9], normalised=False)
        assert reward / TAU - float(estimate.log_z) == pytest.approx(0.9)


def test_a_prior_on_an_estimator_without_a_level_is_refused():
    prior = fit_prior(torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), 1, tau=TAU, strength=1)
    with pytest.raises(ValueError, match="normalised"):
        partition([1.0], [0], prior=prior, normalised=False)


@pytest.mark.parametrize("tau", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(tau):
    with pytest.raises(ValueError, match="tau"):
        estimate_partition(torch.zeros(1), torch.zeros(1), torch.zeros(1).long(), 1, tau=tau)


def test_rewards_of_a_thousand_tau_do_not_overflow():
    estimate = partition([500.0, -500.0], [0, 0])
    assert float(estimate.log_z) == pytest.approx(1000 - math.log(2))


def test_the_effective_sample_size_is_n_for_equal_terms_and_one_when_a_single_term_rules():
    estimate = partition([0.3, 0.3, 0.3, 50.0, 0.0], [0, 0, 0, 1, 1])
    assert estimate.ess.tolist() == pytest.approx([3.0, 1.0])


def test_calibration_is_zero_when_every_left_out_row_looks_like_the_others():
    rewards = [0.4, 0.4, 0.4]
    without = partition(rewards, [0, 0, 0]).log_z_without
    assert calibration(
        torch.tensor(rewards, dtype=torch.float64), without, tau=TAU
    ) == pytest.approx(0.0)


def test_calibration_is_positive_when_rows_hold_more_than_the_others_predict():
    rewards = [0.0, 0.0, 3.0]
    without = partition(rewards, [0, 0, 0]).log_z_without
    assert calibration(torch.tensor(rewards, dtype=torch.float64), without, tau=TAU) > 0.5


def behaviour(ref_logps, behaviour_logps, group, **settings):
    return behaviour_weights(
        torch.tensor(ref_logps),
        torch.tensor(behaviour_logps),
        torch.tensor(group),
        max(group) + 1,
        **{"alpha": 1.0, "clip": 5.0, **settings},
    )


def test_behaviour_weights_are_the_log_ratio_of_reference_and_behaviour_policy():
    assert behaviour([-3.0, -5.0], [-4.0, -2.0], [0, 0], alpha=0.5).tolist() == [0.5, -1.5]


def test_behaviour_weights_are_clipped_around_the_mean_of_their_own_prompt():
    weights = behaviour([-10.0, -30.0, -100.0, -104.0], [-20.0] * 4, [0, 0, 1, 1], clip=3.0)
    assert weights.tolist() == [0 + 3, 0 - 3, -82 + 2, -82 - 2]


def test_a_prompt_that_lacks_one_behaviour_logp_has_no_behaviour_weights():
    weights = behaviour([-1.0, -2.0, -3.0], [-1.5, math.nan, -2.0], [0, 0, 1])
    assert weights.isnan().tolist() == [True, True, False]


def test_behaviour_weights_recover_log_z_of_the_reference_from_off_policy_rows():
    """Two responses worth 1 and 0; the reference gives them 1/2 each, the log 9 to 1."""
    ref_logps = [math.log(0.5)] * 10
    behaviour_logps = [math.log(0.9)] * 9 + [math.log(0.1)]
    rewards = [1.0] * 9 + [0.0]
    weights = behaviour(ref_logps, behaviour_logps, [0] * 10).tolist()
    truth = math.log(0.5 * math.exp(1 / TAU) + 0.5)
    assert float(partition(rewards, [0] * 10, weights=weights).log_z) == pytest.approx(truth)
    assert float(partition(rewards, [0] * 10).log_z) > truth + 0.4
