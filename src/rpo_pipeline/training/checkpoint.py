"""Checkpoints between optimizer steps, from which a killed training resumes.

They are safetensors and JSON, which cannot hold code.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.optim.lr_scheduler import LRScheduler

from rpo_pipeline.errors import ConfigError, TrainingError
from rpo_pipeline.storage import replacing
from rpo_pipeline.training.step import Trainee

logger = logging.getLogger(__name__)

TENSORS, STATE = "tensors.safetensors", "state.json"
# Frozen weights are not saved, as they equal those of the start; a sharded model is gathered.
OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
LOADING = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)


@dataclass
class Progress:
    """Step of a training, and results of its validations."""

    step: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    misses: int = 0
    """Number of validations since the best one."""

    def improves(self, loss: float) -> bool:
        """Record a validation loss, and tell whether it is the lowest so far."""
        if self.best_loss is not None and loss >= self.best_loss:
            self.misses += 1
            return False
        self.best_loss, self.best_step, self.misses = loss, self.step, 0
        return True


@dataclass(frozen=True)
class Identity:
    """Settings and inputs that must be equal for a training to resume."""

    settings: Mapping[str, Any]
    """Parameters that decide the result, by dotted name."""
    inputs: Mapping[str, str]
    """Fingerprints of the rows, of the model that training starts from, and of the code."""


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: Folder of the checkpoints.
        trainee: Policy with its optimizer, which loading changes in place.
        schedule: Schedule of the learning rate.
        identity: Identity of the training.
        keep_last: Number of checkpoints to keep.
    """

    def __init__(
        self,
        folder: Path,
        trainee: Trainee,
        schedule: LRScheduler,
        *,
        identity: Identity,
        keep_last: int,
    ) -> None:
        self._folder = folder
        self._trainee = trainee
        self._schedule = schedule
        self._identity = identity
        self._keep_last = keep_last

    def save(self, progress: Progress) -> None:
        """Write a checkpoint atomically, and remove the oldest."""
        trainee = self._trainee
        states: Any = get_state_dict(trainee.scorer, trainee.optimizer, options=OPTIONS)
        weights, moments = states
        if trainee.accelerator.is_main_process:
            target = self._folder / f"step-{progress.step:08d}"
            tensors = {f"weights/{name}": tensor for name, tensor in weights.items()}
            tensors |= {f"moments/{name}": tensor for name, tensor in _moments(moments)}
            tensors |= {f"random/{name}": state for name, state in _random_states().items()}
            learned = trainee.objective.state()
            tensors |= {f"objective/{name}": tensor for name, tensor in learned.items()}
            state = {
                "progress": asdict(progress),
                "identity": asdict(self._identity),
                "schedule": self._schedule.state_dict(),
                "param_groups": moments["param_groups"],
            }
            with replacing(target) as prepared:
                prepared.mkdir()
                # Tied weights are stored under each of their names, so they are cloned.
                save_file({name: t.clone() for name, t in tensors.items()}, prepared / TENSORS)
                (prepared / STATE).write_text(json.dumps(state))
            for old in self._complete()[: -self._keep_last]:
                shutil.rmtree(old)
        trainee.accelerator.wait_for_everyone()

    def load(self) -> Progress:
        """Restore the state of the last checkpoint, if there is one.

        Returns:
            Progress of the training.

        Raises:
            ConfigError: If the checkpoint belongs to other settings.
            TrainingError: If it cannot be read.
        """
        complete = self._complete()
        if not complete:
            return Progress()
        state = json.loads((complete[-1] / STATE).read_text())
        if not self._continues(state["identity"], complete[-1]):
            self.clear()
            return Progress()
        try:
            tensors = load_file(complete[-1] / TENSORS)
        except (SafetensorError, OSError) as err:
            raise TrainingError(
                f"the checkpoint {complete[-1]} cannot be read as safetensors: {err}. Remove it to "
                "go on from the one before, or start anew with `kedro run --params "
                "training.resume=false`"
            ) from err
        trainee = self._trainee
        weights: Any = _under(tensors, "weights/")
        moments: Any = _nested(_under(tensors, "moments/"))
        set_state_dict(
            trainee.scorer,
            trainee.optimizer,
            model_state_dict=weights,
            optim_state_dict={"state": moments, "param_groups": state["param_groups"]},
            options=LOADING,
        )
        self._schedule.load_state_dict(state["schedule"])
        _set_random_states(_under(tensors, "random/"))
        for name, tensor in _under(tensors, "objective/").items():
            trainee.objective.state()[name].copy_(tensor)
        progress = Progress(**state["progress"])
        logger.info("going on after step %d, from %s", progress.step, complete[-1])
        return progress

    def clear(self) -> None:
        """Remove all checkpoints of a training that has ended or starts anew."""
        accelerator = self._trainee.accelerator
        accelerator.wait_for_everyone()  # other processes may still be reading
        if accelerator.is_main_process:
            shutil.rmtree(self._folder, ignore_errors=True)
        accelerator.wait_for_everyone()

    def _complete(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))

    def _continues(self, identity: dict[str, Any], checkpoint: Path) -> bool:
        then, now = identity["settings"], json.loads(json.dumps(self._identity.settings))
        changed = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
        if changed:
            changes = ", ".join(f"{key}: {then.get(key)} -> {now.get(key)}" for key in changed)
            raise ConfigError(
                f"a training with other settings was interrupted ({checkpoint}), and these changed "
                f"since: {changes}. Change them back to go on with it, or start anew with "
                "`kedro run --params training.resume=false`"
            )
        if identity["inputs"] != dict(self._identity.inputs):
            logger.warning("an interrupted training had other rows, weights or code; starting anew")
            return False
        return True


def _moments(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for parameter, moments in state["state"].items():
        for name, value in moments.items():
            yield f"{parameter}/{name}", value


def _nested(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    nested: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        parameter, name = key.rsplit("/", 1)
        nested.setdefault(parameter, {})[name] = value
    return nested


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
