"""The gate: a pure function from evaluation numbers to a decision with reasons."""

from collections.abc import Mapping
from typing import Any

from rpo_pipeline.params import GateParams, PromotionParams

Metrics = Mapping[str, Any]


def decide(evaluation: Metrics, promotion: PromotionParams) -> dict[str, Any]:
    """Decide whether a challenger may become champion.

    Args:
        evaluation: ``challenger`` and ``difference`` (``vs_reference``, ``vs_champion``), each
            metric as {value, low, high}, with ``num_prompts`` and ``champion_version``.
        promotion: The gates.

    Returns:
        ``passed``, ``baseline`` (what `champion` stood for), ``champion_version`` and ``checks``,
        each with its numbers and a reason for people. A missing number fails its check.
    """
    baseline = "reference" if evaluation["difference"]["vs_champion"] is None else "champion"
    checks = [_check_size(evaluation["num_prompts"], promotion.min_test_prompts)]
    checks += [_check(evaluation, gate, baseline) for gate in promotion.gates]
    return {
        "passed": all(check["passed"] for check in checks),
        "baseline": baseline,
        "champion_version": evaluation["champion_version"],
        "checks": checks,
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


def _check(evaluation: Metrics, gate: GateParams, baseline: str) -> dict[str, Any]:
    against = baseline if gate.against == "champion" else gate.against
    numbers = (
        evaluation["challenger"] if against == "none" else evaluation["difference"][f"vs_{against}"]
    )
    observed = (numbers.get(gate.metric) or {}).get(gate.bound)
    passed = observed is not None and (
        observed > gate.threshold if gate.direction == "above" else observed < gate.threshold
    )
    return {
        **gate.model_dump(),
        "against": against,
        "observed": observed,
        "passed": passed,
        "reason": _reason(gate, against, observed),
    }


def _reason(gate: GateParams, against: str, observed: float | None) -> str:
    bound = {
        "value": "",
        "low": "lower end of the 95 % interval of ",
        "high": "upper end of the 95 % interval of ",
    }
    what = gate.metric if against == "none" else f"the difference in {gate.metric} to the {against}"
    limit = f"it must be {gate.direction} {gate.threshold:g}"
    if observed is None:
        return f"{what} was not measured; {limit}"
    return f"{bound[gate.bound]}{what} is {observed:.4g}; {limit}"
