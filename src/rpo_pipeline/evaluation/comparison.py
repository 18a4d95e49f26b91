"""Numbers of every model, and paired differences of the challenger to its baselines."""

from typing import Any

import pandas as pd

from rpo_pipeline.evaluation.metrics import distinct, prompt_means, rank_correlations
from rpo_pipeline.evaluation.statistics import (
    Interval,
    jackknife_interval,
    mean_interval,
    resample_prompts,
)

BASELINES = ("reference", "champion")


def compare_models(
    generations: pd.DataFrame, heldout: pd.DataFrame, *, num_resamples: int, seed: int
) -> dict[str, Any]:
    """Measure each model, and the challenger against reference and champion.

    Args:
        generations: Responses with labels, by model, prompt_id and sample.
        heldout: Test rows with the challenger's log-ratio.
        num_resamples: Bootstrap resamples behind each interval.
        seed: Of the resampling.

    Returns:
        ``reference``, ``challenger``, ``champion`` (null if there is none), ``difference`` (
        ``vs_reference``, ``vs_champion``), each metric as {value, low, high}, and ``num_prompts``.
    """
    tables = {
        str(name): rows.sort_values(["prompt_id", "sample"], ignore_index=True)
        for name, rows in generations.groupby("model")
    }
    resamples = resample_prompts(generations["prompt_id"].nunique(), num_resamples, seed)
    means = {name: prompt_means(table, tables["reference"]) for name, table in tables.items()}
    diversity = {
        name: {f"distinct_{n}": distinct(table, n) for n in (1, 2)}
        for name, table in tables.items()
    }
    numbers: dict[str, Any] = {
        name: {metric: mean_interval(values, resamples) for metric, values in means[name].items()}
        | {metric: jackknife_interval(*pair) for metric, pair in diversity[name].items()}
        for name in tables
    }
    numbers["challenger"]["rank_correlation"] = _rank_correlation(heldout, num_resamples, seed)
    difference = {}
    for baseline in BASELINES:
        if baseline in tables:
            difference[f"vs_{baseline}"] = {
                metric: mean_interval(values - means[baseline][metric], resamples)
                for metric, values in means["challenger"].items()
            } | {
                metric: jackknife_interval(
                    value - diversity[baseline][metric][0],
                    without - diversity[baseline][metric][1],
                )
                for metric, (value, without) in diversity["challenger"].items()
            }
    return {
        "num_prompts": int(resamples.shape[1]),
        "reference": numbers["reference"],
        "challenger": numbers["challenger"],
        "champion": numbers.get("champion"),
        "difference": {"vs_champion": None, **difference},
    }


def _rank_correlation(heldout: pd.DataFrame, num_resamples: int, seed: int) -> Interval:
    values = rank_correlations(heldout)
    if not len(values):
        return {"value": None, "low": None, "high": None}
    return mean_interval(values, resample_prompts(len(values), num_resamples, seed))
