"""SIGKILL at random moments of a whole run, each followed by a run that must end it."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from faults.project import Ended, Project
from faults.table import Row


def kills(folder: Path, times: int, seed: int) -> Row:
    """Kill a run of the whole pipeline, with everything it started, again and again."""
    whole = Project.make(folder / "whole")
    whole.override("training", checkpoint_every=1)
    started = time.monotonic()
    assert whole.run().code == 0
    seconds, policy = time.monotonic() - started, whole.policy()
    print(f"a whole run: {seconds:.0f} s", flush=True)
    generator, seen = random.Random(seed), []
    for number in range(times):
        project = Project.make(folder / f"kill-{number}")
        project.override("training", checkpoint_every=1)
        moment = generator.uniform(0, seconds)
        problems = _kill_and_run_again(project, moment, policy)
        print(f"killed after {moment:.1f} s: {'; '.join(problems) or 'fine'}", flush=True)
        seen += problems
        shutil.rmtree(project.folder)
    return Row(
        "SIGKILL at a random moment of a whole run, then the same run again",
        "same weights, one version, it is champion, no lock held, no temporary name",
        times,
        seen,
    )


def _kill_and_run_again(project: Project, moment: float, policy: str) -> list[str]:
    process = project.start()
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    again = Ended.of(project.start())
    if again.code:
        return [f"the next run failed: {again.message or again.log[-600:]}"]
    return project.problems(policy)
