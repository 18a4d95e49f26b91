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
    RebelParams,
    RpoParams,
    TrainingParams,
)
from rpo_pipeline.records import (
    Champion,
    Measured,
    Registration,
    Reports,
    RunAddress,
    Summary,
)


def fetch_champion(
    policy: Path,
    registration: Registration | None,
    previous: Champion | None,
    workspace: Path,
    promotion: PromotionParams,
    mlflow_run: RunAddress,
) -> Champion:
    """Fetch today's champion, or keep the previous one if the policy itself is champion now."""
    from rpo_pipeline.registry import fetch_champion, has_version
    from rpo_pipeline.storage import model_fingerprint

    champion = fetch_champion(mlflow_run, promotion.model_name, workspace)
    if not previous or not registration or registration.policy != model_fingerprint(policy):
        return champion
    # Another registered model, with versions of its own, may use the same data folder.
    known = has_version(mlflow_run, promotion.model_name, registration)
    return previous if known and registration.version == champion.version else champion


def hold_out_rows(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    partition_health: dict[str, Any],
    dro: DroParams,
    rebel: RebelParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Join the logged rows of the test prompts that the models are compared on."""
    from rpo_pipeline.evaluation import hold_out

    taus = {"rpo": partition_health["tau"], "dro": dro.tau, "rebel": rebel.tau}
    tau = taus.get(training.objective, float("nan"))
    return hold_out(feedback, rewards, reference_logps, evaluation.num_prompts, tau=tau)


def generate_responses(
    heldout_rows: pd.DataFrame,
    reference: Path,
    challenger: Path,
    champion: Champion,
    policy: PolicyParams,
    evaluation: EvaluationParams,
    training: TrainingParams,
    cache: Path,
) -> pd.DataFrame:
    """Sample responses of every model to the same test prompts."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.evaluation import generate, name_models, prompts_of

    models = name_models(reference, challenger, champion)
    engines = {name: Engine(model, policy, training, cache) for name, model in models.items()}
    return generate(engines, prompts_of(heldout_rows), evaluation.sampling, seed=training.seed)


def label_generations(
    generations: pd.DataFrame,
    feedback: pd.DataFrame,
    heldout_rows: pd.DataFrame,
    labeling: LabelingParams,
    evaluation: EvaluationParams,
    cache: Path,
) -> pd.DataFrame:
    """Label the generations, and measure their text against the logged responses."""
    from rpo_pipeline.evaluation import label_generations

    return label_generations(generations, feedback, heldout_rows, labeling, evaluation, cache)


def measure_labelers(
    feedback: pd.DataFrame,
    fitted: list[dict[str, Any]],  # noqa: ARG001 (a head must be there to be measured)
    labeling: LabelingParams,
    evaluation: EvaluationParams,
    cache: Path,
) -> dict[str, Any]:
    """Compare the labelers of the evaluation with ratings that they have not seen."""
    from rpo_pipeline.evaluation import measure_labelers

    return measure_labelers(feedback, evaluation.labelers, labeling.agreement_rows, cache)


def judge_generations(
    generations: pd.DataFrame, feedback: pd.DataFrame, evaluation: EvaluationParams, cache: Path
) -> pd.DataFrame:
    """Compare the generations by a judge, if there is one, and check it on test ratings."""
    from rpo_pipeline.evaluation import judge_generations

    return judge_generations(generations, feedback, evaluation, cache)


def score_heldout(
    heldout_rows: pd.DataFrame,
    challenger: Path,
    policy: PolicyParams,
    rpo: RpoParams,
    training: TrainingParams,
) -> pd.DataFrame:
    """Compute the policy's log-ratio on the labelled rows of the test prompts."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.evaluation import score_rows

    per_token = rpo.averages_tokens(training.objective)
    return score_rows(heldout_rows, Engine(challenger, policy, training), per_token=per_token)


def run_tasks(
    reference: Path,
    challenger: Path,
    champion: Champion,
    policy: PolicyParams,
    evaluation: EvaluationParams,
    training: TrainingParams,
) -> dict[str, Any]:
    """Run the tasks of the lm-evaluation-harness that are set, if any, on every model."""
    from rpo_pipeline.evaluation import measure_tasks, name_models

    models = name_models(reference, challenger, champion)
    return measure_tasks(models, policy, training, evaluation)


def compare_models(
    generation_rewards: pd.DataFrame,
    heldout: pd.DataFrame,
    verdicts: pd.DataFrame,
    labeler_agreement: dict[str, Any],
    tasks: dict[str, Any],
    evaluation: EvaluationParams,
    training: TrainingParams,
) -> Measured:
    """Measure every model, with intervals, and put the tasks' numbers beside them."""
    from rpo_pipeline.evaluation import add_tasks, compare_models

    measured = compare_models(
        generation_rewards,
        heldout,
        verdicts,
        labeler_agreement["ranges"],
        num_resamples=evaluation.bootstrap_samples,
        seed=training.seed,
    )
    return add_tasks(measured, tasks)


def summarise(
    measured: Measured,
    labeler_agreement: dict[str, Any],
    champion: Champion,
    promotion: PromotionParams,
    mlflow_run: RunAddress,
) -> Summary:
    """Add the gate's decision to the numbers that it was made from, and count the look."""
    from rpo_pipeline.registry import summarise

    return summarise(mlflow_run, measured, labeler_agreement, champion.version, promotion)


def gather_data_reports(
    row_account: dict[str, int],
    quarantine: pd.DataFrame,
    statistics: dict[str, Any],
    redaction: dict[str, Any],
    label_report: dict[str, Any],
    reward_report: dict[str, Any],
) -> dict[str, Any]:
    """Gather the reports on data, labels and rewards."""
    from rpo_pipeline.reporting import quarantine_reasons

    return {
        "row_account": row_account,
        "reasons": quarantine_reasons(quarantine),
        "data_reports": {
            "Data": statistics,
            "Redaction": redaction,
            "Labels": label_report,
            "Rewards and length": reward_report,
        },
    }


def gather_reports(
    data_reports: dict[str, Any],
    source_parts: list[dict[str, Any]],
    partition_health: dict[str, Any],
    reference: Path,
    challenger: Path,
) -> Reports:
    """Gather the reports of all earlier stages, and the digests of their inputs."""
    from rpo_pipeline.reporting import fingerprint_inputs

    models = {"reference": reference, "challenger": challenger}
    return Reports(
        **data_reports,
        source_parts=source_parts,
        partition_health=partition_health,
        fingerprints=fingerprint_inputs(source_parts, models),
    )


def render_report(
    summary: Summary,
    generation_rewards: pd.DataFrame,
    heldout: pd.DataFrame,
    reports: Reports,
    partition: pd.DataFrame,
    training_metrics: pd.DataFrame,
    parameters: dict[str, Any],
    mlflow_run: RunAddress,
) -> str:
    """Write the report of the evaluation."""
    from rpo_pipeline.reporting import Findings, describe_lineage, render_report

    return render_report(
        Findings(
            summary=summary,
            generations=generation_rewards,
            heldout=heldout,
            reports=reports,
            partition=partition,
            training_metrics=training_metrics,
            parameters=parameters,
            lineage=describe_lineage(mlflow_run, reports.fingerprints),
        )
    )
