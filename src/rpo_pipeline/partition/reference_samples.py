"""Samples responses of the reference and labels them like logged ones."""

from collections.abc import Callable, Sequence

import pandas as pd

from rpo_pipeline.engine import Engine
from rpo_pipeline.labeling import require_labels
from rpo_pipeline.params import RpoParams


def prompts_to_sample(rows: pd.DataFrame, rpo: RpoParams) -> pd.DataFrame:
    """Choose the prompts for which the estimator needs samples of the reference.

    Args:
        rows: Labelled rows, columns prompt_id and prompt.
        rpo: Estimator: ``quantile`` needs every prompt, ``reference_samples`` those with fewer
            labelled rows than ``below_responses``, other estimators none.

    Returns:
        prompt_id and prompt, in order of prompt_id.
    """
    sizes = rows.groupby("prompt_id")["prompt"].agg(["size", "first"])
    below = {
        "quantile": float("inf"),
        "reference_samples": rpo.reference_samples.below_responses,
    }.get(rpo.estimator, 0)
    few = sizes[sizes["size"] < below]
    return few["first"].rename("prompt").reset_index()


def sample_reference(prompts: pd.DataFrame, engine: Engine, num_samples: int) -> pd.DataFrame:
    """Sample responses of the reference.

    Args:
        prompts: Columns prompt_id and prompt; without any, no model is loaded.
        engine: The reference, with the cache of its samples.
        num_samples: Samples of each prompt.

    Returns:
        prompt_id, prompt, sample (its number, from 0), response, token_ids; one line per sample.
    """
    if prompts.empty:
        return pd.DataFrame(columns=["prompt_id", "prompt", "sample", "response", "token_ids"])
    return engine.sample_each(prompts, num_samples)


def label_samples(
    samples: pd.DataFrame,
    label: Callable[[Sequence[str], Sequence[str]], pd.DataFrame],
    rewards_of: Callable[[pd.DataFrame], pd.Series],
) -> pd.DataFrame:
    """Label samples, on the scale of the logged responses.

    Args:
        samples: Samples of the reference.
        label: From prompts and responses to raw_reward and labeler.
        rewards_of: From prompt_id, response and raw_reward to reward.

    Returns:
        prompt_id, sample, response, token_ids, raw_reward, reward, labeler; one line per sample.

    Raises:
        DataError: If the labeler cannot label a sample.
    """
    columns = ["prompt_id", "sample", "response", "token_ids", "raw_reward", "reward", "labeler"]
    if samples.empty:
        return pd.DataFrame(columns=columns)
    labels = label(samples["prompt"].tolist(), samples["response"].tolist())
    samples = samples.join(require_labels(labels)[["raw_reward", "labeler"]])
    return samples.assign(reward=rewards_of(samples))[columns]
