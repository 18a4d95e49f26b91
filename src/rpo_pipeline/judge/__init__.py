"""A judge behind an endpoint: its client, its budget, its texts."""

from rpo_pipeline.judge.budget import Usage
from rpo_pipeline.judge.client import JudgeClient
from rpo_pipeline.judge.texts import own_template, request_fields

__all__ = [
    "JudgeClient",
    "Usage",
    "own_template",
    "request_fields",
]
