"""The value head of DRO-V."""

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Computes a prompt's value in nats, linear in the policy's states of the prompt.

    It starts at 0, where the DRO-V loss is RPO's without log_z. The states that it reads are
    detached, so no gradient passes from it into the policy.

    Args:
        hidden_size: Width H of the states.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, prompt_states: Tensor) -> Tensor:
        """Compute values, float32, shape ``(P,)``, of detached states, shape ``(P, H)``."""
        with torch.autocast(prompt_states.device.type, enabled=False):
            values: Tensor = self.linear(prompt_states.float())
        return values.squeeze(-1)
