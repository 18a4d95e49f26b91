"""KTO against TRL's own loss: ``KTOTrainer._compute_loss`` on log-probabilities that we give."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from rpo_pipeline.engine.groups import Group, collate
from rpo_pipeline.training.objectives import KtoObjective, RowScores
from tests.conftest import block

LENGTHS = [5, 1, 3, 4, 2, 6]


def trl_loss(settings, columns, labels, token_logps):
    """TRL's loss of a batch, with all that it asks of a trainer and of a model."""
    kto_trainer = pytest.importorskip("trl.trainer.kto_trainer")
    zeros = torch.zeros_like(token_logps)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda tensor: tensor),
        loss_type="kto",
        **settings.model_dump(),
        calculate_KL=True,
        precompute_ref_logps=True,
        aux_loss_enabled=False,
        _compute_kl_logps=lambda model, batch: columns["mismatched_logps"],  # noqa: ARG005
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    mask = torch.nn.functional.pad(torch.ones_like(token_logps), (1, 0)).long()
    batch = {
        **dict.fromkeys(("input_ids", "attention_mask", "completion_mask"), mask),
        "label": labels,
        "ref_logps": columns["ref_logps"],
        "ref_KL_logps": columns["mismatched_ref_logps"],
    }
    outputs = SimpleNamespace(log_probs=token_logps, entropy=zeros, mean_logits=zeros)
    trainer_class = kto_trainer.KTOTrainer
    return trainer_class._compute_loss(trainer, lambda **_: outputs, batch, return_outputs=False)


def our_loss(settings, columns, labels, token_logps):
    responses = [[1] * length for length in LENGTHS]
    groups = [Group([2], responses[:4], [3, 0, 5, 2], "a"), Group([3], responses[4:], [1, 4], "b")]
    listed = [3, 0, 5, 2, 1, 4]
    objective = KtoObjective(
        ref_logps=columns["ref_logps"],
        desirable=labels,
        partner_prompts={"a": [3], "b": [2]},
        mismatched_ref_logps=columns["mismatched_ref_logps"],
        settings=settings,
    )
    point = objective.reference_point(groups, lambda _: columns["mismatched_logps"][listed])
    batch = collate(groups, pad_token_id=0)
    scores = RowScores(token_logps.sum(-1)[batch.rows], reference_point=point)
    return objective.row_losses(scores, batch)[0].sum() / objective.denominator(groups)


@pytest.mark.parametrize("labels", [[1, 0, 0, 1, 1, 0], [1] * 6, [0] * 6])
@pytest.mark.parametrize("drift", [1.0, -3.0])
def test_loss_and_gradient_are_those_of_trl(labels, drift):
    generator = torch.Generator().manual_seed(len(labels) + sum(labels))
    names = ("ref_logps", "mismatched_ref_logps", "mismatched_logps")
    columns = {name: -40 * torch.rand(6, generator=generator) for name in names}
    columns["mismatched_logps"] = columns["mismatched_ref_logps"] + drift + torch.arange(6.0)
    settings = block("kto", beta=0.2, desirable_weight=1.5, undesirable_weight=0.75)
    tokens = torch.arange(6)[None] < torch.tensor(LENGTHS)[:, None]
    token_logps = -8 * torch.rand(6, 6, generator=generator) * tokens
    results = []
    for loss in (our_loss, trl_loss):
        leaf = token_logps.clone().requires_grad_()
        value = loss(settings, columns, torch.tensor(labels, dtype=torch.bool), leaf)
        results.append((value, *torch.autograd.grad(value, leaf)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
