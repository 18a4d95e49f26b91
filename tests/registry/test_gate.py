from itertools import pairwise

import numpy as np
import pytest

from rpo_pipeline.evaluation.statistics import resample_prompts
from rpo_pipeline.params import GateParams
from rpo_pipeline.registry.gate import decide, require_artifacts, strictness
from tests.registry import conftest


def gate(**settings):
    return GateParams(
        **{
            "metric": "reward_mean",
            "against": "champion",
            "direction": "above",
            "threshold": 0.0,
            "bound": "low",
            **settings,
        }
    )


def promotion(*gates, **settings):
    return conftest.promotion("m", gates=list(gates), **{"min_test_prompts": 20, **settings})


def evaluation(difference=(0.1, 0.3), champion_difference=None, num_prompts=50, look=1):
    def numbers(low, high):
        return {"reward_mean": {"value": (low + high) / 2, "low": low, "high": high}}

    return {
        "num_prompts": num_prompts,
        "look": look,
        "champion_version": None if champion_difference is None else "3",
        "challenger": {
            **numbers(0.5, 0.9),
            "kl_reference": {"value": 4.0, "low": 3.0, "high": 5.0},
        },
        "difference": {
            "vs_reference": numbers(*difference),
            "vs_champion": champion_difference and numbers(*champion_difference),
        },
    }


def test_a_challenger_whose_whole_interval_is_above_the_reference_passes_without_a_champion():
    decision = decide(evaluation((0.1, 0.3)), promotion(gate()))
    assert decision["passed"]
    assert decision["baseline"] == "reference"


def test_an_interval_that_reaches_below_zero_fails():
    decision = decide(evaluation((-0.01, 0.3)), promotion(gate()))
    assert not decision["passed"]
    assert "lower end of the 95 % interval" in decision["checks"][1]["reason"]


def test_where_there_is_a_champion_beating_the_reference_is_not_enough():
    decision = decide(evaluation((0.1, 0.3), (-0.2, 0.1)), promotion(gate()))
    assert (decision["passed"], decision["baseline"]) == (False, "champion")
    assert decision["champion_version"] == "3"


def test_a_gate_against_the_reference_stays_one_where_there_is_a_champion():
    decision = decide(evaluation((0.1, 0.3), (-0.2, 0.1)), promotion(gate(against="reference")))
    assert decision["passed"]


@pytest.mark.parametrize(("threshold", "passed"), [(4.1, True), (4.0, False)])
def test_a_limit_on_the_challengers_own_value_excludes_the_threshold(threshold, passed):
    limit = gate(
        metric="kl_reference", against="none", direction="below", bound="value", threshold=threshold
    )
    assert decide(evaluation(), promotion(limit))["passed"] is passed


def test_one_failed_gate_fails_the_whole_and_every_check_is_listed():
    decision = decide(evaluation(), promotion(gate(), gate(threshold=9)))
    assert not decision["passed"]
    assert [check["passed"] for check in decision["checks"]] == [True, True, False]


def test_a_metric_that_was_not_measured_fails_in_words():
    decision = decide(evaluation(), promotion(gate(metric="charm")))
    assert not decision["passed"]
    assert "charm" in decision["checks"][1]["reason"]
    assert "not measured" in decision["checks"][1]["reason"]


def test_too_few_test_prompts_fail():
    decision = decide(evaluation(num_prompts=19), promotion(gate()))
    assert not decision["passed"]
    assert decision["checks"][0]["reason"] == "19 test prompts, 20 are needed"


def test_the_first_challenger_is_judged_by_the_interval_of_the_summary():
    strict = strictness(0.95, look=1, num_prompts=100_000)
    assert strict.confidence == pytest.approx(0.95)
    assert strict.width == pytest.approx(1, abs=1e-3)


def test_what_all_looks_may_err_adds_up_to_what_is_allowed():
    looks = [strictness(0.9, look=look, num_prompts=50) for look in range(1, 2001)]
    assert sum((1 - strict.confidence) / 2 for strict in looks) == pytest.approx(0.1, rel=1e-3)
    assert all(a.width < b.width for a, b in pairwise(looks))


def test_a_gain_that_the_first_challenger_passes_with_fails_the_twentieth():
    decisions = [decide(evaluation((0.02, 0.3), look=look), promotion(gate())) for look in (1, 20)]
    assert [decision["passed"] for decision in decisions] == [True, False]
    assert "lower end of the 99.98 % interval" in decisions[1]["checks"][1]["reason"]


def test_an_estimate_costs_nothing_for_being_looked_at_often():
    limit = gate(threshold=0.15, bound="value")
    assert decide(evaluation((0.1, 0.3), look=500), promotion(limit))["passed"]


def test_equal_challengers_night_after_night_are_seldom_promoted():
    """The champion's answers stay the same, so a champion that was unlucky is so every night."""
    series, num_prompts, rng = 1000, 40, np.random.default_rng(0)
    resamples = resample_prompts(num_prompts, 400, seed=0)
    weights = np.stack([np.bincount(r, minlength=num_prompts) for r in resamples]) / num_prompts
    champions = rng.exponential(size=(series, num_prompts))
    paid, unpaid = np.zeros(series, bool), np.zeros(series, bool)
    rule = promotion(gate())
    for night in range(1, 13):
        differences = rng.exponential(size=(series, num_prompts)) - champions
        values = differences.mean(axis=1)
        lows = np.quantile(differences @ weights.T, 0.025, axis=1)
        for one, (value, low) in enumerate(zip(values, lows, strict=True)):
            evaluated = evaluation(num_prompts=num_prompts, look=night)
            metric = evaluated["difference"]["vs_reference"]["reward_mean"]
            metric.update(value=value, low=low)
            paid[one] |= decide(evaluated, rule)["passed"]
        unpaid |= lows > 0
    assert paid.mean() < 1 - rule.confidence
    assert unpaid.mean() > 3 * (1 - rule.confidence)


def test_a_version_without_a_required_artifact_fails_and_says_which():
    passed = decide(evaluation(), promotion(gate()))
    assert require_artifacts(passed, ["report.html"], ["report.html", "more"])["passed"]
    failed = require_artifacts(passed, ["report.html", "model_card.md"], ["report.html"])
    assert not failed["passed"]
    assert "lacks model_card.md" in failed["checks"][-1]["reason"]
