from itertools import pairwise

import pytest

from rpo_pipeline.params import GateParams
from rpo_pipeline.records import Evidence, Summary, from_json
from rpo_pipeline.registry.gate import decide, require_artifacts, strictness, waived
from tests import registries


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
    return registries.promotion("m", gates=list(gates), **{"min_test_prompts": 20, **settings})


def standing(low=0.1):
    """Of a labeler beside length."""
    shares = {"agreement": 0.8, "length_agreement": 0.6, "value": 0.2, "low": low}
    return {"pairs": "within prompts", "num_prompts": 90, **shares}


def labelers(low=0.1, num_rated=200, **columns):
    found = {"rules": standing(low)} | {name: standing(end) for name, end in columns.items()}
    return {"num_rated": num_rated, "judge": "rules", "columns": found, "ranges": {}}


def evaluation(difference=(0.1, 0.3), champion_difference=None, num_prompts=50, look=1, **changes):
    def numbers(low, high):
        return {"reward_mean": {"value": (low + high) / 2, "low": low, "high": high}}

    values = {
        "labelers": labelers(),
        "judge": None,
        "num_prompts": num_prompts,
        "look": look,
        "champion_version": None if champion_difference is None else "3",
        "reference": {},
        "champion": None,
        "challenger": {
            **numbers(0.5, 0.9),
            "kl_reference": {"value": 4.0, "low": 3.0, "high": 5.0},
        },
        "difference": {
            "vs_reference": numbers(*difference),
            "vs_champion": champion_difference and numbers(*champion_difference),
        },
    }
    return Evidence(**{**values, **changes})


def check_of(decision, metric="reward_mean"):
    return next(check for check in decision.checks if check["metric"] == metric)


def test_a_challenger_whose_whole_interval_is_above_the_reference_passes_without_a_champion():
    decision = decide(evaluation((0.1, 0.3)), promotion(gate()))
    assert decision.passed
    assert decision.baseline == "reference"


def test_an_interval_that_reaches_below_zero_fails():
    decision = decide(evaluation((-0.01, 0.3)), promotion(gate()))
    assert not decision.passed
    assert "lower end of the 95 % interval" in check_of(decision)["reason"]


def test_where_there_is_a_champion_beating_the_reference_is_not_enough():
    decision = decide(evaluation((0.1, 0.3), (-0.2, 0.1)), promotion(gate()))
    assert (decision.passed, decision.baseline) == (False, "champion")
    assert decision.champion_version == "3"


def test_a_gate_against_the_reference_stays_one_where_there_is_a_champion():
    decision = decide(evaluation((0.1, 0.3), (-0.2, 0.1)), promotion(gate(against="reference")))
    assert decision.passed


@pytest.mark.parametrize(("threshold", "passed"), [(4.1, True), (4.0, False)])
def test_a_limit_on_the_challengers_own_value_excludes_the_threshold(threshold, passed):
    limit = gate(
        metric="kl_reference", against="none", direction="below", bound="value", threshold=threshold
    )
    assert decide(evaluation(), promotion(limit)).passed is passed


def test_one_failed_gate_fails_the_whole_and_every_check_is_listed():
    decision = decide(evaluation(), promotion(gate(), gate(threshold=9)))
    assert not decision.passed
    passed = {"ratings": True, "agreement": True, "num_prompts": True, "reward_mean": False}
    assert {check["metric"]: check["passed"] for check in decision.checks} == passed
    assert len(decision.checks) == 5


def test_a_metric_that_was_not_measured_fails_in_words():
    decision = decide(evaluation(), promotion(gate(metric="component_charm")))
    assert not decision.passed
    assert "charm" in check_of(decision, "component_charm")["reason"]
    assert "not measured" in check_of(decision, "component_charm")["reason"]


def test_too_few_test_prompts_fail():
    decision = decide(evaluation(num_prompts=19), promotion(gate()))
    assert not decision.passed
    assert check_of(decision, "num_prompts")["reason"] == "19 test prompts, 20 are needed"


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
    assert [decision.passed for decision in decisions] == [True, False]
    assert "lower end of the 99.98 % interval" in check_of(decisions[1])["reason"]


