"""Takes an optimizer step, or a pass without gradients, over prompt groups."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from rpo_pipeline.engine import Group, GroupBatch, Route, TrainView
from rpo_pipeline.errors import TrainingError
from rpo_pipeline.training.objective import Objective, Responses, RowScores


@dataclass(frozen=True)
class Trainee:
    """A trainee is the policy in training, with its optimizer, accelerator and objective."""

    view: TrainView
    scorer: nn.Module
    """``Scorer`` as accelerate prepared it; the optimizer changes its weights."""
    optimizer: Optimizer
    accelerator: Accelerator
    objective: Objective
    max_grad_norm: float


def optimizer_step(trainee: Trainee, groups: Sequence[Group]) -> dict[str, float]:
    """Take one step on the mean loss of groups.

    The denominator is fixed before the step is split into micro-batches and processes, so the
    split does not change the result.

    Args:
        trainee: Policy with its optimizer.
        groups: Prompt groups of the step, the same in every process.

    Returns:
        Loss, the objective's metrics averaged over rows, and the norm of the gradient.

    Raises:
        TrainingError: If the loss or the gradient is not finite; the weights are untouched then.
    """
    metrics = _accumulate(trainee, groups, train=True)
    # The policy comes first; a value head is clipped separately, so that it does not shrink the
    # policy's gradients.
    norm, *_ = [
        trainee.accelerator.clip_grad_norm_(group["params"], trainee.max_grad_norm)
        for group in trainee.optimizer.param_groups
    ]
    metrics["grad_norm"] = float(norm)
    if not (torch.isfinite(norm) and torch.isfinite(torch.tensor(metrics["loss"]))):
        raise TrainingError(
            f"loss {metrics['loss']:g} with gradient norm {float(norm):g} is not finite, the step "
            f"was not taken. Prompts of the batch: {', '.join(g.prompt_id for g in groups)} "
            "(look at their rewards and targets, or lower training.learning_rate)"
        )
    trainee.optimizer.step()
    trainee.optimizer.zero_grad()
    return trainee.objective.end_step(metrics)


def mean_loss(trainee: Trainee, groups: Sequence[Group]) -> float:
    """Compute the loss over groups without gradients."""
    with torch.no_grad():
        return _accumulate(trainee, groups, train=False)["loss"]


def _accumulate(trainee: Trainee, groups: Sequence[Group], *, train: bool) -> dict[str, float]:
    accelerator, objective = trainee.accelerator, trainee.objective
    denominator = objective.denominator(groups)
    num_rows = sum(len(group.rows) for group in groups)
    reference_point = objective.reference_point(groups, lambda pairs: score(trainee, pairs))
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=accelerator.device))
    parts = list(_shares(trainee, groups))
    known = _shared_by_parts(trainee, groups, parts) if objective.joins_responses else {}
    for part in parts:
        # Gradients are summed over processes once, after the last micro-batch.
        waiting = train and not part.last
        with accelerator.no_sync(trainee.scorer) if waiting else nullcontext():
            scores = replace(
                trainee.scorer(part.batch, part.route), reference_point=reference_point
            )
            if objective.joins_responses:
                scores = replace(scores, shared=_shared(objective, scores, part.batch, known))
            losses, metrics = objective.row_losses(scores, part.batch)
            loss = part.weight * losses.sum() / denominator
            if train:  # accelerate averages over processes, and the loss is a sum
                accelerator.backward(loss * accelerator.num_processes)
        sums["loss"] += loss.detach()
        for name, values in metrics.items():
            sums[name] += part.weight * values.sum() / num_rows
    totals = accelerator.reduce(torch.stack(list(sums.values())), "sum")
    return dict(zip(sums, totals.tolist(), strict=True))


def _shared(
    objective: Objective, scores: RowScores, batch: GroupBatch, known: Mapping[int, float]
) -> Tensor:
    """Compute what the responses of each row's prompt share; known is that of divided groups."""
    index, num_prompts = batch.prompt_index, len(batch.prompt_ids)
    responses = Responses(scores.logps.detach(), batch.rows, batch.num_tokens, index, num_prompts)
    shared = objective.shared(responses)[index]
    if not known:
        return shared
    found = shared.new_tensor([known.get(row, torch.nan) for row in batch.rows.tolist()])
    return torch.where(found.isnan(), shared, found)


def _shared_by_parts(
    trainee: Trainee, groups: Sequence[Group], parts: Sequence["_Share"]
) -> dict[int, float]:
    """Compute, by row, what the responses of groups share that several micro-batches divide."""
    accelerator = trainee.accelerator
    place = {row: place for place, group in enumerate(groups) for row in group.rows}
    divided = torch.zeros(len(groups), device=accelerator.device)
    for part in parts:
        index = part.batch.prompt_index.tolist()
        counts = Counter(index)
        for row, prompt in zip(part.batch.rows.tolist(), index, strict=True):
            if counts[prompt] < len(groups[place[row]].rows):
                divided[place[row]] = 1.0
    total = accelerator.reduce(divided, "sum").tolist()  # every process makes the same pass
    several = [group for group, count in zip(groups, total, strict=True) if count]
    if not several:
        return {}
    sizes = torch.tensor([len(group.rows) for group in several])
    responses = Responses(
        score(trainee, several),
        torch.tensor([row for group in several for row in group.rows]).to(accelerator.device),
        torch.tensor([len(ids) for g in several for ids in g.responses]).to(accelerator.device),
        torch.arange(len(several)).repeat_interleave(sizes).to(accelerator.device),
        len(several),
    )
    shared = trainee.objective.shared(responses).tolist()
    return {row: value for group, value in zip(several, shared, strict=True) for row in group.rows}


def score(trainee: Trainee, groups: Sequence[Group]) -> Tensor:
    """Score rows with the policy, without gradients.

    Args:
        trainee: Policy in training.
        groups: Prompt groups, the same in every process.

    Returns:
        Summed log-probabilities in nats, shape ``(R,)``, group by group as listed.
    """
    listed, start = [], 0
    for group in groups:
        listed.append(replace(group, rows=list(range(start, start + len(group.rows)))))
        start += len(group.rows)
    logps = torch.zeros(start, device=trainee.accelerator.device)
    with torch.no_grad():
        for part in _shares(trainee, listed):
            scored = trainee.scorer(part.batch, part.route).logps
            logps[part.batch.rows] += part.weight * scored
    reduced: Tensor = trainee.accelerator.reduce(logps, "sum")
    return reduced


@dataclass(frozen=True)
class _Share:
    batch: GroupBatch
    route: Route
    weight: float
    last: bool


def _shares(trainee: Trainee, groups: Sequence[Group]) -> Iterator[_Share]:
    """Yield the micro-batches of this process.

    Every process makes as many forward passes as the process with the most, because sharded models
    synchronise in each; additional passes have weight 0.
    """
    accelerator = trainee.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    own: Sequence[Group] = groups
    if world > 1:
        own = sorted(groups, key=lambda group: group.num_tokens, reverse=True)[rank::world]

    batches = trainee.view.micro_batches(own) if own else []
    count = torch.tensor([len(batches)], device=accelerator.device)
    number = int(accelerator.gather(count).max())
    fill = batches or trainee.view.micro_batches(groups[:1])
    for index in range(number):
        batch, route = fill[index % len(fill)]
        yield _Share(batch, route, float(index < len(batches)), last=index == number - 1)
