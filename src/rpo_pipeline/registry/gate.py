"""The gate: a pure function from evaluation numbers to a decision with reasons.

A look is one comparison of challengers with a champion. A champion that is challenged every night
on the same test prompts would in the end lose by chance. So the k-th look uses a one-sided bound
with error probability ``(1 - confidence) / (k (k + 1))``; these add up to ``1 - confidence`` over
all looks, for any dependence between them (the union bound). The bound of a mean over prompts also
allows for losses too rare to be in the sample (``core.bounds``); the interval of other metrics is
widened, and is about as reliable as the original interval.

The first checks are about the labelers: the log has ratings, and the labelers agree with them more
than length does.

Source: alpha spending with weights that sum to 1 (Foster and Stine 2008, J. R. Stat. Soc. B 70(2),
section 3); for test sets of models that are released again and again, Renggli et al. 2019 (MLSys,
ease.ml/ci), which spends evenly over a number of looks that must be known beforehand.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from scipy.stats import norm, t

from rpo_pipeline.core import lower_bound
from rpo_pipeline.params import GateParams, PromotionParams
from rpo_pipeline.records import Decision, Evidence

SUMMARY_CONFIDENCE = 0.95
"""Confidence of the intervals in ``summary.json``."""
BY_FIRST_LABELER = ("reward_mean", "win_rate", "length_controlled_win_rate")
COMPONENT = "component_"
JUDGE = "judge_win_rate"


@dataclass(frozen=True)
class Strictness:
    """Interval that a gate uses."""

    error: float
    """Error probability of each end."""
    width: float
    """Width as a multiple of the summary's interval, for metrics that are no mean over prompts."""

    @property
    def confidence(self) -> float:
        """Two-sided confidence."""
        return 1 - 2 * self.error


@cache
def strictness(confidence: float, *, look: int, num_prompts: int) -> Strictness:
    """Compute the interval of the look with this number, from 1, at challengers of a champion.

    ``confidence`` is the probability that no challenger passes if all are no better. Few prompts
    make the interval wider, by Student's t and because a bootstrap underestimates the spread.
    """
    error = (1 - confidence) / (look * (look + 1))
    n = max(2, num_prompts)
    quantile = float(t.isf(error, n - 1)) * math.sqrt(n / (n - 1))
    return Strictness(error, quantile / float(norm.isf((1 - SUMMARY_CONFIDENCE) / 2)))


def decide(evidence: Evidence, promotion: PromotionParams) -> Decision:
    """Decide by complete evidence whether a challenger may become champion.

    A missing number fails its check.
    """
    assert evidence.look is not None
    baseline = "reference" if evidence.difference["vs_champion"] is None else "champion"
    look, num_prompts = evidence.look, evidence.num_prompts
    strict = strictness(promotion.confidence, look=look, num_prompts=num_prompts)
    checks = [_check_ratings(evidence, promotion), *_check_labelers(evidence, promotion)]
    checks += [_check_size(num_prompts, promotion.min_test_prompts)]
    checks += [_check(evidence, gate, baseline, strict) for gate in promotion.gates]
    return Decision(
        passed=all(check["passed"] for check in checks),
        baseline=baseline,
        champion_version=evidence.champion_version,
        look=look,
        checks=tuple(checks),
    )


def require_artifacts(
    decision: Decision, required: Collection[str], present: Collection[str]
) -> Decision:
    """Add a check to a decision that the names of a version's artifacts include all required."""
    missing = sorted(set(required) - set(present))
    check = {
        "metric": "artifacts",
        "observed": sorted(present),
        "passed": not missing,
        "reason": f"the version lacks {', '.join(missing)} (promotion.required_artifacts)"
        if missing
        else f"the version carries the {len(set(required))} artifacts that it must",
    }
    passed = decision.passed and not missing
    return replace(decision, passed=passed, checks=(*decision.checks, check))


def waived(decision: Decision) -> list[str]:
    """Collect the reasons of the checks that failed but are not required."""
    return [check["reason"] for check in decision.checks if check.get("waived")]


def _check_ratings(evidence: Evidence, promotion: PromotionParams) -> dict[str, Any]:
    found = (evidence.labelers or {}).get("num_rated", 0)
    fact = f"people rated {found} rows of the log"
    waiver = _waiver(promotion, "require_ratings")
    return {"metric": "ratings", "observed": found, **_outcome(found > 0, fact, waiver)}


