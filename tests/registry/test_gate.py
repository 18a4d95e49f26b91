import pytest

from rpo_pipeline.params import GateParams, PromotionParams
from rpo_pipeline.registry.gate import decide


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


def promotion(*gates, min_test_prompts=20):
    return PromotionParams(
        model_name="m", mode="auto", min_test_prompts=min_test_prompts, gates=list(gates)
    )


def evaluation(difference=(0.1, 0.3), champion_difference=None, num_prompts=50):
    def numbers(low, high):
        return {"reward_mean": {"value": (low + high) / 2, "low": low, "high": high}}

    return {
        "num_prompts": num_prompts,
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
