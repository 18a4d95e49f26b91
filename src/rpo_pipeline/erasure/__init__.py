"""Erases prompts from everything that any room has written."""

from rpo_pipeline.erasure.prompts import forget
