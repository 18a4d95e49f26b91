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

STAGES = {
    "data_ingestion": data_ingestion,
    "reward_labeling": reward_labeling,
    "partition_estimation": partition_estimation,
    "rpo_training": rpo_training,
    "evaluation": evaluation,
    "promotion": promotion,
}


def register_pipelines() -> dict[str, Pipeline]:
    """Map each name to its pipeline; ``refresh``, the default, chains all six stages.

    ``comparison`` brings what it stands on: the data, the rewards and the scored reference.
    """
    stages = {name: _folded(name, module.create_pipeline()) for name, module in STAGES.items()}
    refresh = sum(stages.values(), start=Pipeline([]))
    scored = refresh.to_nodes("partition_estimation.join_scores")
    return {
        **stages,
        "refresh": refresh,
        "__default__": refresh,
        "comparison": scored + _folded("comparison", comparison.create_pipeline()),
        "rollback": _folded("rollback", rollback.create_pipeline()),
    }


def _folded(name: str, pipeline: Pipeline) -> Pipeline:
    """A pipeline that kedro-viz draws as one box; datasets and parameters keep their names."""
    return Pipeline(pipeline, namespace=name, prefix_datasets_with_namespace=False)
