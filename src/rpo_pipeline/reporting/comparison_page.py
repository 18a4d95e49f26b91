"""Writes the comparison as a self-contained page."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from markupsafe import Markup

from rpo_pipeline.reporting.figures import COLOURS, INK, new_axes, to_svg
from rpo_pipeline.reporting.page import render_page, whisker
from rpo_pipeline.reporting.report import SIGNIFICANT, describe_metric, in_order

STUDIES = {
    "num_responses": "labelled responses a prompt, at most",
    "reward_noise": "noise on rewards, in their sd",
    "logged_share": "share of logged responses, the others the reference's",
}
MARKERS = "os^Dv"


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Write the table of a comparison by ``run_comparison`` with its plots, as HTML."""
    names = in_order(comparison["methods"][0]["metrics"])
    return render_page(
        "comparison.html.j2",
        comparison=comparison,
        verdict=say_verdict(comparison),
        verdicts={m["name"]: _compare(m["difference"]) for m in comparison["methods"]},
        whiskers={m["name"]: whisker(m["difference"]) for m in comparison["methods"]},
        metrics={name: describe_metric(name) for name in names},
        rewards=[_rewards(comparison)],
        temperatures=_temperatures(comparison),
        studies=[_study(study, points) for study, points in comparison["studies"].items()],
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


def _rewards(comparison: Mapping[str, Any]) -> Markup:
    """Plot the mean reward of each method with its interval, and of each of its seeds."""
    axes = new_axes(5.5, 0.42 * len(comparison["methods"]) + 1.2)
    for place, method in enumerate(comparison["methods"]):
        mean, seeds = method["metrics"]["reward_mean"], method["seeds"]["reward_mean"]
        axes.plot([mean["low"], mean["high"]], [place, place], color=INK, linewidth=3, alpha=0.6)
        axes.plot(seeds, [place] * len(seeds), "|", color=COLOURS["challenger"], markersize=11)
        axes.plot(mean["value"], place, "o", color=COLOURS["reference"])
    axes.axvline(comparison["reference"]["reward_mean"]["value"], color=INK, linestyle="--")
    axes.set_yticks(range(len(comparison["methods"])), [m["name"] for m in comparison["methods"]])
    axes.invert_yaxis()
    title, says = "Mean, interval, each seed", "reward of each method"
    return to_svg(axes, "raw reward on test prompts", "", title, says=says)


def _temperatures(comparison: Mapping[str, Any]) -> list[Markup]:
    """Plot the reward on validation prompts over the grid of each method, on one scale."""
    values = [point["reward_mean"] for m in comparison["methods"] for point in m["grid"]]
    pictures = []
    for method in comparison["methods"]:
        axes = new_axes()
        x = [point["value"] for point in method["grid"]]
        y = [point["reward_mean"] for point in method["grid"]]
        axes.plot(x, y, "o-", color=COLOURS["reference"])
        axes.set_xscale("log")
        axes.set_ylim(min(values) - 0.05, max(values) + 0.05)
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
        says = f"reward over the temperature of {method['name']}"
        pictures.append(to_svg(axes, method["parameter"], "raw reward", method["name"], says=says))
    return pictures


def _study(study: str, points: Sequence[Mapping[str, Any]]) -> Markup:
    """Plot the reward of each method over the levels of a study."""
    axes = new_axes()
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
    title, says = study.replace("_", " "), f"reward of each method by {study}"
    return to_svg(axes, STUDIES[study], "raw reward", title, says=says)
