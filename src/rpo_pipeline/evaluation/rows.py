"""Logged rows of the held-out prompts, with the columns that an evaluation needs."""

import pandas as pd

from rpo_pipeline.engine import Engine
from rpo_pipeline.evaluation.statistics import Array
from rpo_pipeline.params import Split


def held_out_prompts(
    feedback: pd.DataFrame, num_prompts: int, split: Split = "test"
) -> pd.DataFrame:
    """Return prompt_id and prompt of the first prompts of a split by id, without leaked ones."""
    unseen = feedback[(feedback["split"] == split) & ~feedback["leaked"]]
    return prompts_of(unseen).head(num_prompts)


def hold_out(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    num_prompts: int,
    *,
    tau: float,
) -> pd.DataFrame:
    """Join what is known of the logged responses to the held-out prompts.

    Args:
        feedback: All rows, of every split.
        rewards: Columns row_id, raw_reward and reward of the labelled rows.
        reference_logps: Columns row_id and logps, under the reference.
        num_prompts: Largest number of prompts to hold out.
        tau: Temperature of the policy's training, in reward units; NaN without one.

    Returns:
        In the order of the feedback: row_id, prompt_id, prompt, response; raw_reward, reward and
        scaled_reward (reward / tau), null for rows without a label; ref_logps, in nats; is_best,
        whether the response has the highest reward of its prompt.
    """
    prompts = held_out_prompts(feedback, num_prompts)["prompt_id"]
    texts = feedback[["row_id", "prompt_id", "prompt", "response"]]
    labels = rewards[["row_id", "raw_reward", "reward"]]
    logps = reference_logps[["row_id", "logps"]].rename(columns={"logps": "ref_logps"})
    labelled = texts.merge(labels, on="row_id").sort_values("reward")
    best = labelled.groupby("prompt_id")["row_id"].last()
    rows = texts[texts["prompt_id"].isin(prompts)].merge(labels, on="row_id", how="left")
    rows = rows.merge(logps, on="row_id", how="left")
    return rows.assign(scaled_reward=rows["reward"] / tau, is_best=rows["row_id"].isin(best))


def prompts_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return prompt_id and prompt of held-out rows, by prompt_id."""
    return rows[["prompt_id", "prompt"]].drop_duplicates("prompt_id").sort_values("prompt_id")


def best_responses(rows: pd.DataFrame) -> pd.Series:
    """Return the response with the highest reward by prompt_id; without labels there is none."""
    return rows[rows["is_best"]].set_index("prompt_id")["response"]


def log_ratios(rows: pd.DataFrame, engine: Engine, *, per_token: bool) -> Array:
    """Compute the log-ratio of a policy to the reference on logged responses.

    Args:
        rows: Columns row_id, prompt_id, prompt, response, and ref_logps in nats.
        engine: Engine of the policy.
        per_token: Whether to average over the response's tokens, as ``logp_reduction: mean`` does.

    Returns:
        Nats, or nats per token, in the order of the rows.
    """
    scored = engine.logps(rows)
    ratios: Array = scored["logps"].to_numpy() - rows["ref_logps"].to_numpy()
    return ratios / scored["num_tokens"].to_numpy() if per_token else ratios
