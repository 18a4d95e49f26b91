"""Reward Partition Optimization (RPO) on one page: targets, loss, step, loop.

``train`` improves a model from a log of prompts, responses and rewards. Its numbers are those of
the pipeline (``tests/core/test_rpo.py`` trains on one log both ways), and ``docs/method.md``
explains it. It calls no other code of the project, so each of the two is a check of the other.

Caches, micro-batches, devices, checkpoints, and the prompt that is computed once for all its
responses are left out, because no number depends on them. Validation, encoder-decoders, the limit
on outliers, and the options of ``rpo`` and ``training`` are left out.

Shapes: n responses of a prompt, L tokens, V vocabulary. Log-probabilities, log_z and targets are in
nats, tau in units of the reward. Source: Faye et al., arXiv:2506.13702; prior and level are ours.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, huber_loss
from torch.optim import AdamW


class Group(NamedTuple):
    """One prompt and its responses, as token ids; a response ends with its end token."""

    prompt: list[int]
    responses: list[list[int]]
    rewards: list[float]


class Settings(NamedTuple):
    """Parameters of ``rpo`` and ``training``, which ``params/training.py`` explains."""

    tau: float
    prior_strength: float
    huber_delta: float
    num_epochs: float
    global_batch_groups: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_grad_norm: float
    seed: int


def targets(log: Sequence[Group], tau: float, prior_strength: float) -> list[Tensor]:
    """Compute ``r / tau - log_z`` of each group's responses, shape ``(n,)``.

    ``exp(log_z)`` is the mean of ``exp(r / tau)`` over the n responses and over k of a prior. The
    prior has the level of the prompt, shrunk to the mean of the log, and the spread that rewards
    have within prompts. The log needs two prompts, and one of them needs two responses.
    """
    rewards = [torch.tensor(group.rewards, dtype=torch.float64) for group in log]
    n, k = torch.tensor([len(r) for r in rewards]), torch.tensor(prior_strength)
    within = torch.cat([(r - r.mean()).square() for r in rewards]).sum() / (n - 1).sum()
    between = torch.stack([r.mean() for r in rewards]).var() - (within / n).mean()  # variances
    k_mean = within / between.clamp(min=1e-6 * float(within) + 1e-12)  # weight of the log's mean
    spread = [(r - r.mean()) * math.sqrt(len(r) / (len(r) - 1)) for r in rewards if len(r) > 1]
    log_spread = (torch.cat(spread) / tau).logsumexp(0) - math.log(len(torch.cat(spread)))
    found = []
    for r in rewards:
        level = (r.sum() + k_mean * torch.cat(rewards).mean()) / (len(r) + k_mean)
        from_prior = k.log() + level / tau + log_spread
        log_z = torch.logaddexp((r / tau).logsumexp(0), from_prior) - (len(r) + k).log()
        found.append((r / tau - log_z).float())
    return found


def response_logps(model: nn.Module, group: Group) -> Tensor:
    """Compute the log-probability of each response, shape ``(n,)``."""
    logps = []
    for response in group.responses:
        logits = model(torch.tensor([[*group.prompt, *response]]))[0]  # (L, V)
        scored = logits[len(group.prompt) - 1 : -1]  # the logits at a token predict the next one
        logps.append(-cross_entropy(scored.float(), torch.tensor(response), reduction="sum"))
    return torch.stack(logps)


def step(model: nn.Module, optimizer: AdamW, loss: Tensor, max_norm: float) -> float:
    """Take one step on a loss, and return it."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item()


def learning_rate(index: int, num_steps: int, settings: Settings) -> float:
    """Return the rate of a step: a line from 0 to the peak, then a cosine to a tenth of it."""
    warmup = min(math.ceil(settings.warmup_share * num_steps), num_steps - 1)
    if index < warmup:
        return settings.learning_rate * index / warmup
    share = (index - warmup) / (num_steps - warmup)
    return settings.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)


def train(model: nn.Module, log: Sequence[Group], settings: Settings) -> list[float]:
    """Train a model that maps ids ``(1, L)`` to logits ``(1, L, V)``; return each step's loss."""
    with torch.no_grad():  # before its first step, the policy is the reference
        ref_logps = [response_logps(model, group) for group in log]
    wanted = targets(log, settings.tau, settings.prior_strength)
    level = -torch.cat(wanted).mean().item()  # the error that all log_z share, fitted as it goes
    optimizer = AdamW(model.parameters(), weight_decay=settings.weight_decay)
    num_steps = math.ceil(settings.num_epochs * len(log) / settings.global_batch_groups)
    generator = torch.Generator().manual_seed(settings.seed)
    order: list[int] = []
    history: list[float] = []
    for index in range(num_steps):
        order = order or torch.randperm(len(log), generator=generator).tolist()  # a new epoch
        batch, order = order[: settings.global_batch_groups], order[settings.global_batch_groups :]
        optimizer.param_groups[0]["lr"] = learning_rate(index, num_steps, settings)
        target = torch.cat([wanted[i] for i in batch])
        log_ratios = torch.cat([response_logps(model, log[i]) - ref_logps[i] for i in batch])
        delta = settings.huber_delta / settings.tau  # half the squared distance, linear beyond this
        loss = huber_loss(log_ratios, target + level, delta=delta)
        history.append(step(model, optimizer, loss, settings.max_grad_norm))
        level += 0.1 * ((log_ratios - target).mean().item() - level)
    return history
