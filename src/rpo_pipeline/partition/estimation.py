"""Settles how log_z is estimated: by the objective, the shape of the log, and its labelers."""

import logging

import pandas as pd

from rpo_pipeline.params import LabelingParams, Params, QrpoParams, RpoParams, TrainingParams
from rpo_pipeline.partition.levels import is_single

logger = logging.getLogger(__name__)


class Estimation(Params):
    """How log_z is estimated."""

    rpo: RpoParams
    """Settings, in which ``estimator`` is not ``auto``."""
    reason: str
    """Why this estimator, in words."""


def settle_estimation(
    rows: pd.DataFrame,
    rpo: RpoParams,
    qrpo: QrpoParams,
    training: TrainingParams,
    labeling: LabelingParams,
) -> Estimation:
    """Settle how log_z is estimated.

    ``qrpo`` takes ``quantile`` and its own tau. Other objectives that do not use log_z still report
    its health; no tau is searched for them, and ``tau: auto`` is the middle of the grid.
    ``rpo.estimator: auto`` takes ``reference_samples`` if log-probabilities are summed, no level is
    fitted, prompts have fewer responses than ``below_responses`` on average, and the labeler of new
    text labelled most of the log, whose scale the samples then share; else ``monte_carlo``
    (docs/decisions/069).

    Args:
        rows: Labelled rows: prompt_id, split, labeler.
        rpo: Settings of RPO.
        qrpo: Settings of QRPO.
        training: Objective.
        labeling: Labelers.

    Returns:
        The settings of the estimate, and the reason.
    """
    if training.objective == "qrpo":
        quantile = {
            "estimator": "quantile",
            "tau": qrpo.tau,
            "prior_strength": 0.0,
            "max_divergence": None,
        }
        return Estimation(rpo=rpo.model_copy(update=quantile), reason="training.objective: qrpo")
    changes: dict[str, object] = {}
    if training.objective != "rpo":
        changes = {"tau": rpo.fixed_tau, "max_divergence": None}
    reason = "rpo.estimator names it"
    if rpo.estimator == "auto":
        if training.objective == "rpo":
            changes["estimator"], reason = _choose(rows[rows["split"] == "train"], rpo, labeling)
        else:
            changes["estimator"] = "monte_carlo"
            reason = f"training.objective {training.objective} does not use log_z"
        logger.info("rpo.estimator: %s, as %s", changes["estimator"], reason)
    return Estimation(rpo=rpo.model_copy(update=changes), reason=reason)


def _choose(train: pd.DataFrame, rpo: RpoParams, labeling: LabelingParams) -> tuple[str, str]:
    mean = len(train) / max(1, train["prompt_id"].nunique())
    shape = f"train prompts have {mean:.1f} responses on average"
    has_levels = rpo.prior_strength and is_single(train)
    levels = "; the level of a prompt comes from other prompts" if has_levels else ""
    if rpo.logp_reduction == "mean":
        return "monte_carlo", f"{shape} and log-probabilities are averaged over tokens{levels}"
    if rpo.fit_level:
        return "monte_carlo", f"{shape} and the level of log_z is fitted{levels}"
    if mean >= rpo.reference_samples.below_responses:
        return "monte_carlo", shape
    by_text = next((each for each in labeling.labelers if each.scores_new_text), None)
    if by_text is None:
        lacking = "no labeler of labeling.labelers scores new text"
        return "monte_carlo", f"{shape}, and {lacking}{levels}"
    share = float((train["labeler"] == by_text.title).mean()) if len(train) else 0.0
    if share < 0.5:
        return "monte_carlo", (
            f"{shape}, and the labeler of new text, {by_text.title}, gave {share:.0%} of the "
            f"labels, so samples might be on another scale{levels}"
        )
    return "reference_samples", f"{shape}, and {by_text.title} labels new text"
