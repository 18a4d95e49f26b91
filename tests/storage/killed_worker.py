"""A worker whose second process is killed while the first one waits for it."""

import os
import signal
import sys
import time
from pathlib import Path

from rpo_pipeline.storage.processes import worker_process

with worker_process(Path(sys.argv[1])) as is_first:
    if not is_first:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
