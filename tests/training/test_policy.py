import pandas as pd
import pytest
import torch

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.engine.tokenisation import tokenise_groups
from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.params import ObjectiveParams
from rpo_pipeline.partition.kto_pairs import mismatched_pairs
from rpo_pipeline.training.policy import train_policy, training_rows
from tests.conftest import block, build_small, limits, score_table
from tests.training.test_loop import SETTINGS, metrics_of
from tests.training.test_reference import policy

RPO = block("rpo", tau=0.5, logp_reduction="sum", prior_strength=0.0)


@pytest.fixture
def reference(tmp_path):
    build_small("llama").save(tmp_path / "reference")
    return tmp_path / "reference"


@pytest.fixture
def joined(rows, reference):
    """Training rows as the pipeline joins them: tau is 0.5 and log_z 0.25 everywhere."""
    model = load_language_model(reference)
    scores = score_table(model, rows)
    pairs = mismatched_pairs(rows, seed=0)
    logps = score_table(model, pairs)["logps"]
    rewards = rows[["row_id"]].assign(reward=[0.1, -0.9, 0.8, 0.2, -0.3, 0.6])
    feedback = rows.assign(split=rows["prompt_id"].map({"p2": "validation"}).fillna("train"))
    targets = rows[["row_id"]].assign(
        target=rewards["reward"] / 0.5 - 0.25, rho=0.0, huber_delta=None
    )
    mismatched_logps = pairs[["row_id", "prompt_id"]].assign(logps=logps)
    labelled = feedback.merge(rewards, on="row_id").merge(scores, on="row_id")
    return training_rows(labelled, targets, mismatched_logps)


def learn(
    joined, reference, tmp_path, objective, responses="top", lora=None, cache=None, **settings
):
    return train_policy(
        joined,
        reference,
        policy=policy(lora=lora),
        objectives=ObjectiveParams(
            rpo=RPO, sft=block("sft", responses=responses), kto=block("kto"), dro=block("dro")
        ),
        training=SETTINGS.model_copy(update={"objective": objective, **settings}),
        workspace=tmp_path,
        cache=cache,
    )


def gains(joined, reference, tmp_path):
    """How much likelier each response is than under the reference, in nats, by row_id."""
    models = [load_language_model(tmp_path / "best"), load_language_model(reference)]
    after, before = (score_table(model, joined).set_index("row_id")["logps"] for model in models)
    return after - before


def test_each_row_keeps_its_own_target(joined):
    assert joined.set_index("row_id")["target"]["r2"] == pytest.approx(0.8 / 0.5 - 0.25)


@pytest.mark.parametrize("objective", ["rpo", "qrpo", "dro", "kto"])
def test_what_was_rewarded_is_raised_over_what_was_not(joined, reference, tmp_path, objective):
    settings = {"num_epochs": 30, "learning_rate": 3e-3, "validation_every": 99}
    learn(joined, reference, tmp_path, objective, **settings)
    gain = gains(joined, reference, tmp_path)
    assert gain["r2"] > gain["r0"] > gain["r1"]


def test_sft_on_top_responses_learns_from_the_best_of_each_prompt_alone(
    joined, reference, tmp_path
):
    learn(joined, reference, tmp_path, "sft")
    only_top = joined[joined["row_id"].isin(["r2", "r3", "r5"])].reset_index(drop=True)
    model = load_language_model(reference)
    text_format = model.text_format(limits(64, 64))
    groups = tokenise_groups(
        only_top[only_top["split"] == "train"].reset_index(drop=True), text_format
    )
    logps = score_groups(model, groups, micro_batch_tokens=500)
    num_tokens = sum(len(ids) for group in groups for ids in group.responses)
    first_loss = metrics_of(tmp_path)["train/loss"].iloc[0]
    assert first_loss == pytest.approx(float(-logps.sum() / num_tokens), rel=1e-4)


