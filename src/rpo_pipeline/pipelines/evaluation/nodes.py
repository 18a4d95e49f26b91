"""Nodes of evaluation."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    DroParams,
    EvaluationParams,
    LabelingParams,
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
    from rpo_pipeline.registry import fetch_champion, has_version
    from rpo_pipeline.storage import model_fingerprint

    champion = fetch_champion(mlflow_run, promotion.model_name, workspace)
    version = None
    if registration and registration["policy"] == model_fingerprint(policy):
        # Another registered model, with versions of its own, may use the same data folder.
        known = has_version(mlflow_run, promotion.model_name, registration)
        version = registration["version"] if known else None
    if previous and version and version == champion["version"]:
        return previous
    return champion


def generate_responses(
    feedback: pd.DataFrame,
    reference: Path,
    challenger: Path,
    champion: dict[str, Any],
    policy: PolicyParams,
    evaluation: EvaluationParams,
    training: TrainingParams,
    cache: Path,
) -> pd.DataFrame:
    """Let every model answer the same test prompts."""
    from rpo_pipeline.evaluation import generate, held_out_prompts

    return generate(
        _models(reference, challenger, champion),
        held_out_prompts(feedback, evaluation.num_prompts),
        evaluation.sampling,
        policy,
        cache,
        seed=training.seed,
        micro_batch_tokens=training.micro_batch_tokens,
    )


def _models(reference: Path, challenger: Path, champion: dict[str, Any]) -> dict[str, Path]:
    models = {"reference": reference, "challenger": challenger}
    return models | ({"champion": Path(champion["path"])} if champion["path"] else {})


def label_generations(
    generations: pd.DataFrame,
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    labeling: LabelingParams,
    evaluation: EvaluationParams,
    cache: Path,
) -> pd.DataFrame:
    """Label what the models wrote, and measure its text against what was logged."""
    from rpo_pipeline.evaluation import similarity_columns, text_columns
    from rpo_pipeline.labeling import label_responses, warn_of_shared_labelers

    logged = feedback.merge(rewards[["row_id", "reward"]], on="row_id")
    best = logged.sort_values("reward").groupby("prompt_id")["response"].last()
    train = frozenset(feedback.loc[feedback["split"] == "train", "response"])

    texts = generations["prompt"].tolist(), generations["response"].tolist()
    warn_of_shared_labelers(labeling.labelers, evaluation.labelers)
    labels = label_responses(*texts, evaluation.labelers, cache, every=True)
    measured = [labels, text_columns(generations, best, train)]
    if evaluation.encoder:
        measured.append(similarity_columns(generations, best, evaluation.encoder))
    return pd.concat([generations, *measured], axis=1)


def measure_labelers(
    feedback: pd.DataFrame,
    fitted: list[dict[str, Any]],  # noqa: ARG001 (a head must be there to be measured)
    labeling: LabelingParams,
    evaluation: EvaluationParams,
    cache: Path,
) -> dict[str, Any]:
    """Compare the labelers that judge with ratings that they have not seen."""
    from rpo_pipeline.evaluation import measure_labelers

    return measure_labelers(feedback, evaluation.labelers, labeling.agreement_rows, cache)


def judge_generations(
    generations: pd.DataFrame, feedback: pd.DataFrame, evaluation: EvaluationParams, cache: Path
) -> pd.DataFrame:
    """Let a judge compare what the models wrote, if there is one."""
    if evaluation.judge is None:
        return pd.DataFrame(columns=["kind", "prompt_id", "win", "orders_agree", "longer"])
    from rpo_pipeline.evaluation import judge_pairs

    held_out = (feedback["split"] == "test") & feedback["raw_reward"].notna()
    return judge_pairs(generations, feedback[held_out], evaluation.judge, cache)


def score_heldout(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    challenger: Path,
    chosen_tau: dict[str, Any],
    policy: PolicyParams,
    rpo: RpoParams,
    dro: DroParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Compute the policy's log-ratio on labelled rows of the test prompts."""
    from rpo_pipeline.evaluation import held_out_prompts, score_heldout

    prompts = held_out_prompts(feedback, evaluation.num_prompts)
    rows = feedback[feedback["prompt_id"].isin(prompts["prompt_id"])]
    scored = score_heldout(
        rows[["row_id", "prompt_id", "prompt", "response"]],
        rewards,
        reference_logps,
        challenger,
        policy,
        per_token=rpo.logp_reduction == "mean",
        micro_batch_tokens=training.micro_batch_tokens,
    )
    own_tau = chosen_tau["tau"] if rpo.tau == "auto" else rpo.tau
    tau = {"rpo": own_tau, "dro": dro.tau}.get(training.objective, float("nan"))
    return scored.assign(scaled_reward=scored["reward"] / tau)


