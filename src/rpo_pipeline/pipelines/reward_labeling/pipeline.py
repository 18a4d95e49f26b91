from kedro.pipeline import Node, Pipeline

from rpo_pipeline.catalog import ALWAYS

from .nodes import (
    fit_normaliser,
    fit_reward_models,
    label_rows,
    name_labelers,
    normalise_rewards,
    report_rewards,
)


def create_pipeline() -> Pipeline:
    """Feedback in, a reward for every row out."""
    return Pipeline(
        [
            Node(
                fit_reward_models,
                ["feedback@pandas", "params:labeling", "label_cache"],
                "fitted_reward_models",
                name="fit_reward_models",
            ),
            Node(
                name_labelers,
                ["params:labeling", "fitted_reward_models", "label_cache"],
                "labeler_fingerprints",
                name="name_labelers",
                tags=ALWAYS,
            ),
            Node(
                label_rows,
                [
                    *("feedback@pandas", "params:labeling", "labeler_fingerprints"),
                    *("previous_labels", "label_cache", "fitted_reward_models"),
                ],
                ["labels", "label_report"],
                name="label_rows",
            ),
            Node(
                fit_normaliser,
                ["labels", "feedback@pandas", "params:labeling"],
                "normaliser",
                name="fit_normaliser",
            ),
            Node(
                normalise_rewards,
                ["labels", "feedback@pandas", "normaliser"],
                "rewards",
                name="normalise_rewards",
            ),
            Node(
                report_rewards,
                ["rewards", "feedback@pandas", "normaliser"],
                "reward_report",
                name="report_rewards",
            ),
        ]
    )
