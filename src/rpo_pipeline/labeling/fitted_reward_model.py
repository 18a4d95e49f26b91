"""A linear reward head on frozen embeddings, fitted on the rated rows of the train split.

The head is measured on prompts that it was not fitted on, and compared with the rule "longer is
better", which small reward models often fail to beat. A head that falls short gives no labels.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.labeling.agreement import agreement
from rpo_pipeline.labeling.features import FeatureExtractor
from rpo_pipeline.labeling.length_baseline import count_words
from rpo_pipeline.labeling.ridge import (
    Array,
    choose_penalty,
    fit_ridge,
    held_out_predictions,
    predict,
)
from rpo_pipeline.params import (
    EnsembleParams,
    FittedRewardModelParams,
    LabelerParams,
    LabelingParams,
)
from rpo_pipeline.storage import replacing, result_key

logger = logging.getLogger(__name__)

CALIBRATION_BINS = 10


class FittedRewardModelLabeler:
    """Labels rows by a head that ``fit_reward_models`` has fitted.

    Embeddings are kept in a folder of the cache if there is one. If no head was fitted with these
    settings, ``ConfigError`` is raised.
    """

    def __init__(self, settings: FittedRewardModelParams, cache: Path | None) -> None:
        self.name = settings.title
        self._features = FeatureExtractor(settings, cache)
        head = _read_head(settings, self._features.fingerprint)
        self._problems: list[str] = head["problems"]
        self._coefficients = np.array(head["coefficients"])
        self.fingerprint = result_key(head, code=[FittedRewardModelLabeler.label], libraries=[])

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predict ratings, without components; they are null if the head fell short."""
        if self._problems:
            logger.warning(
                "%s labels none of %d rows: %s", self.name, len(rows), "; ".join(self._problems)
            )
        if self._problems or rows.empty:
            return pd.DataFrame({"raw_reward": np.nan}, index=rows.index, dtype=float)
        predicted = predict(self._coefficients, self._features(rows))
        return pd.DataFrame({"raw_reward": predicted}, index=rows.index)


def fit_reward_models(
    feedback: pd.DataFrame, labeling: LabelingParams, cache: Path | None
) -> list[dict[str, Any]]:
    """Fit the head of each labeler that has one, members of ensembles included, and report on each.

    The feedback holds prompt_id, prompt, response, raw_reward (null for unrated rows) and split. A
    head that falls short raises ``DataError`` if its ``on_failure`` says so.
    """
    rated = feedback[(feedback["split"] == "train") & feedback["raw_reward"].notna()]
    return [fit_reward_model(rated, each, cache) for each in _fitted(labeling.labelers)]


def fit_reward_model(
    rated: pd.DataFrame, settings: FittedRewardModelParams, cache: Path | None
) -> dict[str, Any]:
    """Fit a head, measure it on prompts that it was not fitted on, and store it.

    The rated rows hold prompt_id, prompt, response and raw_reward, none missing. Returns labeler,
    num_rows, num_prompts, penalty, held_out and longer_is_better (as ``agreement`` gives them, on
    the same rows), calibration (mean predicted and mean rated, by tenths of the predictions), and
    problems: the reasons not to use it, empty if it is used. ``DataError`` is raised if the head
    falls short and ``on_failure`` says so.
    """
    extractor = FeatureExtractor(settings, cache)
    num_prompts = int(rated["prompt_id"].nunique())
    report: dict[str, Any] = {"labeler": settings.title, "num_rows": len(rated)}
    report |= {"num_prompts": num_prompts, "problems": []}
    coefficients: Array = np.zeros(0)
    if num_prompts < settings.num_folds:
        report["problems"] = [
            f"people rated responses to {num_prompts} train prompts, which cannot make "
            f"{settings.num_folds} folds"
        ]
    else:
        coefficients, measured = _fit(rated, extractor(rated), settings)
        report |= measured
    _write_head(settings, extractor.fingerprint, coefficients, report["problems"])
    _tell(report, settings)
    return report


