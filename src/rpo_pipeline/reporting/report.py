"""Writes the report, one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from rpo_pipeline import __version__
from rpo_pipeline.records import Decision, Reports, RunAddress, Summary
from rpo_pipeline.reporting import figures
from rpo_pipeline.reporting.page import render_page, show_number, whisker
from rpo_pipeline.reporting.samples import choose_samples
from rpo_pipeline.secrets import hide_in
from rpo_pipeline.storage import model_fingerprint, value_digest

# Each metric has a label, a meaning, and its better direction (0: neither).
METRICS = {
    "reward_mean": ("Reward", "mean raw reward of the evaluation labeler", 1),
    "win_rate": ("Win rate", "share of responses that beat the reference's, ties half", 1),
    "toxicity_mean": ("Toxicity", "share of responses with a word of the list", -1),
    "toxicity_p95": ("Toxicity, 95th percentile", "nineteen of twenty responses are below", -1),
    "toxic_share": ("Toxic", "share of responses whose toxicity is above 1/2", -1),
    "judge_win_rate": ("Judge's win rate", "pairs that a language model prefers, ties half", 1),
    "component_sentiment": ("Sentiment", "VADER compound score, -1 to 1", 1),
    "component_coverage": ("Coverage", "share of the prompt's details that are named", 1),
    "length_controlled_win_rate": ("Win rate at equal length", "by a logistic regression", 1),
    "chrf": ("chrF", "overlap with the best-rated logged response", 1),
    "rouge_l": ("ROUGE-L", "overlap with the best-rated logged response", 1),
    "bleu": ("BLEU", "overlap with the best-rated logged response", 1),
    "embedding_similarity": ("Likeness", "cosine with the best-rated logged response", 1),
    "bert_score": ("BERTScore", "F1 with the best-rated logged response", 1),
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
    "calibration_slope": (
        "Calibration",
        "rise of log-ratio over that of reward / tau; 1 is right",
        0,
    ),
    "length_mean": ("Length", "words a response", 0),
    "num_tokens_mean": ("Tokens", "tokens a response", 0),
    "empty_share": ("Empty", "share of empty responses", -1),
}
# Descriptions of other metrics by the start of their names.
FAMILIES = {
    "lm_eval_": "task of the lm-evaluation-harness",
    "component_": "component of a labeler, or its raw reward",
}
SIGNIFICANT = 0.05
"""Holm's p-value below which a difference counts."""
MODELS = ("reference", "champion", "challenger")


@dataclass(frozen=True)
class Findings:
    """Results that the report shows."""

    summary: Summary
    generations: pd.DataFrame
    heldout: pd.DataFrame
    reports: Reports
    partition: pd.DataFrame
    training_metrics: pd.DataFrame
    parameters: Mapping[str, Any]
    lineage: Mapping[str, str]
    """Names and values of the run and of its inputs."""


def render_report(findings: Findings) -> str:
    """Render the report; every text from the data is escaped."""
    summary, gate, reports = findings.summary, findings.summary.gate, findings.reports
    parameters = {
        name: block.model_dump() if isinstance(block, BaseModel) else block
        for name, block in hide_in(findings.parameters).items()
        if not name.startswith("_")  # helpers of the YAML
    }
    return render_page(
        "report.html.j2",
        summary=summary,
        gate=gate,
        verdict=say_verdict(gate, parameters["promotion"]["mode"]),
        gain=summary.versus(gate.baseline)["reward_mean"],
        models=[name for name in MODELS if summary.of(name)],
        metrics=metric_rows(summary),
        pictures={
            "training": figures.training_curves(findings.training_metrics),
            "partition": figures.partition_health(findings.partition),
            "trust": figures.partition_trust(findings.partition),
            "distributions": [
                *figures.distributions(findings.generations),
                *figures.heldout_ranking(findings.heldout),
            ],
            "heads": figures.reward_heads(reports.data_reports.get("Labels", {})),
        },
        samples=choose_samples(findings.generations, gate.baseline),
        row_account=reports.row_account,
        reasons=reports.reasons,
        source_parts=reports.source_parts,
        data_reports=reports.data_reports,
        health=reports.partition_health,
        parameters=parameters,
        lineage=hide_in(findings.lineage),
    )


