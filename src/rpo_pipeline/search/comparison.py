"""Runs the cells of a comparison: training, generation, measures; finished cells are cached."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from rpo_pipeline.engine import Engine
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
)
from rpo_pipeline.search.comparison_curve import PROMPTS, RESULT, choose_values
from rpo_pipeline.search.comparison_material import Material, change_log
from rpo_pipeline.search.comparison_measure import measure
from rpo_pipeline.search.comparison_table import summarise, summarise_studies
from rpo_pipeline.storage import named_content, replacing, result_key
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
    folders = {}
    known: dict[str, str | None] = {}
    for cell in tqdm(cells, desc="comparison", unit="cell", disable=None):
        own = settings_of(cell, settings, comparison.settings)
        # Defaults do not count, so that new parameters do not void finished cells.
        content = own.model_dump(mode="json", exclude_defaults=True)
        log = change_log(material, *cell.study, seed=cell.seed) if cell.study else material
        judges = named_content(own.evaluation, known)
        # A value is chosen by the cells of the curves, whose log is that of the run.
        on_validation = cell.seed in comparison.curve_seeds and log.digest == material.digest
        key = result_key(
            *(on_validation, comparison.num_prompts, content, log.digest, judges),
            code=[_train_and_measure, change_log],
        )
        folders[cell] = folder / key
        if not (folder / key).is_dir():
            logger.info("cell: %s", cell.name)
            workspace = folder / f"unfinished-{key}"
            workspace.mkdir(parents=True, exist_ok=True)
            by_prompt, numbers = _train_and_measure(
                log, own, workspace, comparison.num_prompts, on_validation=on_validation
            )
            with replacing(folder / key) as prepared:
                prepared.mkdir()
                by_prompt.to_parquet(prepared / PROMPTS, index=False)
                (prepared / RESULT).write_text(json.dumps(numbers, indent=2))
            shutil.rmtree(workspace)
    return folders


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
