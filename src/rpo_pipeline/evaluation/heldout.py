"""How the policy ranks logged responses that it was not trained on."""

from pathlib import Path

import pandas as pd

from rpo_pipeline.engine import load_checkpoint, score_table
from rpo_pipeline.params import PolicyParams


def score_heldout(
    test: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    model: Path,
    policy: PolicyParams,
    *,
    per_token: bool,
    micro_batch_tokens: int,
) -> pd.DataFrame:
    """Log-ratio of the policy to the reference on the labelled test rows.

    Args:
        test: Rows to rank: row_id, prompt_id, prompt, response.
        rewards: Of the labelled rows.
        reference_logps: Cached log-probabilities of the reference.
        model: Directory of the policy.
        policy: Limits on tokens and precision.
        per_token: Average over the response's tokens, as ``logp_reduction: mean`` trains it.
        micro_batch_tokens: Budget of a forward pass.

    Returns:
        row_id, prompt_id, raw_reward, reward and log_ratio, in nats; averaged over the response's
        tokens if ``per_token``.
    """
    test = test.merge(rewards[["row_id", "raw_reward", "reward"]], on="row_id")
    language_model = load_checkpoint(model, policy)
    scores = score_table(language_model, test, policy, micro_batch_tokens=micro_batch_tokens)
    both = test.merge(scores, on="row_id").merge(
        reference_logps[["row_id", "logps"]], on="row_id", suffixes=("", "_ref")
    )
    log_ratio = both["logps"] - both["logps_ref"]
    both["log_ratio"] = log_ratio / both["num_tokens"] if per_token else log_ratio
    return both[["row_id", "prompt_id", "raw_reward", "reward", "log_ratio"]]
