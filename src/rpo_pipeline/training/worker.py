"""A training process, started as ``python -m rpo_pipeline.training.worker JOB_FILE``."""

import json
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from rpo_pipeline.storage import worker_process
from rpo_pipeline.training.job import TrainingJob
from rpo_pipeline.training.launch import SUMMARY_FILE


@record
def main() -> None:
    """Run the job; the first process writes the summary."""
    job_file = Path(sys.argv[1])
    with worker_process(job_file) as is_first:
        job = TrainingJob.read(job_file)
        summary = job.run()
        if is_first:
            (job.workspace / SUMMARY_FILE).write_text(json.dumps(summary.to_dict()))


if __name__ == "__main__":
    main()
