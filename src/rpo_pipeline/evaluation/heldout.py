"""The policy's ranking of logged responses that it was not trained on."""

import pandas as pd

from rpo_pipeline.engine import Engine


def score_heldout(
    test: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    engine: Engine,
    *,
    per_token: bool,
) -> pd.DataFrame:
    """Compute the log-ratio of the policy to the reference on the labelled test rows.

    Args:
        test: Rows to rank: row_id, prompt_id, prompt, response.
        rewards: Rewards of the labelled rows.
        reference_logps: Cached log-probabilities of the reference.
        engine: Engine of the policy.
        per_token: Whether to average over the response's tokens, as ``logp_reduction: mean`` does.

    Returns:
        row_id, prompt_id, raw_reward, reward and log_ratio, in nats; averaged over the response's
        tokens if ``per_token``.
    """
    test = test.merge(rewards[["row_id", "raw_reward", "reward"]], on="row_id")
    both = test.merge(engine.logps(test), on="row_id").merge(
        reference_logps[["row_id", "logps"]], on="row_id", suffixes=("", "_ref")
    )
    log_ratio = both["logps"] - both["logps_ref"]
    both["log_ratio"] = log_ratio / both["num_tokens"] if per_token else log_ratio
    return both[["row_id", "prompt_id", "raw_reward", "reward", "log_ratio"]]
