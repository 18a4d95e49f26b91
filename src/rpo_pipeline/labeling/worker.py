"""A labelling process, started as ``python -m rpo_pipeline.labeling.worker JOB_FILE``."""

import os
import sys
from pathlib import Path

import pandas as pd
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from rpo_pipeline.labeling.label_cache import CachedLabeler, LabelingJob
from rpo_pipeline.labeling.reward_model import RewardModelLabeler
from rpo_pipeline.storage import worker_process


@record
def main() -> None:
    """Label this process's share of the rows into the cache."""
    job_file = Path(sys.argv[1])
    with worker_process(job_file):
        job = LabelingJob.model_validate_json(job_file.read_text())
        if torch.accelerator.is_available():
            torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
        rank, number = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        rows = pd.read_parquet(job.rows).iloc[rank::number]
        CachedLabeler(RewardModelLabeler(job.settings), job.cache).label(rows)


if __name__ == "__main__":
    main()