def test_an_estimate_costs_nothing_for_being_looked_at_often():
    limit = gate(threshold=0.15, bound="value")
    assert decide(evaluation((0.1, 0.3), look=500), promotion(limit)).passed


def test_a_version_without_a_required_artifact_fails_and_says_which():
    passed = decide(evaluation(), promotion(gate()))
    assert require_artifacts(passed, ["report.html"], ["report.html", "more"]).passed
    failed = require_artifacts(passed, ["report.html", "model_card.md"], ["report.html"])
    assert not failed.passed
    assert "lacks model_card.md" in failed.checks[-1]["reason"]


def judged(*gates, num_rated=200, low=0.1, columns=(), **settings):
    """A decision on numbers that pass, by labelers that may not."""
    found = labelers(low, num_rated, **dict(columns))
    return decide(evaluation(labelers=found), promotion(*(gates or [gate()]), **settings))


def test_a_log_that_nobody_rated_promotes_nothing_and_that_is_said_first():
    decision = judged(num_rated=0)
    assert not decision.passed
    assert decision.checks[0]["reason"] == "people rated 0 rows of the log"


def test_a_parameter_lets_an_unrated_log_promote_and_is_named():
    decision = judged(num_rated=0, require_ratings=False)
    assert decision.passed
    assert waived(decision) == [
        "people rated 0 rows of the log; not required: promotion.require_ratings is false"
    ]


@pytest.mark.parametrize("low", [0.0, -0.2, None])
def test_a_labeler_that_says_no_more_than_length_promotes_nothing(low):
    decision = judged(low=low)
    assert not decision.passed
    assert "`rules`" in decision.checks[1]["reason"]
    assert judged(low=low, require_agreement=False).passed


def test_a_person_who_names_a_version_is_not_held_up_but_told():
    decision = judged(num_rated=0, low=None, version=7)
    assert decision.passed
    assert all("a person named the version" in reason for reason in waived(decision))
    assert len(waived(decision)) == 2


def test_a_labeler_is_held_to_it_where_a_gain_by_it_is_asked_for_and_not_where_a_loss_is_limited():
    gain, loss = (gate(metric="component_brief", threshold=at) for at in (0.0, -0.1))
    for limit, blamed in ((gain, "brief"), (loss, None)):
        decision = judged(gate(), limit, columns={"brief": -0.1})
        failed = [c.get("labeler") for c in decision.checks if c["metric"] == "agreement"]
        assert failed == ["rules", *filter(None, [blamed])]


def test_a_judge_of_pairs_is_held_to_length_on_the_pairs_that_people_rated():
    for low in (0.1, -0.1):
        numbers = evaluation(judge={"against_length": standing(low)})
        decision = decide(numbers, promotion(gate(metric="judge_win_rate")))
        assert check_of(decision, "agreement")["passed"] is (low > 0)


def test_the_bound_is_from_the_values_of_the_prompts_and_the_worst_that_could_be():
    values = [0.2] * 40
    lows = []
    for worst in (0.0, -1.0, -5.0):
        spread = {"reward_mean": {"values": values, "worst": worst, "best": -worst}}
        numbers = evaluation((0.2, 0.2), by_prompt={"vs_reference": spread})
        lows.append(check_of(decide(numbers, promotion(gate())))["observed"])
    assert lows[0] > 0.18
    assert lows[1] > 0 > lows[2]


def test_an_upper_end_mirrors_a_lower_end():
    ends = []
    for sign, bound in ((1, "low"), (-1, "high")):
        values = [sign * value for value in (0.1, 0.5, 0.3, 0.2)]
        spread = {"values": values, "worst": -1.0, "best": 1.0}
        numbers = evaluation(by_prompt={"vs_reference": {"reward_mean": spread}})
        ends.append(check_of(decide(numbers, promotion(gate(bound=bound))))["observed"])
    assert ends[0] == pytest.approx(-ends[1])


def test_a_summary_of_an_earlier_release_is_incomplete():
    assert evaluation(by_prompt={}).is_complete
    assert not evaluation().is_complete
    values = {"num_prompts": 9, "reference": {}, "challenger": {}, "champion": None}
    stored = values | {"difference": {"vs_champion": None}, "gate": {"passed": True}}
    assert not from_json(Summary, stored).is_complete