def describe_lineage(run: RunAddress, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Describe the run, its code, and its data and models by their fingerprints, by label."""
    commit = run.versions.get("mlflow.source.git.commit", "no checkout")
    dirty = run.versions.get("git.dirty") == "True"
    return {
        "MLflow run": run.run_id,
        "git commit": f"{commit}, with changes" if dirty else commit,
        "constraints": run.versions.get("constraints.sha256", "none"),
        **fingerprints,
        "rpo_pipeline": __version__,
    }


def fingerprint_inputs(
    source_parts: Sequence[Mapping[str, Any]], models: Mapping[str, Path]
) -> dict[str, str]:
    """Compute digests of the source files and of the models' directories, by label."""
    digest = value_digest([part["key"] for part in source_parts])
    own = {f"{name} fingerprint": model_fingerprint(model) for name, model in models.items()}
    return {"data digest": digest, **own}


def say_verdict(gate: Decision, mode: str) -> str:
    """Say in one sentence whether the challenger is promoted, and why.

    A report is written before the decision is applied, so it says what the numbers allow.
    """
    failed = [_say_failure(check) for check in gate.checks if not check["passed"]]
    if failed:
        return f"Not promoted: {'; '.join(failed)}."
    waits = ", and waits for a person (promotion.mode: manual)" if mode == "manual" else ""
    although = [check["reason"] for check in gate.checks if check.get("waived")]
    holds = "; although ".join(["every condition of the gate holds", *although])
    return f"Earns promotion{waits}: {holds}."


def _say_failure(check: Mapping[str, Any]) -> str:
    if "waived" in check:  # this is a check of labelers, not of the models
        return str(check["reason"])
    if check["metric"] == "num_prompts":
        return f"{check['observed']} test prompts are too few, {check['threshold']} are needed"
    label = describe_metric(check["metric"])[0]
    what = label if label[1:2].isupper() else label[:1].lower() + label[1:]
    if check["against"] != "none":
        what = f"the difference in {what} to the {check['against']}"
    if check["observed"] is None:
        return f"{what} was not measured"
    may = {"low": "may be as low as", "high": "may be as high as", "value": "is"}[check["bound"]]
    return (
        f"{what} {may} {show_number(check['observed'])} and must be {check['direction']} "
        f"{show_number(check['threshold'])}"
    )


def describe_metric(name: str) -> tuple[str, str, int]:
    """Return label, meaning and better direction of a metric; an unknown one keeps its name."""
    start = next((start for start in FAMILIES if name.startswith(start)), "")
    label = name.removeprefix(start).replace("_", " ")
    return METRICS.get(name) or (label[:1].upper() + label[1:], FAMILIES.get(start, ""), 0)


def in_order(measured: Mapping[str, Any]) -> list[str]:
    """Sort the names of metrics, the known ones first."""
    return [*(name for name in METRICS if name in measured), *sorted(measured.keys() - METRICS)]


def metric_rows(summary: Summary) -> list[dict[str, Any]]:
    """List every metric of the challenger, the known ones first."""
    baseline, rows = summary.gate.baseline, []
    differences, p_holm = summary.versus(baseline), summary.p_holm[f"vs_{baseline}"]
    for name in in_order(summary.challenger):
        label, meaning, better = describe_metric(name)
        difference = differences.get(name)
        rows.append(
            {
                "label": label,
                "meaning": meaning,
                "values": {model: (summary.of(model) or {}).get(name) for model in MODELS},
                "difference": difference,
                "whisker": whisker(difference),
                "verdict": _compare(difference, better, p_holm.get(name, 0.0)),
            }
        )
    return rows


def _compare(difference: Mapping[str, Any] | None, better: int, p_holm: float) -> str:
    """Tell on which side of 0 a difference lies, corrected for the number of metrics."""
    if not difference or difference["low"] is None:
        return "none"
    if difference["low"] == difference["high"] == 0:
        return "equal"
    if difference["low"] <= 0 <= difference["high"] or p_holm >= SIGNIFICANT:
        return "unsure"
    rose = difference["low"] > 0
    if not better:
        return "higher" if rose else "lower"
    return "better" if rose == (better > 0) else "worse"


def quarantine_reasons(quarantine: pd.DataFrame) -> list[dict[str, Any]]:
    """Group quarantined rows by reason, with the origin of the first row of each."""
    groups = quarantine.groupby("reason", sort=False)
    reasons = [
        {
            "reason": reason,
            "count": len(rows),
            "first": f"{rows['origin'].iloc[0]}, line {rows['line'].iloc[0]}",
        }
        for reason, rows in groups
    ]
    return sorted(reasons, key=lambda row: -row["count"])
