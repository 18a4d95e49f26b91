"""One process of a launch: ``python -m rpo_pipeline.training.worker JOB_FILE``."""

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from rpo_pipeline.errors import RpoError
from rpo_pipeline.training.job import TrainingJob
from rpo_pipeline.training.launch import ERROR_FILE, PARENT, SUMMARY_FILE

CHECK_SECONDS = 1.0


def die_with(parent: int) -> None:
    """Kill this process as soon as another is gone, however that one ended."""

    def watch() -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="watch the parent").start()


@record
def main() -> None:
    """Run the job; the first process writes down how it went."""
    if PARENT in os.environ:
        die_with(int(os.environ[PARENT]))
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_first else logging.ERROR, format="%(name)s: %(message)s"
    )
    job = TrainingJob.read(Path(sys.argv[1]))
    try:
        summary = job.run()
    except RpoError as err:
        (job.workspace / ERROR_FILE).write_text(str(err))
        raise
    if is_first:
        (job.workspace / SUMMARY_FILE).write_text(json.dumps(summary.to_dict()))


if __name__ == "__main__":
    main()