def test_sft_on_all_responses_learns_the_bad_ones_too(joined, reference, tmp_path):
    learn(joined, reference, tmp_path, "sft", responses="all", num_epochs=60)
    assert (gains(joined, reference, tmp_path)[["r0", "r1", "r2"]] > 0).all()


def test_an_objective_never_sees_the_test_split(joined, reference, tmp_path):
    moved = joined.assign(split=joined["split"].replace("validation", "test"))
    moved.loc[moved["split"] == "test", "target"] = torch.nan
    learn(moved, reference, tmp_path, "rpo", num_epochs=2)
    assert metrics_of(tmp_path)["train/loss"].notna().all()


LORA = {"r": 4, "alpha": 8, "target_modules": "all-linear"}


@pytest.mark.parametrize("lora", [None, LORA])
def test_training_starts_at_the_reference(joined, reference, tmp_path, lora):
    learn(joined, reference, tmp_path, "rpo", lora=lora)
    first = metrics_of(tmp_path).iloc[0]
    assert abs(first["train/log_ratio"]) < 1e-4 * joined["ref_logps"].abs().mean()


def test_adapters_learn_too_and_are_merged_into_the_policy(joined, reference, tmp_path):
    settings = {"num_epochs": 30, "learning_rate": 2e-2, "validation_every": 99}
    learn(joined, reference, tmp_path, "rpo", lora=LORA, **settings)
    gain = gains(joined, reference, tmp_path)
    assert gain["r2"] > gain["r0"] > gain["r1"]
    assert (tmp_path / "best" / "adapters" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("lora", [None, LORA])
def test_gradient_checkpointing_changes_no_curve(joined, reference, tmp_path, lora):
    curves = []
    for name, checkpointing in (("without", False), ("with", True)):
        (tmp_path / name).mkdir()
        learn(
            joined,
            reference,
            tmp_path / name,
            "rpo",
            lora=lora,
            num_epochs=4,
            gradient_checkpointing=checkpointing,
        )
        curves.append(torch.tensor(metrics_of(tmp_path / name)["train/loss"].to_numpy()))
    torch.testing.assert_close(*curves, rtol=1e-4, atol=1e-5)


def test_kto_starts_at_half_the_weight_of_each_row(joined, reference, tmp_path):
    """At the reference every log-ratio is 0, and so is the reference point."""
    joined.loc[joined["split"] == "validation", "reward"] += 5.0  # no part of the train mean
    learn(joined, reference, tmp_path, "kto", num_epochs=1, learning_rate=0.0)
    metrics = metrics_of(tmp_path).iloc[0]
    assert metrics["train/loss"] == pytest.approx(0.5, abs=1e-4)
    assert metrics["train/kl"] == pytest.approx(0.0, abs=1e-3)
    assert (
        metrics["train/desirable_share"] == 0.75
    )  # r0, r2 and r3 are above the train mean of 0.05


def test_kto_without_its_pairs_says_how_to_get_them(joined, reference, tmp_path):
    joined.loc[1:, ["mismatched_prompt_id", "mismatched_ref_logps"]] = None
    with pytest.raises(ConfigError, match=r"5 of 6 rows .* --from-nodes score_mismatched"):
        learn(joined, reference, tmp_path, "kto")


def test_kto_on_equal_rewards_is_refused(joined, reference, tmp_path):
    with pytest.raises(DataError, match=r"every train row has the reward 0\.1"):
        learn(joined.assign(reward=0.1), reference, tmp_path, "kto")


def test_other_objectives_need_no_pairs(joined, reference, tmp_path):
    columns = ["row_id", "prompt_id", "logps"]
    bare = training_rows(
        joined.assign(split="train", logps=joined["ref_logps"]),
        joined[["row_id", "target", "rho", "huber_delta"]],
        pd.DataFrame(columns=columns),
    )
    assert bare["mismatched_ref_logps"].isna().all()
    learn(bare, reference, tmp_path, "rpo", num_epochs=1)
    assert metrics_of(tmp_path)["train/loss"].notna().all()
