"""Numbers of every model, and paired differences of the challenger to its baselines."""

from typing import Any

import pandas as pd

from rpo_pipeline.evaluation.metrics import (
    distinct,
    length_controlled_wins,
    pair_accuracies,
    prompt_means,
    rank_correlations,
)
from rpo_pipeline.evaluation.statistics import (
    Array,
    jackknife_interval,
    mean_interval,
    resample_prompts,
)
from rpo_pipeline.evaluation.text_metrics import vocabulary_entropy

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
    corpus = {name: _corpus_metrics(table, tables["reference"]) for name, table in tables.items()}
    numbers: dict[str, Any] = {
        name: {metric: mean_interval(values, resamples) for metric, values in means[name].items()}
        | {metric: jackknife_interval(*pair) for metric, pair in corpus[name].items()}
        for name in tables
    }
    for metric, values in (
        ("rank_correlation", rank_correlations(heldout)),
        ("pair_accuracy", pair_accuracies(heldout)),
    ):
        numbers["challenger"][metric] = mean_interval(
            values, resample_prompts(max(1, len(values)), num_resamples, seed)
        )
    difference = {}
    for baseline in BASELINES:
        if baseline in tables:
            difference[f"vs_{baseline}"] = {
                metric: mean_interval(values - means[baseline][metric], resamples)
                for metric, values in means["challenger"].items()
            } | {
                metric: jackknife_interval(
                    value - corpus[baseline][metric][0],
                    without - corpus[baseline][metric][1],
                )
                for metric, (value, without) in corpus["challenger"].items()
            }
    return {
        "num_prompts": int(resamples.shape[1]),
        "reference": numbers["reference"],
        "challenger": numbers["challenger"],
        "champion": numbers.get("champion"),
        "difference": {"vs_champion": None, **difference},
    }


def _corpus_metrics(table: pd.DataFrame, reference: pd.DataFrame) -> dict[str, tuple[float, Array]]:
    """Metrics that are no mean over prompts, each with its value without each prompt."""
    return {
        "distinct_1": distinct(table, 1),
        "distinct_2": distinct(table, 2),
        "vocabulary_entropy": vocabulary_entropy(table),
        "length_controlled_win_rate": length_controlled_wins(table, reference),
    }
