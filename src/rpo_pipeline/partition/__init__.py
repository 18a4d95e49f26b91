"""Estimates log_z of every prompt, and computes the target of every row."""

from rpo_pipeline.partition.estimates import partition_rows
from rpo_pipeline.partition.estimation import Estimation, settle_estimation
from rpo_pipeline.partition.kto_pairs import score_mismatched
from rpo_pipeline.partition.levels import add_levels
from rpo_pipeline.partition.reference_samples import (
    label_samples,
    prompts_to_sample,
    sample_reference,
)
from rpo_pipeline.partition.rows import join_scores, labelled_rows
