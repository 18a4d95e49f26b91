"""Metrics of sampled and of logged responses.

Shapes: P prompts; a table of generations holds k responses of each.
"""

from collections import Counter

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from rpo_pipeline.evaluation.statistics import Array

NO_COMPONENTS = ["raw_reward", "logps", "ref_logps", "num_tokens", "sample", "toxicity"]
"""Numbers beside the components, and the component that has a metric of its own."""


def prompt_means(generations: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Array]:
    """Per-prompt numbers of one model, each shape ``(P,)`` in order of prompt_id.

    Args:
        generations: One model's responses with their labels, ordered by prompt_id and sample.
        reference: The reference's, same prompts and samples in the same order.

    Returns:
        reward_mean (raw reward), win_rate (against the reference's response under the same noise,
        ties half), toxicity_mean (where a labeler says it), kl_reference (nats), length_mean
        (words), num_tokens_mean, empty_share, and component_ with the name of every other component
        and of every labeler.
    """
    words = count_words(generations["response"])
    ahead = generations["raw_reward"].to_numpy() - reference["raw_reward"].to_numpy()
    columns = pd.DataFrame(
        {
            "prompt_id": generations["prompt_id"].to_numpy(),
            "reward_mean": generations["raw_reward"].to_numpy(),
            "win_rate": (np.sign(ahead) + 1) / 2,
            "kl_reference": (generations["logps"] - generations["ref_logps"]).to_numpy(),
            "length_mean": words.to_numpy(np.float64),
            "num_tokens_mean": generations["num_tokens"].to_numpy(np.float64),
            "empty_share": (words == 0).to_numpy(np.float64),
        }
    )
    if "toxicity" in generations:
        columns["toxicity_mean"] = generations["toxicity"].to_numpy()
    for name in generations.select_dtypes("number").columns.difference(NO_COMPONENTS):
        columns[f"component_{name}"] = generations[name].to_numpy()
    means = columns.groupby("prompt_id").mean()
    return {str(name): means[name].to_numpy(np.float64) for name in means}


def count_words(responses: pd.Series) -> pd.Series:
    """Words of each response, divided by white space."""
    return responses.map(lambda response: len(response.split()))


def distinct(generations: pd.DataFrame, n: int) -> tuple[float, Array]:
    """Distinct-n: different n-grams over all n-grams of a model's responses (lower-cased words).

    Args:
        generations: One model's responses.
        n: Length of the n-grams.

    Returns:
        The ratio, and the ratio without each prompt in order of prompt_id, shape ``(P,)``; 0 where
        there is no n-gram.

    Source:
        Li et al., arXiv:1510.03055.
    """
    grams = generations["response"].str.lower().str.split().map(lambda words: _ngrams(words, n))
    by_prompt = [
        Counter(gram for row in rows for gram in row)
        for _, rows in grams.groupby(generations["prompt_id"])
    ]
    total = sum((counts.total() for counts in by_prompt), start=0)
    prompts_with = Counter(gram for counts in by_prompt for gram in counts)
    only_here = [sum(prompts_with[gram] == 1 for gram in counts) for counts in by_prompt]
    without = [
        _ratio(len(prompts_with) - only, total - counts.total())
        for only, counts in zip(only_here, by_prompt, strict=True)
    ]
    return _ratio(len(prompts_with), total), np.array(without)


def rank_correlations(heldout: pd.DataFrame) -> Array:
    """Spearman correlation of log-ratio and raw reward within each prompt.

    Args:
        heldout: Columns prompt_id, log_ratio, raw_reward.

    Returns:
        One number for each prompt with at least two different rewards, in order of prompt_id; 0
        where all log-ratios are equal, for then they rank nothing.
    """
    correlations = [
        0.0
        if rows["log_ratio"].nunique() < 2
        else spearmanr(rows["log_ratio"], rows["raw_reward"])[0]
        for _, rows in heldout.groupby("prompt_id")
        if rows["raw_reward"].nunique() > 1
    ]
    return np.array(correlations, dtype=np.float64)


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
