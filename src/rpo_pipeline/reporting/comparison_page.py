"""Writes the comparison as a self-contained page."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from rpo_pipeline.reporting.figures import COLOURS, INK, Pictures, label_axes, new_axes, to_svg
from rpo_pipeline.reporting.page import pictures, render_page, whisker
from rpo_pipeline.reporting.report import SIGNIFICANT, describe_metric, in_order

STUDIES = {
    "num_responses": "labelled responses a prompt, at most",
    "reward_noise": "noise on rewards, in their sd",
    "logged_share": "share of logged responses, the others the reference's",
}
MARKERS = "os^Dv"


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Write the table of a comparison with its plots.

    Args:
        comparison: Result of ``run_comparison``.

    Returns:
        HTML without external references.
    """
    names = in_order(comparison["methods"][0]["metrics"])
    return render_page(
        "comparison.html.j2",
        comparison=comparison,
        verdict=say_verdict(comparison),
        verdicts={m["name"]: _compare(m["difference"]) for m in comparison["methods"]},
        whiskers={m["name"]: whisker(_ends(m["difference"])) for m in comparison["methods"]},
        metrics={name: describe_metric(name) for name in names},
        rewards=pictures([rewards(comparison)]),
        temperatures=pictures(temperatures(comparison)),
        studies=pictures(studies(comparison["studies"])),
    )


def say_verdict(comparison: Mapping[str, Any]) -> str:
    """Write one sentence on the methods that reach more or less reward than the first."""
    baseline, found = comparison["baseline"], defaultdict(list)
    for method in comparison["methods"][1:]:
        found[_compare(method["difference"])].append(method["name"])
    says = {"better": "above", "worse": "below", "unsure": "not to be told from"}
    parts = [f"{say} {baseline}: {', '.join(found[k])}" for k, say in says.items() if found[k]]
    return f"In reward, {'; '.join(parts)}." if parts else f"Only {baseline} was measured."


def _compare(difference: Mapping[str, float] | None) -> str:
    if difference is None:
        return "none"
    if difference["p_holm"] >= SIGNIFICANT:
        return "unsure"
    return "better" if difference["value"] > 0 else "worse"


def _ends(difference: Mapping[str, float] | None) -> Mapping[str, float | None] | None:
    return difference and {name: difference[name] for name in ("low", "value", "high")}


def rewards(comparison: Mapping[str, Any]) -> str:
    """Plot the mean reward of each method with its interval, and of each of its seeds."""
    figure, (axes,) = new_axes(1)
    figure.set_size_inches(5.5, 0.42 * len(comparison["methods"]) + 1.2)
    for place, method in enumerate(comparison["methods"]):
        mean, seeds = method["metrics"]["reward_mean"], method["seeds"]["reward_mean"]
        axes.plot([mean["low"], mean["high"]], [place, place], color=INK, linewidth=3, alpha=0.6)
        axes.plot(seeds, [place] * len(seeds), "|", color=COLOURS["challenger"], markersize=11)
        axes.plot(mean["value"], place, "o", color=COLOURS["reference"])
    axes.axvline(comparison["reference"]["reward_mean"]["value"], color=INK, linestyle="--")
    axes.set_yticks(range(len(comparison["methods"])), [m["name"] for m in comparison["methods"]])
    axes.invert_yaxis()
    label_axes(axes, "raw reward on test prompts", "", "Mean, interval, each seed")
    return to_svg(figure, "reward of each method")


def temperatures(comparison: Mapping[str, Any]) -> Pictures:
    """Plot the reward on validation prompts over the grid of each method, on one scale."""
    values = [point["reward_mean"] for m in comparison["methods"] for point in m["grid"]]
    return [
        _temperature(method, min(values) - 0.05, max(values) + 0.05)
        for method in comparison["methods"]
    ]


def studies(results: Mapping[str, Any]) -> Pictures:
    """Plot the reward of each method over the levels of each study."""
    return [_study(study, points) for study, points in results.items()]


def _study(study: str, points: Sequence[Mapping[str, Any]]) -> str:
    figure, (axes,) = new_axes(1)
    levels = sorted({point["level"] for point in points})
    names = list(dict.fromkeys(point["method"] for point in points))
    for number, (name, colour) in enumerate(zip(names, cycle([*COLOURS.values(), INK]))):
        own = [point for point in points if point["method"] == name]
        means = [point["reward_mean"] for point in own]
        axes.errorbar(
            [levels.index(point["level"]) + 0.08 * number for point in own],
            [mean["value"] for mean in means],
            yerr=[[m["value"] - m["low"] for m in means], [m["high"] - m["value"] for m in means]],
            marker=MARKERS[number % len(MARKERS)],
            color=colour,
            label=name,
        )
    axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    axes.legend(frameon=False, labelcolor=INK)
    label_axes(axes, STUDIES[study], "raw reward", study.replace("_", " "))
    return to_svg(figure, f"reward of each method by {study}")


def _temperature(method: Mapping[str, Any], low: float, high: float) -> str:
    figure, (axes,) = new_axes(1)
    x = [point["value"] for point in method["grid"]]
    y = [point["reward_mean"] for point in method["grid"]]
    axes.plot(x, y, "o-", color=COLOURS["reference"])
    axes.set_xscale("log")
    axes.set_ylim(low, high)
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    label_axes(axes, method["parameter"], "raw reward", method["name"])
    return to_svg(figure, f"reward over the temperature of {method['name']}")
