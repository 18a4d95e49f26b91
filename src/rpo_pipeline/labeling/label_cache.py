"""Caches labels by content, so that only new text is labelled, by one process or several."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from rpo_pipeline.errors import ModelError
from rpo_pipeline.ingestion import prompt_key, row_key
from rpo_pipeline.labeling.labelers import Labeler
from rpo_pipeline.params import Params, RewardModelParams
from rpo_pipeline.storage import SHARD_ROWS, fetch_rows, missing_rows, run_workers

WORKER = "rpo_pipeline.labeling.worker"


class CachedLabeler:
    """Labels each pair of prompt and response once; its folder in the cache is its fingerprint."""

    def __init__(self, labeler: Labeler, cache: Path) -> None:
        self.name, self.fingerprint = labeler.name, labeler.fingerprint
        self._labeler = labeler
        self._folder = cache / labeler.fingerprint

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows from the cache, and the others by the labeler; missing labels are not kept."""
        return fetch_pairs(
            self._folder,
            rows,
            lambda missing: _answered(self._labeler.label(missing)),
            verb=f"label by {self.name}",
        )

    def missing(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that the cache does not hold."""
        return rows.iloc[missing_rows(self._folder, _keys(rows))]


def fetch_pairs(
    folder: Path | None,
    rows: pd.DataFrame,
    compute: Callable[[pd.DataFrame], pd.DataFrame],
    *,
    verb: str,
    shard_rows: int = SHARD_ROWS,
) -> pd.DataFrame:
    """Read what is stored of pairs of prompt and response, and compute the rest.

    This is ``fetch_rows`` for a table of prompt and response, whose index the result has. Without a
    folder everything is computed.
    """
    if folder is None or rows.empty:
        return compute(rows).set_axis(rows.index)
    values = fetch_rows(
        folder,
        _keys(rows),
        lambda places: compute(rows.iloc[places]),
        prompt_ids=rows["prompt"].map(prompt_key).tolist(),
        verb=verb,
        shard_rows=shard_rows,
    )
    return values.set_axis(rows.index)


class LabelingJob(Params):
    """Job of several processes that each label a share of the rows."""

    settings: RewardModelParams
    cache: Path
    """Folder that every process writes its labels to."""
    rows: Path
    """Parquet file of the rows."""


class SharedLabeler:
    """Labels by a reward model of which several processes each load a copy.

    This process loads the labeler only if rows remain. Without a folder of caches, all processes
    write to a temporary one.
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
        table, job_file = workspace / "rows.parquet", workspace / "job.json"
        rows.to_parquet(table)
        job = LabelingJob(settings=self._settings, cache=cache, rows=table)
        job_file.write_text(job.model_dump_json())
        run_workers(
            WORKER,
            job_file,
            num_processes=self._settings.num_processes,
            accelerate_config=self._settings.accelerate_config,
            error=ModelError,
        )


def _answered(answers: pd.DataFrame) -> pd.DataFrame:
    """Blank the rows without a raw reward, so that they are not cached but labelled again."""
    return answers.where(answers["raw_reward"].notna())


def _keys(rows: pd.DataFrame) -> Sequence[str]:
    return [row_key(*pair) for pair in zip(rows["prompt"], rows["response"], strict=True)]
