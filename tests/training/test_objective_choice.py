"""The objective that a table of training rows becomes, and tables that would teach it nothing."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import huber_loss

from rpo_pipeline.engine.groups import Group
from rpo_pipeline.errors import DataError
from rpo_pipeline.training.objective import RowScores
from rpo_pipeline.training.objective_choice import BUILDERS, build_objective
from rpo_pipeline.training.objectives import RpoObjective, WeightedRpoObjective
from tests.conftest import block, objectives


def table(rewards=(1.0, 0.0, 2.0, -1.0, 0.5), sizes=(3, 2), targets=None, rho=0.0):
    prompts = np.repeat([f"p{place}" for place in range(len(sizes))], sizes)
    rewards = np.array(rewards, dtype=float)
    rows = pd.DataFrame(
        {"prompt_id": prompts, "split": "train", "reward": rewards, "ref_logps": -10.0, "rho": rho}
    )
    targets = rewards if targets is None else np.array(targets, dtype=float)
    return rows.assign(target=targets, huber_delta=np.nan)


def groups_of(rows):
    return [
        Group([1], [[2]] * len(places), list(places), prompt_id)
        for prompt_id, places in rows.groupby("prompt_id").indices.items()
    ]


def build(name, rows, **rpo):
    return build_objective(name, objectives(**({"fit_level": False} | rpo)), rows, groups_of(rows))


def test_rpo_is_weighted_only_where_log_z_may_be_wrong():
    assert type(build("rpo", table())) is RpoObjective
    weighted = build("rpo", table(rho=0.5), rho="auto")
    assert isinstance(weighted, WeightedRpoObjective)
    assert weighted.weight.tolist() == [pytest.approx(1 / (1 + 0.5 * n)) for n in (3, 3, 3, 2, 2)]
    assert weighted.joins_responses
    assert not build("rpo", table(), fit_level=True).joins_responses
    assert float(weighted.level) == 0.0


def test_a_row_with_a_huber_delta_pulls_by_it_and_by_the_mean_over_its_tokens():
    rows = table().assign(huber_delta=0.7)
    objective = build("rpo", rows, logp_reduction="mean")
    logps = torch.tensor([-9.0, -12.0, -10.0, -10.0, -11.0])
    num_tokens = torch.tensor([1, 2, 3, 4, 5])
    batch = SimpleNamespace(rows=torch.arange(5), num_tokens=num_tokens)
    losses, metrics = objective.row_losses(RowScores(logps), batch)
    log_ratio = (logps + 10.0) / num_tokens
    torch.testing.assert_close(metrics["log_ratio"], log_ratio)
    expected = huber_loss(log_ratio, objective.targets, reduction="none", delta=0.7)
    torch.testing.assert_close(losses, expected)


def test_the_level_starts_where_the_step_zero_residuals_are_zero_on_average():
    """A prompt counts by n / (1 + n rho): 3/4 of 1 and 2/3 of -0.25 at rho 1."""
    rho = 1.0
    level = build("rpo", table(rho=rho), rho=rho, fit_level=True).level
    expected = -(3 / 4 * 1.0 + 2 / 3 * -0.25) / (3 / 4 + 2 / 3)
    assert float(level) == pytest.approx(expected, rel=1e-6)


def test_a_step_moves_the_level_towards_its_mean_residual_and_logs_it():
    objective = build("rpo", table(), fit_level=True)
    before = float(objective.level)
    logged = objective.end_step({"loss": 1.0, "level": 3.0, "level_weight": 0.5})
    assert float(objective.level) == pytest.approx(before + 0.1 * (6.0 - before))
    assert logged == {"loss": 1.0, "level": float(objective.level)}
    fixed = build("rpo", table(rho=1.0), rho=1.0)
    assert fixed.end_step({"loss": 1.0, "level": 3.0, "level_weight": 0.5}) == {"loss": 1.0}
    assert float(fixed.level) == 0.0


def test_rebel_has_its_own_temperature_and_no_log_z():
    objective = build("rebel", table(targets=[9.0] * 5))
    tau = objectives().rebel.tau
    torch.testing.assert_close(objective.targets, torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5]) / tau)
    assert (objective.weight == 0).all()


def test_tgo_divides_at_the_median_of_train_and_by_the_sum_of_weights():
    rows = table()
    rows.loc[4, "split"] = "validation"
    objective = build("tgo", rows)
    assert objective.threshold == 0.5
    assert objective.denominator(groups_of(rows)[:1]) == pytest.approx(3 + 0.5 + 0.5 + 1.5)


def test_the_shares_of_nca_are_a_softmax_within_the_prompt():
    objective = build("infonca", table())
    expected = torch.cat(
        [3 * torch.tensor([1.0, 0.0, 2.0]).softmax(0), 2 * torch.tensor([-1.0, 0.5]).softmax(0)]
    )
    torch.testing.assert_close(objective.shares, expected)


@pytest.mark.parametrize("over", ["prompt", "train"])
def test_the_weights_of_awr_have_the_mean_one(over):
    rows = table()
    own = objectives().model_copy(update={"awr": block("awr", tau=0.5, mean_over=over)})
    weights = build_objective("awr", own, rows, groups_of(rows)).weights
    parts = [weights] if over == "train" else [weights[:3], weights[3:]]
    for part in parts:
        assert float(part.mean()) == pytest.approx(1.0, rel=1e-6)
    assert float(weights[2] / weights[0]) == pytest.approx(math.exp(1 / 0.5), rel=1e-5)


@pytest.mark.parametrize("name", ["rebel", "nca", "infonca"])
def test_a_log_of_single_responses_is_refused_by_what_learns_from_differences(name):
    with pytest.raises(DataError, match="one response a prompt"):
        build(name, table(sizes=(1,) * 5))


@pytest.mark.parametrize(
    ("name", "rows", "rpo"),
    [
        ("rpo", table(targets=[0.0] * 5), {}),
        ("rpo", table(targets=[0.7] * 5), {"fit_level": True}),
        ("qrpo", table(targets=[0.0] * 5), {}),
        ("dro", table(rewards=[0.0] * 5), {}),
        ("tgo", table(rewards=[1.0] * 5), {}),
        ("awr", table(sizes=(1,) * 5), {}),
    ],
)
def test_rows_that_would_teach_nothing_are_refused_before_training(name, rows, rpo):
    with pytest.raises(DataError, match=f"teach {name} anything"):
        build(name, rows, **rpo)


def test_where_no_reward_is_above_the_median_tgo_divides_at_the_mean():
    """Of thumbs that most people raised; otherwise every raised one would be pushed down."""
    objective = build("tgo", table(rewards=[1.0, 1.0, 1.0, -1.0, -1.0]))
    assert objective.threshold == pytest.approx(0.2)


@pytest.mark.parametrize("name", sorted({*BUILDERS} - {"kto", "rebel", "nca", "infonca", "awr"}))
def test_single_responses_with_targets_teach_the_others(name):
    assert build(name, table(sizes=(1,) * 5)) is not None
