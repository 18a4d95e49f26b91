"""Labeling: labelers give raw rewards, a normaliser turns them into rewards, reports check both."""

from rpo_pipeline.labeling.agreement import label_report
from rpo_pipeline.labeling.drift import measure_drift
from rpo_pipeline.labeling.fitted_reward_model import fit_reward_models
from rpo_pipeline.labeling.labeling import (
    build_labeler,
    compared_rows,
    label_feedback,
    label_responses,
    require_labels,
    warn_of_shared_labelers,
)
from rpo_pipeline.labeling.length_baseline import (
    WITHIN,
    against_length,
    compare_shares,
    count_words,
)
from rpo_pipeline.labeling.length_bias import report_rewards
from rpo_pipeline.labeling.normaliser import fit_normaliser, normalise
from rpo_pipeline.labeling.ridge import cross_fit
