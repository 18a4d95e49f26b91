"""The gate: a pure function from evaluation numbers to a decision with reasons.

A champion that is challenged every night on the same test prompts would in the end lose to luck. So
the k-th challenger of a champion is judged by an interval that errs, on one side, with probability
``(1 - confidence) / (k (k + 1))``; these add up to ``1 - confidence`` over all challengers, however
they depend on one another (the union bound). The first one's interval is that of the summary.

Source: alpha spending with weights that sum to 1 (Foster and Stine 2008, J. R. Stat. Soc. B 70(2),
section 3); for test sets of models that are released again and again, Renggli et al. 2019 (MLSys,
ease.ml/ci), which spends evenly over a number of looks that must be known beforehand.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from scipy.stats import norm, t

from rpo_pipeline.params import GateParams, PromotionParams

Metrics = Mapping[str, Any]

SUMMARY_CONFIDENCE = 0.95
"""Of the intervals in ``summary.json``."""


@dataclass(frozen=True)
class Strictness:
    """The interval that a challenger is judged by."""

    confidence: float
    """Two-sided."""
    width: float
    """In widths of the interval in the summary."""


@cache
def strictness(confidence: float, *, look: int, num_prompts: int) -> Strictness:
    """Interval of one of the challengers of a champion.

    Args:
        confidence: That none of them, were they all no better, passes.
        look: Which challenger of this champion it is, from 1.
        num_prompts: Behind the interval; few make it wider, by Student's t, and because a bootstrap
            takes the spread of few numbers for that of all.

    Returns:
        Its confidence, and how much wider it is than the summary's.
    """
    error = (1 - confidence) / (look * (look + 1))
    n = max(2, num_prompts)
    quantile = float(t.isf(error, n - 1)) * math.sqrt(n / (n - 1))
    return Strictness(1 - 2 * error, quantile / float(norm.isf((1 - SUMMARY_CONFIDENCE) / 2)))


def decide(evaluation: Metrics, promotion: PromotionParams) -> dict[str, Any]:
    """Decide whether a challenger may become champion.

    Args:
        evaluation: ``challenger`` and ``difference`` (``vs_reference``, ``vs_champion``), each
            metric as {value, low, high}, with ``num_prompts``, ``champion_version`` and ``look``.
        promotion: The gates.

    Returns:
        ``passed``, ``baseline`` (what `champion` stood for), ``champion_version``, ``look`` and
        ``checks``, each with its numbers and a reason for people. A missing number fails its check.
    """
    baseline = "reference" if evaluation["difference"]["vs_champion"] is None else "champion"
    strict = strictness(
        promotion.confidence, look=evaluation["look"], num_prompts=evaluation["num_prompts"]
    )
    checks = [_check_size(evaluation["num_prompts"], promotion.min_test_prompts)]
    checks += [_check(evaluation, gate, baseline, strict) for gate in promotion.gates]
    return {
        "passed": all(check["passed"] for check in checks),
        "baseline": baseline,
        "champion_version": evaluation["champion_version"],
        "look": evaluation["look"],
        "checks": checks,
    }


def require_artifacts(
    decision: Mapping[str, Any], required: Collection[str], present: Collection[str]
) -> dict[str, Any]:
    """Add to a decision whether the version carries what it must.

    Args:
        decision: Of ``decide``.
        required: Names of artifacts.
        present: Those that the version has.

    Returns:
        The decision with one check more.
    """
    missing = sorted(set(required) - set(present))
    check = {
        "metric": "artifacts",
        "observed": sorted(present),
        "passed": not missing,
        "reason": f"the version lacks {', '.join(missing)} (promotion.required_artifacts)"
        if missing
        else f"the version carries the {len(set(required))} artifacts that it must",
    }
    return {
        **decision,
        "passed": decision["passed"] and not missing,
        "checks": [*decision["checks"], check],
    }


def _check_size(num_prompts: int, minimum: int) -> dict[str, Any]:
    passed = num_prompts >= minimum
    return {
        "metric": "num_prompts",
        "against": "none",
        "direction": "at_least",
        "threshold": minimum,
        "bound": "value",
        "observed": num_prompts,
        "passed": passed,
        "reason": f"{num_prompts} test prompts, {minimum} are needed",
    }


def _check(
    evaluation: Metrics, gate: GateParams, baseline: str, strict: Strictness
) -> dict[str, Any]:
    against = baseline if gate.against == "champion" else gate.against
    numbers = (
        evaluation["challenger"] if against == "none" else evaluation["difference"][f"vs_{against}"]
    )
    observed = _observe(numbers.get(gate.metric), gate.bound, strict.width)
    passed = observed is not None and (
        observed > gate.threshold if gate.direction == "above" else observed < gate.threshold
    )
    return {
        **gate.model_dump(),
        "against": against,
        "observed": observed,
        "passed": passed,
        "reason": _reason(gate, against, observed, strict.confidence),
    }


def _observe(metric: Metrics | None, bound: str, width: float) -> float | None:
    """The estimate, or an end of its interval at its present width; None if it was not measured."""
    if metric is None or metric["value"] is None:
        return None
    return float(metric["value"] + width * (metric[bound] - metric["value"]))


def _reason(gate: GateParams, against: str, observed: float | None, confidence: float) -> str:
    end = {"value": "", "low": "lower", "high": "upper"}[gate.bound]
    bound = end and f"{end} end of the {100 * confidence:.4g} % interval of "
    what = gate.metric if against == "none" else f"the difference in {gate.metric} to the {against}"
    limit = f"it must be {gate.direction} {gate.threshold:g}"
    if observed is None:
        return f"{what} was not measured; {limit}"
    return f"{bound}{what} is {observed:.4g}; {limit}"
