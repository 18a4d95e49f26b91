"""The description of a training, which every process of a launch reads from a file."""

import hashlib
from pathlib import Path
from typing import Any, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict

from rpo_pipeline.engine import TrainView
from rpo_pipeline.errors import StaleReferenceError
from rpo_pipeline.params import ObjectiveParams, PolicyParams, TrainingParams
from rpo_pipeline.storage import model_fingerprint, result_key
from rpo_pipeline.training.checkpoint import Identity
from rpo_pipeline.training.loop import TrainingSummary, train
from rpo_pipeline.training.objective_choice import build_objective

# These settings do not decide the result, so a training may resume with other values.
FREE_SETTINGS = {
    *("training.resume", "training.checkpoint_every", "training.keep_last"),
    *("training.num_processes", "training.accelerate_config", "training.gradient_checkpointing"),
    *("training.micro_batch_tokens", "policy.prefix_sharing", "policy.reset_reference"),
}


class TrainingJob(BaseModel):
    """One training: the model that it starts from, its settings, and its folder."""

    model_config = ConfigDict(frozen=True)

    start: Path
    """Directory of the model that it starts from."""
    workspace: Path
    """Folder that gets ``best/``, ``metrics.jsonl`` and, until the end, ``checkpoints/``."""
    area: str = "train"
    """First part of the metrics' names."""
    policy: PolicyParams
    training: TrainingParams
    objectives: ObjectiveParams | None = None
    """Settings of each objective; supervised fine-tuning needs none."""
    cache: Path | None = None
    """Folder of the cached log-probabilities, for messages."""

    def write(self, rows: pd.DataFrame) -> Path:
        """Write the job and its rows into its workspace.

        Args:
            rows: Table of ``training_rows``; rows of the test split are left out.

        Returns:
            Job file.
        """
        learned = rows[rows["split"].isin(["train", "validation"])]
        learned.to_parquet(self._rows, index=False)
        file = self.workspace / "job.json"
        file.write_text(self.model_dump_json(indent=2))
        return file

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a job file."""
        return cls.model_validate_json(file.read_text())

    def run(self) -> TrainingSummary:
        """Train, as one of the processes of a launch or as the only one.

        Returns:
            Outcome of the training.

        Raises:
            ConfigError: If an interrupted training in the workspace had other settings.
            TrainingError: If a loss or a gradient is not finite.
            StaleReferenceError: If cached log-probabilities are not those of the start.
        """
        try:
            return self._run()
        except StaleReferenceError as err:
            folder = self.cache / "logps" if self.cache else "`logps` in the cache"
            raise StaleReferenceError(
                f"{err}. Remove the folder {folder} (`cache` in conf/*/globals.yml), then `kedro "
                "run --runner SequentialRunner`"
            ) from None

    def _run(self) -> TrainingSummary:
        rows = pd.read_parquet(self._rows)
        view = TrainView.load(
            self.start,
            self.policy,
            micro_batch_tokens=self.training.micro_batch_tokens,
            seed=self.training.seed,
        )
        groups = view.groups(rows)
        in_train = (rows["split"] == "train").to_numpy()
        return train(
            view,
            {
                "train": [group for group in groups if in_train[group.rows[0]]],
                "validation": [group for group in groups if not in_train[group.rows[0]]],
            },
            build_objective(self.training.objective, self.objectives, rows, groups),
            self.training,
            self.workspace,
            area=self.area,
            identity=self._identity(),
        )

    @property
    def _rows(self) -> Path:
        return self.workspace / "rows.parquet"

    def _identity(self) -> Identity:
        blocks: dict[str, Any] = {"policy": self.policy, "training": self.training}
        if self.objectives:
            blocks |= self.objectives.read_by(self.training.objective)
        settings = {
            f"{name}.{key}": value
            for name, block in blocks.items()
            for key, value in block.model_dump(mode="json").items()
        }
        return Identity(
            settings={key: v for key, v in settings.items() if key not in FREE_SETTINGS},
            inputs={
                "rows": hashlib.sha256(self._rows.read_bytes()).hexdigest(),
                "start": model_fingerprint(self.start),
                "code": result_key(code=[TrainingJob.run]),
            },
        )
