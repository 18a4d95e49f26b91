"""Running a training job: in this process, or in several that live and die with it."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

from rpo_pipeline.errors import TrainingError
from rpo_pipeline.params import TrainingParams
from rpo_pipeline.training.job import TrainingJob
from rpo_pipeline.training.loop import TrainingSummary

logger = logging.getLogger(__name__)

WORKER = "rpo_pipeline.training.worker"
PARENT = "RPO_PARENT_PID"
SUMMARY_FILE, ERROR_FILE = "summary.json", "error.txt"
TRACEBACK_LINES = 40
SECONDS_TO_END = 10
# Of a launch around this process, which would make its own processes believe they are part of it.
LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch(job_file: Path) -> TrainingSummary:
    """Run a job in as many processes as its settings say.

    Args:
        job_file: As ``TrainingJob.write`` gives it.

    Returns:
        How the training went.

    Raises:
        TrainingError: If a process failed, with the end of its traceback.
    """
    job = TrainingJob.read(job_file)
    if job.training.num_processes == 1 and job.training.accelerate_config is None:
        return job.run()
    for name in (SUMMARY_FILE, ERROR_FILE):
        (job.workspace / name).unlink(missing_ok=True)
    _run_workers([*_launcher(job.training), "-m", WORKER, str(job_file)], job.workspace)
    return TrainingSummary(**json.loads((job.workspace / SUMMARY_FILE).read_text()))


def _launcher(training: TrainingParams) -> list[str]:
    number = str(training.num_processes)
    if training.accelerate_config is None:
        module = "torch.distributed.run"
        return [sys.executable, "-m", module, "--standalone", "--nproc_per_node", number]
    module = "accelerate.commands.launch"
    config = ["--config_file", training.accelerate_config, "--num_processes", number]
    return [sys.executable, "-m", module, *config]


def _run_workers(command: list[str], workspace: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCH_VARIABLES}
    environment[PARENT] = str(os.getpid())
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    logger.info("starting %s", " ".join(command))
    last: deque[str] = deque(maxlen=TRACEBACK_LINES)
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line.rstrip())
                logger.info("worker: %s", last[-1])
        finally:
            _end(process)
    if process.returncode:
        error = workspace / ERROR_FILE
        reason = error.read_text() if error.is_file() else "\n".join(last)
        raise TrainingError(f"training ended with exit code {process.returncode}: {reason}")


def _end(process: subprocess.Popen[str]) -> None:
    """Wait for a launcher that has closed its output; stop one that is left behind by an error."""
    try:
        if sys.exc_info()[0] is None:
            process.wait()
            return
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
