"""The MLflow run, and the delivery of what it logs to a server that may not answer."""

from rpo_pipeline.tracking.opening import JOINED_RUN, check_experiment
from rpo_pipeline.tracking.outage import describe, find_fault, is_refusal, needs_registry
from rpo_pipeline.tracking.outbox import BROKEN
from rpo_pipeline.tracking.run import OUTBOXES, MetricsFollower, TrackedRun
