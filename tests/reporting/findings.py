"""What a report is made from, in small, with a plan for every kind of verdict."""

from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.records import Decision, Reports, Summary
from rpo_pipeline.reporting.report import Findings, quarantine_reasons

WORDS = "kettle refund sorry parcel leaks today please help thanks regards".split()

QUARANTINE = ["origin", "line", "reason", "raw"]


def interval(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def make_summary(**changes: Any) -> Summary:
    metrics = {"reward_mean": 0.2, "toxicity_mean": 0.1, "kl_reference": 3.0, "length_mean": 30.0}
    gains = {"reward_mean": 0.4, "toxicity_mean": -0.2, "kl_reference": 3.0, "length_mean": 0.01}
    check = {
        **{"metric": "reward_mean", "against": "reference", "direction": "above", "bound": "low"},
        **{"threshold": 0.0, "observed": 0.3, "passed": True, "reason": "reward rose"},
    }
    values = {
        "num_prompts": 40,
        "reference": {name: interval(value) for name, value in metrics.items()},
        "champion": None,
        "challenger": {name: interval(metrics[name] + gains[name]) for name in metrics},
        "difference": {
            "vs_champion": None,
            "vs_reference": {name: interval(value) for name, value in gains.items()},
        },
        "champion_version": None,
        "p_holm": {"vs_reference": {}},
        "detectable_difference": 0.05,
        "judge": None,
        "gate": Decision(passed=True, baseline="reference", checks=(check,)),
    }
    return Summary(**{**values, **changes})


def make_generations(num_prompts: int = 30, prompt: str = "My kettle {} leaks.") -> pd.DataFrame:
    """The challenger gains the more the later the prompt, from -1 to 1."""
    random, rows = np.random.default_rng(0), []
    for i in range(num_prompts):
        for model in ("reference", "challenger"):
            gain = 2 * i / (num_prompts - 1) - 1 if model == "challenger" else 0.0
            text = f"{model} {i} " + " ".join(random.choice(WORDS, 25))
            rows.append((f"p{i:03}", prompt.format(i), model, 0, text, gain))
    columns = ["prompt_id", "prompt", "model", "sample", "response", "raw_reward"]
    return pd.DataFrame(rows, columns=columns)


def make_findings(**changes: Any) -> Findings:
    random = np.random.default_rng(0)
    noise = random.normal(size=(60, 5))
    partition = pd.DataFrame(noise, columns="ess target_mean log_z_se log_z_bias x".split())
    partition["n"] = partition["n_used"] = np.arange(60) % 8 + 1
    partition["reward_std_over_tau"] = np.abs(noise[:, 0])
    steps = pd.DataFrame({"step": range(1, 31), "train/loss": np.linspace(1, 0.5, 30)})
    steps["train/log_ratio"] = steps["train/grad_norm"] = steps["train/loss"]
    steps["train/validation_loss"] = steps["train/loss"].where(steps["step"] % 10 == 0)
    shares = "singleton_share constant_reward_share cut_prompt_share cut_response_share".split()
    numbers = "reward_std_over_tau ess_mean calibration log_z_se_mean log_z_bias_mean".split()
    counts = "num_prompts num_sampled_prompts num_behaviour_prompts".split()
    health = {"estimator": "monte_carlo", "warnings": ["many prompts have one response"]}
    health |= {"reason": "train prompts have 8.0 responses on average", "tau": 0.5}
    health |= dict.fromkeys(shares, 0.1) | dict.fromkeys(numbers, 0.5) | dict.fromkeys(counts, 60)
    rejected = [("log.jsonl", 7, "missing_prompt", "{}"), ("log.jsonl", 9, "not_text", "{}")]
    rejected.append(("log.jsonl", 11, "not_text", "{}"))
    account = {"read": 100, "kept": 95, "quarantined": 3, "exact_duplicates": 1, "merged": 1}
    values: dict[str, Any] = {
        "summary": make_summary(),
        "generations": make_generations(),
        "heldout": pd.DataFrame(noise[:, :2], columns=["raw_reward", "log_ratio"]),
        "row_account": account,
        "reasons": quarantine_reasons(pd.DataFrame(rejected, columns=QUARANTINE)),
        "fingerprints": {},
        "source_parts": [{"path": "log.jsonl", "key": "a1b2", "rows": 97, "rejected": 3}],
        "data_reports": {"Data": {"rows": 95, "splits": {"test": {"rows": 9}}, "list": [1, 2]}},
        "partition": partition,
        "partition_health": health,
        "training_metrics": steps,
        "parameters": {
            "promotion": {"mode": "auto"},
            "rpo": {"tau": 0.5, "estimator": "auto", "max_divergence": 3.0},
            "training": {"objective": "rpo"},
        },
        "lineage": {"MLflow run": "run-1", "git commit": "c0ffee"},
    }
    values |= changes
    reports = {field.name: values.pop(field.name) for field in fields(Reports)}
    return Findings(**values, reports=Reports(**reports))
