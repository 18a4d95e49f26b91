import math

import pytest
import torch

from rpo_pipeline.core.losses import dro_loss, kto_loss, kto_reference_point, rpo_loss, sft_loss


def test_the_rpo_loss_is_half_the_squared_distance_of_log_ratio_and_target():
    losses = rpo_loss(
        logps=torch.tensor([-10.0, -12.0]),
        ref_logps=torch.tensor([-11.0, -12.0]),
        targets=torch.tensor([1.0, 3.0]),
    )
    assert losses.tolist() == [0.0, 4.5]


def test_the_gradient_of_the_rpo_loss_is_the_residual():
    logps = torch.tensor([-10.0, -12.0], requires_grad=True)
    rpo_loss(logps, torch.tensor([-11.0, -12.0]), torch.tensor([3.0, -2.0])).sum().backward()
    assert logps.grad.tolist() == [-2.0, 2.0]


def test_the_sft_loss_is_the_negative_log_likelihood():
    assert sft_loss(torch.tensor([-3.0, -0.5])).tolist() == [3.0, 0.5]


def test_the_dro_loss_is_the_rpo_loss_with_the_value_in_the_place_of_log_z():
    losses = dro_loss(
        logps=torch.tensor([-10.0, -12.0]),
        ref_logps=torch.tensor([-11.0, -12.0]),
        scaled_rewards=torch.tensor([1.5, 3.0]),
        values=torch.tensor([0.5, 1.0]),
    )
    assert losses.tolist() == [0.0, 2.0]


def test_the_kto_loss_is_a_sigmoid_of_the_distance_from_the_reference_point():
    losses = kto_loss(
        logps=torch.tensor([-8.0, -8.0]),
        ref_logps=torch.tensor([-11.0, -11.0]),
        desirable=torch.tensor([True, False]),
        reference_point=torch.tensor(1.0),
        beta=0.5,
        desirable_weight=3.0,
        undesirable_weight=2.0,
    )
    gain = 1 / (1 + math.exp(-0.5 * (3 - 1)))
    assert losses.tolist() == pytest.approx([3 * (1 - gain), 2 * gain])


@pytest.mark.parametrize(("policy", "expected"), [([-2.0, -4.0], 1.5), ([-9.0, -4.0], 0.0)])
def test_the_reference_point_is_the_mean_log_ratio_but_never_below_zero(policy, expected):
    logps = torch.tensor(policy, requires_grad=True)
    point = kto_reference_point(logps, torch.tensor([-4.0, -5.0]))
    assert point.item() == expected
    assert not point.requires_grad
