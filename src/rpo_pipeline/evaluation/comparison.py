"""Numbers of every model, and paired differences of the challenger to its baselines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from rpo_pipeline.records import Measured

BASELINES = ("reference", "champion")


def compare_models(
    generations: pd.DataFrame,
    heldout: pd.DataFrame,
    verdicts: pd.DataFrame,
    ranges: Mapping[str, Range],
    *,
    num_resamples: int,
    seed: int,
) -> Measured:
    """Measure each model, and the challenger against reference and champion.

    Args:
        generations: Responses with labels, by model, prompt_id and sample.
        heldout: Test rows with the challenger's log-ratio.
        verdicts: Verdicts as ``judge.judge_pairs`` gives them; empty without a judge.
        ranges: Lowest and highest label of logged responses, by column.
        num_resamples: Number of bootstrap resamples for each interval.
        seed: Seed of the resampling.

    Returns:
        The numbers, each metric as {value, low, high}.
    """
    models = _read_models(generations, ranges, num_resamples, seed)
    numbers = {name: _intervals(models, name) for name in models.tables}
    numbers["challenger"] |= _ranking(heldout, num_resamples, seed)
    judged = judge.win_rates(verdicts, num_resamples=num_resamples, seed=seed)
    difference: dict[str, dict[str, Interval]] = {}
    own = models.means["challenger"]
    by_prompt = {"challenger": {m: spread(v, models.ends[m]) for m, v in own.items()}}
    for name in [baseline for baseline in BASELINES if baseline in models.tables]:
        difference[f"vs_{name}"], by_prompt[f"vs_{name}"] = _compare(models, name, verdicts, judged)
    if "reference" in judged:
        numbers["challenger"]["judge_win_rate"] = judged["reference"]
        numbers["reference"]["judge_win_rate"] = {"value": 0.5, "low": 0.5, "high": 0.5}
    closest = by_prompt.get("vs_champion") or by_prompt["vs_reference"]
    trust = judge.trust(verdicts, num_resamples=num_resamples, seed=seed) if len(verdicts) else None
    return Measured(
        num_prompts=int(models.resamples.shape[1]),
        detectable_difference=detectable_gain(closest["reward_mean"]),
        judge=trust,
        reference=numbers["reference"],
        challenger=numbers["challenger"],
        champion=numbers.get("champion"),
        difference={"vs_champion": None, **difference},
        p_holm={
            baseline: holm({metric: p_value(interval) for metric, interval in gains.items()})
            for baseline, gains in difference.items()
        },
        by_prompt=by_prompt,
    )


@dataclass(frozen=True, eq=False)
class _Models:
    """Numbers of the responses of every model, by the name of the model."""

    tables: Mapping[str, pd.DataFrame]
    means: Mapping[str, Mapping[str, Array]]
    """Metrics that are a mean over prompts, by prompt."""
    corpus: Mapping[str, Mapping[str, tuple[float, Array]]]
    """Metrics that are no mean over prompts, each with its value without each prompt."""
    tails: Mapping[str, Mapping[str, tuple[float, Array]]]
    """Percentiles, each with its value in every resample."""
    ends: Mapping[str, Range]
    """Lowest and highest value of a response, by metric."""
    resamples: NDArray[np.int64]


def _read_models(
    generations: pd.DataFrame, ranges: Mapping[str, Range], num_resamples: int, seed: int
) -> _Models:
    tables = {
        str(name): rows.sort_values(["prompt_id", "sample"], ignore_index=True)
        for name, rows in generations.groupby("model")
    }
    resamples = resample_prompts(generations["prompt_id"].nunique(), num_resamples, seed)
    responses = {name: response_numbers(own, tables["reference"]) for name, own in tables.items()}
    return _Models(
        tables=tables,
        means={name: average(own) for name, own in responses.items()},
        corpus={name: _corpus_metrics(own, tables["reference"]) for name, own in tables.items()},
        tails={name: _tails(table, resamples) for name, table in tables.items()},
        ends=metric_ranges(responses.values(), ranges),
        resamples=resamples,
    )


def _intervals(models: _Models, name: str) -> dict[str, Interval]:
    """Compute the numbers of one model with their intervals."""
    means = {m: mean_interval(v, models.resamples) for m, v in models.means[name].items()}
    corpus = {m: jackknife_interval(*pair) for m, pair in models.corpus[name].items()}
    return means | corpus | {m: percentile_interval(*p) for m, p in models.tails[name].items()}


def _ranking(heldout: pd.DataFrame, num_resamples: int, seed: int) -> dict[str, Interval]:
    """Measure how the challenger ranks logged responses that it was not trained on."""
    numbers = {
        metric: mean_interval(values, resample_prompts(max(1, len(values)), num_resamples, seed))
        for metric, values in (
            ("rank_correlation", rank_correlations(heldout)),
            ("pair_accuracy", pair_accuracies(heldout)),
        )
    }
    slope = calibration_slope(heldout)
    return numbers | ({"calibration_slope": jackknife_interval(*slope)} if slope else {})


def _compare(
    models: _Models, baseline: str, verdicts: pd.DataFrame, judged: Mapping[str, Interval]
) -> tuple[dict[str, Interval], dict[str, dict[str, Any]]]:
    """Compute the gains of the challenger over a baseline, and the gain on each prompt."""
    own, others, resamples = models.means["challenger"], models.means[baseline], models.resamples
    gains = {metric: mean_interval(v - others[metric], resamples) for metric, v in own.items()}
    gains |= _gaps(models.corpus, baseline, jackknife_interval)
    gains |= _gaps(models.tails, baseline, percentile_interval)
    wins = wins_over(models.tables["challenger"], models.tables[baseline])
    by_prompt = wins.reshape(resamples.shape[1], -1).mean(axis=1) - 0.5
    gains["win_rate"] = mean_interval(by_prompt, resamples)
    gaps = differences(own, others, models.ends)
    gaps["win_rate"] = spread(by_prompt, RATE)
    if baseline in judged:
        gains["judge_win_rate"] = shifted(judged[baseline], -0.5)
        gaps["judge_win_rate"] = spread(judge.prompt_wins(verdicts, baseline) - 0.5, RATE)
    return gains, gaps


def _gaps(
    numbers: Mapping[str, Mapping[str, tuple[float, Array]]],
    baseline: str,
    interval: Callable[[float, Array], Interval],
) -> dict[str, Interval]:
    """Subtract a baseline's numbers from the challenger's, each with its interval."""
    return {
        metric: interval(value - numbers[baseline][metric][0], draws - numbers[baseline][metric][1])
        for metric, (value, draws) in numbers["challenger"].items()
    }


def _tails(table: pd.DataFrame, resamples: NDArray[np.int64]) -> dict[str, tuple[float, Array]]:
    """Compute the 95th percentile of a model's toxicity, if a labeler measures it."""
    if "toxicity" not in table:
        return {}
    values = table["toxicity"].to_numpy(np.float64).reshape(resamples.shape[1], -1)
    return {"toxicity_p95": quantile_draws(values, resamples, 0.95)}


def _corpus_metrics(table: pd.DataFrame, reference: pd.DataFrame) -> dict[str, tuple[float, Array]]:
    """Compute metrics that are no mean over prompts, each with its value without each prompt."""
    return {
        "distinct_1": distinct(table, 1),
        "distinct_2": distinct(table, 2),
        "vocabulary_entropy": vocabulary_entropy(table),
        "length_controlled_win_rate": length_controlled_wins(table, reference),
    }
