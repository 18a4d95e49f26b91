import json

import pandas as pd
import pytest
import torch

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.engine.tokenisation import tokenise_groups
from rpo_pipeline.training.loop import train
from rpo_pipeline.training.objectives import RpoObjective, SftObjective
from tests.conftest import block, build_small, limits, view_of

SETTINGS = block(
    "training",
    num_epochs=20,
    learning_rate=1e-2,
    weight_decay=0.0,
    micro_batch_tokens=2048,
    global_batch_groups=2,
    validation_every=4,
)


def run(language_model, rows, workspace, objective=None, validation=(), **settings):
    text_format = language_model.text_format(limits(64, 64))
    groups = tokenise_groups(rows, text_format)
    return train(
        view_of(language_model, SETTINGS.micro_batch_tokens),
        {"train": groups, "validation": [groups[i] for i in validation]},
        objective or SftObjective(),
        SETTINGS.model_copy(update=settings),
        workspace,
    )


def metrics_of(workspace):
    lines = (workspace / "metrics.jsonl").read_text().splitlines()
    return pd.DataFrame(map(json.loads, lines))


def test_sft_learns_its_rows(language_model, rows, tmp_path):
    run(language_model, rows, tmp_path, num_epochs=80)
    losses = metrics_of(tmp_path)["train/loss"]
    assert losses.iloc[-1] < 0.5 * losses.iloc[0]


def test_rpo_moves_each_log_ratio_to_its_target(language_model, rows, tmp_path):
    text_format = language_model.text_format(limits(64, 64))
    groups = tokenise_groups(rows, text_format)
    ref_logps = score_groups(language_model, groups, micro_batch_tokens=2048)
    targets = torch.tensor([1.0, -3.0, 2.0, 0.5, -1.0, 2.0])
    objective = RpoObjective(ref_logps, targets, per_token=False)
    run(language_model, rows, tmp_path, objective, num_epochs=150, learning_rate=3e-3)
    logps = score_groups(language_model, groups, micro_batch_tokens=2048)
    torch.testing.assert_close(logps - ref_logps, targets, atol=0.3, rtol=0)


def test_the_same_seed_gives_the_same_weights_and_another_order_other_ones(rows, tmp_path):
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        language_model = build_small("llama")
        run(language_model, rows, tmp_path / name, num_epochs=3, seed=seed)
        weights.append(language_model.model.get_input_embeddings().weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_model_with_the_lowest_validation_loss_is_kept(rows, tmp_path):
    summary = run(build_small("llama"), rows, tmp_path, validation=[2], num_epochs=30)
    losses = metrics_of(tmp_path).dropna(subset="train/validation_loss")
    best = losses.loc[losses["train/validation_loss"].idxmin()]
    assert summary.best_step == best["step"]
    assert summary.best_validation_loss == pytest.approx(best["train/validation_loss"])
    kept = load_language_model(tmp_path / "best")
    text_format = kept.text_format(limits(64, 64))
    group = tokenise_groups(rows[rows["prompt_id"] == "p2"].reset_index(drop=True), text_format)
    logps = score_groups(kept, group, micro_batch_tokens=2048)
    num_tokens = sum(len(ids) for ids in group[0].responses)
    assert float(-logps.sum() / num_tokens) == pytest.approx(summary.best_validation_loss, rel=1e-4)


def test_training_stops_when_the_validation_loss_has_not_fallen_for_a_while(rows, tmp_path):
    summary = run(
        build_small("llama"), rows, tmp_path, validation=[0], learning_rate=0.0, patience=2
    )
    assert summary.stopped_early
    assert (summary.best_step, summary.num_steps) == (4, 12)


def test_without_validation_rows_the_last_model_is_kept(rows, tmp_path):
    summary = run(build_small("llama"), rows, tmp_path, num_epochs=1)
    assert summary.best_validation_loss is None
    assert (tmp_path / "best" / "model.safetensors").is_file()


@pytest.mark.parametrize(("num_epochs", "num_steps"), [(0, 0), (0.5, 1), (1, 2), (2.5, 4)])
def test_the_number_of_steps_follows_from_epochs_and_groups(rows, tmp_path, num_epochs, num_steps):
    summary = run(build_small("llama"), rows, tmp_path, num_epochs=num_epochs)
    assert summary.num_steps == num_steps
    assert (tmp_path / "best" / "config.json").is_file()


def test_the_learning_rate_rises_and_then_falls_to_a_tenth(rows, tmp_path):
    run(build_small("llama"), rows, tmp_path)
    rates = metrics_of(tmp_path)["train/learning_rate"]
    assert rates.iloc[0] == 0
    assert rates.max() == pytest.approx(1e-2)
    assert rates.iloc[-1] == pytest.approx(1e-3, rel=0.1)


def test_the_only_step_of_a_training_has_the_whole_learning_rate(rows, tmp_path):
    run(build_small("llama"), rows, tmp_path, num_epochs=0.5)
    assert metrics_of(tmp_path)["train/learning_rate"].tolist() == [1e-2]
