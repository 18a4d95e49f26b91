import pytest
import torch

from rpo_pipeline.data.tokenisation import tokenise_groups
from rpo_pipeline.models.loading import load_language_model
from rpo_pipeline.models.scoring import score_groups, score_table
from rpo_pipeline.training.policy import train_policy, training_rows
from tests.conftest import block, build_small
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
    scores = score_table(load_language_model(reference), rows, policy(), micro_batch_tokens=500)
    rewards = rows[["row_id"]].assign(reward=[0.1, -0.9, 0.8, 0.2, -0.3, 0.6])
    feedback = rows.assign(split=rows["prompt_id"].map({"p2": "validation"}).fillna("train"))
    targets = rows[["row_id"]].assign(target=rewards["reward"] / 0.5 - 0.25)
    return training_rows(feedback, rewards, scores, targets)


def learn(joined, reference, tmp_path, objective, responses="top", **settings):
    return train_policy(
        joined,
        reference,
        policy=policy(),
        rpo=RPO,
        sft=block("sft", responses=responses),
        training=SETTINGS.model_copy(update={"objective": objective, **settings}),
        workspace=tmp_path,
    )


def gains(joined, reference, tmp_path):
    """How much likelier each response is than under the reference, in nats, by row_id."""
    models = [load_language_model(tmp_path / "best"), load_language_model(reference)]
    after, before = (
        score_table(model, joined, policy(), micro_batch_tokens=500).set_index("row_id")["logps"]
        for model in models
    )
    return after - before


def test_each_row_keeps_its_own_target(joined):
    assert joined.set_index("row_id")["target"]["r2"] == pytest.approx(0.8 / 0.5 - 0.25)


def test_rpo_raises_what_was_rewarded_and_lowers_what_was_not(joined, reference, tmp_path):
    learn(
        joined, reference, tmp_path, "rpo", num_epochs=30, learning_rate=3e-3, validation_every=99
    )
    gain = gains(joined, reference, tmp_path)
    assert gain["r2"] > gain["r0"] > gain["r1"]


def test_sft_on_top_responses_learns_from_the_best_of_each_prompt_alone(
    joined, reference, tmp_path
):
    learn(joined, reference, tmp_path, "sft")
    only_top = joined[joined["row_id"].isin(["r2", "r3", "r5"])].reset_index(drop=True)
    model = load_language_model(reference)
    text_format = model.text_format(max_prompt_tokens=64, max_response_tokens=64)
    groups = tokenise_groups(
        only_top[only_top["split"] == "train"].reset_index(drop=True), text_format
    )
    logps = score_groups(model, groups, micro_batch_tokens=500, title="")
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
