"""Reward Partition Optimization (RPO): from a feedback log to a better model."""

__version__ = "0.1.0"
