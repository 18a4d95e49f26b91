"""Estimates log_z of every prompt, and computes the target of every row."""

from rpo_pipeline.partition.estimates import partition_rows, partition_settings
from rpo_pipeline.partition.mismatched import mismatched_pairs
from rpo_pipeline.partition.reference_samples import prompts_to_sample, sample_reference

__all__ = [
    "mismatched_pairs",
    "partition_rows",
    "partition_settings",
    "prompts_to_sample",
    "sample_reference",
]
