import json
import subprocess
import sys

import pytest

from rpo_pipeline.cli import cli
from tests.e2e.conftest import kedro

HEAVY = ("torch", "transformers", "mlflow")
CHECK = """
import sys
from kedro.framework.cli.cli import main
sys.argv[1:] = {arguments}
try:
    main()
except SystemExit:
    pass
print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["forget", "--help"], ["registry", "list"]],
)
def test_looking_around_imports_nothing_heavy(project, arguments):
    script = CHECK.format(arguments=arguments, heavy=HEAVY)
    completed = subprocess.run(
        [sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=True
    )
    assert completed.stderr.splitlines()[-1] == "[]"


def test_the_registry_lists_the_six_pipelines_and_the_refresh(project):
    listed = kedro(project, "registry", "list").stdout
    for name in (
        "data_ingestion",
        "reward_labeling",
        "partition_estimation",
        "rpo_training",
        "evaluation",
        "promotion",
        "refresh",
        "__default__",
    ):
        assert name in listed


def module(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "rpo_pipeline", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_sample_data_writes_as_many_lines_as_asked_for(project):
    completed = module(project, "sample-data", "--rows", "50", "--output", "raw/log.jsonl")
    assert completed.returncode == 0, completed.stderr
    lines = (project / "raw/log.jsonl").read_text().splitlines()
    assert len(lines) == 50
    assert "prompt" in json.loads(lines[0])


def test_anything_else_goes_to_kedros_run(project):
    completed = module(project, "--env", "smoke", "--params", "rpo.tau=0")
    assert completed.returncode == 1
    assert "rpo.tau" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_a_command_is_the_same_in_the_project_and_as_a_module(project):
    listed = kedro(project, "--help").stdout, module(project, "--help").stdout
    for name in cli.commands:
        assert all(f"  {name} " in text for text in listed)
    asked = ("export", "--format", "trl_kto", "--output", "kto.jsonl", "--env", "smoke")
    ended = kedro(project, *asked), module(project, *asked)
    assert [one.returncode for one in ended] == [1, 1]
    assert len({one.stderr.splitlines()[-1] for one in ended}) == 1
    assert "there is no file" in ended[0].stderr
