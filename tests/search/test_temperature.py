"""`rpo.tau: auto`: short trainings, judged by what they write on validation prompts."""

import numpy as np
import pytest

from rpo_pipeline.errors import DataError
from rpo_pipeline.search.temperature import choose, choose_tau
from tests.conftest import block, build_small, score_table
from tests.training.test_loop import SETTINGS
from tests.training.test_reference import policy


def test_the_largest_tau_within_one_standard_error_of_the_best_is_taken():
    noise = np.array([0.1, -0.1, 0.1, -0.1])
    best = np.array([1.0, 0.8, 1.2, 1.0])
    chosen = choose({0.5: best, 1.0: best - 0.05 + noise, 2.0: best - 0.2 + noise})
    assert chosen["tau"] == 1.0
    assert [c["tau"] for c in chosen["candidates"]] == [0.5, 1.0, 2.0]
    assert chosen["candidates"][2]["difference"] == pytest.approx(-0.2)


def test_among_equals_the_most_cautious_is_taken():
    same = np.array([0.3, 0.1])
    assert choose({4.0: same, 0.5: same})["tau"] == 4.0


def search(rows, tmp_path, split):
    reference, limits = build_small("llama"), policy(max_response_tokens=8)
    reference.save(tmp_path / "reference")
    ref_logps = score_table(reference, rows, limits)["logps"]
    asked = []

    def rows_at(tau):
        asked.append(tau)
        target = np.linspace(-1, 1, len(rows)) / tau
        return rows.assign(split=split, reward=0.0, ref_logps=ref_logps, target=target)

    chosen = choose_tau(
        rows_at,
        tmp_path / "reference",
        policy=limits,
        rpo=block("rpo", tau="auto", tau_grid=[2.0, 0.5], tau_search_epochs=4),
        training=SETTINGS,
        evaluation=block("evaluation", num_prompts=2),
        workspace=tmp_path / "search",
    )
    return chosen, asked


def test_every_candidate_is_trained_on_targets_of_its_own_and_judged(rows, tmp_path):
    chosen, asked = search(rows, tmp_path, ["train"] * 3 + ["validation"] * 3)
    assert asked == [0.5, 2.0]
    assert chosen["tau"] in asked
    weights = [tmp_path / "search" / f"tau-{tau:g}" / "best/model.safetensors" for tau in asked]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_without_validation_prompts_there_is_nothing_to_choose_by(rows, tmp_path):
    with pytest.raises(DataError, match=r"split_shares\.validation"):
        search(rows, tmp_path, "train")
