import torch

from rpo_pipeline.core.objectives import rpo_loss, sft_loss


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
