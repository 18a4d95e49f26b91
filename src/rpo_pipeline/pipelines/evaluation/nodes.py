"""Nodes of evaluation."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    EvaluationParams,
    PolicyParams,
    PromotionParams,
    RpoParams,
    TrainingParams,
)


def fetch_champion(
    policy: Path,
    registration: dict[str, str] | None,
    previous: dict[str, Any] | None,
    workspace: Path,
    promotion: PromotionParams,
    mlflow_run: dict[str, str],
) -> dict[str, Any]:
    """Get today's champion; once the policy itself is that, what it was compared with remains."""
    from rpo_pipeline.models.loading import model_fingerprint
    from rpo_pipeline.registry import aliases, client

    champion = client.fetch_champion(mlflow_run, promotion.model_name, workspace)
    known = registration and registration["policy"] == model_fingerprint(policy)
    version = registration["version"] if registration and known else None
    if previous and version and version == champion["version"]:
        return previous
    names = (promotion.model_name, champion["version"], version)
    return {**champion, "look": aliases.count_look(mlflow_run, *names)}


def generate_responses(
    feedback: pd.DataFrame,
    reference: Path,
    challenger: Path,
    champion: dict[str, Any],
    policy: PolicyParams,
    evaluation: EvaluationParams,
    training: TrainingParams,
) -> pd.DataFrame:
    """Let every model answer the same test prompts."""
    from rpo_pipeline.evaluation import generation

    models = {"reference": reference, "challenger": challenger}
    if champion["path"]:
        models["champion"] = Path(champion["path"])
    return generation.generate(
        models,
        generation.held_out_prompts(feedback, evaluation.num_prompts),
        evaluation.sampling,
        policy,
        seed=training.seed,
        micro_batch_tokens=training.micro_batch_tokens,
    )


def label_generations(
    generations: pd.DataFrame,
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    evaluation: EvaluationParams,
    cache: Path,
) -> pd.DataFrame:
    """Label what the models wrote, and measure its text against what was logged."""
    from rpo_pipeline.evaluation.text_metrics import text_columns
    from rpo_pipeline.rewards.labeling import label_responses

    logged = feedback.merge(rewards[["row_id", "reward"]], on="row_id")
    best = logged.sort_values("reward").groupby("prompt_id")["response"].last()
    train = frozenset(feedback.loc[feedback["split"] == "train", "response"])

    texts = generations["prompt"].tolist(), generations["response"].tolist()
    labels = label_responses(*texts, evaluation.labelers, cache, every=True)
    return pd.concat([generations, labels, text_columns(generations, best, train)], axis=1)


def score_heldout(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    challenger: Path,
    policy: PolicyParams,
    rpo: RpoParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Compute the policy's log-ratio on labelled rows of the test prompts."""
    from rpo_pipeline.evaluation import generation, heldout

    prompts = generation.held_out_prompts(feedback, evaluation.num_prompts)
    rows = feedback[feedback["prompt_id"].isin(prompts["prompt_id"])]
    return heldout.score_heldout(
        rows[["row_id", "prompt_id", "prompt", "response"]],
        rewards,
        reference_logps,
        challenger,
        policy,
        per_token=rpo.logp_reduction == "mean",
        micro_batch_tokens=training.micro_batch_tokens,
    )


def compare_models(
    generation_rewards: pd.DataFrame,
    heldout: pd.DataFrame,
    evaluation: EvaluationParams,
    training: TrainingParams,
) -> dict[str, Any]:
    """Measure every model, with intervals."""
    from rpo_pipeline.evaluation import comparison

    return comparison.compare_models(
        generation_rewards,
        heldout,
        num_resamples=evaluation.bootstrap_samples,
        seed=training.seed,
    )


def summarise(
    evaluation_metrics: dict[str, Any], champion: dict[str, Any], promotion: PromotionParams
) -> dict[str, Any]:
    """Put the gate's decision beside the numbers that it was made from."""
    from rpo_pipeline.registry.gate import decide

    against = {"champion_version": champion["version"], "look": champion["look"]}
    numbers = {**evaluation_metrics, **against}
    return {**numbers, "gate": decide(numbers, promotion)}


def render_report(
    summary: dict[str, Any],
    generation_rewards: pd.DataFrame,
    heldout: pd.DataFrame,
    row_account: dict[str, int],
    data_statistics: dict[str, Any],
    redaction: dict[str, Any],
    label_report: dict[str, Any],
    reward_report: dict[str, Any],
    partition: pd.DataFrame,
    partition_health: dict[str, Any],
    training_metrics: pd.DataFrame,
    parameters: dict[str, Any],
    mlflow_run: dict[str, str],
) -> str:
    """Write the report that a person reads."""
    from rpo_pipeline.evaluation import report

    return report.render(
        report.Findings(
            summary=summary,
            generations=generation_rewards,
            heldout=heldout,
            row_account=row_account,
            data_reports={
                "Data": data_statistics,
                "Redaction": redaction,
                "Labels": label_report,
                "Rewards and length": reward_report,
            },
            partition=partition,
            partition_health=partition_health,
            training_metrics=training_metrics,
            parameters=parameters,
            mlflow_run=mlflow_run,
        )
    )