def _check_labelers(evidence: Evidence, promotion: PromotionParams) -> Iterator[dict[str, Any]]:
    """Check that each labeler of a gate's metric agrees with ratings more than length does."""
    labelers, waiver = evidence.labelers or {}, _waiver(promotion, "require_agreement")
    for judge in dict.fromkeys(filter(None, map(_judge_of, promotion.gates))):
        name = labelers.get("judge", "the first labeler") if judge in BY_FIRST_LABELER else judge
        found = labelers.get("columns", {}).get(name)
        if judge == JUDGE:
            found = (evidence.judge or {}).get("against_length")
        low = found and found["low"]
        fact = (
            f"`{name}` was compared with no held-out human ratings that differ"
            if low is None
            else f"`{name}` orders {found['agreement']:.1%} of the responses that people rated "
            f"as they do, length alone {found['length_agreement']:.1%} (pairs {found['pairs']}, "
            f"{found['num_prompts']} prompts held out); the lower end of the 95 % interval of the "
            f"difference is {low:.4g}, and it must be above 0"
        )
        yield {
            **{"metric": "agreement", "labeler": name, "observed": low},
            **_outcome(low is not None and low > 0, fact, waiver),
        }


def _judge_of(gate: GateParams) -> str | None:
    """Name the labeler of a gate's metric; the first labeler's metrics share one name."""
    if gate.metric in BY_FIRST_LABELER:
        return BY_FIRST_LABELER[0]
    if gate.metric == JUDGE:
        return JUDGE
    demands_a_gain = gate.direction == "above" and gate.threshold >= 0
    if gate.metric.startswith(COMPONENT) and demands_a_gain:
        return gate.metric.removeprefix(COMPONENT)
    return None


def _waiver(promotion: PromotionParams, name: str) -> str | None:
    """Return the cause why a check of labelers is not required, if there is one."""
    if promotion.version is not None:
        return "a person named the version (promotion.version)"
    return None if getattr(promotion, name) else f"promotion.{name} is false"


def _outcome(passed: bool, fact: str, waiver: str | None) -> dict[str, Any]:
    if passed or not waiver:
        return {"passed": passed, "waived": False, "reason": fact}
    return {"passed": True, "waived": True, "reason": f"{fact}; not required: {waiver}"}


def _check_size(num_prompts: int, minimum: int) -> dict[str, Any]:
    return {
        "metric": "num_prompts",
        "against": "none",
        "direction": "at_least",
        "threshold": minimum,
        "bound": "value",
        "observed": num_prompts,
        "passed": num_prompts >= minimum,
        "reason": f"{num_prompts} test prompts, {minimum} are needed",
    }


def _check(
    evidence: Evidence, gate: GateParams, baseline: str, strict: Strictness
) -> dict[str, Any]:
    against = baseline if gate.against == "champion" else gate.against
    whose = "challenger" if against == "none" else f"vs_{against}"
    numbers = evidence.challenger if against == "none" else evidence.versus(against)
    by_prompt = (evidence.by_prompt or {}).get(whose, {})
    observed = _observe(numbers.get(gate.metric), by_prompt.get(gate.metric), gate.bound, strict)
    passed = observed is not None and (
        observed > gate.threshold if gate.direction == "above" else observed < gate.threshold
    )
    one_more = gate.metric in by_prompt
    return {
        **gate.model_dump(),
        "against": against,
        "observed": observed,
        "passed": passed,
        "reason": _reason(gate, against, observed, strict.confidence, one_more=one_more),
    }


def _observe(
    metric: Mapping[str, Any] | None,
    by_prompt: Mapping[str, Any] | None,
    bound: str,
    strict: Strictness,
) -> float | None:
    """Return the estimate, or an end of its interval for this look; None if not measured."""
    if metric is None or metric["value"] is None:
        return None
    if bound == "value":
        return float(metric["value"])
    if by_prompt is None:
        return float(metric["value"] + strict.width * (metric[bound] - metric["value"]))
    values = torch.tensor(by_prompt["values"], dtype=torch.float64)
    sign, end = (1, "worst") if bound == "low" else (-1, "best")
    worst = torch.tensor(sign * by_prompt[end], dtype=torch.float64)
    return sign * float(lower_bound(sign * values, worst, error=strict.error))


def _reason(
    gate: GateParams, against: str, observed: float | None, confidence: float, *, one_more: bool
) -> str:
    end = {"value": "", "low": "lower", "high": "upper"}[gate.bound]
    bound = end and f"{end} end of the {100 * confidence:.4g} % interval of "
    if end and one_more:
        bound = f"with one more prompt on which the worst happens, the {bound}"
    what = gate.metric if against == "none" else f"the difference in {gate.metric} to the {against}"
    limit = f"it must be {gate.direction} {gate.threshold:g}"
    if observed is None:
        return f"{what} was not measured; {limit}"
    return f"{bound}{what} is {observed:.4g}; {limit}"
