from kedro.pipeline import Node, Pipeline

from .nodes import fit_normaliser, fit_reward_models, label_rows, normalise_rewards


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
                label_rows,
                [
                    "feedback@pandas",
                    "params:labeling",
                    "previous_labels",
                    "label_cache",
                    "fitted_reward_models",
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
            Node(normalise_rewards, ["labels", "normaliser"], "rewards", name="normalise_rewards"),
        ]
    )