def compare_models(
    generation_rewards: pd.DataFrame,
    heldout: pd.DataFrame,
    verdicts: pd.DataFrame,
    labeler_agreement: dict[str, Any],
    evaluation: EvaluationParams,
    training: TrainingParams,
) -> dict[str, Any]:
    """Measure every model, with intervals."""
    from rpo_pipeline.evaluation import compare_models

    return compare_models(
        generation_rewards,
        heldout,
        verdicts,
        labeler_agreement["ranges"],
        num_resamples=evaluation.bootstrap_samples,
        seed=training.seed,
    )


def run_tasks(
    reference: Path,
    challenger: Path,
    champion: dict[str, Any],
    policy: PolicyParams,
    evaluation: EvaluationParams,
    training: TrainingParams,
) -> dict[str, Any]:
    """Run tasks of the lm-evaluation-harness on every model; nothing unless asked for."""
    from rpo_pipeline.evaluation import run_tasks

    if evaluation.lm_eval is None:
        return {}
    return run_tasks(
        _models(reference, challenger, champion),
        evaluation.lm_eval,
        policy,
        micro_batch_tokens=training.micro_batch_tokens,
        num_resamples=evaluation.bootstrap_samples,
    )


def summarise(
    evaluation_metrics: dict[str, Any],
    task_metrics: dict[str, Any],
    labeler_agreement: dict[str, Any],
    champion: dict[str, Any],
    promotion: PromotionParams,
    mlflow_run: dict[str, str],
) -> dict[str, Any]:
    """Put the gate's decision beside the numbers that it was made from, which are a look."""
    from rpo_pipeline.evaluation import add_tasks
    from rpo_pipeline.registry import decide, take_look

    measured = add_tasks(evaluation_metrics, task_metrics)
    version = champion["version"]
    look = take_look(mlflow_run, promotion.model_name, version, measured)
    against = {"champion_version": version, "look": look, "labelers": labeler_agreement}
    numbers = {**measured, **against}
    return {**numbers, "gate": decide(numbers, promotion)}


def render_report(
    summary: dict[str, Any],
    generation_rewards: pd.DataFrame,
    heldout: pd.DataFrame,
    row_account: dict[str, int],
    quarantine: pd.DataFrame,
    source_parts: list[dict[str, Any]],
    data_statistics: dict[str, Any],
    redaction: dict[str, Any],
    label_report: dict[str, Any],
    reward_report: dict[str, Any],
    partition: pd.DataFrame,
    partition_health: dict[str, Any],
    training_metrics: pd.DataFrame,
    reference: Path,
    challenger: Path,
    parameters: dict[str, Any],
    mlflow_run: dict[str, str],
) -> str:
    """Write the report that a person reads."""
    from rpo_pipeline.reporting import Findings, describe_lineage, render_report

    return render_report(
        Findings(
            summary=summary,
            generations=generation_rewards,
            heldout=heldout,
            row_account=row_account,
            quarantine=quarantine,
            source_parts=source_parts,
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
            lineage=describe_lineage(mlflow_run, source_parts, reference, challenger),
        )
    )
