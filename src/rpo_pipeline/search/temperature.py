"""Chooses tau by short trainings, measured on what they write to validation prompts."""

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.engine import Engine, row_seed
from rpo_pipeline.errors import DataError
from rpo_pipeline.labeling import label_responses, require_labels
from rpo_pipeline.params import (
    EvaluationParams,
    ObjectiveParams,
    PolicyParams,
    RpoParams,
    TrainingParams,
)
from rpo_pipeline.partition import partition_rows
from rpo_pipeline.training import train_policy, training_rows

Array = np.ndarray[Any, np.dtype[np.float64]]

CLOSE = 0.85
"""Share of the largest divergence from which on a tau is close enough to it."""
MAX_TRIALS = 7
"""Largest number of trainings of a search by divergence."""
FLAT = 1.05
"""Factor by which a smaller tau must raise the divergence, for a still smaller one to be tried."""
FACTORS = 3.0, 30.0
"""Smallest and largest factor between the first values of tau, until the divergence lies between
two of them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trials:
    """Short trainings with one value of tau each."""

    rows_at: Callable[[float], pd.DataFrame]
    """Function from a tau to the training rows with its targets."""
    reference: Path
    """Directory of the model that training starts from."""
    policy: PolicyParams
    rpo: RpoParams
    training: TrainingParams
    evaluation: EvaluationParams
    """Labelers of new text, sampling, and the largest number of prompts."""
    workspace: Path
    """Folder that gets a folder for each tau, and one for cached labels."""

    def rewards(self, tau: float) -> Array:
        """Train with a tau, and return the mean raw reward of each validation prompt."""
        answers, _ = self._answers(tau)
        texts = answers["prompt"].tolist(), answers["response"].tolist()
        labels = label_responses(*texts, self.evaluation.labelers, self.workspace / "labels")
        raw_rewards = require_labels(labels)["raw_reward"]
        rewards = raw_rewards.groupby(answers["prompt_id"]).mean().to_numpy(np.float64)
        logger.info("tau %g: reward %.3f on validation", tau, rewards.mean())
        return rewards

    def divergence(self, tau: float) -> float:
        """Train with a tau, and return the divergence from the reference, in nats a response."""
        answers, engine = self._answers(tau)
        with Engine(self.reference, self.policy, self.training) as reference:
            ref_logps = reference.sample_logps(answers)["logps"]
        found = float((engine.sample_logps(answers)["logps"] - ref_logps).mean())
        logger.info("tau %g: divergence %.2f nats a response on validation", tau, found)
        return found

    def _answers(self, tau: float) -> tuple[pd.DataFrame, Engine]:
        """Train with a tau, and sample responses to validation prompts with the same noise."""
        rows = self.rows_at(tau)
        folder = self.workspace / f"tau-{tau:g}"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"num_epochs": self.rpo.tau_search_epochs, "patience": None}
        train_policy(
            rows,
            self.reference,
            policy=self.policy,
            objectives=ObjectiveParams(rpo=self.rpo),
            training=self.training.model_copy(update=settings),
            workspace=folder,
        )
        sampling = self.evaluation.sampling
        prompts = _validation_prompts(rows, self.evaluation.num_prompts)
        repeats = prompts.index.repeat(sampling.responses_per_prompt)
        table = prompts.loc[repeats].reset_index(drop=True)
        keys = zip(table["prompt_id"], table.groupby("prompt_id").cumcount(), strict=True)
        seeds = [row_seed(self.training.seed, *key) for key in keys]
        engine = Engine(folder / "best", self.policy, self.training)
        temperature = sampling.sampling_temperature
        return table.join(engine.sample(table, seeds, sampling_temperature=temperature)), engine


def choose_tau(trials: Trials) -> dict[str, Any]:
    """Choose tau by what short trainings write to validation prompts.

    Losses with different targets cannot be compared. ``rpo.max_divergence`` takes the smallest tau
    whose divergence is not larger, searched from ``rpo.tau``; without it, ``tau: auto`` takes
    the largest tau of the grid whose reward is close to the best.

    Args:
        trials: Trainings, by the settings of the run.

    Returns:
        ``tau`` and ``candidates`` of ``choose`` or ``choose_by_divergence``.

    Raises:
        DataError: If there is no validation prompt.
    """
    rpo = trials.rpo
    for earlier in trials.workspace.glob("tau-*"):  # each holds a model
        shutil.rmtree(earlier)
    if rpo.max_divergence is None:
        return choose({tau: trials.rewards(tau) for tau in sorted(rpo.tau_grid)})
    return choose_by_divergence(trials.divergence, rpo.max_divergence, start=rpo.fixed_tau)


def rows_at_tau(
    rows: pd.DataFrame, samples: pd.DataFrame, rpo: RpoParams, tau: float
) -> pd.DataFrame:
    """Return the training rows of labelled rows, with the targets of a tau."""
    return training_rows(rows, partition_rows(rows, samples, rpo, tau=tau)[1])


def choose(rewards: dict[float, Array]) -> dict[str, Any]:
    """Choose the largest tau that is within one standard error of the best.

    It stays nearest to the reference.

    Args:
        rewards: Mean raw reward of each validation prompt, in the same order, by tau.

    Returns:
        ``tau``, and ``candidates``: tau, reward_mean, and difference to the best with the standard
        error of the paired difference, each as a number.
    """
    best = max(rewards.values(), key=lambda values: float(values.mean()))
    candidates = []
    for tau, values in sorted(rewards.items()):
        difference = values - best
        candidates.append(
            {
                "tau": tau,
                "reward_mean": float(values.mean()),
                "difference": float(difference.mean()),
                "difference_se": float(difference.std(ddof=1) / np.sqrt(len(values))),
            }
        )
    good = [c["tau"] for c in candidates if c["difference"] >= -c["difference_se"]]
    logger.info("rpo.tau: %g, of %s", max(good), ", ".join(f"{tau:g}" for tau in sorted(rewards)))
    return {"tau": max(good), "candidates": candidates}


def choose_by_divergence(
    divergence: Callable[[float], float], largest: float, *, start: float
) -> dict[str, Any]:
    """Choose the smallest tau whose divergence is not too large; a smaller tau diverges further.

    Args:
        divergence: Function from a tau to a divergence, in nats a response.
        largest: Largest divergence, in nats a response.
        start: First tau.

    Returns:
        ``tau``, the largest that was tried if all diverge too far, and ``candidates``: each tau
        that was tried, with its divergence.
    """
    tried: dict[float, float] = {}
    tau: float | None = start
    while tau is not None and len(tried) < MAX_TRIALS:
        tried[tau] = divergence(tau)
        tau = _next_tau(tried, largest)
    within = [tau for tau, found in tried.items() if found <= largest]
    chosen = min(within, default=max(tried))
    if within and len(within) == len(tried) and tried[chosen] < CLOSE * largest:
        chosen = max(tau for tau in within if FLAT * tried[tau] >= max(tried.values()))
        logger.warning(
            "rpo.max_divergence: %g nats a response was not reached, because a tau below %g moves "
            "the policy no further (raise training.learning_rate or rpo.tau_search_epochs)",
            *(largest, chosen),
        )
    if not within:
        logger.warning(
            "rpo.max_divergence: %g nats a response was exceeded at every tau that was tried, up "
            "to %g, where it is %.2f (lower training.learning_rate or rpo.tau_search_epochs)",
            *(largest, chosen, tried[chosen]),
        )
    logger.info(
        "rpo.tau: %g, with a divergence of %.2f nats a response of at most %g",
        *(chosen, tried[chosen], largest),
    )
    candidates = [{"tau": tau, "divergence": found} for tau, found in sorted(tried.items())]
    return {"tau": chosen, "candidates": candidates}


def _next_tau(tried: Mapping[float, float], largest: float) -> float | None:
    """Return the next tau to try: beyond those tried, or between two; None if one is close."""
    taus = sorted(tried)
    if len(taus) > 1 and tried[taus[0]] <= FLAT * tried[taus[1]]:
        return None  # a smaller tau moves the policy no further
    above = [tau for tau, found in tried.items() if found > largest]
    within = [tau for tau, found in tried.items() if found <= largest]
    if not within:
        return _rounded(max(tried) * _factor(tried[max(tried)] / largest))
    low, high = max(above, default=None), min(within)
    if tried[high] >= CLOSE * largest:
        return None
    if low is None:
        return _rounded(high / _factor(largest / max(tried[high], 1e-3 * largest)))
    if low >= high:  # noise: a larger tau diverged further
        return None
    # The divergence is about a power of tau, so it is interpolated in logarithms.
    floor = 1e-3 * largest
    logs = [math.log(max(value, floor)) for value in (tried[low], tried[high], 0.93 * largest)]
    share = (logs[0] - logs[2]) / (logs[0] - logs[1]) if logs[0] > logs[1] else 0.5
    return _rounded(low * (high / low) ** min(max(share, 0.1), 0.9))


def _rounded(tau: float) -> float:
    """Return a tau of three digits, as it is shown and named in folders."""
    return float(f"{tau:.3g}")


def _factor(ratio: float) -> float:
    """Return the factor of tau that divides the divergence by a ratio, if it is as 1 / tau."""
    return min(max(ratio, FACTORS[0]), FACTORS[1])


def _validation_prompts(rows: pd.DataFrame, limit: int) -> pd.DataFrame:
    validation = rows.loc[rows["split"] == "validation", ["prompt_id", "prompt"]]
    prompts = validation.drop_duplicates("prompt_id").sort_values("prompt_id").head(limit)
    if len(prompts) < 2:
        raise DataError(
            f"tau is chosen on validation prompts, and there are {len(prompts)} with a labelled "
            "row (ingestion.split_shares.validation, or give rpo.tau a number and set no "
            "rpo.max_divergence)"
        )
    return prompts
