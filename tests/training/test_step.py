"""Optimizer steps: the same result however a batch is split, and a stop before a bad one."""

from dataclasses import replace

import pytest
import torch

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.engine.tokenisation import tokenise_groups
from rpo_pipeline.errors import TrainingError
from rpo_pipeline.training.loop import prepare
from rpo_pipeline.training.objectives import (
    InfoncaObjective,
    KtoObjective,
    RpoObjective,
    SftObjective,
    WeightedRpoObjective,
)
from rpo_pipeline.training.step import mean_loss, optimizer_step
from tests.conftest import block, build_small, limits, view_of


def groups_of(language_model, rows):
    text_format = language_model.text_format(limits(64, 64))
    return tokenise_groups(rows, text_format)


def rpo_objective(language_model, groups, targets=(1.0, -2.0, 0.5, 3.0, -1.0, 0.0), **settings):
    ref_logps = score_groups(language_model, groups, micro_batch_tokens=10_000)
    return RpoObjective(ref_logps, torch.tensor(targets), per_token=False, **settings)


def kto_objective(language_model, groups, beta=0.1):
    prompts = [group.prompt for group in groups]
    partners = {g.prompt_id: p for g, p in zip(groups, prompts[1:] + prompts[:1], strict=True)}
    pairs = [replace(group, prompt=partners[group.prompt_id]) for group in groups]
    ref_logps, mismatched_ref_logps = (
        score_groups(language_model, some, micro_batch_tokens=10_000) for some in (groups, pairs)
    )
    return KtoObjective(
        ref_logps=ref_logps,
        desirable=torch.tensor([True, False, True, True, False, True]),
        partner_prompts=partners,
        mismatched_ref_logps=mismatched_ref_logps - torch.arange(6.0),
        settings=block("kto", beta=beta),
    )


def weighted_objective(language_model, groups):
    plain = rpo_objective(language_model, groups)
    sizes = torch.zeros(6)
    for group in groups:
        sizes[group.rows] = float(len(group.rows))
    return WeightedRpoObjective(
        plain.ref_logps,
        plain.targets,
        per_token=False,
        weight=1 / (1 + 2.0 * sizes),
        level=torch.tensor(0.5),
        fits_level=True,
    )


def infonca_objective(language_model, groups):
    plain = rpo_objective(language_model, groups)
    return InfoncaObjective(
        plain.ref_logps - torch.arange(6.0),
        per_token=False,
        shares=torch.tensor([0.5, 1.0, 1.5, 1.0, 0.5, 1.5]),
        beta=0.3,
    )


def trainee(language_model, objective, micro_batch_tokens=10_000, learning_rate=1e-2):
    settings = block("training", max_grad_norm=1e9)
    view = view_of(language_model, micro_batch_tokens)
    made, _ = prepare(view, objective, settings, num_steps=1)
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
    cases = [
        *(("llama", rpo_objective), ("t5", rpo_objective), ("llama", kto_objective)),
        *(("llama", weighted_objective), ("t5", weighted_objective)),
        ("llama", infonca_objective),
    ]
    for model_type, make_objective in cases:
        weights, levels = [], []
        for budget in (10_000, micro_batch_tokens):
            language_model = build_small(model_type)
            groups = groups_of(language_model, rows)
            objective = make_objective(language_model, groups)
            optimizer_step(trainee(language_model, objective, budget), groups)
            levels.append(objective.state())
            parameters = language_model.model.parameters()
            weights.append(torch.cat([p.detach().flatten() for p in parameters]))
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(levels[0], levels[1], rtol=1e-4, atol=1e-5)


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
    logps = score_groups(language_model, groups, micro_batch_tokens=10_000)
    num_tokens = sum(len(ids) for group in groups for ids in group.responses)
    loss = mean_loss(trainee(language_model, SftObjective()), groups)
    assert loss == pytest.approx(float(-logps.sum() / num_tokens), rel=1e-5)


def test_the_reference_point_of_kto_is_over_the_pairs_of_the_whole_step(rows):
    """Every pair is 0 to 5 nats above its reference: 2.5, whatever the split and the order."""
    language_model = build_small("llama")
    groups = groups_of(language_model, rows)
    objective = kto_objective(language_model, groups)
    for budget, order in ((10_000, 1), (1, -1)):
        metrics = optimizer_step(
            trainee(language_model, objective, budget, learning_rate=0.0), groups[::order]
        )
        assert metrics["kl"] == pytest.approx(2.5, abs=1e-3)
        expected = torch.sigmoid(torch.tensor([0.25, -0.25]))  # -beta z0 for the desirable
        assert metrics["loss"] == pytest.approx(float(expected @ torch.tensor([4, 2.0]) / 6), 1e-3)


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
    shifted = score_groups(language_model, groups, micro_batch_tokens=10_000) - lengths
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
