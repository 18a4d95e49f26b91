"""How near log_z comes to a known truth.

Rewards of a prompt are gaussian around its level, and levels gaussian with the same spread, so that
``log_z = level / tau + (sd / tau)^2 / 2`` exactly. ``python -m tests.simulation`` prints the table
of docs/method.md.
"""

import sys
from dataclasses import dataclass

import torch

from rpo_pipeline.core.partition import estimate_partition, fit_prior

SIZES = (1, 2, 4, 8, 16)
SPREADS = (0.5, 1.0, 2.0, 3.3)
STRENGTH = 2.0
"""The prior's, as conf/base has it."""
TRAIN_SIZE = 4
"""Responses of the prompts that the prior is fitted on."""


@dataclass(frozen=True)
class Error:
    """Of log_z, in nats."""

    bias: float
    rmse: float
    jackknife: float
    """Root mean square of the standard error that the estimate gives itself."""


def simulate(
    n: int, spread: float, *, prior: bool, num_prompts: int = 4000, seed: int = 0
) -> Error:
    """Estimate log_z of prompts with n responses whose rewards spread over ``spread`` tau."""
    generator = torch.Generator().manual_seed(seed)

    def normal(size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def draw(size):
        group = torch.arange(num_prompts).repeat_interleave(size)
        return level[group] + normal(len(group)), group

    level, tau = normal(num_prompts), 1 / spread
    fitted = fit_prior(*draw(TRAIN_SIZE), num_prompts, tau=tau, strength=STRENGTH)
    rewards, group = draw(n)
    estimate = estimate_partition(
        rewards,
        torch.zeros_like(rewards),
        group,
        num_prompts,
        tau=tau,
        prior=fitted if prior else None,
    )
    error = estimate.log_z - (level / tau + spread**2 / 2)
    return Error(
        bias=float(error.mean()),
        rmse=float(error.square().mean().sqrt()),
        jackknife=float(estimate.log_z_se.square().mean().sqrt()),
    )


def table() -> str:
    """Bias and RMSE by sd/tau and n, as Markdown."""
    head = ["sd/tau", "prior", *(f"n = {n}" for n in SIZES)]
    lines = [head, ["---"] * len(head)]
    for spread in SPREADS:
        for prior in (False, True):
            errors = [simulate(n, spread, prior=prior) for n in SIZES]
            cells = [f"{error.bias:+.2f}, {error.rmse:.2f}" for error in errors]
            lines.append([f"{spread:g}", f"{STRENGTH:g}" if prior else "none", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
