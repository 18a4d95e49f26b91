"""A language model as a judge: client, endpoint, budget and texts, for labelers and evaluation."""

from rpo_pipeline.judge.client import JudgeClient
from rpo_pipeline.judge.texts import own_template, request_fields
