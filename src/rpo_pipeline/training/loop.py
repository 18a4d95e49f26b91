"""The training loop: seeded order, schedule, validation, checkpoints, and the best model kept."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from rpo_pipeline.engine import Group, TrainView
from rpo_pipeline.params import TrainingParams
from rpo_pipeline.storage import replacing
from rpo_pipeline.training.checkpoint import Checkpoints, Identity, Progress
from rpo_pipeline.training.objective import Objective
from rpo_pipeline.training.reference_check import check_reference
from rpo_pipeline.training.scorer import POLICY, Scorer
from rpo_pipeline.training.step import Trainee, mean_loss, optimizer_step

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class TrainingSummary:
    """Outcome of a training."""

    num_steps: int
    best_step: int
    best_validation_loss: float | None
    """Null without validation rows; then the last model is kept."""
    stopped_early: bool
    seconds: float
    """Duration since training last started, without the time before a resumption."""

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """Return the numbers in a form that JSON can hold."""
        return asdict(self)


def train(
    view: TrainView,
    groups: Mapping[str, Sequence[Group]],
    objective: Objective,
    settings: TrainingParams,
    workspace: Path,
    *,
    area: str = "train",
    identity: Identity | None = None,
) -> TrainingSummary:
    """Train a model in place; every process of a launch makes the same call.

    Args:
        view: Model whose weights are updated.
        groups: Prompt groups by split: ``train``, and ``validation``, which decides on the best
            model; if it is empty, the last one is the best.
        objective: Loss of each row.
        settings: Schedule, batch size and limits.
        workspace: Folder that gets ``metrics.jsonl`` with a line per step, ``checkpoints/`` until
            the end, and ``best/``, the best model.
        area: First part of the metrics' names.
        identity: Identity that a checkpoint must have for training to resume from it.

    Returns:
        Outcome of the training.

    Raises:
        ConfigError: If an interrupted training in the workspace had other settings.
        StaleReferenceError: If cached log-probabilities are not those of the model.
        TrainingError: If a loss or a gradient is not finite.
    """
    started = time.monotonic()
    run = _start(view, groups, objective, settings, workspace, identity or Identity({}, {}))
    progress, accelerator = run.progress, run.trainee.accelerator
    with (
        _metrics_log(workspace, accelerator, progress.step) as log,
        _bar(accelerator, area, progress.step, run.num_steps) as bar,
    ):
        for metrics in run.steps():
            line = {"step": progress.step} | {f"{area}/{name}": metrics[name] for name in metrics}
            log.write(json.dumps(line) + "\n")
            bar.set_postfix(loss=f"{metrics['loss']:.3f}")
            bar.update()
            if not run.stopped_early and progress.step % settings.checkpoint_every == 0:
                run.checkpoints.save(progress)
    if progress.best_step is None:
        _save_policy(run.trainee, workspace / "best")
    run.checkpoints.clear()
    return run.summary(seconds=time.monotonic() - started)


@dataclass
class _Run:
    """The steps of a training that is under way."""

    trainee: Trainee
    schedule: LambdaLR
    checkpoints: Checkpoints
    groups: Mapping[str, Sequence[Group]]
    settings: TrainingParams
    num_steps: int
    workspace: Path
    progress: Progress
    """Progress before the next step, which each step changes."""
    stopped_early: bool = False

    def steps(self) -> Iterator[dict[str, float]]:
        """Take the steps that are left, and yield the metrics of each."""
        batches = _batches(self.groups["train"], self.settings)
        for batch in islice(batches, self.progress.step, self.num_steps):
            if self.progress.step == 0:
                check_reference(self.trainee, batch)
            learning_rate = self.schedule.get_last_lr()[0]
            metrics = optimizer_step(self.trainee, batch) | {"learning_rate": float(learning_rate)}
            self.schedule.step()
            self.progress.step = step = self.progress.step + 1
            is_due = step % self.settings.validation_every == 0 or step == self.num_steps
            if self.groups["validation"] and is_due:
                metrics["validation_loss"] = self._validate()
            yield metrics
            if self.stopped_early:
                return

    def summary(self, seconds: float) -> TrainingSummary:
        """Return the outcome of a training that took some seconds."""
        return TrainingSummary(
            num_steps=self.progress.step,
            best_step=self.progress.best_step or self.progress.step,
            best_validation_loss=self.progress.best_loss,
            stopped_early=self.stopped_early,
            seconds=round(seconds, 1),
        )

    def _validate(self) -> float:
        """Measure the loss on validation rows, and keep the model if it is the best so far."""
        loss = mean_loss(self.trainee, self.groups["validation"])
        if self.progress.improves(loss):
            _save_policy(self.trainee, self.workspace / "best")
        patience = self.settings.patience
        self.stopped_early = patience is not None and self.progress.misses >= patience
        return loss


def _start(
    view: TrainView,
    groups: Mapping[str, Sequence[Group]],
    objective: Objective,
    settings: TrainingParams,
    workspace: Path,
    identity: Identity,
) -> _Run:
    """Prepare a training, and restore its last checkpoint if it may resume."""
    view.check_routes([*groups["train"], *groups["validation"]])
    num_steps = math.ceil(settings.num_epochs * len(groups["train"]) / settings.global_batch_groups)
    trainee, schedule = prepare(view, objective, settings, num_steps)
    checkpoints = Checkpoints(
        workspace / "checkpoints",
        trainee,
        schedule,
        identity=identity,
        keep_last=settings.keep_last,
    )
    if not settings.resume:
        checkpoints.clear()
    return _Run(
        trainee=trainee,
        schedule=schedule,
        checkpoints=checkpoints,
        groups=groups,
        settings=settings,
        num_steps=num_steps,
        workspace=workspace,
        progress=checkpoints.load(),
    )


def prepare(
    view: TrainView, objective: Objective, settings: TrainingParams, num_steps: int
) -> tuple[Trainee, LambdaLR]:
    """Set up what an optimizer step needs.

    Args:
        view: Policy, of which only weights with gradients are trained.
        objective: Loss of each row.
        settings: Optimizer, schedule and limits.
        num_steps: Length of the schedule.

    Returns:
        Trainee for ``optimizer_step``, and schedule of the learning rate.
    """
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    if settings.gradient_checkpointing:
        model = view.language_model.model
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()  # checkpointing needs training mode; every dropout is 0
    scorer = Scorer(view, with_values=objective.value_learning_rate is not None)
    optimizer = torch.optim.AdamW(
        _parameter_groups(scorer, objective, settings), weight_decay=settings.weight_decay
    )
    scorer, prepared = accelerator.prepare(scorer, optimizer)
    optimizer = prepared.optimizer  # accelerate's wrapper serves loops that it splits itself
    # The rate of the first step of a warm-up is 0, so a training of one step has none.
    warmup = min(math.ceil(settings.warmup_share * num_steps), max(0, num_steps - 1))
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=max(1, num_steps),
        min_lr_rate=0.1,
    )
    trainee = Trainee(
        view=view,
        scorer=scorer,
        optimizer=optimizer,
        accelerator=accelerator,
        objective=objective,
        max_grad_norm=settings.max_grad_norm,
    )
    return trainee, schedule


def _parameter_groups(
    scorer: Scorer, objective: Objective, settings: TrainingParams
) -> list[dict[str, Any]]:
    policy = [p for p in scorer.get_submodule(POLICY).parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": policy, "lr": settings.learning_rate}]
    if scorer.value_head is not None:
        head = list(scorer.value_head.parameters())
        groups.append({"params": head, "lr": objective.value_learning_rate})
    return groups


def _batches(groups: Sequence[Group], settings: TrainingParams) -> Iterator[list[Group]]:
    """Yield the groups of each step, shuffled anew per epoch, whose last batch may be short."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = settings.global_batch_groups
    while groups:
        order = torch.randperm(len(groups), generator=generator).tolist()
        for start in range(0, len(order), size):
            yield [groups[index] for index in order[start : start + size]]


