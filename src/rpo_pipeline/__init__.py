"""Reward Partition Optimization (RPO): from a feedback log to a better model."""

from rpo_pipeline.params import prepare_environment

__version__ = "0.1.0"

prepare_environment()  # before any library reads them
