"""A killed training goes on as if nothing had happened, or says why it does not."""

import logging
import multiprocessing
import os
import pickle
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.errors import ConfigError, TrainingError
from rpo_pipeline.training.job import TrainingJob
from rpo_pipeline.training.launch import launch
from tests.conftest import build_small, objectives, score_table
from tests.test_security import Malicious
from tests.training.test_loop import SETTINGS, metrics_of
from tests.training.test_reference import policy

LORA = {"r": 2, "alpha": 4, "target_modules": "all-linear"}


@pytest.fixture
def start(tmp_path):
    build_small("llama").save(tmp_path / "start")
    return tmp_path / "start"


def job_file(rows, start, workspace, *, lora=None, **settings):
    workspace.mkdir(exist_ok=True)
    settings = {"objective": "sft", "num_epochs": 6, "checkpoint_every": 3, **settings}
    job = TrainingJob(
        start=start,
        workspace=workspace,
        policy=policy(lora=lora),
        training=SETTINGS.model_copy(update=settings),
    )
    return job.write(rows.assign(split=["train"] * 4 + ["validation"] * 2, reward=0.0))


def weighted_job_file(rows, start, workspace, **settings):
    """A training by RPO that fits a level, over groups that micro-batches divide."""
    workspace.mkdir(exist_ok=True)
    settings = {"num_epochs": 6, "checkpoint_every": 3, "micro_batch_tokens": 40, **settings}
    job = TrainingJob(
        start=start,
        workspace=workspace,
        policy=policy(),
        training=SETTINGS.model_copy(update={"objective": "rpo", **settings}),
        objectives=objectives(rho=0.5, fit_level=True),
    )
    logps = score_table(load_language_model(start), rows, policy()).set_index("row_id")["logps"]
    return job.write(
        rows.assign(
            split=["train"] * 5 + ["validation"],
            reward=0.0,
            target=[1.0, -0.5, 2.0, 0.3, -1.0, 0.5],
            rho=0.5,
            huber_delta=0.5,
            ref_logps=rows["row_id"].map(logps),
        )
    )


def run_until_killed(file, steps):
    """Train in a process of its own that SIGKILL ends right after a number of optimizer steps."""

    def train():
        taken = []

        def kill(*_):
            taken.append(1)
            if len(taken) == steps:
                os.kill(os.getpid(), signal.SIGKILL)

        register_optimizer_step_post_hook(kill)
        launch(file)

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def weights_of(workspace):
    return load_file(workspace / "best" / "model.safetensors")


@pytest.mark.parametrize("kills", [[2], [3], [5], [4, 1, 2]])
def test_a_training_killed_at_any_step_and_resumed_gives_the_same_bits(
    rows, start, tmp_path, kills
):
    whole = launch(job_file(rows, start, tmp_path / "whole"))
    file = job_file(rows, start, tmp_path / "killed")
    for steps in kills:
        run_until_killed(file, steps)
    summary = launch(file)
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.equal(weight, weights_of(tmp_path / "killed")[name]), name
    assert metrics_of(tmp_path / "whole").equals(metrics_of(tmp_path / "killed"))
    assert (summary.num_steps, summary.best_step) == (whole.num_steps, whole.best_step)


def test_a_level_is_resumed_to_the_same_bits_too(rows, start, tmp_path):
    launch(weighted_job_file(rows, start, tmp_path / "whole"))
    file = weighted_job_file(rows, start, tmp_path / "killed")
    for steps in (4, 2):
        run_until_killed(file, steps)
    launch(file)
    levels = metrics_of(tmp_path / "whole")["train/level"]
    assert levels.nunique() == len(levels)
    assert metrics_of(tmp_path / "whole").equals(metrics_of(tmp_path / "killed"))
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.equal(weight, weights_of(tmp_path / "killed")[name]), name


def test_adapters_are_resumed_to_the_same_bits_too(rows, start, tmp_path):
    launch(job_file(rows, start, tmp_path / "whole", lora=LORA))
    file = job_file(rows, start, tmp_path / "killed", lora=LORA)
    run_until_killed(file, 4)
    launch(file)
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.equal(weight, weights_of(tmp_path / "killed")[name]), name


