"""A run that SIGKILL ends in the middle of training goes on when it is started again."""

import os
import signal
import subprocess
import sys
import time

from rpo_pipeline.ingestion.sample_data import write_sample_data
from tests.e2e.conftest import kedro, override

SECONDS = 240


def test_a_killed_run_goes_on_after_its_last_checkpoint(project):
    write_sample_data(project / "data/01_raw/feedback.jsonl", 600, seed=0)
    override(project, "training", {"checkpoint_every": 1, "num_epochs": 4})
    command = [sys.executable, "-m", "kedro", "run", "--env", "smoke", "--to-nodes", "train_policy"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    checkpoints = project / "data/smoke/06_models/training/checkpoints"
    deadline = time.monotonic() + SECONDS
    while not list(checkpoints.glob("step-*2")) and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()

    again = kedro(
        project,
        "run",
        "--env",
        "smoke",
        "--from-nodes",
        "train_policy",
        "--to-nodes",
        "train_policy",
    )
    assert again.returncode == 0, again.stderr
    assert "going on after step" in again.stderr
    assert not checkpoints.exists()
