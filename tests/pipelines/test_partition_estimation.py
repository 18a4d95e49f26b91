"""What a changed parameter costs: partition estimation as Kedro calls it."""

import pandas as pd
import pytest

from rpo_pipeline.pipelines.partition_estimation import nodes
from tests.conftest import block, build_small
from tests.training.test_reference import policy

NORMALISER = {
    **{"kind": "none", "winsorise": None, "length_penalty": None},
    **{"mean": 0.0, "std": 1.0},
}


@pytest.fixture
def project(rows, tmp_path):
    """Feedback, its rewards, the reference, and a cache."""
    build_small("llama").save(tmp_path / "reference")
    feedback = rows.assign(split="train", behaviour_logps=None, leaked=False)
    reward = [0.1, -0.9, 0.8, 0.2, -0.3, 0.6]
    rewards = rows[["row_id"]].assign(raw_reward=reward, reward=reward, labeler="rules")
    return feedback, rewards, tmp_path / "reference", tmp_path / "cache"


def score(project, training=None, **changes):
    feedback, _, reference, cache = project
    settings = policy(**changes), block("training", **(training or {}))
    return nodes.score_reference(feedback, reference, *settings, cache)


def join(project, logps):
    feedback, rewards, *_ = project
    return nodes.join_scores(feedback, rewards, logps)


def settle(rows, objective="rpo", **rpo):
    training = block("training", objective=objective)
    settings = block("labeling"), block("rpo", **rpo), block("qrpo", tau=0.3), training
    return nodes.settle_estimation(rows, *settings)


def sample(project, objective="rpo", **rpo):
    reference, cache = project[2:]
    few = {"num_samples": 2, "below_responses": 2}
    rows = join(project, score(project))
    drawn = nodes.sample_reference(
        rows,
        reference,
        policy(max_response_tokens=8),
        settle(rows, objective, reference_samples=few, **rpo),
        block("training", objective=objective),
        cache,
    )
    return nodes.label_samples(drawn, rows, NORMALISER, block("labeling"), cache / "labels")


def estimate(project, logps, samples, objective="rpo", **rpo):
    rows, training = join(project, logps), block("training", objective=objective)
    estimation = settle(rows, objective, **rpo)
    chosen = nodes.choose_tau(
        *(rows, samples, project[2], policy(), estimation, training),
        block("evaluation"),
        project[3],
    )
    return nodes.estimate_partition(rows, samples, chosen, estimation)


def num_stored(project, kind="logps"):
    """Rows in the cache of log-probabilities, or of samples."""
    return sum(len(pd.read_parquet(file)) for file in project[3].glob(f"{kind}/*/*.parquet"))


@pytest.mark.parametrize("change", [{"learning_rate": 1.0}, {"seed": 7, "objective": "sft"}])
def test_other_training_settings_score_nothing_again(project, change):
    first = score(project)
    assert num_stored(project) == 6
    pd.testing.assert_frame_equal(score(project, training=change), first)
    assert num_stored(project) == 6


def test_another_precision_scores_every_row_again(project):
    score(project)
    score(project, dtype="bfloat16")
    assert num_stored(project) == 12


def test_another_limit_scores_the_rows_that_it_cuts_again_and_no_other(project):
    score(project)
    score(project, max_response_tokens=5)
    assert num_stored(project) == 6 + 4


def test_another_reference_scores_every_row_again(project):
    score(project)
    build_small("llama", seed=1).save(project[2])
    score(project)
    assert num_stored(project) == 12


def test_tau_and_estimator_change_targets_without_the_model(project):
    logps, samples = score(project), sample(project)
    build_small("gpt2").save(project[2])  # would give other log-probabilities
    targets = [
        tuple(estimate(project, logps, samples, **rpo)[1]["target"])
        for rpo in ({}, {"tau": 0.3}, {"estimator": "self_normalized"})
    ]
    assert len(set(targets)) == 3


def test_samples_are_drawn_where_the_estimator_wants_them_and_only_once(project):
    assert sample(project).empty
    assert sample(project, estimator="reference_samples")["prompt_id"].tolist() == ["p1"] * 2
    assert len(sample(project, objective="qrpo")) == 6
    assert num_stored(project, "samples") == 6
    sample(project, objective="qrpo")
    assert num_stored(project, "samples") == 6


def test_the_objective_qrpo_learns_quantiles_at_its_own_tau(project):
    samples = sample(project, objective="qrpo")
    table, targets, health = estimate(project, score(project), samples, objective="qrpo")
    assert (health["estimator"], health["tau"]) == ("quantile", 0.3)
    quantiles = (targets["target"] + table["log_z"].repeat(table["n"]).to_numpy()) * 0.3
    assert set(quantiles.round(9)) <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_a_tau_that_is_set_counts_whatever_was_chosen_before(project):
    logps, samples = score(project), sample(project)
    rows = join(project, logps)
    _, _, health = nodes.estimate_partition(rows, samples, {"tau": 2.0}, settle(rows, tau=0.3))
    assert health["tau"] == 0.3
