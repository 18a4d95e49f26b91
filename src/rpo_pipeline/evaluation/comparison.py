"""Numbers of every model, and paired differences of the challenger to its baselines."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rpo_pipeline.evaluation import judge
from rpo_pipeline.evaluation.by_prompt import (
    RATE,
    Range,
    detectable_gain,
    differences,
    metric_ranges,
    spread,
)
from rpo_pipeline.evaluation.metrics import (
    average,
    calibration_slope,
    distinct,
    length_controlled_wins,
    pair_accuracies,
    rank_correlations,
    response_numbers,
    wins_over,
)
from rpo_pipeline.evaluation.statistics import (
    Array,
    Interval,
    holm,
    jackknife_interval,
    mean_interval,
    p_value,
    percentile_interval,
    quantile_draws,
    resample_prompts,
    shifted,
)
from rpo_pipeline.evaluation.text_metrics import vocabulary_entropy

BASELINES = ("reference", "champion")


def compare_models(
    generations: pd.DataFrame,
    heldout: pd.DataFrame,
    verdicts: pd.DataFrame,
    ranges: Mapping[str, Range],
    *,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Measure each model, and the challenger against reference and champion.

    Args:
        generations: Responses with labels, by model, prompt_id and sample.
        heldout: Test rows with the challenger's log-ratio.
        verdicts: Of the judge, as ``judge.judge_pairs`` gives them; empty without one.
        ranges: Lowest and highest label of logged responses, by column.
        num_resamples: Bootstrap resamples behind each interval.
        seed: Of the resampling.

    Returns:
        ``reference``, ``challenger``, ``champion`` (null if there is none), ``difference`` (
        ``vs_reference``, ``vs_champion``), each metric as {value, low, high}; ``p_holm``, by
        baseline the p-value of each difference, by Holm over the metrics beside it;
        ``num_prompts``; ``detectable_difference`` in reward_mean; ``judge``, how far it can be
        trusted (null without one); ``by_prompt``: of the challenger and of each difference, the
        values of each prompt with the worst and the best possible one.
    """
    tables = {
        str(name): rows.sort_values(["prompt_id", "sample"], ignore_index=True)
        for name, rows in generations.groupby("model")
    }
    resamples = resample_prompts(generations["prompt_id"].nunique(), num_resamples, seed)
    responses = {name: response_numbers(own, tables["reference"]) for name, own in tables.items()}
    means = {name: average(own) for name, own in responses.items()}
    ends = metric_ranges(responses.values(), ranges)
    by_prompt = {"challenger": {m: spread(v, ends[m]) for m, v in means["challenger"].items()}}
    corpus = {name: _corpus_metrics(table, tables["reference"]) for name, table in tables.items()}
    numbers: dict[str, Any] = {
        name: {metric: mean_interval(values, resamples) for metric, values in means[name].items()}
        | {metric: jackknife_interval(*pair) for metric, pair in corpus[name].items()}
        for name in tables
    }
    tails = {name: _tails(table, resamples) for name, table in tables.items()}
    for name, own in tails.items():
        numbers[name] |= {metric: percentile_interval(*pair) for metric, pair in own.items()}
    for metric, values in (
        ("rank_correlation", rank_correlations(heldout)),
        ("pair_accuracy", pair_accuracies(heldout)),
    ):
        numbers["challenger"][metric] = mean_interval(
            values, resample_prompts(max(1, len(values)), num_resamples, seed)
        )
    if slope := calibration_slope(heldout):
        numbers["challenger"]["calibration_slope"] = jackknife_interval(*slope)
    judged = judge.win_rates(verdicts, num_resamples=num_resamples, seed=seed)
    difference = {}
    for baseline in BASELINES:
        if baseline not in tables:
            continue
        gains = {
            metric: mean_interval(values - means[baseline][metric], resamples)
            for metric, values in means["challenger"].items()
        }
        gains |= _gaps(corpus, baseline, jackknife_interval)
        gains |= _gaps(tails, baseline, percentile_interval)
        wins = wins_over(tables["challenger"], tables[baseline]).reshape(resamples.shape[1], -1)
        gains["win_rate"] = mean_interval(wins.mean(axis=1) - 0.5, resamples)
        gaps = differences(means["challenger"], means[baseline], ends)
        gaps["win_rate"] = spread(wins.mean(axis=1) - 0.5, RATE)
        if baseline in judged:
            gains["judge_win_rate"] = shifted(judged[baseline], -0.5)
            gaps["judge_win_rate"] = spread(judge.prompt_wins(verdicts, baseline) - 0.5, RATE)
        difference[f"vs_{baseline}"] = gains
        by_prompt[f"vs_{baseline}"] = gaps
    if "reference" in judged:
        numbers["challenger"]["judge_win_rate"] = judged["reference"]
        numbers["reference"]["judge_win_rate"] = {"value": 0.5, "low": 0.5, "high": 0.5}
    closest = by_prompt.get("vs_champion") or by_prompt["vs_reference"]
    return {
        "num_prompts": int(resamples.shape[1]),
        "detectable_difference": detectable_gain(closest["reward_mean"]),
        "judge": (
            judge.trust(verdicts, num_resamples=num_resamples, seed=seed) if len(verdicts) else None
        ),
        "reference": numbers["reference"],
        "challenger": numbers["challenger"],
        "champion": numbers.get("champion"),
        "difference": {"vs_champion": None, **difference},
        "p_holm": {
            baseline: holm({metric: p_value(interval) for metric, interval in gains.items()})
            for baseline, gains in difference.items()
        },
        "by_prompt": by_prompt,
    }


def _gaps(
    numbers: Mapping[str, Mapping[str, tuple[float, Array]]],
    baseline: str,
    interval: Callable[[float, Array], Interval],
) -> dict[str, Interval]:
    """The challenger's numbers less a baseline's, each with its interval."""
    return {
        metric: interval(value - numbers[baseline][metric][0], draws - numbers[baseline][metric][1])
        for metric, (value, draws) in numbers["challenger"].items()
    }


def _tails(table: pd.DataFrame, resamples: NDArray[np.int64]) -> dict[str, tuple[float, Array]]:
    """The worst of a model's responses: the 95th percentile of toxicity, if a labeler says it."""
    if "toxicity" not in table:
        return {}
    values = table["toxicity"].to_numpy(np.float64).reshape(resamples.shape[1], -1)
    return {"toxicity_p95": quantile_draws(values, resamples, 0.95)}


def _corpus_metrics(table: pd.DataFrame, reference: pd.DataFrame) -> dict[str, tuple[float, Array]]:
    """Metrics that are no mean over prompts, each with its value without each prompt."""
    return {
        "distinct_1": distinct(table, 1),
        "distinct_2": distinct(table, 2),
        "vocabulary_entropy": vocabulary_entropy(table),
        "length_controlled_win_rate": length_controlled_wins(table, reference),
    }
