"""Optimizer steps: the same result however a batch is split, and a stop before a bad one."""

from dataclasses import replace

import pytest
import torch

from rpo_pipeline.data.tokenisation import tokenise_groups
from rpo_pipeline.errors import TrainingError
from rpo_pipeline.models.loading import load_language_model
from rpo_pipeline.models.scoring import score_groups
from rpo_pipeline.training.loop import prepare
from rpo_pipeline.training.objectives import RpoObjective, SftObjective
from rpo_pipeline.training.step import mean_loss, optimizer_step
from tests.conftest import block, build_small


def groups_of(language_model, rows):
    text_format = language_model.text_format(max_prompt_tokens=64, max_response_tokens=64)
    return tokenise_groups(rows, text_format)


def rpo_objective(language_model, groups, targets=(1.0, -2.0, 0.5, 3.0, -1.0, 0.0), **settings):
    ref_logps = score_groups(language_model, groups, micro_batch_tokens=10_000, title="")
    return RpoObjective(ref_logps, torch.tensor(targets), per_token=False, **settings)


def trainee(language_model, objective, micro_batch_tokens=10_000, learning_rate=1e-2):
    settings = block("training", micro_batch_tokens=micro_batch_tokens, max_grad_norm=1e9)
    made, _ = prepare(language_model, objective, settings, num_steps=1)
    optimizer = torch.optim.SGD(language_model.model.parameters(), lr=learning_rate)
    return replace(made, optimizer=optimizer)


def test_at_step_zero_the_log_ratio_to_the_cached_reference_is_zero(language_model, rows, tmp_path):
    """What was cached by one process is what another, in training mode, computes."""
    language_model.save(tmp_path / "reference")
    groups = groups_of(language_model, rows)
    objective = rpo_objective(language_model, groups, targets=[0.0] * 6)
    loaded = load_language_model(tmp_path / "reference")
    loaded.model.train()
    metrics = optimizer_step(trainee(loaded, objective, micro_batch_tokens=70), groups)
    scale = float(objective.ref_logps.abs().mean())
    assert abs(metrics["log_ratio"]) < 1e-4 * scale
    assert metrics["loss"] < (1e-4 * scale) ** 2


@pytest.mark.parametrize("micro_batch_tokens", [1, 80])
def test_a_step_does_not_depend_on_how_its_batch_is_split(rows, micro_batch_tokens):
    for model_type in ("llama", "t5"):
        weights = []
        for budget in (10_000, micro_batch_tokens):
            language_model = build_small(model_type)
            groups = groups_of(language_model, rows)
            objective = rpo_objective(language_model, groups)
            optimizer_step(trainee(language_model, objective, budget), groups)
            parameters = language_model.model.parameters()
            weights.append(torch.cat([p.detach().flatten() for p in parameters]))
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_mean_over_rows_not_over_groups(rows):
    language_model = build_small("llama")
    groups = groups_of(language_model, rows)
    objective = rpo_objective(language_model, groups)
    expected = 0.5 * objective.targets.square().mean()
    assert mean_loss(trainee(language_model, objective), groups) == pytest.approx(
        float(expected), rel=1e-3
    )


def test_the_sft_loss_is_the_mean_over_tokens(rows):
    language_model = build_small("llama")
    groups = groups_of(language_model, rows)
    logps = score_groups(language_model, groups, micro_batch_tokens=10_000, title="")
    num_tokens = sum(len(ids) for group in groups for ids in group.responses)
    loss = mean_loss(trainee(language_model, SftObjective()), groups)
    assert loss == pytest.approx(float(-logps.sum() / num_tokens), rel=1e-5)


def test_with_mean_reduction_both_log_probabilities_are_per_token(rows):
    language_model = build_small("llama")
    groups = groups_of(language_model, rows)
    by_row = dict(
        zip(
            [r for g in groups for r in g.rows],
            [ids for g in groups for ids in g.responses],
            strict=True,
        )
    )
    lengths = torch.tensor([float(len(by_row[row])) for row in range(6)])
    shifted = score_groups(language_model, groups, micro_batch_tokens=10_000, title="") - lengths
    objective = RpoObjective(shifted, torch.ones(6), per_token=True)
    assert mean_loss(trainee(language_model, objective), groups) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_prompts(rows, bad):
    language_model = build_small("llama")
    before = [parameter.clone() for parameter in language_model.model.parameters()]
    groups = groups_of(language_model, rows)
    objective = rpo_objective(language_model, groups, targets=[0.0, 0.0, bad, 0.0, 0.0, 0.0])
    with pytest.raises(TrainingError, match="p0, p1, p2"):
        optimizer_step(trainee(language_model, objective), groups)
    for old, new in zip(before, language_model.model.parameters(), strict=True):
        assert torch.equal(old, new)
