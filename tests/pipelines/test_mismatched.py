"""KTO's mismatched pairs as the pipeline scores them."""

import pandas as pd
import pytest

from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.pipelines.partition_estimation.nodes import score_mismatched
from tests.conftest import block, build_small, score_table
from tests.training.test_reference import policy


@pytest.fixture
def feedback(rows):
    splits = {"p0": "train", "p1": "validation", "p2": "train"}
    test = rows[:1].assign(row_id="t", prompt_id="p3", prompt="Not to be seen.")
    return pd.concat([rows, test]).assign(split=lambda table: table["prompt_id"].map(splits))


@pytest.fixture
def reference(tmp_path):
    build_small("llama").save(tmp_path / "reference")
    return tmp_path / "reference"


def score(feedback, reference, tmp_path, objective="kto"):
    (tmp_path / "cache").mkdir(exist_ok=True)
    scored = feedback.assign(reward=1.0)
    scored.loc[scored["row_id"] == "r4", "reward"] = None
    training = block("training", objective=objective)
    return score_mismatched(scored, reference, policy(), training, tmp_path / "cache")


def stored(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.parquet"))


def test_labelled_rows_of_train_and_validation_are_scored_after_another_prompt(
    feedback, reference, tmp_path
):
    mismatched = score(feedback, reference, tmp_path)
    rows = feedback.set_index("row_id")
    assert mismatched["row_id"].tolist() == ["r0", "r1", "r2", "r3", "r5"]
    prompts = feedback.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    pairs = mismatched.assign(
        prompt=mismatched["prompt_id"].map(prompts).to_numpy(),
        response=rows["response"][mismatched["row_id"]].to_numpy(),
    )
    assert (mismatched["prompt_id"].to_numpy() != rows["prompt_id"][pairs["row_id"]]).all()
    assert set(pairs["prompt_id"]) == {"p0", "p1", "p2"}
    model = load_language_model(reference)
    expected = score_table(model, pairs)
    assert mismatched["logps"].tolist() == pytest.approx(expected["logps"].tolist(), rel=1e-5)


def test_a_second_run_scores_nothing_and_gives_the_same(feedback, reference, tmp_path):
    first = score(feedback, reference, tmp_path)
    shards = stored(tmp_path)
    pd.testing.assert_frame_equal(score(feedback, reference, tmp_path), first)
    assert stored(tmp_path) == shards


def test_no_other_objective_pays_for_them(feedback, reference, tmp_path):
    table = score(feedback, reference, tmp_path, objective="rpo")
    assert table.columns.tolist() == ["row_id", "prompt_id", "logps"]
    assert table.empty
    assert not stored(tmp_path)
