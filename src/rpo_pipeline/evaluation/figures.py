"""Pictures of the report: SVG text, readable on light and on dark paper."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rpo_pipeline.evaluation.metrics import count_words

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = {"reference": "#56B4E9", "challenger": "#D55E00", "champion": "#009E73"}
INK = "#808080"  # readable on white and on near-black

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "text.color": INK,
}


def training_curves(metrics: pd.DataFrame) -> str:
    """Loss on train and validation, and how likely the responses became, by step."""
    figure, (loss, ratio) = new_axes(2)
    if len(metrics):
        smooth = metrics["train/loss"].rolling(9, min_periods=1, center=True).mean()
        loss.plot(metrics["step"], metrics["train/loss"], color=INK, alpha=0.3, linewidth=0.8)
        loss.plot(metrics["step"], smooth, color=COLOURS["reference"], label="train (smoothed)")
        if "train/validation_loss" in metrics:
            seen = metrics.dropna(subset="train/validation_loss")
            loss.plot(
                seen["step"],
                seen["train/validation_loss"],
                color=COLOURS["challenger"],
                marker="o",
                label="validation",
            )
        loss.legend(frameon=False, labelcolor=INK)
        shown = "log_ratio" if "train/log_ratio" in metrics else "mean_logps"
        ratio.plot(metrics["step"], metrics[f"train/{shown}"], color=COLOURS["champion"])
        label_axes(ratio, "step", "nats", f"Mean {shown} of a step's responses")
    label_axes(loss, "step", "loss", "Loss")
    return to_svg(figure, "training curves")


def partition_health(partition: pd.DataFrame) -> str:
    """Responses per prompt, effective sample size, and targets."""
    figure, (size, ess, target) = new_axes(3)
    counts = partition["n"].value_counts().sort_index()
    size.bar(counts.index, counts.to_numpy(), color=COLOURS["reference"])
    label_axes(size, "responses logged", "prompts", "Responses per prompt")
    ess.scatter(partition["n_used"], partition["ess"], s=12, alpha=0.4, color=COLOURS["champion"])
    ess.axline((0, 0), slope=1, color=INK, linewidth=0.8, linestyle="--")
    ess.set_xlim(left=0)
    ess.set_ylim(bottom=0)
    label_axes(ess, "responses used", "effective n", "Effective sample size")
    target.hist(partition["target_mean"], bins=30, color=COLOURS["challenger"])
    label_axes(target, "mean target (nats)", "prompts", "Mean target of a prompt")
    return to_svg(figure, "partition health")


def partition_trust(partition: pd.DataFrame) -> str:
    """Spread of rewards in tau, and jackknife error and bias of log_z."""
    figure, (spread, error, bias) = new_axes(3)
    spread.hist(partition["reward_std_over_tau"].dropna(), bins=30, color=COLOURS["reference"])
    label_axes(spread, "sd of reward / tau", "prompts", "Spread of rewards used")
    for axes, column, title in (
        (error, "log_z_se", "Jackknife error of log_z"),
        (bias, "log_z_bias", "Jackknife bias of log_z"),
    ):
        known = partition.dropna(subset=column)
        axes.scatter(known["n_used"], known[column], s=12, alpha=0.4, color=COLOURS["champion"])
        axes.axhline(0, color=INK, linewidth=0.8)
        if known.empty:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "not defined", transform=axes.transAxes, ha="center", color=INK)
        label_axes(axes, "responses used", "nats", title)
    return to_svg(figure, "trust in log_z")


def distributions(generations: pd.DataFrame) -> str:
    """Raw reward and length of each model's responses."""
    figure, (reward, length) = new_axes(2)
    words = count_words(generations["response"])
    _histograms(reward, generations["raw_reward"], generations["model"])
    _histograms(length, words, generations["model"])
    reward.legend(frameon=False, labelcolor=INK)
    label_axes(reward, "raw reward", "responses", "Reward")
    label_axes(length, "words", "responses", "Length")
    return to_svg(figure, "distributions of reward and length")


def heldout_ranking(heldout: pd.DataFrame) -> str:
    """Log-ratio against raw reward on logged responses of the test split."""
    figure, (axes,) = new_axes(1)
    axes.scatter(
        heldout["raw_reward"], heldout["log_ratio"], s=12, alpha=0.4, color=COLOURS["challenger"]
    )
    axes.axhline(0, color=INK, linewidth=0.8)
    label_axes(axes, "raw reward", "log-ratio (nats)", "What the policy learned to prefer")
    return to_svg(figure, "log-ratio against reward")


def new_axes(number: int) -> tuple[Figure, Sequence[Axes]]:
    """A figure of plots side by side, without a ground of its own."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * number, 3.2), layout="constrained")
        axes = figure.subplots(1, number, squeeze=False)[0]
    figure.patch.set_alpha(0)
    for one in axes:
        one.patch.set_alpha(0)
    return figure, axes


def _histograms(axes: Axes, values: pd.Series, models: pd.Series) -> None:
    span = (float(values.min()), float(values.max()) + 1e-9)
    for model in [name for name in COLOURS if (models == name).any()]:
        axes.hist(
            values[models == model],
            bins=30,
            range=span,
            histtype="step",
            linewidth=2,
            color=COLOURS[model],
            label=model,
        )


def label_axes(axes: Axes, x: str, y: str, title: str) -> None:
    """Name a plot and what its axes show."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left")


def to_svg(figure: Figure, title: str) -> str:
    """A figure as SVG that fits its place; the title is for screen readers."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    # Fixed sizes off, a name for screen readers on.
    start = drawing.index("<svg")
    head, rest = drawing[start:].split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{title}">{rest}'
