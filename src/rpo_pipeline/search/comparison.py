"""Runs the cells of a comparison: training, generation, measures; finished cells are cached."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from tqdm import tqdm

from rpo_pipeline.engine import Engine
from rpo_pipeline.errors import TrainingError
from rpo_pipeline.params import ComparisonParams
from rpo_pipeline.partition import (
    add_levels,
    partition_rows,
    prompts_to_sample,
    settle_estimation,
)
from rpo_pipeline.search.comparison_cells import (
    Cell,
    Settings,
    curve_cells,
    final_cells,
    settings_of,
    study_cells,
    what_counts,
)
from rpo_pipeline.search.comparison_curve import PROMPTS, RESULT, choose_values
from rpo_pipeline.search.comparison_material import Material, change_log
from rpo_pipeline.search.comparison_measure import measure
from rpo_pipeline.search.comparison_table import summarise, summarise_studies
from rpo_pipeline.storage import die_with, named_content, replacing, result_key
from rpo_pipeline.training import read_metrics, train_policy, training_rows

logger = logging.getLogger(__name__)

MISMATCHED = {"mismatched_prompt_id": "prompt_id", "mismatched_logps": "logps"}
"""Columns of KTO's mismatched pairs in the rows of a comparison, and in a table of their own."""


def run_comparison(
    material: Material, settings: Settings, comparison: ComparisonParams, folder: Path
) -> dict[str, Any]:
    """Draw the curve of each method, and report its value nearest the main budget, on test prompts.

    Args:
        material: Data and caches of all cells.
        settings: Parameters of the run.
        comparison: Methods, seeds, and settings of every cell.
        folder: Folder of the cells.

    Returns:
        Result of ``summarise``, with ``studies``, that of ``summarise_studies``.
    """

    def run(cells: list[Cell]) -> dict[Cell, Path]:
        return run_cells(cells, material, settings, comparison, folder)

    curves = run(curve_cells(comparison))
    chosen = choose_values(curves, comparison.budget)
    final = run(final_cells(comparison, chosen))
    studies = run(study_cells(comparison, chosen))
    num_resamples = settings.evaluation.bootstrap_samples
    table = summarise(curves, final, comparison, num_resamples=num_resamples)
    changed = summarise_studies(studies, comparison.metric, num_resamples=num_resamples)
    return {**table, "studies": changed}


def run_cells(
    cells: Sequence[Cell],
    material: Material,
    settings: Settings,
    comparison: ComparisonParams,
    folder: Path,
) -> dict[Cell, Path]:
    """Run the cells that are not finished.

    Args:
        cells: Cells to run.
        material: Data and caches of all cells.
        settings: Parameters of the run.
        comparison: Methods, seeds, and settings of every cell.
        folder: Folder that gets a folder for each cell, by content.

    Returns:
        Folder of each cell, with its ``PROMPTS`` and ``RESULT``.
    """
    folders: dict[Cell, Path] = {}
    unfinished: dict[str, _Job] = {}
    known: dict[str, str | None] = {}
    for cell in cells:
        own = settings_of(cell, settings, comparison.settings)
        log = change_log(material, *cell.study, seed=cell.seed) if cell.study else material
        judges = named_content(own.evaluation, known)
        # A value is chosen by the cells of the curves, whose log is that of the run.
        on_validation = cell.seed in comparison.curve_seeds and log.digest == material.digest
        key = result_key(
            *(on_validation, comparison.num_prompts, what_counts(own), log.digest, judges),
            code=[_train_and_measure, change_log],
        )
        folders[cell] = folder / key
        if not (folder / key).is_dir():
            unfinished[key] = _Job(cell, own, key, on_validation)
    done = _run(list(unfinished.values()), material, comparison, folder)
    for name in tqdm(done, "comparison", len(unfinished), unit="cell", disable=None):
        logger.info("cell: %s", name)
    return folders


class _Job(NamedTuple):
    cell: Cell
    settings: Settings
    key: str
    on_validation: bool


def _run(
    jobs: Sequence[_Job], material: Material, comparison: ComparisonParams, folder: Path
) -> Iterator[str]:
    """Run cells in this process or several, and yield the name of each when it is finished."""
    given = material, comparison.num_prompts, folder
    num_processes = min(comparison.num_processes, len(jobs))
    if num_processes < 2:
        yield from (_run_cell(job, *given) for job in jobs)
        return
    pool = ProcessPoolExecutor(
        num_processes,
        get_context("spawn"),
        _start_worker,
        (os.getpid(), max(1, (os.cpu_count() or 1) // num_processes)),
    )
    try:
        for finished in as_completed([pool.submit(_run_cell, job, *given) for job in jobs]):
            yield finished.result()
    except BrokenProcessPool:
        raise TrainingError(
            "the system ended a process of the comparison, as it does when memory runs out: the "
            "finished cells are kept, and the same run with a smaller comparison.num_processes "
            "does the others"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int, num_threads: int) -> None:
    die_with(parent)
    torch.set_num_threads(num_threads)


def _run_cell(job: _Job, material: Material, num_prompts: int, folder: Path) -> str:
    """Run a cell in any process, store its results, and return its name."""
    cell = job.cell
    log = change_log(material, *cell.study, seed=cell.seed) if cell.study else material
    workspace = folder / f"unfinished-{job.key}"
    workspace.mkdir(parents=True, exist_ok=True)
    by_prompt, numbers = _train_and_measure(
        log, job.settings, workspace, num_prompts, on_validation=job.on_validation
    )
    with replacing(folder / job.key) as prepared:
        prepared.mkdir()
        by_prompt.to_parquet(prepared / PROMPTS, index=False)
        (prepared / RESULT).write_text(json.dumps(numbers, indent=2))
    shutil.rmtree(workspace)
    return cell.name


def _train_and_measure(
    material: Material,
    settings: Settings,
    workspace: Path,
    num_prompts: int,
    *,
    on_validation: bool,
) -> tuple[pd.DataFrame, dict[str, float | None]]:
    """Train a cell, and return the tables of ``measure`` with the numbers of its training."""
    summary = train_policy(
        _training_rows(material, settings),
        material.reference,
        policy=settings.policy,
        objectives=settings.objectives,
        training=settings.training,
        workspace=workspace,
        cache=material.model_cache,
    )
    by_prompt, numbers = measure(
        material, settings, workspace / "best", num_prompts, on_validation=on_validation
    )
    steps = read_metrics(workspace)
    return by_prompt, {
        "seconds": summary.seconds,
        "num_steps": summary.num_steps,
        "loss_std": float(steps["train/loss"].std()),
        "grad_norm_std": float(steps["train/grad_norm"].std()),
        **numbers,
    }


def _training_rows(material: Material, settings: Settings) -> pd.DataFrame:
    assert settings.qrpo is not None
    rows = material.labelled
    rows = rows[rows["split"] != "test"].reset_index(drop=True)
    rpo = settle_estimation(
        rows, settings.rpo, settings.qrpo, settings.training, settings.labeling
    ).rpo
    rows = add_levels(rows, Engine(material.reference, settings.policy, settings.training))
    wanted = prompts_to_sample(rows, rpo)["prompt_id"]
    samples = material.samples[material.samples["prompt_id"].isin(wanted)]
    _, targets, _ = partition_rows(rows, samples, rpo, tau=rpo.fixed_tau)
    return training_rows(rows, targets, rows[["row_id", *MISMATCHED]].rename(columns=MISMATCHED))
