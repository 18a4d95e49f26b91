"""A worker of a shared training that dies."""

import time
from pathlib import Path

import psutil

from faults.project import Ended, Project
from faults.table import Row

WORKER = "rpo_pipeline.training.worker"
SECONDS = 600


def workers(folder: Path) -> Row:
    """Kill one rank of two after its first checkpoint, and run again."""
    project = Project.make(folder / "project")
    project.override("training", num_processes=2, checkpoint_every=1, num_epochs=2)
    process = project.start()
    checkpoints = project.data / "06_models/training/checkpoints"
    deadline = time.monotonic() + SECONDS
    while not list(checkpoints.glob("step-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1][-800:]
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    (rank,) = [one for one in family if _is_rank(one, "1")]
    rank.kill()
    killed = time.monotonic()
    ended = Ended.of(process)
    seconds = time.monotonic() - killed
    print(f"rank 1 killed, ended after {seconds:.0f} s: {ended.message}", flush=True)
    is_said = "SIGKILL ended process 1" in ended.message
    problems = [] if is_said else [f"no clear error: {ended.log[-600:]}"]
    problems += [f"orphan {one.pid}" for one in psutil.wait_procs(family, timeout=5)[1]]
    again = project.run()
    if "going on after step" not in again.log:
        problems.append("the next run did not go on from the checkpoint")
    problems += project.problems(None) if again.code == 0 else [again.message or again.log[-600:]]
    return Row(
        "SIGKILL of one of two ranks of a training",
        "a clear error, no process left, the next run goes on from the checkpoint",
        1,
        problems,
        f"the run ended {seconds:.0f} s after",
    )


def _is_rank(process: psutil.Process, rank: str) -> bool:
    return WORKER in process.cmdline() and process.environ().get("RANK") == rank
