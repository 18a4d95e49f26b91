"""The pipelines of the project, by the names that ``kedro run --pipelines`` takes."""

from kedro.pipeline import Pipeline

from rpo_pipeline.pipelines import (
    comparison,
    data_ingestion,
    evaluation,
    partition_estimation,
    promotion,
    reward_labeling,
    rollback,
    rpo_training,
)


def register_pipelines() -> dict[str, Pipeline]:
    """Map each name to its pipeline; ``refresh``, the default, chains all six stages.

    ``comparison`` brings what it stands on: the data, the rewards and the scored reference.
    """
    stages = {
        "data_ingestion": data_ingestion.create_pipeline(),
        "reward_labeling": reward_labeling.create_pipeline(),
        "partition_estimation": partition_estimation.create_pipeline(),
        "rpo_training": rpo_training.create_pipeline(),
        "evaluation": evaluation.create_pipeline(),
        "promotion": promotion.create_pipeline(),
    }
    refresh = sum(stages.values(), start=Pipeline([]))
    scored = refresh.to_nodes("score_reference", "normalise_rewards")
    return {
        **stages,
        "refresh": refresh,
        "__default__": refresh,
        "comparison": scored + comparison.create_pipeline(),
        "rollback": rollback.create_pipeline(),
    }
