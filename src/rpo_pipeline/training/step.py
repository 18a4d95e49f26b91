"""One optimizer step, and one pass without gradients, over prompt groups."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from rpo_pipeline.data.groups import Group
from rpo_pipeline.errors import TrainingError
from rpo_pipeline.models.loading import LanguageModel
from rpo_pipeline.models.scoring import group_logps, micro_batches
from rpo_pipeline.training.objectives import Objective, RowScores


@dataclass(frozen=True)
class Trainee:
    """The policy with what moves it."""

    language_model: LanguageModel
    optimizer: Optimizer
    accelerator: Accelerator
    objective: Objective
    micro_batch_tokens: int
    max_grad_norm: float


def optimizer_step(trainee: Trainee, groups: Sequence[Group]) -> dict[str, float]:
    """Take one step on the mean loss of some groups.

    The denominator is fixed before the step is split, so the split does not change the result.

    Args:
        trainee: The policy with what moves it.
        groups: Prompt groups of the step.

    Returns:
        Loss, the objective's metrics averaged over rows, and the norm of the gradient.

    Raises:
        TrainingError: If the loss or the gradient is not finite; the weights are untouched then.
    """
    metrics = _accumulate(trainee, groups, train=True)
    norm = trainee.accelerator.clip_grad_norm_(
        trainee.language_model.model.parameters(), trainee.max_grad_norm
    )
    metrics["grad_norm"] = float(norm)
    if not (torch.isfinite(norm) and torch.isfinite(torch.tensor(metrics["loss"]))):
        raise TrainingError(
            f"loss {metrics['loss']:g} with gradient norm {float(norm):g} is not finite, the step "
            f"was not taken. Prompts of the batch: {', '.join(g.prompt_id for g in groups)} "
            "(look at their rewards and targets, or lower training.learning_rate)"
        )
    trainee.optimizer.step()
    trainee.optimizer.zero_grad()
    return metrics


def mean_loss(trainee: Trainee, groups: Sequence[Group]) -> float:
    """Loss over groups, without gradients."""
    with torch.inference_mode():
        return _accumulate(trainee, groups, train=False)["loss"]


def _accumulate(trainee: Trainee, groups: Sequence[Group], *, train: bool) -> dict[str, float]:
    denominator = trainee.objective.denominator(groups)
    num_rows = sum(len(group.rows) for group in groups)
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
    language_model = trainee.language_model
    point = trainee.objective.reference_point(groups, lambda pairs: _score(trainee, pairs))
    for batch, route in micro_batches(language_model, groups, trainee.micro_batch_tokens):
        logps = group_logps(language_model, batch, route)
        scores = RowScores(logps, reference_point=point)
        losses, metrics = trainee.objective.row_losses(scores, batch)
        loss = losses.sum() / denominator
        if train:
            trainee.accelerator.backward(loss)
        sums["loss"] += loss.detach()
        for name, values in metrics.items():
            sums[name] += values.sum() / num_rows
    return {name: float(value) for name, value in sums.items()}


@torch.no_grad()
def _score(trainee: Trainee, groups: Sequence[Group]) -> Tensor:
    """Log-probabilities of the rows of some groups, group by group, without gradients."""
    positions = iter(range(sum(len(group.rows) for group in groups)))
    listed = [replace(group, rows=[next(positions) for _ in group.rows]) for group in groups]
    logps = torch.zeros(sum(len(group.rows) for group in groups))
    for batch, route in micro_batches(trainee.language_model, listed, trainee.micro_batch_tokens):
        logps[batch.rows] = group_logps(trainee.language_model, batch, route)
    return logps
