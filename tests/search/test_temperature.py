"""Short trainings that choose tau, judged by what they write on validation prompts."""

import numpy as np
import pytest

from rpo_pipeline.errors import DataError
from rpo_pipeline.search.temperature import Trials, choose, choose_by_divergence, choose_tau
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


def by_power(tried, scale=2.0, power=1.3):
    """A divergence that falls with tau, and a list of the values that were asked for."""

    def divergence(tau):
        tried.append(tau)
        return scale * tau**-power

    return divergence


@pytest.mark.parametrize("start", [0.01, 0.3, 1.0, 2.0, 50.0])
@pytest.mark.parametrize("largest", [0.5, 3.0, 8.0])
def test_the_divergence_comes_close_to_the_largest_and_stays_below_it(start, largest):
    tried = []
    chosen = choose_by_divergence(by_power(tried), largest, start=start)
    found = {c["tau"]: c["divergence"] for c in chosen["candidates"]}
    assert 0.85 * largest <= found[chosen["tau"]] <= largest
    assert len(tried) == len(set(tried)) == len(found) <= 7


def test_a_start_that_is_close_is_taken_at_once():
    tried = []
    assert choose_by_divergence(by_power(tried), 2.1, start=1.0)["tau"] == 1.0
    assert tried == [1.0]


def test_where_every_tau_diverges_too_far_the_largest_is_taken_and_it_is_said(caplog):
    chosen = choose_by_divergence(lambda tau: 9.0 + 1 / tau, 3.0, start=1.0)
    assert chosen["tau"] == max(c["tau"] for c in chosen["candidates"])
    assert "was exceeded at every tau" in caplog.text


@pytest.mark.parametrize("reached", [0.0, 1.0])
def test_where_a_smaller_tau_moves_no_further_the_largest_such_is_taken_and_it_is_said(
    reached, caplog
):
    chosen = choose_by_divergence(lambda _: reached, 3.0, start=2.0)
    assert chosen["tau"] == 2.0
    assert len(chosen["candidates"]) == 2
    assert "was not reached" in caplog.text


def test_a_divergence_that_is_noise_ends_the_search_within_the_limit():
    found = {1.0: 4.0, 3.0: 1.0}
    chosen = choose_by_divergence(lambda tau: found.get(tau, 5.0), 3.0, start=1.0)
    assert chosen["tau"] == 3.0


def search(rows, tmp_path, split, **rpo):
    reference, limits = build_small("llama"), policy(max_response_tokens=8)
    reference.save(tmp_path / "reference")
    ref_logps = score_table(reference, rows, limits)["logps"]
    asked = []

    def rows_at(tau):
        asked.append(tau)
        target = np.linspace(-1, 1, len(rows)) / tau
        loss = {"target": target, "rho": 0.0, "huber_delta": None}
        return rows.assign(split=split, reward=0.0, ref_logps=ref_logps, **loss)

    settings = {"tau": "auto", "tau_grid": [2.0, 0.5], "tau_search_epochs": 4, **rpo}
    settings |= {"logp_reduction": "mean", "fit_level": False}
    trials = Trials(
        rows_at,
        tmp_path / "reference",
        policy=limits,
        rpo=block("rpo", **settings),
        training=SETTINGS,
        evaluation=block("evaluation", num_prompts=2),
        workspace=tmp_path / "search",
    )
    return choose_tau(trials), asked


def test_every_candidate_is_trained_on_targets_of_its_own_and_judged(rows, tmp_path):
    chosen, asked = search(rows, tmp_path, ["train"] * 3 + ["validation"] * 3)
    assert asked == [0.5, 2.0]
    assert chosen["tau"] in asked
    weights = [tmp_path / "search" / f"tau-{tau:g}" / "best/model.safetensors" for tau in asked]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_without_validation_prompts_there_is_nothing_to_choose_by(rows, tmp_path):
    with pytest.raises(DataError, match=r"split_shares\.validation"):
        search(rows, tmp_path, "train")


def test_a_largest_divergence_is_searched_from_tau_by_trainings(rows, tmp_path):
    split = ["train"] * 3 + ["validation"] * 3
    chosen, asked = search(rows, tmp_path, split, tau=1.0, max_divergence=0.05)
    assert asked[0] == 1.0
    found = {c["tau"]: c["divergence"] for c in chosen["candidates"]}
    assert sorted(found) == sorted(asked)
    assert found[chosen["tau"]] <= 0.05 or chosen["tau"] == max(asked)
