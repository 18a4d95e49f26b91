"""Runs the cells of a comparison: training, generation, measures; finished cells are cached."""

import json
import logging
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from tqdm import tqdm

from rpo_pipeline.engine import Engine
from rpo_pipeline.evaluation import (
    distinct,
    generate,
    held_out_prompts,
    log_ratios,
    prompt_means,
    rank_correlations,
)
from rpo_pipeline.labeling import label_responses
from rpo_pipeline.params import ComparisonParams, EvaluationParams
from rpo_pipeline.partition import (
    add_levels,
    partition_rows,
    prompts_to_sample,
    settle_estimation,
)
from rpo_pipeline.search.comparison_cells import (
    Cell,
    Settings,
    final_cells,
    grid_cells,
    settings_of,
    study_cells,
)
from rpo_pipeline.search.comparison_material import Material, change_log
from rpo_pipeline.search.comparison_table import (
    PROMPTS,
    RESULT,
    choose_values,
    summarise,
    summarise_studies,
)
from rpo_pipeline.storage import named_content, replacing, result_key
from rpo_pipeline.training import read_metrics, train_policy, training_rows

logger = logging.getLogger(__name__)

MISMATCHED = {"mismatched_prompt_id": "prompt_id", "mismatched_logps": "logps"}
"""Columns of KTO's mismatched pairs in the rows of a comparison, and in a table of their own."""


def run_comparison(
    material: Material, settings: Settings, comparison: ComparisonParams, folder: Path
) -> dict[str, Any]:
    """Choose each method's best value on validation prompts, and report it on test prompts.

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

    grid = run(grid_cells(comparison.methods, comparison.seeds[0]))
    chosen = choose_values(grid)
    final = run(final_cells(comparison.methods, chosen, comparison.seeds))
    studies = run(study_cells(comparison, chosen))
    num_resamples = settings.evaluation.bootstrap_samples
    table = summarise(grid, final, comparison, num_resamples=num_resamples)
    return {**table, "studies": summarise_studies(studies, num_resamples=num_resamples)}


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
        key = result_key(
            *(cell.split, comparison.num_prompts, content, log.digest, judges),
            code=[_finish, change_log],
        )
        folders[cell] = folder / key
        if not (folder / key).is_dir():
            logger.info("cell: %s", cell.name)
            workspace = folder / f"unfinished-{key}"
            workspace.mkdir(parents=True, exist_ok=True)
            _finish(cell, log, own, comparison, workspace, folder / key)
    return folders


def _finish(
    cell: Cell,
    material: Material,
    settings: Settings,
    comparison: ComparisonParams,
    workspace: Path,
    target: Path,
) -> None:
    summary = train_policy(
        _training_rows(material, settings),
        material.reference,
        policy=settings.policy,
        objectives=settings.objectives,
        training=settings.training,
        workspace=workspace,
        cache=material.model_cache,
    )
    prompts = held_out_prompts(material.rows, comparison.num_prompts, cell.split)
    by_prompt, numbers = _measure(material, settings, workspace / "best", prompts)
    steps = read_metrics(workspace)
    result = {
        "cell": cell.name,
        "seconds": summary.seconds,
        "num_steps": summary.num_steps,
        "loss_std": float(steps["train/loss"].std()),
        "grad_norm_std": float(steps["train/grad_norm"].std()),
        **numbers,
    }
    with replacing(target) as prepared:
        prepared.mkdir()
        by_prompt.to_parquet(prepared / PROMPTS, index=False)
        (prepared / RESULT).write_text(json.dumps(result, indent=2))
    shutil.rmtree(workspace)


def _training_rows(material: Material, settings: Settings) -> pd.DataFrame:
    assert settings.qrpo is not None
    rows = material.labelled
    rpo = settle_estimation(
        rows, settings.rpo, settings.qrpo, settings.training, settings.labeling
    ).rpo
    rows = add_levels(rows, Engine(material.reference, settings.policy, settings.training))
    wanted = prompts_to_sample(rows, rpo)["prompt_id"]
    samples = material.samples[material.samples["prompt_id"].isin(wanted)]
    tau = cast("float", rpo.tau)  # a method without a tau of its own takes the run's
    _, targets, _ = partition_rows(rows, samples, rpo, tau=tau)
    return training_rows(rows, targets, rows[["row_id", *MISMATCHED]].rename(columns=MISMATCHED))


def _measure(
    material: Material, settings: Settings, policy: Path, prompts: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, float | None]]:
    """Sample responses of a trained policy and the reference, and rank the logged responses."""
    engine = partial(Engine, policy=settings.policy, training=settings.training)
    answers = generate(
        {
            "reference": engine(material.reference, cache=material.model_cache),
            "challenger": engine(policy, cache=material.model_cache),
        },
        prompts,
        settings.evaluation.sampling,
        seed=0,  # the same noise for every cell
    )
    rows = material.labelled
    rows = rows[rows["prompt_id"].isin(prompts["prompt_id"])].rename(columns={"logps": "ref_logps"})
    per_token = settings.rpo.logp_reduction == "mean"
    heldout = rows.assign(log_ratio=log_ratios(rows, engine(policy), per_token=per_token))
    return _sum_up(answers, heldout, settings.evaluation, material.label_cache)


def _sum_up(
    answers: pd.DataFrame, heldout: pd.DataFrame, evaluation: EvaluationParams, label_cache: Path
) -> tuple[pd.DataFrame, dict[str, float | None]]:
    """Measure each prompt, for the cell and (``reference_...``) for the reference."""
    texts = answers["prompt"].tolist(), answers["response"].tolist()
    labels = label_responses(*texts, evaluation.labelers, label_cache, every=True)
    answers = pd.concat([answers, labels], axis=1)
    tables = {
        name: rows.sort_values(["prompt_id", "sample"], ignore_index=True)
        for name, rows in answers.groupby("model")
    }
    columns: dict[str, Any] = {"prompt_id": sorted(answers["prompt_id"].unique())}
    for model, prefix in (("challenger", ""), ("reference", "reference_")):
        means = prompt_means(tables[model], tables["reference"])
        columns |= {f"{prefix}{name}": values for name, values in means.items()}
    correlations = rank_correlations(heldout)
    numbers: dict[str, float | None] = {
        "distinct_2": distinct(tables["challenger"], 2)[0],
        "reference_distinct_2": distinct(tables["reference"], 2)[0],
        "rank_correlation": float(np.mean(correlations)) if len(correlations) else None,
    }
    return pd.DataFrame(columns), numbers