def _fit(
    rated: pd.DataFrame, features: Array, settings: FittedRewardModelParams
) -> tuple[Array, dict[str, Any]]:
    ratings = rated["raw_reward"].to_numpy(np.float64)
    folds = pd.factorize(rated["prompt_id"], sort=True)[0] % settings.num_folds
    predicted = held_out_predictions(features, ratings, folds)
    penalty = choose_penalty(features, ratings, folds)
    (coefficients,) = fit_ridge(features, ratings, penalty)
    own, length = (
        agreement(labels, rated["raw_reward"], rated["prompt_id"])
        for labels in (pd.Series(predicted, rated.index), count_words(rated["response"]))
    )
    return coefficients, {
        "penalty": penalty,
        "held_out": own,
        "longer_is_better": length,
        "calibration": _calibration(predicted, ratings),
        "problems": list(_shortfalls(own, length, settings)),
    }


def _shortfalls(
    head: dict[str, Any], length: dict[str, Any], settings: FittedRewardModelParams
) -> Iterator[str]:
    correlation = head["spearman"] or 0.0
    if correlation < settings.min_correlation:
        yield (
            f"its held-out rank correlation with the ratings is {correlation:.3f}, below "
            f"min_correlation = {settings.min_correlation:g}"
        )
    if head["num_pairs"]:
        own, accuracy = head["pair_accuracy"], length["pair_accuracy"]
        # If raters prefer short responses, length predicts as well with its sign reversed.
        other, measure = (
            max(accuracy, 1 - accuracy),
            f"{head['num_pairs']} pairs in the right order",
        )
    else:
        own, other, measure = correlation, abs(length["spearman"] or 0.0), "rank correlation"
    if own - other < settings.min_margin or own <= other:
        yield (
            f"length alone does as well: {other:.3f} against its {own:.3f} ({measure}, held out), "
            f"and min_margin = {settings.min_margin:g}"
        )


def _calibration(predicted: Array, ratings: Array) -> list[dict[str, float]]:
    table = pd.DataFrame({"predicted": predicted, "rated": ratings})
    tenths = pd.qcut(predicted, CALIBRATION_BINS, labels=False, duplicates="drop")
    means = table.groupby(tenths).mean().assign(num_rows=table.groupby(tenths).size())
    return [{str(k): float(v) for k, v in line.items()} for line in means.to_dict("records")]


def _tell(report: dict[str, Any], settings: FittedRewardModelParams) -> None:
    if not report["problems"]:
        logger.info(
            "%s: held-out rank correlation %.3f, pairs in the right order %s; by length alone %s",
            report["labeler"],
            report["held_out"]["spearman"],
            *(_share(report[name]["pair_accuracy"]) for name in ("held_out", "longer_is_better")),
        )
        return
    problem = f"labeler `{settings.title}` is not used: {'; '.join(report['problems'])}"
    if settings.on_failure == "error":
        raise DataError(
            f"{problem} (labeling.labelers: another embedding or `on_failure: skip`; more ratings)"
        )
    logger.warning("%s", problem)


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _fitted(labelers: Sequence[LabelerParams]) -> Iterator[FittedRewardModelParams]:
    for settings in labelers:
        if isinstance(settings, FittedRewardModelParams):
            yield settings
        elif isinstance(settings, EnsembleParams):
            yield from _fitted(settings.members)


def _write_head(
    settings: FittedRewardModelParams, reads: str, coefficients: Array, problems: list[str]
) -> None:
    head = {"reads": reads, "problems": problems, "coefficients": coefficients.tolist()}
    with replacing(Path(settings.head)) as prepared:
        prepared.write_text(json.dumps(head))


def _read_head(settings: FittedRewardModelParams, reads: str) -> dict[str, Any]:
    file = Path(settings.head)
    head: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if head.get("reads") != reads:
        raise ConfigError(
            f"labeler `{settings.title}`: {file} "
            f"{'was fitted on other embeddings' if head else 'does not exist'}; it is fitted in "
            "reward_labeling, for labelers in labeling.labelers with the same settings "
            "(kedro run --pipelines reward_labeling --runner SequentialRunner)"
        )
    return head
