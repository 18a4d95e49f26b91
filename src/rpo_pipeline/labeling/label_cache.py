"""Labels kept by content, so that only new text is labelled, by one process or by several."""

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
    """A labeler that is asked once for each pair of prompt and response.

    Args:
        labeler: The one that is asked.
        cache: Answers are kept in a folder of it that is named by the labeler's fingerprint.
    """

    def __init__(self, labeler: Labeler, cache: Path) -> None:
        self.name, self.fingerprint = labeler.name, labeler.fingerprint
        self._labeler = labeler
        self._folder = cache / labeler.fingerprint

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Read the answers that are there and get the others; those without one are not kept."""
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
        """The rows that the labeler would be asked for."""
        return rows.iloc[missing_rows(self._folder, _keys(rows))]


class LabelingJob(Params):
    """What the processes of a launch label, each a share of the rows."""

    settings: RewardModelParams
    cache: Path
    """Every process puts its answers there."""
    rows: Path
    """Parquet file of the rows."""

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a job that was written."""
        return cls.model_validate_json(file.read_text())


class SharedLabeler:
    """A reward model that several processes run, each with a copy of it.

    Args:
        settings: How many processes, and how they are started.
        labeler: The same model in this process, which is not loaded unless rows are left over.
        cache: Where the answers meet; null: in a folder for the time being.
    """

    def __init__(self, settings: RewardModelParams, labeler: Labeler, cache: Path | None) -> None:
        self.name, self.fingerprint = labeler.name, labeler.fingerprint
        self._settings, self._labeler, self._cache = settings, labeler, cache

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Let the processes label what the cache does not hold, and read it all from there."""
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
    """Nothing of a row without a raw reward, so that it is not kept and asked for again."""
    return answers.where(answers["raw_reward"].notna())


def _keys(rows: pd.DataFrame) -> Sequence[str]:
    return [row_key(*pair) for pair in zip(rows["prompt"], rows["response"], strict=True)]
