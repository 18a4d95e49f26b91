"""Plots of the pages, each an SVG text in the colours of its page."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rpo_pipeline.labeling import count_words

# Okabe and Ito's palette suits any colour vision. A page sets darker or lighter colours as
# variables of the same names; lines differ in their dashes as well.
COLOURS = {"reference": "#56b4e9", "challenger": "#d55e00", "champion": "#009e73"}
DASHES = {"reference": "--", "challenger": "-", "champion": ":"}
INK = "#808080"  # axes and text, replaced by the page's own colour of text
MAX_POINTS = 1000
"""Largest number of points of a plot, so that a page of a million prompts still opens."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may contain dollar signs
    "font.size": 11,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "text.color": INK,
}
Pictures = list[str]


def training_curves(metrics: pd.DataFrame) -> Pictures:
    """Plot losses of train and validation, log-probabilities, and the gradient norm by step."""
    if metrics.empty:
        return []
    drawn = metrics.iloc[:: len(metrics) // MAX_POINTS + 1]
    figure, (loss,) = new_axes(1)
    smooth = metrics["train/loss"].rolling(9, min_periods=1, center=True).mean()[drawn.index]
    loss.plot(drawn["step"], drawn["train/loss"], color=INK, alpha=0.3, linewidth=0.8)
    loss.plot(drawn["step"], smooth, color=COLOURS["reference"], label="train (smoothed)")
    if "train/validation_loss" in metrics:
        seen = metrics.dropna(subset="train/validation_loss")
        values = seen["train/validation_loss"]
        loss.plot(seen["step"], values, "o-", color=COLOURS["challenger"], label="validation")
    loss.legend(frameon=False, labelcolor=INK)
    label_axes(loss, "step", "loss", "Loss")
    shown = "log_ratio" if "train/log_ratio" in metrics else "mean_logps"
    curves = {shown: f"Mean {shown} of responses (nats)", "grad_norm": "Norm of the gradient"}
    return [
        to_svg(figure, "loss by step"),
        *(_curve(drawn, f"train/{name}", title) for name, title in curves.items()),
    ]


def _curve(metrics: pd.DataFrame, column: str, title: str) -> str:
    figure, (axes,) = new_axes(1)
    axes.plot(metrics["step"], metrics[column], color=COLOURS["champion"])
    label_axes(axes, "step", "", title)
    return to_svg(figure, title)


def partition_health(partition: pd.DataFrame) -> Pictures:
    """Plot responses per prompt, effective sample size, and targets."""
    size_figure, (size,) = new_axes(1)
    counts = partition["n"].value_counts().sort_index()
    size.bar(counts.index, counts.to_numpy(), color=COLOURS["reference"])
    label_axes(size, "responses logged", "prompts", "Responses per prompt")
    ess_figure, (ess,) = new_axes(1)
    _cloud(ess, partition["n_used"], partition["ess"], "champion")
    ess.axline((0, 0), slope=1, color=INK, linewidth=0.8, linestyle="--")
    ess.set_xlim(left=0)
    ess.set_ylim(bottom=0)
    label_axes(ess, "responses used", "effective n", "Effective sample size")
    target_figure, (target,) = new_axes(1)
    target.hist(partition["target_mean"], bins=30, color=COLOURS["challenger"])
    label_axes(target, "mean target (nats)", "prompts", "Mean target of a prompt")
    return [
        to_svg(size_figure, "responses per prompt"),
        to_svg(ess_figure, "effective sample size by responses used"),
        to_svg(target_figure, "mean target of a prompt"),
    ]


def partition_trust(partition: pd.DataFrame) -> Pictures:
    """Plot the spread of rewards in tau, and the jackknife error and bias of log_z."""
    figure, (spread,) = new_axes(1)
    spread.hist(partition["reward_std_over_tau"].dropna(), bins=30, color=COLOURS["reference"])
    label_axes(spread, "sd of reward / tau", "prompts", "Spread of rewards used")
    return [
        to_svg(figure, "spread of rewards used"),
        _trust(partition, "log_z_se", "Jackknife error of log_z"),
        _trust(partition, "log_z_bias", "Jackknife bias of log_z"),
    ]


def _trust(partition: pd.DataFrame, column: str, title: str) -> str:
    figure, (axes,) = new_axes(1)
    known = partition.dropna(subset=column)
    _cloud(axes, known["n_used"], known[column], "champion")
    axes.axhline(0, color=INK, linewidth=0.8)
    if known.empty:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not defined", transform=axes.transAxes, ha="center", color=INK)
    label_axes(axes, "responses used", "nats", title)
    return to_svg(figure, title)


def distributions(generations: pd.DataFrame) -> Pictures:
    """Plot raw reward and length of each model's responses."""
    words = count_words(generations["response"])
    return [
        _histograms(generations["raw_reward"], generations["model"], "raw reward", "Reward"),
        _histograms(words, generations["model"], "words", "Length"),
    ]


def heldout_ranking(heldout: pd.DataFrame) -> Pictures:
    """Plot the log-ratio against raw reward on logged responses of the test split."""
    figure, (axes,) = new_axes(1)
    _cloud(axes, heldout["raw_reward"], heldout["log_ratio"], "challenger")
    axes.axhline(0, color=INK, linewidth=0.8)
    label_axes(axes, "raw reward", "log-ratio (nats)", "What the policy prefers")
    return [to_svg(figure, "log-ratio against raw reward of logged responses")]


def reward_heads(label_report: Mapping[str, Any]) -> Pictures:
    """Plot mean predictions of fitted reward models against mean ratings, by tenths."""
    pictures = []
    for head in label_report.get("fitted_reward_models", []):
        tenths = pd.DataFrame(head.get("calibration", []))
        if tenths.empty:  # there were too few ratings to fit a head
            continue
        figure, (axes,) = new_axes(1)
        axes.plot(tenths["predicted"], tenths["rated"], "o-", color=COLOURS["challenger"])
        axes.axline((0, 0), slope=1, color=INK, linewidth=0.8, linestyle="--")
        title = f"Calibration of {head['labeler']}"
        label_axes(axes, "mean prediction, held out", "mean rating", title)
        pictures.append(to_svg(figure, title))
    return pictures


def new_axes(number: int) -> tuple[Figure, Sequence[Axes]]:
    """Create a figure with plots side by side and a transparent background."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * number, 3.2), layout="constrained")
        axes = figure.subplots(1, number, squeeze=False)[0]
    figure.patch.set_alpha(0)
    for one in axes:
        one.patch.set_alpha(0)
    return figure, axes


def _cloud(axes: Axes, x: pd.Series, y: pd.Series, colour: str) -> None:
    shown = x.sample(min(len(x), MAX_POINTS), random_state=0).index
    axes.scatter(x[shown], y[shown], s=12, alpha=0.4, color=COLOURS[colour])


def _histograms(values: pd.Series, models: pd.Series, unit: str, title: str) -> str:
    figure, (axes,) = new_axes(1)
    span = (float(values.min()), float(values.max()) + 1e-9)
    for model in [name for name in COLOURS if (models == name).any()]:
        axes.hist(
            values[models == model],
            bins=20,
            range=span,
            histtype="step",
            linewidth=2,
            linestyle=DASHES[model],
            color=COLOURS[model],
            label=model,
        )
    axes.legend(frameon=False, labelcolor=INK)
    label_axes(axes, unit, "responses", title)
    return to_svg(figure, f"{title} of each model's responses")


def label_axes(axes: Axes, x: str, y: str, title: str) -> None:
    """Label a plot and its axes."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left")


def to_svg(figure: Figure, title: str) -> str:
    """Draw a figure as SVG that adapts to the size and colours of the page.

    Args:
        figure: Figure to draw.
        title: Title for screen readers, which must differ among the figures of a page.

    Returns:
        ``<svg>`` element without fixed size, style sheet, metadata or names of its groups.
    """
    buffer = io.StringIO()
    none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(STYLE | {"svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata=none)
    drawing = buffer.getvalue()
    head, rest = drawing[drawing.index("<svg") :].split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    rest = re.sub(r"<style.*?</style>", "", rest, flags=re.DOTALL)
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    for name, colour in COLOURS.items():
        rest = rest.replace(colour, f"var(--{name}, {colour})")
    rest = rest.replace(INK, "currentColor")
    return f'{head} role="img" aria-label="{html.escape(title)}">{rest}'
