"""Runs a training job in this process, or in several that end with it."""

import json
from pathlib import Path

from rpo_pipeline.errors import TrainingError
from rpo_pipeline.storage import outside_a_launch, run_workers
from rpo_pipeline.training.job import TrainingJob
from rpo_pipeline.training.loop import TrainingSummary

WORKER = "rpo_pipeline.training.worker"
SUMMARY_FILE = "summary.json"


def launch(job_file: Path) -> TrainingSummary:
    """Run a job in the number of processes of its settings.

    Args:
        job_file: File of ``TrainingJob.write``.

    Returns:
        Outcome of the training.

    Raises:
        TrainingError: If a process failed, with the end of its traceback.
    """
    job = TrainingJob.read(job_file)
    training = job.training
    if training.num_processes == 1 and training.accelerate_config is None:
        with outside_a_launch():
            return job.run()
    summary = job.workspace / SUMMARY_FILE
    summary.unlink(missing_ok=True)
    run_workers(
        WORKER,
        job_file,
        num_processes=training.num_processes,
        accelerate_config=training.accelerate_config,
        error=TrainingError,
    )
    return TrainingSummary(**json.loads(summary.read_text()))