def _save_policy(trainee: Trainee, directory: Path) -> None:
    """Gather the policy from all processes and write it as a model directory."""
    weights: dict[str, Any] = get_model_state_dict(trainee.scorer, options=WHOLE)
    if trainee.accelerator.is_main_process:
        own = {
            name.removeprefix(f"{POLICY}."): tensor
            for name, tensor in weights.items()
            if name.startswith(f"{POLICY}.")
        }
        with replacing(directory) as prepared:
            trainee.view.language_model.save(prepared, own)
    trainee.accelerator.wait_for_everyone()


@contextmanager
def _metrics_log(workspace: Path, accelerator: Accelerator, step: int) -> Iterator[TextIO]:
    """Open ``metrics.jsonl`` without lines after a step; only the main process writes to it."""
    if not accelerator.is_main_process:
        with Path(os.devnull).open("w") as log:
            yield log
        return
    file = workspace / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if step and file.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    with replacing(file) as prepared:
        prepared.write_text("".join(kept))
    with file.open("a", buffering=1) as log:
        yield log


def _bar(accelerator: Accelerator, title: str, step: int, num_steps: int) -> Any:  # noqa: ANN401 (tqdm is untyped)
    quiet = None if accelerator.is_main_process else True
    return tqdm(total=num_steps, initial=step, desc=title, unit="step", disable=quiet)
