"""Reward Partition Optimization (RPO): from a feedback log to a better model."""

from rpo_pipeline.params.variables import unset_blank

__version__ = "0.1.0"

unset_blank()  # before any library reads them
