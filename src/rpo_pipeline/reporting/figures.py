"""Plots of the pages, each an SVG text in the colours of its page."""

import html
import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
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
Pictures = list[Markup]


def training_curves(metrics: pd.DataFrame) -> Pictures:
    """Plot losses of train and validation, log-probabilities, and the gradient norm by step."""
    if metrics.empty:
        return []
    drawn = metrics.iloc[:: len(metrics) // MAX_POINTS + 1]
    axes = new_axes()
    smooth = metrics["train/loss"].rolling(9, min_periods=1, center=True).mean()[drawn.index]
    axes.plot(drawn["step"], drawn["train/loss"], color=INK, alpha=0.3, linewidth=0.8)
    axes.plot(drawn["step"], smooth, color=COLOURS["reference"], label="train (smoothed)")
    if "train/validation_loss" in metrics:
        seen = metrics.dropna(subset="train/validation_loss")
        values = seen["train/validation_loss"]
        axes.plot(seen["step"], values, "o-", color=COLOURS["challenger"], label="validation")
    axes.legend(frameon=False, labelcolor=INK)
    pictures = [to_svg(axes, "step", "loss", "Loss", says="loss by step")]
    shown = "log_ratio" if "train/log_ratio" in metrics else "mean_logps"
    curves = {shown: f"Mean {shown} of responses (nats)", "grad_norm": "Norm of the gradient"}
    for name, title in curves.items():
        axes = new_axes()
        axes.plot(drawn["step"], drawn[f"train/{name}"], color=COLOURS["champion"])
        pictures.append(to_svg(axes, "step", "", title))
    return pictures


def partition_health(partition: pd.DataFrame) -> Pictures:
    """Plot responses per prompt, effective sample size, and targets."""
    size, ess, target = new_axes(), new_axes(), new_axes()
    counts = partition["n"].value_counts().sort_index()
    size.bar(counts.index, counts.to_numpy(), color=COLOURS["reference"])
    _cloud(ess, partition["n_used"], partition["ess"], "champion")
    ess.axline((0, 0), slope=1, color=INK, linewidth=0.8, linestyle="--")
    ess.set_xlim(left=0)
    ess.set_ylim(bottom=0)
    target.hist(partition["target_mean"], bins=30, color=COLOURS["challenger"])
    return [
        to_svg(
            *(size, "responses logged", "prompts", "Responses per prompt"),
            says="responses per prompt",
        ),
        to_svg(
            *(ess, "responses used", "effective n", "Effective sample size"),
            says="effective sample size by responses used",
        ),
        to_svg(
            *(target, "mean target (nats)", "prompts", "Mean target of a prompt"),
            says="mean target of a prompt",
        ),
    ]


def partition_trust(partition: pd.DataFrame) -> Pictures:
    """Plot the spread of rewards in tau, and the jackknife error and bias of log_z."""
    axes = new_axes()
    axes.hist(partition["reward_std_over_tau"].dropna(), bins=30, color=COLOURS["reference"])
    title, says = "Spread of rewards used", "spread of rewards used"
    return [
        to_svg(axes, "sd of reward / tau", "prompts", title, says=says),
        _trust(partition, "log_z_se", "Jackknife error of log_z"),
        _trust(partition, "log_z_bias", "Jackknife bias of log_z"),
    ]


def _trust(partition: pd.DataFrame, column: str, title: str) -> Markup:
    axes = new_axes()
    known = partition.dropna(subset=column)
    _cloud(axes, known["n_used"], known[column], "champion")
    axes.axhline(0, color=INK, linewidth=0.8)
    if known.empty:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not defined", transform=axes.transAxes, ha="center", color=INK)
    return to_svg(axes, "responses used", "nats", title)


def distributions(generations: pd.DataFrame) -> Pictures:
    """Plot raw reward and length of each model's responses."""
    words = count_words(generations["response"])
    return [
        _histograms(generations["raw_reward"], generations["model"], "raw reward", "Reward"),
        _histograms(words, generations["model"], "words", "Length"),
    ]


def heldout_ranking(heldout: pd.DataFrame) -> Pictures:
    """Plot the log-ratio against raw reward on logged responses of the test split."""
    axes = new_axes()
    _cloud(axes, heldout["raw_reward"], heldout["log_ratio"], "challenger")
    axes.axhline(0, color=INK, linewidth=0.8)
    title, says = "What the policy prefers", "log-ratio against raw reward of logged responses"
    return [to_svg(axes, "raw reward", "log-ratio (nats)", title, says=says)]


def reward_heads(label_report: Mapping[str, Any]) -> Pictures:
    """Plot mean predictions of fitted reward models against mean ratings, by tenths."""
    pictures = []
    for head in label_report.get("fitted_reward_models", []):
        tenths = pd.DataFrame(head.get("calibration", []))
        if tenths.empty:  # there were too few ratings to fit a head
            continue
        axes = new_axes()
        axes.plot(tenths["predicted"], tenths["rated"], "o-", color=COLOURS["challenger"])
        axes.axline((0, 0), slope=1, color=INK, linewidth=0.8, linestyle="--")
        title = f"Calibration of {head['labeler']}"
        pictures.append(to_svg(axes, "mean prediction, held out", "mean rating", title))
    return pictures


def new_axes(width: float = 4.4, height: float = 3.2) -> Axes:
    """Create a plot of a size in inches with a transparent background."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return axes


def _cloud(axes: Axes, x: pd.Series, y: pd.Series, colour: str) -> None:
    shown = x.sample(min(len(x), MAX_POINTS), random_state=0).index
    axes.scatter(x[shown], y[shown], s=12, alpha=0.4, color=COLOURS[colour])


def _histograms(values: pd.Series, models: pd.Series, unit: str, title: str) -> Markup:
    axes = new_axes()
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
    return to_svg(axes, unit, "responses", title, says=f"{title} of each model's responses")


def to_svg(axes: Axes, x: str, y: str, title: str, *, says: str | None = None) -> Markup:
    """Label a plot, and draw it as SVG that adapts to the size and colours of the page.

    The ``<svg>`` element has no fixed size, style sheet, metadata or names of its groups. It is our
    own drawing with its texts escaped, so a page takes it as it is. What it says to screen readers,
    the title unless told otherwise, must differ among the figures of a page.
    """
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left")
    figure = axes.get_figure(root=True)
    assert figure
    says = says or title
    buffer = io.StringIO()
    none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(STYLE | {"svg.hashsalt": says}):
        figure.savefig(buffer, format="svg", metadata=none)
    drawing = buffer.getvalue()
    head, rest = drawing[drawing.index("<svg") :].split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    rest = re.sub(r"<style.*?</style>", "", rest, flags=re.DOTALL)
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    for name, colour in COLOURS.items():
        rest = rest.replace(colour, f"var(--{name}, {colour})")
    rest = rest.replace(INK, "currentColor")
    return Markup(f'{head} role="img" aria-label="{html.escape(says)}">{rest}')
