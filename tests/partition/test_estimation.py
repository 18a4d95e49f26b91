"""Which estimator is taken, and why."""

import pandas as pd
import pytest

from rpo_pipeline.partition.estimation import settle_estimation
from tests.conftest import block

COLUMN = {"type": "column"}
RULES = {"type": "rules", "weights": {"length": 1.0}, "target_words": 10}


def log(responses, labeler="rules", num_prompts=4):
    prompt_ids = [f"p{i}" for i in range(num_prompts) for _ in range(responses)]
    return pd.DataFrame({"prompt_id": prompt_ids, "split": "train", "labeler": labeler})


def settle(rows, *, labelers=(COLUMN,), objective="rpo", **rpo):
    return settle_estimation(
        rows,
        block("rpo", **({"estimator": "auto", "fit_level": False} | rpo)),
        block("qrpo", tau=0.3),
        block("training", objective=objective),
        block("labeling", labelers=list(labelers)),
    )


def test_a_named_estimator_is_taken():
    settled = settle(log(1), estimator="self_normalized")
    assert settled.rpo == block("rpo", estimator="self_normalized", fit_level=False)


def test_qrpo_takes_quantile_and_its_own_tau_whatever_the_estimator():
    taken = settle(log(4), objective="qrpo", estimator="self_normalized", prior_strength=2.0).rpo
    assert (taken.estimator, taken.tau, taken.prior_strength) == ("quantile", 0.3, 0.0)


@pytest.mark.parametrize("objective", ["kto", "dro", "sft", "tgo"])
def test_objectives_without_log_z_report_it_at_the_middle_of_the_grid(objective):
    assert settle(log(4), objective=objective, tau="auto").rpo.tau == block("rpo").tau_grid[2]
    assert settle(log(4), tau="auto").rpo.tau == "auto"


def test_nothing_is_sampled_for_an_objective_without_log_z():
    assert settle(log(1), labelers=[RULES], objective="tgo").rpo.estimator == "monte_carlo"


@pytest.mark.parametrize("responses", [1, 2, 8])
def test_averaged_log_probabilities_need_no_samples(responses):
    settled = settle(log(responses), labelers=[RULES], logp_reduction="mean")
    assert settled.rpo.estimator == "monte_carlo"
    assert "averaged over tokens" in settled.reason
    assert ("the level of a prompt comes" in settled.reason) == (responses == 1)


@pytest.mark.parametrize("responses", [1, 2, 8])
def test_a_level_that_is_fitted_needs_no_samples(responses):
    settled = settle(log(responses), labelers=[RULES], fit_level=True)
    assert settled.rpo.estimator == "monte_carlo"
    assert "the level of log_z is fitted" in settled.reason


@pytest.mark.parametrize(
    ("rows", "labelers", "estimator", "reason"),
    [
        (log(1), [RULES], "reference_samples", "1.0 responses on average, and rules labels"),
        (log(2), [COLUMN, RULES], "reference_samples", "2.0 responses"),
        (log(8), [RULES], "monte_carlo", "8.0 responses"),
        (log(2), [COLUMN], "monte_carlo", "no labeler of labeling.labelers scores new text"),
        (log(1), [COLUMN], "monte_carlo", "the level of a prompt comes from other prompts"),
        (log(1, "column"), [COLUMN, RULES], "monte_carlo", "gave 0% of the labels"),
    ],
)
def test_auto_chooses_by_the_shape_of_the_log_and_by_what_labels_new_text(
    rows, labelers, estimator, reason
):
    settled = settle(rows, labelers=labelers)
    assert settled.rpo.estimator == estimator
    assert reason in settled.reason
