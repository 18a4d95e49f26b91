"""The lock among real processes."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rpo_pipeline.operations.lock import BusyError, is_gone, only_run

HOLD = """
import sys, time
from pathlib import Path
from rpo_pipeline.operations.lock import BusyError, only_run
try:
    with only_run(Path(sys.argv[1])):
        print("runs", flush=True)
        sys.stdin.read()
except BusyError as err:
    print(err, flush=True)
"""


@pytest.fixture
def lock_file(tmp_path):
    return tmp_path / "data" / "run.lock"


def start(lock_file):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def compete(file, barrier, said):
    """Try for the lock at the same moment as another; the winner keeps it until both have said."""
    barrier.wait()
    try:
        with only_run(file):
            said.put((os.getpid(), "runs"))
            barrier.wait()
    except BusyError as err:
        said.put((os.getpid(), str(err)))
        barrier.wait()


def test_of_twenty_pairs_started_together_exactly_one_of_each_runs(lock_file):
    fork = multiprocessing.get_context("fork")
    for pair in range(20):
        file, said = lock_file.with_name(f"{pair}.lock"), fork.SimpleQueue()
        arguments = (file, fork.Barrier(2), said)
        processes = [fork.Process(target=compete, args=arguments) for _ in range(2)]
        for process in processes:
            process.start()
        lines = dict(said.get() for _ in processes)
        for process in processes:
            process.join()
        (owner,) = [pid for pid, line in lines.items() if line == "runs"]
        (refusal,) = [line for line in lines.values() if line != "runs"]
        assert f"another run is at work here: process {owner} on {socket.gethostname()}" in refusal
        assert str(file) in refusal


def test_a_killed_owner_leaves_no_lock_and_is_named_by_the_next(lock_file, caplog):
    owner = start(lock_file)
    assert owner.stdout.readline().strip() == "runs"
    with pytest.raises(BusyError, match=f"process {owner.pid} on"), only_run(lock_file):
        pass
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    with only_run(lock_file):
        assert "a run was killed and its lock is free: " in caplog.text
        assert f"process {owner.pid}" in caplog.text
        assert json.loads(lock_file.with_suffix(".json").read_text())["pid"] == os.getpid()
    assert not lock_file.with_suffix(".json").exists()


def test_a_run_that_fails_frees_the_lock(lock_file):
    with pytest.raises(ZeroDivisionError), only_run(lock_file):
        _ = 1 / 0
    with only_run(lock_file):
        pass


def test_an_owner_is_gone_if_its_process_is_or_another_one_has_its_id():
    process = subprocess.Popen(["sleep", "60"])
    ticks = int(Path(f"/proc/{process.pid}/stat").read_text().split()[21])
    owner = {"pid": process.pid, "host": socket.gethostname(), "ticks": ticks}
    assert not is_gone(owner)
    assert is_gone({**owner, "ticks": ticks - 1})
    process.kill()
    process.wait()
    assert is_gone(owner)
    assert not is_gone({**owner, "host": "elsewhere"})
