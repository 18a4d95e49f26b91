"""Numbers of every model, and paired differences of the challenger to its baselines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    vocabulary_entropy,
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
    resample_prompts,
)
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

    The generations are labelled responses by model, prompt_id and sample; ``heldout`` are test rows
    with the challenger's log-ratio, ``ranges`` the lowest and highest label of logged responses by
    column. Without a judge, the table of ``judge_pairs`` is empty. A metric is {value, low, high}.
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


class _Estimate(NamedTuple):
    """Metric that is no mean over prompts."""

    value: float
    draws: Array
    """The value in every resample, or without each prompt, as ``interval`` needs it."""
    interval: Callable[[float, Array], Interval]


@dataclass(frozen=True, eq=False)
class _Models:
    """Numbers of the responses of every model, by the name of the model."""

    tables: Mapping[str, pd.DataFrame]
    means: Mapping[str, Mapping[str, Array]]
    """Metrics that are a mean over prompts, by prompt."""
    estimates: Mapping[str, Mapping[str, _Estimate]]
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
        estimates={
            name: _estimates(own, tables["reference"], resamples) for name, own in tables.items()
        },
        ends=metric_ranges(responses.values(), ranges),
        resamples=resamples,
    )


def _estimates(
    table: pd.DataFrame, reference: pd.DataFrame, resamples: NDArray[np.int64]
) -> dict[str, _Estimate]:
    corpus = {
        "distinct_1": distinct(table, 1),
        "distinct_2": distinct(table, 2),
        "vocabulary_entropy": vocabulary_entropy(table),
        "length_controlled_win_rate": length_controlled_wins(table, reference),
    }
    found = {metric: _Estimate(*pair, jackknife_interval) for metric, pair in corpus.items()}
    if "toxicity" in table:
        values = table["toxicity"].to_numpy(np.float64).reshape(resamples.shape[1], -1)
        draws = np.array([np.quantile(values[rows], 0.95) for rows in resamples])
        value = float(np.quantile(values, 0.95))
        found["toxicity_p95"] = _Estimate(value, draws, percentile_interval)
    return found


def _intervals(models: _Models, name: str) -> dict[str, Interval]:
    """Compute the numbers of one model with their intervals."""
    means = {m: mean_interval(v, models.resamples) for m, v in models.means[name].items()}
    return means | {m: e.interval(e.value, e.draws) for m, e in models.estimates[name].items()}


def _ranking(heldout: pd.DataFrame, num_resamples: int, seed: int) -> dict[str, Interval]:
    """Measure how the challenger ranks logged responses that it was not trained on."""
    values = {
        "rank_correlation": rank_correlations(heldout),
        "pair_accuracy": pair_accuracies(heldout),
    }
    numbers = {
        metric: mean_interval(own, resample_prompts(max(1, len(own)), num_resamples, seed))
        for metric, own in values.items()
    }
    slope = calibration_slope(heldout)
    return numbers | ({"calibration_slope": jackknife_interval(*slope)} if slope else {})


def _compare(
    models: _Models, baseline: str, verdicts: pd.DataFrame, judged: Mapping[str, Interval]
) -> tuple[dict[str, Interval], dict[str, dict[str, Any]]]:
    """Compute the gains of the challenger over a baseline, and the gain on each prompt."""
    own, others, resamples = models.means["challenger"], models.means[baseline], models.resamples
    gains = {metric: mean_interval(v - others[metric], resamples) for metric, v in own.items()}
    for metric, mine in models.estimates["challenger"].items():
        theirs = models.estimates[baseline][metric]
        gains[metric] = mine.interval(mine.value - theirs.value, mine.draws - theirs.draws)
    wins = wins_over(models.tables["challenger"], models.tables[baseline])
    by_prompt = wins.reshape(resamples.shape[1], -1).mean(axis=1) - 0.5
    gains["win_rate"] = mean_interval(by_prompt, resamples)
    gaps = differences(own, others, models.ends)
    gaps["win_rate"] = spread(by_prompt, RATE)
    if baseline in judged:
        gains["judge_win_rate"] = {
            name: None if rate is None else rate - 0.5 for name, rate in judged[baseline].items()
        }
        gaps["judge_win_rate"] = spread(judge.prompt_wins(verdicts, baseline) - 0.5, RATE)
    return gains, gaps
