"""Prompts are erased from all that any room wrote."""

from rpo_pipeline.erasure.prompts import forget

__all__ = [
    "forget",
]
