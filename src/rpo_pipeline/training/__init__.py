"""Training of reference and policy: step, loop, checkpoint, job, launch."""

from rpo_pipeline.training.log_overlap import sketch_log
from rpo_pipeline.training.policy import read_metrics, train_policy, training_rows
from rpo_pipeline.training.reference import prepare_reference
