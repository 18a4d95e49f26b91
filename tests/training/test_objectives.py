"""The DRO-V objective with its value head."""

import math

import pytest
import torch

from rpo_pipeline.core.partition import estimate_partition
from rpo_pipeline.engine.groups import Group, collate
from rpo_pipeline.training.objectives import DroObjective, RowScores, RpoObjective
from rpo_pipeline.training.value_head import ValueHead

SCALED_REWARDS = torch.tensor([2.0, 0.5, 1.0, -1.0, -2.0, 0.5])
STATES = torch.tensor([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]])
UNIFORM = torch.full((6,), -math.log(3))


@pytest.fixture
def batch():
    """Two prompts with three responses each."""
    responses = [[1] * length for length in (2, 1, 4, 3, 5, 1)]
    groups = [Group([1], responses[:3], [0, 1, 2]), Group([2], responses[3:], [3, 4, 5])]
    return collate(groups, pad_token_id=0)


def test_policy_and_value_head_together_find_the_optimal_policy_and_log_z(batch):
    """Three responses are all that a prompt can get here, and the reference is uniform on them."""
    logits, head = torch.zeros(2, 3, requires_grad=True), ValueHead(3)
    objective = DroObjective(UNIFORM, SCALED_REWARDS, per_token=False, value_learning_rate=0.1)
    optimizer = torch.optim.Adam([logits, *head.parameters()], lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        logps, values = torch.log_softmax(logits, dim=1).flatten(), head(STATES)
        scores = RowScores(logps, values[batch.prompt_index])
        objective.row_losses(scores, batch)[0].sum().backward()
        optimizer.step()
    rewards = SCALED_REWARDS.double()
    zeros = torch.zeros_like(rewards)
    log_z = estimate_partition(rewards, zeros, batch.prompt_index, 2, tau=1.0).log_z.float()
    torch.testing.assert_close(values.detach(), log_z, atol=1e-3, rtol=0)
    optimum = SCALED_REWARDS - log_z[batch.prompt_index]
    torch.testing.assert_close(logps.detach() - UNIFORM, optimum, atol=1e-3, rtol=0)


def test_the_value_head_starts_at_zero_and_learns_all_the_same():
    head = ValueHead(3)
    with torch.autocast("cpu", torch.bfloat16):
        values = head(STATES.bfloat16())
    assert values.tolist() == [0.0, 0.0]
    assert values.dtype == torch.float32
    (values * torch.tensor([2.0, -1.0])).sum().backward()
    torch.testing.assert_close(head.linear.weight.grad, 2 * STATES[:1] - STATES[1:])


@pytest.mark.parametrize("per_token", [False, True])
def test_with_its_value_at_log_z_dro_is_rpo(batch, per_token):
    logps, log_z = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]), torch.tensor([0.5, -0.25])
    values = log_z[batch.prompt_index]
    dro = DroObjective(UNIFORM, SCALED_REWARDS, per_token=per_token, value_learning_rate=0.1)
    rpo = RpoObjective(UNIFORM, SCALED_REWARDS - values, per_token=per_token)
    scores = RowScores(logps, values)
    losses, metrics = dro.row_losses(scores, batch)
    expected, expected_metrics = rpo.row_losses(scores, batch)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(metrics.pop("value"), values)
    torch.testing.assert_close(metrics, expected_metrics)
    assert dro.denominator([Group([1], [[1], [2]], [0, 1])]) == 2
    assert (dro.value_learning_rate, rpo.value_learning_rate) == (0.1, None)
