import pytest

from rpo_pipeline.errors import TrainingError
from rpo_pipeline.io.processes import run_workers


def test_a_process_that_is_killed_is_named_and_the_others_end(tmp_path):
    job = tmp_path / "job.json"
    with pytest.raises(TrainingError, match="SIGKILL ended process 1, as the system does") as error:
        run_workers(
            "tests.io.killed_worker",
            job,
            num_processes=2,
            accelerate_config=None,
            error=TrainingError,
        )
    assert "Traceback" not in str(error.value)
