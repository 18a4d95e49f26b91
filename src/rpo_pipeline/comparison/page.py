"""The comparison as a page that stands alone."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rpo_pipeline.evaluation.figures import COLOURS, INK, label_axes, new_axes, to_svg

STUDY_TITLES = {
    "num_responses": "Responses a prompt, at most",
    "reward_noise": "Noise on rewards, in their sd",
    "logged_share": "Share of logged responses, the others the reference's",
}


def render(comparison: Mapping[str, Any]) -> str:
    """Write the table of a comparison with its pictures.

    Args:
        comparison: As ``run.run_comparison`` gives it.

    Returns:
        HTML without a reference to anything outside.
    """
    environment = Environment(
        loader=PackageLoader("rpo_pipeline.comparison"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {"rewards": rewards(comparison), "temperatures": temperatures(comparison)}
    if comparison["studies"]:
        pictures["studies"] = studies(comparison["studies"])
    return environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        pictures={name: Markup(picture) for name, picture in pictures.items()},
    )


def rewards(comparison: Mapping[str, Any]) -> str:
    """Mean reward of each method with its interval, and of each of its seeds."""
    figure, (axes,) = new_axes(1)
    figure.set_size_inches(9, 0.45 * len(comparison["methods"]) + 1.2)
    for place, method in enumerate(comparison["methods"]):
        mean, seeds = method["metrics"]["reward_mean"], method["seeds"]["reward_mean"]
        axes.plot([mean["low"], mean["high"]], [place, place], color=INK, linewidth=3, alpha=0.6)
        axes.plot(seeds, [place] * len(seeds), "|", color=COLOURS["challenger"], markersize=11)
        axes.plot(mean["value"], place, "o", color=COLOURS["reference"])
    axes.axvline(comparison["reference"]["reward_mean"]["value"], color=INK, linestyle="--")
    axes.set_yticks(range(len(comparison["methods"])), [m["name"] for m in comparison["methods"]])
    axes.invert_yaxis()
    label_axes(axes, "raw reward on test prompts", "", "Reward: mean, interval, each seed")
    return to_svg(figure, "reward of each method")


def temperatures(comparison: Mapping[str, Any]) -> str:
    """Reward on validation prompts over the grid of each method's temperature."""
    number = len(comparison["methods"])
    figure, plots = new_axes(number)
    figure.set_size_inches(2.6 * number, 2.8)
    values = [point["reward_mean"] for m in comparison["methods"] for point in m["grid"]]
    for axes, method in zip(plots, comparison["methods"], strict=True):
        x = [point["value"] for point in method["grid"]]
        y = [point["reward_mean"] for point in method["grid"]]
        axes.plot(x, y, "o-", color=COLOURS["reference"])
        axes.set_xscale("log")
        axes.set_ylim(min(values) - 0.05, max(values) + 0.05)
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
        label_axes(axes, method["parameter"], "", method["name"])
    return to_svg(figure, "reward over the temperature of each method")


def studies(results: Mapping[str, Any]) -> str:
    """Reward of each method over the levels of what was changed in the log."""
    figure, plots = new_axes(len(results))
    figure.set_size_inches(4.2 * len(results), 3.4)
    names = list(dict.fromkeys(p["method"] for points in results.values() for p in points))
    colours = dict(zip(names, [*COLOURS.values(), "#E69F00", "#CC79A7", INK], strict=False))
    for axes, (study, points) in zip(plots, results.items(), strict=True):
        levels = sorted({point["level"] for point in points})
        for number, name in enumerate(names):
            own = [point for point in points if point["method"] == name]
            means = [point["reward_mean"] for point in own]
            axes.errorbar(
                [levels.index(point["level"]) + 0.08 * number for point in own],
                [mean["value"] for mean in means],
                yerr=[
                    [m["value"] - m["low"] for m in means],
                    [m["high"] - m["value"] for m in means],
                ],
                marker="o",
                color=colours.get(name, INK),
                label=name,
            )
        axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
        label_axes(axes, study.replace("_", " "), "raw reward", STUDY_TITLES[study])
    plots[0].legend(frameon=False, labelcolor=INK)
    return to_svg(figure, "reward of each method on logs that were changed")