def test_a_resumed_training_takes_only_the_steps_that_are_left(rows, start, tmp_path):
    file = job_file(rows, start, tmp_path / "work")
    run_until_killed(file, 5)
    rates = []
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    summary = launch(file)
    hook.remove()
    rates = [rate for rate in rates if rate > 0]  # torch makes room for moments with one of rate 0
    assert len(rates) == summary.num_steps - 3


def test_only_the_last_checkpoints_are_kept_and_none_after_the_end(rows, start, tmp_path):
    file = job_file(rows, start, tmp_path / "work", checkpoint_every=1, keep_last=2)
    run_until_killed(file, 5)
    names = sorted(path.name for path in (tmp_path / "work" / "checkpoints").glob("step-*"))
    assert names == ["step-00000003", "step-00000004"]
    launch(file)
    assert not (tmp_path / "work" / "checkpoints").exists()


def test_other_settings_are_refused_with_their_names_and_values(rows, start, tmp_path):
    run_until_killed(job_file(rows, start, tmp_path / "work"), 4)
    changed = job_file(rows, start, tmp_path / "work", learning_rate=0.5, weight_decay=0.1)
    with pytest.raises(ConfigError) as error:
        launch(changed)
    assert "training.weight_decay: 0.0 -> 0.1" in str(error.value)
    assert "training.learning_rate: 0.01 -> 0.5" in str(error.value)
    anew = job_file(rows, start, tmp_path / "work", learning_rate=0.5, resume=False)
    launch(anew)
    assert metrics_of(tmp_path / "work")["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_settings_that_leave_the_result_alone_may_change(rows, start, tmp_path):
    run_until_killed(job_file(rows, start, tmp_path / "work"), 4)
    launch(job_file(rows, start, tmp_path / "work", micro_batch_tokens=70, keep_last=9))
    launch(job_file(rows, start, tmp_path / "whole"))
    for name, weight in weights_of(tmp_path / "whole").items():
        torch.testing.assert_close(weight, weights_of(tmp_path / "work")[name])


@pytest.mark.parametrize("change", ["settings", "rows"])
def test_a_training_that_started_anew_is_resumed_from_checkpoints_of_its_own(
    rows, start, tmp_path, change
):
    run_until_killed(job_file(rows, start, tmp_path / "work", keep_last=1), 6)
    settings = {"learning_rate": 0.02} if change == "settings" else {}
    other = rows.assign(response="Hello!") if change == "rows" else rows
    anew = {**settings, "checkpoint_every": 1, "keep_last": 1, "resume": change == "rows"}
    run_until_killed(job_file(other, start, tmp_path / "work", **anew), 3)
    launch(job_file(other, start, tmp_path / "work", **{**anew, "resume": True}))
    launch(job_file(other, start, tmp_path / "whole", **settings))
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.equal(weight, weights_of(tmp_path / "work")[name]), name
    names = [path.name for path in (tmp_path / "work").glob("checkpoints/*")]
    assert names == []


def test_other_rows_start_anew_with_a_warning(rows, start, tmp_path, caplog):
    run_until_killed(job_file(rows, start, tmp_path / "work"), 4)
    with caplog.at_level(logging.WARNING):
        launch(job_file(rows.assign(response="Hello!"), start, tmp_path / "work"))
    assert "starting anew" in caplog.text
    assert len(metrics_of(tmp_path / "work")) == 6


def test_a_pickle_among_the_checkpoints_is_refused_and_not_run(rows, start, tmp_path):
    file = job_file(rows, start, tmp_path / "work")
    run_until_killed(file, 4)
    (checkpoint,) = (tmp_path / "work/checkpoints").iterdir()
    trace = tmp_path / "it ran"
    (checkpoint / "tensors.safetensors").write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(TrainingError, match=r"step-0+3 cannot be read as safetensors"):
        launch(file)
    assert not trace.exists()
