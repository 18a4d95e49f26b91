"""Summarises finished cells of a comparison: each method at its best value, with intervals.

Shapes: S seeds, P prompts, B resamples.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.evaluation import (
    Array,
    Interval,
    detectable_difference,
    holm,
    mean_interval,
    resample_prompts,
)
from rpo_pipeline.params import ComparisonParams, MethodParams
from rpo_pipeline.search.comparison_cells import Cell

PROMPTS, RESULT = "prompts.parquet", "result.json"
"""Files of a finished cell: numbers by prompt, and numbers of the whole cell."""
METRICS = (
    "reward_mean",
    "win_rate",
    "toxicity_mean",
    "kl_reference",
    "length_mean",
    "empty_share",
)
STUDIED = ("distinct_2", "rank_correlation", "grad_norm_std")
"""Numbers of a whole cell that studies report."""


def choose_values(folders: Mapping[Cell, Path]) -> dict[str, float]:
    """Choose the value of each method with the highest mean raw reward on validation prompts."""
    means = pd.DataFrame(
        [
            {
                "method": cell.method.name,
                "value": cell.value,
                "reward": pd.read_parquet(folder / PROMPTS)["reward_mean"].mean(),
            }
            for cell, folder in folders.items()
        ]
    )
    best = means.loc[means.groupby("method")["reward"].idxmax()]
    return {str(m): float(v) for m, v in zip(best["method"], best["value"], strict=True)}


def summarise(
    grid: Mapping[Cell, Path],
    final: Mapping[Cell, Path],
    comparison: ComparisonParams,
    *,
    num_resamples: int,
) -> dict[str, Any]:
    """Summarise the numbers of all cells.

    Intervals come from resampling seeds and prompts together, the same for all methods, so that
    differences are paired in both. P-values of differences in reward have Holm's correction.

    Args:
        grid: Folder of each cell of the grid.
        final: Folder of each reported cell.
        comparison: Methods, the first of which is the baseline of the differences, and seeds.
        num_resamples: Number of resamples for each interval.

    Returns:
        ``methods``, each with its grid, chosen value, metrics as {value, low, high}, spread over
        seeds and difference to the baseline; ``reference``; ``num_prompts``; ``seeds``;
        ``detectable_difference`` in raw reward; ``cells``, one by one.
    """
    tables = {method.name: _stack(method, final, comparison.seeds) for method in comparison.methods}
    first = tables[comparison.methods[0].name]
    num_prompts = first["reward_mean"].shape[1]
    prompts = resample_prompts(num_prompts, num_resamples, seed=0)
    seeds = resample_prompts(len(comparison.seeds), num_resamples, seed=1)
    differences = _differences(tables, seeds, prompts)
    detectable = [detectable_difference(interval) or 0.0 for interval in differences.values()]
    return {
        "baseline": comparison.methods[0].name,
        "methods": [
            {
                **_choice(method, grid, final),
                "metrics": {name: _interval(table[name], seeds, prompts)[0] for name in METRICS},
                "seeds": _spread(method, final),
                "difference": differences.get(method.name),
            }
            for method, table in zip(comparison.methods, tables.values(), strict=True)
        ],
        "reference": {
            name: mean_interval(first[f"reference_{name}"].mean(axis=0), prompts)
            for name in METRICS
        },
        "num_prompts": num_prompts,
        "seeds": list(comparison.seeds),
        "cells": [_cell(cell, folder) for cell, folder in [*grid.items(), *final.items()]],
        "detectable_difference": float(np.median(detectable)) if detectable else None,
    }


def summarise_studies(
    cells: Mapping[Cell, Path], *, num_resamples: int
) -> dict[str, list[dict[str, Any]]]:
    """Summarise the numbers of the studies.

    Args:
        cells: Folder of each cell of a study.
        num_resamples: Number of resamples of seeds and prompts for each interval.

    Returns:
        For each study a list of: method, level, reward_mean as {value, low, high}, and means over
        seeds of distinct_2, rank_correlation and grad_norm_std.
    """
    groups: dict[tuple[str, float, str], list[Path]] = {}
    for cell, folder in cells.items():
        if cell.study:
            groups.setdefault((*cell.study, cell.method.name), []).append(folder)
    studies: dict[str, list[dict[str, Any]]] = {}
    for (study, level, method), folders in groups.items():
        rewards = np.stack([pd.read_parquet(f / PROMPTS)["reward_mean"] for f in folders])
        draws = [
            resample_prompts(size, num_resamples, seed=axis)
            for axis, size in enumerate(rewards.shape[::-1])
        ]
        results = [json.loads((folder / RESULT).read_text()) for folder in folders]
        studies.setdefault(study, []).append(
            {
                "method": method,
                "level": level,
                "reward_mean": _interval(rewards, draws[1], draws[0])[0],
                **{name: _mean_of(results, name) for name in STUDIED},
            }
        )
    return studies


def _mean_of(results: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([r[name] for r in results if r[name] is not None] or [np.nan]))


def _stack(
    method: MethodParams, final: Mapping[Cell, Path], seeds: Sequence[int]
) -> dict[str, Array]:
    """Read each metric of a method, shape ``(S, P)``."""
    by_seed = {c.seed: folder for c, folder in final.items() if c.method.name == method.name}
    tables = [pd.read_parquet(by_seed[seed] / PROMPTS).set_index("prompt_id") for seed in seeds]
    names = map(str, tables[0].columns)
    return {
        name: np.stack([table[name].to_numpy(np.float64) for table in tables]) for name in names
    }


def _interval(
    values: Array, seeds: np.ndarray[Any, Any], prompts: np.ndarray[Any, Any]
) -> tuple[Interval, float]:
    """Compute the mean of ``(S, P)`` with its interval, and the p-value of a mean of 0."""
    drawn = np.array([values[s][:, p].mean() for s, p in zip(seeds, prompts, strict=True)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    # The observed mean counts as one more resample, so that no p-value is 0.
    tail = (min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1) / (len(drawn) + 1)
    interval: Interval = {"value": float(values.mean()), "low": float(low), "high": float(high)}
    return interval, min(1.0, 2 * float(tail))


def _differences(
    tables: Mapping[str, Mapping[str, Array]],
    seeds: np.ndarray[Any, Any],
    prompts: np.ndarray[Any, Any],
) -> dict[str, Interval]:
    """Compute the difference in reward of each method to the first, with its ``p_holm``."""
    first, *others = tables
    differences = {
        name: _interval(tables[name]["reward_mean"] - tables[first]["reward_mean"], seeds, prompts)
        for name in others
    }
    adjusted = holm({name: p for name, (_, p) in differences.items()})
    return {
        name: {**interval, "p_holm": adjusted[name]} for name, (interval, _) in differences.items()
    }


def _choice(
    method: MethodParams, grid: Mapping[Cell, Path], final: Mapping[Cell, Path]
) -> dict[str, Any]:
    """Name a method's parameter, the value that was chosen for it, and the grid of its values."""
    return {
        "name": method.name,
        "parameter": method.parameter,
        "value": next(c.value for c in final if c.method.name == method.name),
        "grid": [
            {
                "value": cell.value,
                "reward_mean": float(pd.read_parquet(folder / PROMPTS)["reward_mean"].mean()),
            }
            for cell, folder in grid.items()
            if cell.method.name == method.name
        ],
    }


def _cell(cell: Cell, folder: Path) -> dict[str, Any]:
    means = pd.read_parquet(folder / PROMPTS).set_index("prompt_id").mean()
    return {
        **json.loads((folder / RESULT).read_text()),
        "method": cell.method.name,
        "value": cell.value,
        "seed": cell.seed,
        "split": cell.split,
        **{name: float(means[name]) for name in METRICS},
    }


def _spread(method: MethodParams, final: Mapping[Cell, Path]) -> dict[str, Any]:
    """Describe the spread over seeds, and the average training."""
    own = [folder for cell, folder in final.items() if cell.method.name == method.name]
    results = [json.loads((folder / RESULT).read_text()) for folder in own]
    rewards = [pd.read_parquet(f / PROMPTS)["reward_mean"].mean() for f in own]
    return {
        "reward_mean": [float(reward) for reward in rewards],
        "reward_std": float(np.std(rewards, ddof=1)) if len(rewards) > 1 else None,
        **{name: _mean_of(results, name) for name in [*STUDIED, "loss_std", "seconds"]},
    }
