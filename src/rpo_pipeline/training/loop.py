"""The training loop: seeded order, schedule, validation, and the best model kept."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from rpo_pipeline.data.groups import Group
from rpo_pipeline.models.loading import LanguageModel
from rpo_pipeline.params import TrainingParams
from rpo_pipeline.training.objectives import Objective
from rpo_pipeline.training.step import Trainee, mean_loss, optimizer_step


@dataclass(frozen=True)
class TrainingSummary:
    """How a training went."""

    num_steps: int
    best_step: int
    best_validation_loss: float | None
    """Null without validation rows: the last model is kept then."""
    stopped_early: bool
    seconds: float

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """For a JSON file."""
        return asdict(self)


def train(
    language_model: LanguageModel,
    train_groups: Sequence[Group],
    validation_groups: Sequence[Group],
    objective: Objective,
    settings: TrainingParams,
    workspace: Path,
    *,
    area: str = "train",
) -> TrainingSummary:
    """Train a language model in place, on one process.

    Args:
        language_model: Its weights are updated.
        train_groups: What it learns from.
        validation_groups: What decides which model is the best; none: the last one is.
        objective: Loss of each row.
        settings: Schedule, batch size and limits.
        workspace: Gets ``metrics.jsonl``, a line a step while it runs, and ``best/``, the model
            with the lowest validation loss.
        area: First part of the metrics' names.

    Returns:
        How it went.

    Raises:
        TrainingError: If a loss or a gradient is not finite.
    """
    started = time.monotonic()
    num_steps = math.ceil(settings.num_epochs * len(train_groups) / settings.global_batch_groups)
    trainee, schedule = _prepare(language_model, objective, settings, num_steps)
    best = _Best(language_model, workspace / "best", settings.patience)
    stopped_early = False
    with (
        (workspace / "metrics.jsonl").open("w", buffering=1) as log,
        tqdm(total=num_steps, desc=area, unit="step", disable=None) as bar,
    ):
        for step, groups in enumerate(_batches(train_groups, settings, num_steps), start=1):
            learning_rate = schedule.get_last_lr()[0]
            metrics = optimizer_step(trainee, groups)
            schedule.step()
            metrics["learning_rate"] = float(learning_rate)
            if validation_groups and (step % settings.validation_every == 0 or step == num_steps):
                loss = metrics["validation_loss"] = mean_loss(trainee, validation_groups)
                stopped_early = best.should_stop(step, loss)
            line = {"step": step} | {f"{area}/{name}": metrics[name] for name in metrics}
            log.write(json.dumps(line) + "\n")
            bar.update()
            bar.set_postfix(loss=f"{metrics['loss']:.3f}")
            if stopped_early:
                break
        else:
            step = num_steps
    if best.step is None:
        language_model.save(workspace / "best")
    return TrainingSummary(
        num_steps=step,
        best_step=best.step or step,
        best_validation_loss=best.loss if best.step else None,
        stopped_early=stopped_early,
        seconds=round(time.monotonic() - started, 1),
    )


class _Best:
    """Keeps the model with the lowest validation loss, and counts the validations since."""

    def __init__(
        self, language_model: LanguageModel, directory: Path, patience: int | None
    ) -> None:
        self._language_model = language_model
        self._directory = directory
        self._patience = patience
        self._misses = 0
        self.step: int | None = None
        self.loss = math.inf

    def should_stop(self, step: int, loss: float) -> bool:
        if loss < self.loss:
            self.loss, self.step, self._misses = loss, step, 0
            self._language_model.save(self._directory)
        else:
            self._misses += 1
        return self._patience is not None and self._misses >= self._patience


def _prepare(
    language_model: LanguageModel, objective: Objective, settings: TrainingParams, num_steps: int
) -> tuple[Trainee, torch.optim.lr_scheduler.LambdaLR]:
    accelerator = Accelerator()
    optimizer = accelerator.prepare_optimizer(
        torch.optim.AdamW(
            language_model.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
    )
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer,
        num_warmup_steps=math.ceil(settings.warmup_share * num_steps),
        num_training_steps=max(1, num_steps),
        min_lr_rate=0.1,
    )
    trainee = Trainee(
        language_model=language_model,
        optimizer=optimizer,
        accelerator=accelerator,
        objective=objective,
        micro_batch_tokens=settings.micro_batch_tokens,
        max_grad_norm=settings.max_grad_norm,
    )
    return trainee, schedule


def _batches(
    groups: Sequence[Group], settings: TrainingParams, num_steps: int
) -> Iterator[list[Group]]:
    """Groups of each step: every epoch a new seeded order, the last batch of one may be short."""
    generator = torch.Generator().manual_seed(settings.seed)
    size, steps = settings.global_batch_groups, 0
    while steps < num_steps:
        order = torch.randperm(len(groups), generator=generator).tolist()
        for start in range(0, len(order), size):
            if steps == num_steps:
                return
            yield [groups[index] for index in order[start : start + size]]
            steps += 1
