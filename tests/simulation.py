"""How near log_z comes to a known truth, and how often the gate lets an equal challenger pass.

``python -m tests.simulation log_z`` prints the table of docs/method.md: rewards of a prompt are
gaussian around its level, and levels gaussian with the same spread, so that ``log_z = level / tau +
(sd / tau)^2 / 2`` exactly. ``python -m tests.simulation gate`` prints that of docs/promotion.md:
differences of many shapes, all with the mean 0.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import t
from torch import Tensor
from torch.distributions import Exponential, LogNormal, Normal, Pareto, StudentT

from rpo_pipeline.core.bounds import lower_bound
from rpo_pipeline.core.partition import estimate_partition, fit_prior
from rpo_pipeline.registry.gate import strictness

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


Draw = Callable[[tuple[int, int]], Tensor]

NUM_LOGGED = 100
"""Labelled responses beside those of the test prompts: they show how far rewards lie apart."""


def _rare_loss(share: float, size: float) -> Draw:
    """A small gain on most prompts, and a loss on few."""

    def draw(shape):
        gains = share * size / (1 - share) + Normal(0.0, 0.1).sample(shape)
        return torch.where(torch.rand(shape) < share, torch.tensor(-size), gains)

    return draw


def _grid(shape):
    """No difference on four prompts of five, as where both models write the same."""
    return torch.where(torch.rand(shape) < 0.8, 0.0, torch.sign(torch.randn(shape)))


DIFFERENCES: dict[str, tuple[Draw, float | None]] = {
    "normal": (Normal(0.0, 1.0).sample, None),
    "skewed to gains": (lambda shape: LogNormal(0.0, 1.0).sample(shape) - math.exp(0.5), None),
    "skewed to losses": (lambda shape: math.exp(0.5) - LogNormal(0.0, 1.0).sample(shape), None),
    "exponential losses": (lambda shape: 1 - Exponential(1.0).sample(shape), None),
    "heavy tails": (StudentT(3.0).sample, None),
    "heavy losses": (lambda shape: 1.5 - Pareto(1.0, 3.0).sample(shape), None),
    "four of five equal": (_grid, None),
    "1 % lose 20 times": (_rare_loss(0.01, 5.0), 5.0),
    "2 % lose 20 times": (_rare_loss(0.02, 5.0), 5.0),
    "3 % lose 20 times": (_rare_loss(0.03, 5.0), 5.0),
    "10 % lose": (_rare_loss(0.1, 1.0), 1.0),
}
"""Shapes of differences with the mean 0, and the loss that the labeler is known to give; where it
is None, what is known is how far the responses of the test prompts and the log lie apart."""


@dataclass(frozen=True)
class Promotions:
    """Shares of evaluations in which a challenger that is no better passes."""

    nominal: float
    bound: float
    student: float
    """By Student's t, for comparison."""


def false_promotions(
    shape: str, *, num_prompts: int, look: int, num_series: int, seed: int = 0
) -> Promotions:
    """Let equal challengers be judged by the gate's bound, at its level of a look."""
    error = strictness(0.95, look=look, num_prompts=num_prompts).error
    draw, known = DIFFERENCES[shape]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        gaps = draw((num_series, num_prompts)).double()
        logged = draw((num_series, NUM_LOGGED)).double()
    seen = torch.cat([gaps, logged, torch.zeros(num_series, 1, dtype=gaps.dtype)], dim=1)
    apart = seen.amax(dim=1) - seen.amin(dim=1)
    worst = -apart if known is None else torch.full_like(apart, -known)
    statistic = gaps.mean(dim=1) / (gaps.std(dim=1) / num_prompts**0.5)
    ahead = gaps.mean(dim=1) > 0  # the others cannot pass
    passed = lower_bound(gaps[ahead], worst[ahead], error=error) > 0
    return Promotions(
        nominal=error,
        bound=float(passed.sum() / num_series),
        student=float((statistic > t.isf(error, num_prompts - 1)).double().mean()),
    )


def promotions_table(num_series: int = 10_000) -> str:
    """False promotions over the nominal rate, by Student's t and by the bound, as Markdown."""
    settings = [(num, look) for num in (40, 100) for look in (1, 3)]
    head = ["differences", *(f"{num} prompts, look {look}" for num, look in settings)]
    lines = [head, ["---"] * len(head)]
    for shape in DIFFERENCES:
        cells = []
        for num, look in settings:
            found = false_promotions(shape, num_prompts=num, look=look, num_series=num_series)
            rates = (rate / found.nominal for rate in (found.student, found.bound))
            cells.append(", ".join(f"{rate:.2f}" for rate in rates))
        lines.append([shape, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


TABLES = {"log_z": table, "gate": promotions_table}

if __name__ == "__main__":
    sys.stdout.write(TABLES[sys.argv[1]]())
