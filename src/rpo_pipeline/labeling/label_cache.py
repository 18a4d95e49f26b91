"""Caches labels by content, so that only new text is labelled, by one process or several."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pandas as pd

from rpo_pipeline.errors import ModelError
from rpo_pipeline.ingestion import prompt_key, row_key
from rpo_pipeline.labeling.labelers import Labeler
from rpo_pipeline.params import Params, RewardModelParams
from rpo_pipeline.storage import fetch_rows, missing_rows, run_workers

WORKER = "rpo_pipeline.labeling.worker"


class CachedLabeler:
    """Labels each pair of prompt and response once.

    Args:
        labeler: Labeler of pairs that the cache does not hold.
        cache: Folder of caches, with one folder per fingerprint of a labeler.
    """

    def __init__(self, labeler: Labeler, cache: Path) -> None:
        self.name, self.fingerprint = labeler.name, labeler.fingerprint
        self._labeler = labeler
        self._folder = cache / labeler.fingerprint

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows from the cache, and the others by the labeler; missing labels are not kept."""
        if rows.empty:
            return pd.DataFrame({"raw_reward": []}, index=rows.index, dtype=float)
        answers = fetch_rows(
            self._folder,
            _keys(rows),
            lambda places: _answered(self._labeler.label(rows.iloc[places])),
            prompt_ids=rows["prompt"].map(prompt_key).tolist(),
            verb=f"label by {self.name}",
        )
        return answers.set_axis(rows.index)

    def missing(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that the cache does not hold."""
        return rows.iloc[missing_rows(self._folder, _keys(rows))]


class LabelingJob(Params):
    """Job of several processes that each label a share of the rows."""

    settings: RewardModelParams
    cache: Path
    """Folder that every process writes its labels to."""
    rows: Path
    """Parquet file of the rows."""

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a job file."""
        return cls.model_validate_json(file.read_text())


class SharedLabeler:
    """Labels by a reward model of which several processes each load a copy.

    Args:
        settings: Number of processes and the way to start them.
        labeler: The same model in this process, loaded only if rows remain.
        cache: Folder of caches that all processes write to; null for a temporary one.
    """

    def __init__(self, settings: RewardModelParams, labeler: Labeler, cache: Path | None) -> None:
        self.name, self.fingerprint = labeler.name, labeler.fingerprint
        self._settings, self._labeler, self._cache = settings, labeler, cache

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Start processes for rows that the cache does not hold, then read all labels from it."""
        with TemporaryDirectory() as scratch:
            cached = CachedLabeler(self._labeler, self._cache or Path(scratch))
            missing = cached.missing(rows)
            if not missing.empty:
                self._launch(missing, self._cache or Path(scratch), Path(scratch))
            return cached.label(rows)

    def _launch(self, rows: pd.DataFrame, cache: Path, workspace: Path) -> None:
        settings = self._settings
        table, job_file = workspace / "rows.parquet", workspace / "job.json"
        rows.to_parquet(table)
        job = LabelingJob(settings=settings, cache=cache, rows=table)
        job_file.write_text(job.model_dump_json())
        run_workers(
            WORKER,
            job_file,
            num_processes=settings.num_processes,
            accelerate_config=settings.accelerate_config,
            error=ModelError,
        )


def _answered(answers: pd.DataFrame) -> pd.DataFrame:
    """Blank the rows without a raw reward, so that they are not cached but labelled again."""
    return answers.where(answers["raw_reward"].notna())


def _keys(rows: pd.DataFrame) -> Sequence[str]:
    return [row_key(*pair) for pair in zip(rows["prompt"], rows["response"], strict=True)]
