"""The report: one HTML file that stands alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel

from rpo_pipeline.data.chats import render_prompt
from rpo_pipeline.evaluation import figures
from rpo_pipeline.secrets import hide_in

SAMPLES_EACH = 6

# Name, what it means, and which way is better (0: neither).
METRICS = {
    "reward_mean": ("Reward", "mean raw reward of the evaluation labeler", 1),
    "win_rate": ("Win rate", "share of responses that beat the reference's, ties half", 1),
    "toxicity_mean": ("Toxicity", "share of responses with a word of the list", -1),
    "component_sentiment": ("Sentiment", "VADER compound score, -1 to 1", 1),
    "component_coverage": ("Coverage", "share of the prompt's details that are named", 1),
    "length_controlled_win_rate": ("Win rate at equal length", "by a logistic regression", 1),
    "chrf": ("chrF", "overlap with the best-rated logged response", 1),
    "rouge_l": ("ROUGE-L", "overlap with the best-rated logged response", 1),
    "bleu": ("BLEU", "overlap with the best-rated logged response", 1),
    "distinct_1": ("Distinct-1", "different words over all words", 1),
    "distinct_2": ("Distinct-2", "different word pairs over all pairs", 1),
    "vocabulary_entropy": ("Entropy of words", "bits a word", 1),
    "self_bleu": ("Self-BLEU", "overlap with its other responses to the prompt", -1),
    "repetition": ("Repetition", "share of three-word runs that came before", -1),
    "copied": ("Copied", "share of responses that stand in train word by word", 0),
    "kl_reference": ("KL to reference", "mean log-ratio of own samples, nats a response", 0),
    "kl_from_reference": ("KL from reference", "the same on the reference's samples", 0),
    "reference_nll": ("Surprise", "nats a token, by the reference", 0),
    "rank_correlation": ("Rank correlation", "log-ratio with reward within held-out prompts", 1),
    "pair_accuracy": ("Pair accuracy", "held-out pairs that log-ratio and reward order alike", 1),
    "length_mean": ("Length", "words a response", 0),
    "num_tokens_mean": ("Tokens", "tokens a response", 0),
    "empty_share": ("Empty", "share of empty responses", -1),
}


@dataclass(frozen=True)
class Findings:
    """What the report is made from."""

    summary: Mapping[str, Any]
    generations: pd.DataFrame
    heldout: pd.DataFrame
    row_account: Mapping[str, int]
    data_reports: Mapping[str, Mapping[str, Any]]
    """What is known of data, labels and rewards, by title."""
    partition: pd.DataFrame
    partition_health: Mapping[str, Any]
    training_metrics: pd.DataFrame
    parameters: Mapping[str, Any]
    mlflow_run: Mapping[str, str]


def render(findings: Findings) -> str:
    """Render the report; every text from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("rpo_pipeline.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    pictures = {
        "training": figures.training_curves(findings.training_metrics),
        "partition": figures.partition_health(findings.partition),
        "trust": figures.partition_trust(findings.partition),
        "distributions": figures.distributions(findings.generations),
        "heldout": figures.heldout_ranking(findings.heldout),
    }
    return environment.get_template("report.html.j2").render(
        summary=findings.summary,
        gate=findings.summary["gate"],
        rows=_metric_rows(findings.summary),
        baseline=findings.summary["gate"]["baseline"],
        pictures={name: Markup(picture) for name, picture in pictures.items()},
        samples=_samples(findings.generations),
        row_account=findings.row_account,
        data_reports=findings.data_reports,
        health=findings.partition_health,
        parameters={
            name: _plain(block)
            for name, block in hide_in(findings.parameters).items()
            if not name.startswith("_")  # helpers of the YAML
        },
        run=hide_in(findings.mlflow_run),
    )


def _metric_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    baseline = summary["gate"]["baseline"]
    rows = []
    for name, (label, meaning, better) in METRICS.items():
        if name in summary["challenger"]:
            difference = summary["difference"][f"vs_{baseline}"].get(name)
            rows.append(
                {
                    "label": label,
                    "meaning": meaning,
                    "reference": summary["reference"].get(name),
                    "champion": (summary["champion"] or {}).get(name),
                    "challenger": summary["challenger"][name],
                    "difference": difference,
                    "verdict": _verdict(difference, better),
                }
            )
    return rows


def _verdict(difference: Mapping[str, Any] | None, better: int) -> str:
    """Whether the whole interval of a difference lies on one side of 0."""
    if not difference or difference["low"] is None or not better:
        return "none"
    low, high = sorted((difference["low"] * better, difference["high"] * better))
    return "better" if low > 0 else "worse" if high < 0 else "unsure"


def _samples(generations: pd.DataFrame) -> list[dict[str, Any]]:
    """Side by side: where the challenger gained most, lost most, and a few at random."""
    first = generations[generations["sample"] == 0]
    wide = first.pivot(index="prompt_id", columns="model", values=["response", "raw_reward"])
    prompts = first.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"].map(render_prompt)
    gain = (wide["raw_reward"]["challenger"] - wide["raw_reward"]["reference"]).astype(float)
    order = gain.sort_values(kind="stable").index
    chosen = {
        "random": sorted(order)[:SAMPLES_EACH],  # the ids are hashes
        "best": list(order[::-1][:SAMPLES_EACH]),
        "worst": list(order[:SAMPLES_EACH]),
    }
    models = [name for name in figures.COLOURS if name in wide["response"]]
    return [
        {
            "kind": kind,
            "prompt": prompts[prompt_id],
            "gain": gain[prompt_id],
            "answers": [
                (model, wide["response"][model][prompt_id], wide["raw_reward"][model][prompt_id])
                for model in models
            ],
        }
        for kind, prompt_ids in chosen.items()
        for prompt_id in prompt_ids
    ]


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _plain(block: Any) -> Any:  # noqa: ANN401 (parameters are nested any way)
    if isinstance(block, BaseModel):
        return block.model_dump()
    return block
