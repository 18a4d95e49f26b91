"""Summarises finished cells of a comparison: curves, each method near the main budget, studies.

Shapes: S seeds, P prompts, D draws.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rpo_pipeline.evaluation import Array, Interval, detectable_difference
from rpo_pipeline.params import ComparisonParams, MethodParams
from rpo_pipeline.search.comparison_cells import Cell
from rpo_pipeline.search.comparison_curve import (
    DIVERGENCE,
    read_result,
    stack,
    summarise_curves,
)
from rpo_pipeline.search.comparison_draws import Draws, holm_of, interval_of
from rpo_pipeline.search.comparison_measure import METRICS, RANK

STUDIED = ("distinct_2", "grad_norm_std")
"""Numbers of a whole cell that studies report."""


def summarise(
    curves: Mapping[Cell, Path],
    final: Mapping[Cell, Path],
    comparison: ComparisonParams,
    *,
    num_resamples: int,
) -> dict[str, Any]:
    """Summarise the numbers of all cells.

    Intervals come from resampling seeds and prompts together, the same for all methods, so that
    differences are paired in both. P-values of differences have Holm's correction.

    Args:
        curves: Folder of each cell of the curves.
        final: Folder of each cell of the chosen values.
        comparison: Methods, the first of which is the baseline; metric, budgets and seeds.
        num_resamples: Number of resamples for each interval.

    Returns:
        ``methods``, each with curve and budgets of ``summarise_curves``, its chosen value, metrics
        as {value, low, high}, spread over seeds and difference to the baseline in the metric;
        ``winner`` at the main budget; ``reference``; ``num_prompts``; ``detectable_difference``;
        ``cells``, one by one; and of the parameters ``baseline``, ``metric``, ``budget``, ``seeds``
        and ``curve_seeds``.
    """
    tables = {m.name: stack(_own(m, final)) for m in comparison.methods}
    first = tables[comparison.methods[0].name]
    draws = Draws.of(first[comparison.metric], num_resamples)
    points, winner = summarise_curves(curves, comparison, num_resamples)
    differences = _differences(tables, draws, comparison.metric)
    detectable = [detectable_difference(interval) or 0.0 for interval in differences.values()]
    return {
        "baseline": comparison.methods[0].name,
        **comparison.model_dump(include={"metric", "budget", "seeds", "curve_seeds"}),
        "winner": winner,
        "methods": [
            {
                **{"name": name, "parameter": cell.method.parameter, "value": cell.value},
                **points[name],
                "metrics": _metrics(tables[name], draws),
                "seeds": _spread(tables[name][comparison.metric], _own(cell.method, final)),
                "difference": differences.get(name),
            }
            for name, cell in {cell.method.name: cell for cell in final}.items()
        ],
        "reference": _metrics(first, draws, "reference_"),
        "num_prompts": first[comparison.metric].shape[1],
        "cells": _cells({**curves, **final}),
        "detectable_difference": float(np.median(detectable)) if detectable else None,
    }


def summarise_studies(
    cells: Mapping[Cell, Path], metric: str, *, num_resamples: int
) -> dict[str, list[dict[str, Any]]]:
    """Summarise the numbers of the studies.

    Args:
        cells: Folder of each cell of a study.
        metric: ``comparison.metric``.
        num_resamples: Number of resamples of seeds and prompts for each interval.

    Returns:
        For each study a list of: method, level, outcome (the metric as {value, low, high}), its
        difference to that of the first method at the same level, and means of kl_reference,
        rank_correlation, distinct_2 and grad_norm_std.
    """
    groups: dict[tuple[str, float, str], list[Path]] = {}
    for cell, folder in cells.items():
        if cell.study:
            groups.setdefault((*cell.study, cell.method.name), []).append(folder)
    studies: dict[str, list[dict[str, Any]]] = {}
    firsts: dict[tuple[str, float], Array] = {}
    for (study, level, method), folders in groups.items():
        table = stack(folders)
        draws = Draws.of(table[metric], num_resamples)
        outcomes = draws.means(table[metric])
        first = firsts.setdefault((study, level), outcomes)
        studies.setdefault(study, []).append(
            {
                "method": method,
                "level": level,
                "outcome": interval_of(outcomes),
                "difference": None if outcomes is first else interval_of(outcomes - first),
                **{
                    name: interval_of(draws.means(table[name]))["value"]
                    for name in (DIVERGENCE, RANK)
                },
                **{name: _mean_of(folders, name) for name in STUDIED},
            }
        )
    return studies


def _own(method: MethodParams, final: Mapping[Cell, Path]) -> list[Path]:
    return [folder for cell, folder in final.items() if cell.method.name == method.name]


def _mean_of(folders: Sequence[Path], name: str) -> float:
    return float(np.mean([read_result(folder)[name] for folder in folders]))


def _metrics(table: Mapping[str, Array], draws: Draws, prefix: str = "") -> dict[str, Interval]:
    names = [name for name in METRICS if f"{prefix}{name}" in table]
    return {name: interval_of(draws.means(table[f"{prefix}{name}"])) for name in names}


def _differences(
    tables: Mapping[str, Mapping[str, Array]], draws: Draws, metric: str
) -> dict[str, Interval]:
    """Compute the difference of each method to the first, with its ``p_holm``."""
    drawn = {name: draws.means(table[metric]) for name, table in tables.items()}
    first, *others = drawn
    p_holm = holm_of(drawn)
    return {
        name: {**interval_of(drawn[name] - drawn[first]), "p_holm": p_holm.get(name)}
        for name in others
    }


def _spread(outcomes: Array, folders: Sequence[Path]) -> dict[str, Any]:
    """Describe the spread of outcomes ``(S, P)`` over seeds, and the average training."""
    means = np.nanmean(outcomes, axis=1)
    return {
        "outcome": means.tolist(),
        "outcome_std": float(means.std(ddof=1)) if len(means) > 1 else None,
        **{name: _mean_of(folders, name) for name in (*STUDIED, "loss_std", "seconds")},
    }


def _cells(cells: Mapping[Cell, Path]) -> list[dict[str, Any]]:
    """List parameters and numbers of each cell, once."""
    by_name = {cell.name: (cell, folder) for cell, folder in cells.items()}
    rows = []
    for cell, folder in by_name.values():
        table = stack([folder])
        rows.append(
            {
                **read_result(folder),
                "cell": cell.name,
                "method": cell.method.name,
                "value": cell.value,
                "seed": cell.seed,
                **{name: _mean(table[name]) for name in METRICS if name in table},
            }
        )
    return rows


def _mean(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None
