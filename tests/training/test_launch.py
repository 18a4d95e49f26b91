"""Several processes share a training, and live and die with the one that started them."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rpo_pipeline.errors import TrainingError
from rpo_pipeline.training.launch import launch
from tests.conftest import build_small
from tests.training.test_loop import metrics_of
from tests.training.test_resume import (
    job_file,
    start,  # noqa: F401 (a fixture)
    weighted_job_file,
    weights_of,
)


def test_two_processes_train_what_one_does(rows, start, tmp_path, caplog):  # noqa: F811
    settings = {"global_batch_groups": 1, "num_epochs": 3}  # one group for two processes
    one = launch(job_file(rows, start, tmp_path / "one", **settings))
    with caplog.at_level(logging.INFO):
        two = launch(job_file(rows, start, tmp_path / "two", num_processes=2, **settings))
    assert (one.num_steps, one.best_step) == (two.num_steps, two.best_step)
    assert "nproc_per_node 2" in caplog.text
    for name, weight in weights_of(tmp_path / "one").items():
        torch.testing.assert_close(weight, weights_of(tmp_path / "two")[name], atol=1e-5, rtol=1e-4)
    for column in ("train/loss", "train/validation_loss", "train/grad_norm"):
        curves = [metrics_of(tmp_path / name)[column].to_numpy() for name in ("one", "two")]
        torch.testing.assert_close(*map(torch.tensor, curves), rtol=1e-4, atol=1e-5, equal_nan=True)


def test_two_processes_share_groups_that_each_divides_as_one_does(rows, start, tmp_path):  # noqa: F811
    launch(weighted_job_file(rows, start, tmp_path / "one"))
    launch(weighted_job_file(rows, start, tmp_path / "two", num_processes=2))
    for name, weight in weights_of(tmp_path / "one").items():
        torch.testing.assert_close(weight, weights_of(tmp_path / "two")[name], atol=1e-5, rtol=1e-4)
    for column in ("train/loss", "train/level", "train/grad_norm"):
        curves = [metrics_of(tmp_path / name)[column].to_numpy() for name in ("one", "two")]
        torch.testing.assert_close(*map(torch.tensor, curves), rtol=1e-4, atol=1e-5)


def test_the_error_of_a_worker_is_the_error_of_the_training(rows, start, tmp_path):  # noqa: F811
    file = job_file(rows, start, tmp_path / "work", num_processes=2, learning_rate=1e30)
    with pytest.raises(TrainingError, match="is not finite, the step was not taken"):
        launch(file)


def test_a_crash_of_a_worker_shows_its_traceback(rows, start, tmp_path):  # noqa: F811
    file = job_file(rows, start, tmp_path / "work", num_processes=2)
    (tmp_path / "work" / "rows.parquet").unlink()
    with pytest.raises(TrainingError, match="FileNotFoundError"):
        launch(file)


def test_workers_do_not_outlive_the_process_that_started_them(rows, start, tmp_path):  # noqa: F811
    file = job_file(rows, start, tmp_path / "work", num_processes=2, num_epochs=100_000)
    code = "import sys; from pathlib import Path; from rpo_pipeline.training.launch import launch;"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"{code} launch(Path(sys.argv[1]))", str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "work" / "metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while _running(file) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _running(file)


def _running(file):
    found = subprocess.run(["pgrep", "-f", f"training.worker {file}"], capture_output=True)
    return found.stdout.split()


@pytest.mark.parametrize("model_type", ["llama", "t5"])
def test_a_sharded_model_trains_what_a_whole_one_does(rows, tmp_path, model_type):
    build_small(model_type).save(tmp_path / "start")
    launch(job_file(rows, tmp_path / "start", tmp_path / "whole"))
    file = job_file(rows, tmp_path / "start", tmp_path / "sharded", num_processes=2)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    worker = Path(__file__).with_name("sharded_worker.py")
    done = subprocess.run(
        [sys.executable, *command, str(worker), str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "prefix sharing" not in done.stderr  # it was checked before the weights were split
    for name, weight in weights_of(tmp_path / "whole").items():
        torch.testing.assert_close(
            weight, weights_of(tmp_path / "sharded")[name], atol=1e-4, rtol=1e-3
        )
