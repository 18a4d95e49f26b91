"""Writes the comparison as a self-contained page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from rpo_pipeline.reporting.figures import COLOURS, INK, new_axes, to_svg
from rpo_pipeline.reporting.page import render_page, show_number, whisker
from rpo_pipeline.reporting.report import SIGNIFICANT, describe_metric, in_order

STUDIES = {
    "num_responses": "labelled responses a prompt, at most",
    "reward_noise": "noise on rewards, in their sd",
    "num_rewards": "number of different rewards",
    "logged_share": "share of logged responses, the others the reference's",
}
MARKERS = "os^Dv"
"""As many as are coprime to the colours, so that twenty lines differ."""


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Write the tables of a comparison with its plots.

    Args:
        comparison: Result of ``run_comparison``.

    Returns:
        HTML without external references.
    """
    names = in_order(comparison["methods"][0]["metrics"])
    return render_page(
        "comparison.html.j2",
        comparison=comparison,
        label=describe_metric(comparison["metric"])[0].lower(),
        verdict=say_verdict(comparison),
        budgets=[point["budget"] for point in comparison["methods"][0]["budgets"]],
        differences={
            method["name"]: point["difference"]
            for method in comparison["methods"]
            for point in method["budgets"]
            if point["budget"] == comparison["budget"]
        },
        compare=_compare,
        whisker_of=whisker,
        metrics={name: describe_metric(name) for name in names},
        curves=curves(comparison),
        outcomes=[_outcomes(comparison)],
        study_names=STUDIES,
        studies=[
            _study(study, points, comparison["metric"])
            for study, points in comparison["studies"].items()
        ],
    )


def say_verdict(comparison: Mapping[str, Any]) -> str:
    """Write one sentence on the winner at the main budget, and on the methods beside it."""
    winner, budget = comparison["winner"], f"{show_number(comparison['budget'])} nats"
    if winner is None:
        return f"No curve reaches {budget}."
    says = {
        "above": "clearly above",
        "level": "not to be told from",
        "out_of_reach": "without a value for",
    }
    parts = [f"{say} {', '.join(winner[key])}" for key, say in says.items() if winner[key]]
    label = describe_metric(comparison["metric"])[0].lower()
    return "; ".join([f"At {budget}, {winner['method']} has the highest {label}", *parts]) + "."


def _compare(difference: Mapping[str, float | None] | None) -> str:
    if difference is None or difference["value"] is None:
        return "none"
    p_holm = difference["p_holm"]
    if p_holm is None or p_holm >= SIGNIFICANT:
        return "unsure"
    return "better" if difference["value"] > 0 else "worse"


def curves(comparison: Mapping[str, Any]) -> Markup:
    """Plot the outcome of each method over its divergence, as far as the budgets reach.

    The axis has the square root of the divergence, in which a curve is interpolated; so its lines
    are what the budgets are read from.
    """
    axes = new_axes(9.0, 5.0)
    budgets = [point["budget"] for point in comparison["methods"][0]["budgets"]]
    end = 1.5 * max(budgets)
    start = comparison["reference"][comparison["metric"]]["value"]
    seen = [start]
    for method, style in zip(comparison["methods"], _styles(), strict=False):
        points = sorted(
            (max(0.0, point["divergence"]["value"]), point["outcome"]["value"])
            for point in method["curve"]
        )
        nats, values = zip((0.0, start), *points, strict=True)
        drawn = {"linewidth": 1.2, "markersize": 5, "markevery": slice(1, None), **style}
        axes.plot(nats, values, label=method["name"], **drawn)
        seen += [value for x, value in points if x <= end]
        seen.append(float(np.interp(np.sqrt(end), np.sqrt(nats), values)))
    axes.plot(0, start, "x", color=INK, markersize=10, clip_on=False)
    _mark_budgets(axes, budgets, comparison["budget"], end)
    margin = 0.05 * (max(seen) - min(seen)) or 0.05
    axes.set_ylim(min(seen) - margin, max(seen) + margin)
    label = describe_metric(comparison["metric"])[0]
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor=INK)
    x, says = "divergence from the reference, nats a response", f"{label} over divergence"
    return to_svg(axes, x, label.lower(), "", says=says)


def _mark_budgets(axes: Axes, budgets: Iterable[float], main: float, end: float) -> None:
    for budget in budgets:
        dashes = "-" if budget == main else "--"
        axes.axvline(budget, color=INK, linestyle=dashes, linewidth=0.8, alpha=0.6)
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.clip(x, 0, None)), np.square))
    axes.set_xlim(0, end)
    axes.set_xticks([0, *budgets], [f"{nats:g}" for nats in (0, *budgets)])


def _outcomes(comparison: Mapping[str, Any]) -> Markup:
    """Plot the mean outcome of each method at its chosen value, and that of each of its seeds."""
    axes = new_axes(5.5, 0.42 * len(comparison["methods"]) + 1.2)
    metric = comparison["metric"]
    for place, method in enumerate(comparison["methods"]):
        mean, seeds = method["metrics"][metric], method["seeds"]["outcome"]
        axes.plot([mean["low"], mean["high"]], [place, place], color=INK, linewidth=3, alpha=0.6)
        axes.plot(seeds, [place] * len(seeds), "|", color=COLOURS["challenger"], markersize=11)
        axes.plot(mean["value"], place, "o", color=COLOURS["reference"])
    axes.axvline(comparison["reference"][metric]["value"], color=INK, linestyle="--")
    axes.set_yticks(range(len(comparison["methods"])), [m["name"] for m in comparison["methods"]])
    axes.invert_yaxis()
    label = describe_metric(metric)[0].lower()
    title, says = "Mean, interval, each seed", f"{label} of each method"
    return to_svg(axes, f"{label} on test prompts", "", title, says=says)


def _study(study: str, points: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """Plot the outcome of each method over the levels of a study."""
    axes, label = new_axes(), describe_metric(metric)[0].lower()
    levels = sorted({point["level"] for point in points})
    names = list(dict.fromkeys(point["method"] for point in points))
    for number, (name, style) in enumerate(zip(names, _styles(), strict=False)):
        own = [point for point in points if point["method"] == name]
        means, low, high = (
            np.array([point["outcome"][name] for point in own], np.float64)
            for name in ("value", "low", "high")
        )
        axes.errorbar(
            [levels.index(point["level"]) + 0.08 * number for point in own],
            means,
            yerr=[means - low, high - means],
            label=name,
            **style,
        )
    axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    axes.legend(frameon=False, labelcolor=INK)
    title, says = study.replace("_", " "), f"{label} of each method by {study}"
    return to_svg(axes, STUDIES[study], label, title, says=says)


def _styles() -> Iterator[dict[str, Any]]:
    """Yield marker and colour of one line after another."""
    for marker, colour in zip(cycle(MARKERS), cycle([*COLOURS.values(), INK])):
        yield {"marker": marker, "color": colour}
