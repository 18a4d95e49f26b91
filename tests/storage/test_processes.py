import os

import pytest

from rpo_pipeline.errors import TrainingError
from rpo_pipeline.storage.processes import (
    LAUNCH_VARIABLES,
    _killed,
    outside_a_launch,
    peak_mebibytes,
    reset_peak,
    run_workers,
)

SUMMARY = """
Failures:
[1]:
  time      : 2026-11-24_17:50:04
  host      : localhost
  rank      : {} (local_rank: {})
  exitcode  : {} (pid: 20873)
  error_file: <N/A>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_17:50:04
  host      : localhost
  rank      : {} (local_rank: {})
  exitcode  : {} (pid: 20874)
  error_file: <N/A>
"""
"""The end of the launcher's output."""


def test_variables_of_another_launch_are_put_aside_for_work_in_one_process(monkeypatch, caplog):
    for name in LAUNCH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with outside_a_launch():
        assert not {"RANK", "WORLD_SIZE"} & {*os.environ}
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("0", "2")
    assert "RANK=0, WORLD_SIZE=2" in caplog.text
    assert "training.num_processes" in caplog.text


def test_a_process_that_is_killed_is_named_and_the_others_end(tmp_path):
    job = tmp_path / "job.json"
    with pytest.raises(TrainingError, match="SIGKILL ended process 1, as the system does") as error:
        run_workers(
            "tests.storage.killed_worker",
            job,
            num_processes=2,
            accelerate_config=None,
            error=TrainingError,
        )
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    "failed",
    [
        [(0, 1), (1, -9)],  # the other one failed of it, at whatever length
        [(1, -9), (0, 1)],
        [(1, -9), (0, -15)],  # the launcher ended it
    ],
)
def test_the_process_that_was_killed_is_named_whatever_the_launcher_takes_for_the_cause(failed):
    output = SUMMARY.format(*(n for rank, code in failed for n in (rank, rank, code)))
    assert _killed(output).startswith("SIGKILL ended process 1,")


@pytest.mark.parametrize("other", [1, -15])  # it failed too, or the launcher ended it
def test_a_process_that_failed_by_itself_was_not_killed(other):
    assert _killed(SUMMARY.format(0, 0, 1, 1, 1, other)) is None
    assert _killed(SUMMARY.format(1, 1, other, 0, 0, 1)) is None


@pytest.mark.skipif(not reset_peak(), reason="this system cannot set the peak back")
def test_the_peak_is_that_of_the_time_since_the_reset():
    reset_peak()
    before = peak_mebibytes()
    large = bytearray(200 * 2**20)
    assert 190 < peak_mebibytes() - before < 260
    del large
    assert peak_mebibytes() - before > 190
    reset_peak()
    assert peak_mebibytes() - before < 60
