"""Curves of a comparison: the outcome of each method over its divergence from the reference.

The outcome is ``comparison.metric``. A method with a higher one at a larger divergence has paid for
it, so methods are compared where they have paid the same.

Shapes: D draws, V points of a curve, K budgets, S seeds, P prompts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.evaluation import Array
from rpo_pipeline.params import ComparisonParams, MethodParams
from rpo_pipeline.search.comparison_cells import Cell
from rpo_pipeline.search.comparison_draws import Draws, holm_of, interval_of

PROMPTS, RESULT = "prompts.parquet", "result.json"
"""Files of a finished cell: numbers by prompt, and numbers of the whole cell."""
DIVERGENCE = "kl_reference"


@dataclass(frozen=True)
class Curve:
    """Divergences (nats a response) and outcomes of a method, each of shape ``(D, V)``.

    The first point is the reference; the others are in the order of the grid.
    """

    divergences: Array
    outcomes: Array

    def at(self, budgets: Sequence[float]) -> Array:
        """Interpolate the outcome at budgets, shape ``(D, K)``; NaN beyond the last point.

        It is linear in the square root of the divergence, as it is near the reference: tilting it
        by exp(r / tau) costs var(r) / (2 tau^2) nats and gains var(r) / tau.
        """
        roots = np.sqrt(np.clip(self.divergences, 0.0, None))  # an estimate may lie below 0
        order = np.argsort(roots, axis=1, kind="stable")
        points = (np.take_along_axis(table, order, axis=1) for table in (roots, self.outcomes))
        wanted = np.sqrt(budgets)
        return np.array(
            [np.interp(wanted, x, y, right=np.nan) for x, y in zip(*points, strict=True)]
        )


def choose_values(cells: Mapping[Cell, Path], budget: float) -> dict[str, float]:
    """Choose the value of each method whose divergence on validation prompts fits a budget.

    Args:
        cells: Folder of each cell of the curves.
        budget: Divergence in nats a response.

    Returns:
        By method, the value with the largest divergence up to the budget; if every value diverges
        further, that with the smallest. Divergences are means over seeds.
    """
    methods = {cell.method.name: cell.method for cell in cells}
    return {name: nearest(_on_validation(m, cells), budget) for name, m in methods.items()}


def nearest(divergences: Mapping[float, float], budget: float) -> float:
    """Return the value with the largest divergence up to a budget, else with the smallest."""
    within = {value: nats for value, nats in divergences.items() if nats <= budget}
    if within:
        return max(within, key=within.__getitem__)
    return min(divergences, key=divergences.__getitem__)


def summarise_curves(
    cells: Mapping[Cell, Path], comparison: ComparisonParams, num_resamples: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """Compare the curves of the methods at every budget.

    Args:
        cells: Folder of each cell of the curves.
        comparison: Methods, the first of which is the baseline of the differences, and budgets.
        num_resamples: Number of resamples for each interval.

    Returns:
        By method: ``curve``, its points, each a value of the grid with validation_divergence,
        divergence and outcome; ``budgets``, the interpolated outcome at each budget and its
        difference to the baseline, with ``p_holm`` at the main one. Then the result of ``_winner``.
    """
    first = stack(_folders(comparison.methods[0], comparison.methods[0].grid[0], cells))
    draws = Draws.of(first[comparison.metric], num_resamples)
    curves = {m.name: _curve(m, cells, comparison.metric, draws) for m in comparison.methods}
    budgets = comparison.every_budget
    drawn = {name: curve.at(budgets) for name, curve in curves.items()}
    at_main = {name: table[:, budgets.index(comparison.budget)] for name, table in drawn.items()}
    p_holm = holm_of(at_main)
    baseline = comparison.methods[0].name
    summary = {
        method.name: {
            "curve": _points(method, curves[method.name], cells),
            "budgets": _at_budgets(
                budgets,
                drawn[method.name],
                None if method.name == baseline else drawn[baseline],
                {comparison.budget: {"p_holm": p_holm.get(method.name)}},
            ),
        }
        for method in comparison.methods
    }
    return summary, _winner(at_main)


def _at_budgets(
    budgets: Sequence[float],
    drawn: Array,
    baseline: Array | None,
    more: Mapping[float, Mapping[str, float | None]],
) -> list[dict[str, Any]]:
    """Describe outcomes at budgets, ``(D, K)``, and their differences to a baseline."""
    return [
        {
            "budget": budget,
            "outcome": interval_of(drawn[:, place]),
            "difference": None
            if baseline is None
            else {**interval_of(drawn[:, place] - baseline[:, place]), **more.get(budget, {})},
        }
        for place, budget in enumerate(budgets)
    ]


def stack(folders: Sequence[Path]) -> dict[str, Array]:
    """Read the numbers by prompt of cells that differ in seed, each of shape ``(S, P)``."""
    tables = [pd.read_parquet(folder / PROMPTS).set_index("prompt_id") for folder in folders]
    return {
        str(name): np.stack([table[name].to_numpy(np.float64) for table in tables])
        for name in tables[0].columns
    }


def read_result(folder: Path) -> dict[str, Any]:
    """Read the numbers of a whole cell."""
    result: dict[str, Any] = json.loads((folder / RESULT).read_text())
    return result


def _winner(drawn: Mapping[str, Array]) -> dict[str, Any] | None:
    """Name the method with the highest outcome at the main budget, from draws of shape ``(D,)``.

    The result holds ``method``; ``above``, the methods whose interval of the difference to it lies
    wholly below 0; ``level``, those whose does not; and ``out_of_reach``, those whose curve ends
    before the budget. It is null if every curve does.
    """
    reached = {name: values for name, values in drawn.items() if np.isfinite(values[0])}
    if not reached:
        return None
    best = max(reached, key=lambda name: reached[name][0])
    lows = {
        name: interval_of(reached[best] - values)["low"]
        for name, values in reached.items()
        if name != best
    }
    above = [name for name, low in lows.items() if low is not None and low > 0]
    return {
        "method": best,
        "above": above,
        "level": [name for name in lows if name not in above],
        "out_of_reach": [name for name in drawn if name not in reached],
    }


def _folders(method: MethodParams, value: float, cells: Mapping[Cell, Path]) -> list[Path]:
    return [
        folder
        for cell, folder in cells.items()
        if (cell.method.name, cell.value) == (method.name, value)
    ]


def _curve(method: MethodParams, cells: Mapping[Cell, Path], metric: str, draws: Draws) -> Curve:
    tables = [stack(_folders(method, value, cells)) for value in method.grid]
    reference = draws.means(tables[0][f"reference_{metric}"])
    return Curve(
        np.stack(
            [np.zeros_like(reference), *(draws.means(table[DIVERGENCE]) for table in tables)],
            axis=1,
        ),
        np.stack([reference, *(draws.means(table[metric]) for table in tables)], axis=1),
    )


def _points(method: MethodParams, curve: Curve, cells: Mapping[Cell, Path]) -> list[dict[str, Any]]:
    on_validation = _on_validation(method, cells)
    return [
        {
            "value": value,
            "validation_divergence": on_validation[value],
            "divergence": interval_of(curve.divergences[:, place]),
            "outcome": interval_of(curve.outcomes[:, place]),
        }
        for place, value in enumerate(method.grid, start=1)
    ]


def _on_validation(method: MethodParams, cells: Mapping[Cell, Path]) -> dict[float, float]:
    """Average the divergence on validation prompts over seeds, by value."""
    return {
        value: float(
            np.mean(
                [read_result(f)["validation_divergence"] for f in _folders(method, value, cells)]
            )
        )
        for value in method.grid
    }
