import math

import pytest
import torch

from rpo_pipeline.core.partition import (
    calibration,
    estimate_partition,
    fit_prior,
    log_weights,
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


def test_weights_are_zero_for_monte_carlo_and_scaled_mean_logps_for_self_normalized():
    mean_logps = torch.tensor([-1.0, -3.0])
    assert log_weights("monte_carlo", mean_logps, self_normalized_alpha=2).tolist() == [0, 0]
    assert log_weights("self_normalized", mean_logps, self_normalized_alpha=2).tolist() == [-2, -6]
    assert log_weights("reference_weighted", mean_logps, self_normalized_alpha=2).tolist() == [
        -1,
        -3,
    ]


def test_the_prior_brings_log_z_of_single_responses_nearer_to_the_truth():
    """Simulation with a known answer: within = between sd 0.7, tau 0.5, so log_z = m/tau + 0.98."""
    generator = torch.Generator().manual_seed(0)
    num_prompts, sd = 4000, 0.7
    level = sd * torch.randn(num_prompts, generator=generator, dtype=torch.float64)
    truth = level / TAU + 0.5 * (sd / TAU) ** 2

    def draw(n):
        group = torch.arange(num_prompts).repeat_interleave(n)
        noise = sd * torch.randn(len(group), generator=generator, dtype=torch.float64)
        return level[group] + noise, group

    train_rewards, train_group = draw(4)
    prior = fit_prior(train_rewards, train_group, num_prompts, tau=TAU, strength=2)

    def error(n, prior):
        rewards, group = draw(n)
        estimate = estimate_partition(
            rewards, torch.zeros_like(rewards), group, num_prompts, tau=TAU, prior=prior
        )
        return float((estimate.log_z - truth).square().mean().sqrt())

    assert error(1, prior) < 0.7 * error(1, None)
    assert error(8, prior) < error(8, None)
