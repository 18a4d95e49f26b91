"""Labelling as Kedro calls it, from feedback to a gate on a component."""

import json

import pandas as pd
import pytest

from rpo_pipeline.evaluation.comparison import compare_models
from rpo_pipeline.pipelines.evaluation.nodes import label_generations
from rpo_pipeline.pipelines.reward_labeling.nodes import label_rows
from rpo_pipeline.records import Evidence
from rpo_pipeline.registry.gate import decide
from tests.conftest import block
from tests.evaluation.test_comparison import HELDOUT, NOT_JUDGED, table_of
from tests.labeling.test_labelers import COLUMN, LENGTH, RULES, feedback
from tests.labeling.test_reward_model import save_reward_model
from tests.registry.test_gate import check_of, gate, labelers, promotion

LOGGED = pd.DataFrame(
    [{"row_id": "r", "prompt_id": "p00", "response": "We are sorry.", "split": "train"}]
)
ROWS = LOGGED.assign(reward=1.0, is_best=True)


def test_labels_of_the_run_before_are_what_drift_is_measured_against(tmp_path):
    model = save_reward_model(tmp_path / "model").model_dump(exclude_none=True)
    labeling = block("labeling", labelers=[RULES | {"weights": {"length": 1}}, COLUMN, model])
    table = feedback(1.0, -1.0, None, None)
    labels, first = label_rows(table, labeling, {}, None, tmp_path / "cache", [])
    again, second = label_rows(table, labeling, {}, labels, tmp_path / "cache", [])
    pd.testing.assert_frame_equal(labels, again)
    assert [labeler["drift"] for labeler in first["labelers"]] == [None, None]
    assert second["labelers"][0]["drift"]["share_changed"] == 0
    assert json.loads(json.dumps(second, allow_nan=False)) == second


def generations():
    """The challenger answers kindly and at length, the reference as briefly as asked."""
    table = table_of({"reference": 0.0, "challenger": 0.0}).drop(columns=["raw_reward", "toxicity"])
    kind = "Thank you so much, we are happy to help you with this today!"
    response = table["model"].map({"reference": "We are sorry now.", "challenger": kind})
    return table.assign(prompt="Help!", response=response).reset_index(drop=True)


@pytest.mark.parametrize(
    ("metric", "passed"),
    [("component_sentiment", True), ("component_brief_length", False), ("component_brief", False)],
)
def test_a_gate_may_name_a_component_or_a_labeler_that_gives_no_reward(tmp_path, metric, passed):
    evaluation = block("evaluation", labelers=[RULES, LENGTH])
    labelled = label_generations(
        generations(), LOGGED, ROWS, block("labeling"), evaluation, tmp_path
    )
    numbers = compare_models(labelled, HELDOUT, NOT_JUDGED, {}, num_resamples=100, seed=0)
    assert numbers.challenger["reward_mean"] == numbers.challenger["component_rules"]
    result = decide(
        Evidence(
            **vars(numbers),
            look=1,
            labelers=labelers(brief_length=0.1, brief=0.1, sentiment=0.1),
        ),
        promotion(gate(metric=metric)),
    )
    assert check_of(result, metric)["observed"] is not None
    assert result.passed is passed


def test_a_metric_that_no_labeler_gives_fails_its_gate(tmp_path):
    model = save_reward_model(tmp_path / "model").model_dump(exclude_none=True)
    evaluation = block("evaluation", labelers=[model])
    labelled = label_generations(
        generations(), LOGGED, ROWS, block("labeling"), evaluation, tmp_path
    )
    numbers = compare_models(labelled, HELDOUT, NOT_JUDGED, {}, num_resamples=100, seed=0)
    toxicity = gate(metric="toxicity_mean", direction="below")
    result = decide(Evidence(**vars(numbers), look=1), promotion(toxicity))
    assert (
        "toxicity_mean to the reference was not measured"
        in check_of(result, "toxicity_mean")["reason"]
    )


def test_a_labeler_that_judges_and_has_labelled_training_rows_is_warned_of(tmp_path, caplog):
    labeling = block("labeling", labelers=[COLUMN, RULES | {"name": "rules_again", "scale": 2.0}])
    logged = (LOGGED, ROWS, labeling)
    label_generations(generations(), *logged, block("evaluation", labelers=[RULES]), tmp_path)
    assert "rules gives reward_mean and has labelled training rows too" in caplog.text
    caplog.clear()
    label_generations(generations(), *logged, block("evaluation", labelers=[LENGTH]), tmp_path)
    assert "labelled training rows" not in caplog.text
