"""Metrics of sampled and of logged responses.

Shapes: P prompts; a table of generations holds k responses of each.
"""

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from rpo_pipeline.evaluation.statistics import Array
from rpo_pipeline.labeling import count_words

TEXT_METRICS = [
    *("bleu", "chrf", "rouge_l", "self_bleu", "repetition", "copied"),
    *("embedding_similarity", "bert_score"),
]
NO_COMPONENTS = [
    *("raw_reward", "logps", "ref_logps", "reference_sample_logps", "num_tokens", "sample"),
    *("toxicity", *TEXT_METRICS),
]
"""Numbers beside the components, and the component that has a metric of its own."""
COMPONENT = "component_"
"""Before the name of a component, or of a labeler, in that of its metric."""
TOXIC = 0.5
"""Toxicity above which a response counts as toxic."""


def response_numbers(generations: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Numbers of each of one model's responses, whose means over prompts are its metrics.

    Args:
        generations: One model's responses with their labels, ordered by prompt_id and sample.
        reference: The reference's, same prompts and samples in the same order.

    Returns:
        prompt_id, and in the order of the responses reward_mean (raw reward), win_rate (against the
        reference's response under the same noise, ties half), toxicity_mean (where a labeler says
        it), kl_reference (nats, of its own samples), kl_from_reference (of the reference's),
        length_mean (words), num_tokens_mean, empty_share, reference_nll (nats a token that the
        reference gives the response: how fluent it finds it), toxic_share (responses whose toxicity
        is above 1/2), the columns of ``text_columns`` and ``similarity_columns`` where the table
        has them, and component_ with the name of every other component and of every labeler.
    """
    words = count_words(generations["response"])
    columns = pd.DataFrame(
        {
            "prompt_id": generations["prompt_id"].to_numpy(),
            "reward_mean": generations["raw_reward"].to_numpy(),
            "win_rate": wins_over(generations, reference),
            "kl_reference": (generations["logps"] - generations["ref_logps"]).to_numpy(),
            "kl_from_reference": (
                reference["logps"].to_numpy() - generations["reference_sample_logps"].to_numpy()
            ),
            "length_mean": words.to_numpy(np.float64),
            "num_tokens_mean": generations["num_tokens"].to_numpy(np.float64),
            "empty_share": (words == 0).to_numpy(np.float64),
            "reference_nll": (-generations["ref_logps"] / generations["num_tokens"]).to_numpy(),
        }
    )
    if "toxicity" in generations:
        toxicity = generations["toxicity"].to_numpy(np.float64)
        columns["toxicity_mean"] = toxicity
        columns["toxic_share"] = np.where(np.isnan(toxicity), np.nan, toxicity > TOXIC)
    for name in generations.columns.intersection(TEXT_METRICS):
        columns[name] = generations[name].to_numpy()
    for name in generations.select_dtypes("number").columns.difference(NO_COMPONENTS):
        columns[f"{COMPONENT}{name}"] = generations[name].to_numpy()
    return columns


def prompt_means(generations: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Array]:
    """Per-prompt numbers of one model: those of ``response_numbers``, averaged."""
    return average(response_numbers(generations, reference))


def average(responses: pd.DataFrame) -> dict[str, Array]:
    """Means over the responses of each prompt, shape ``(P,)`` in order of prompt_id."""
    means = responses.groupby("prompt_id").mean()
    return {str(name): means[name].to_numpy(np.float64) for name in means}


def wins_over(generations: pd.DataFrame, others: pd.DataFrame) -> Array:
    """1 for each response with more reward than another model's under the same noise, ties 1/2."""
    ahead = generations["raw_reward"].to_numpy() - others["raw_reward"].to_numpy()
    return np.asarray((np.sign(ahead) + 1) / 2, dtype=np.float64)


def length_controlled_wins(
    generations: pd.DataFrame, reference: pd.DataFrame
) -> tuple[float, Array]:
    """Win rate against the reference had its responses been as long.

    A logistic regression of the wins on the difference in length gives it at a difference of 0.

    Args:
        generations: One model's responses with their labels, ordered by prompt_id and sample.
        reference: The reference's, same prompts and samples in the same order.

    Returns:
        The rate, and the rate without each prompt in order of prompt_id, shape ``(P,)``.

    Source:
        Dubois et al., arXiv:2404.04475, without its terms for single prompts.
    """
    wins = wins_over(generations, reference)
    longer = (count_words(generations["response"]) - count_words(reference["response"])).to_numpy()
    spread = longer.std() or 1.0
    prompt = pd.factorize(generations["prompt_id"])[0]

    def rate(kept: NDArray[np.bool_]) -> float:
        won, x = wins[kept], np.tanh(longer[kept] / spread)[:, None]
        weights = np.concatenate([won, 1 - won])  # a tie is half a win and half a loss
        if not 0 < weights[: len(won)].sum() < len(won):
            return float(won.mean())
        labels = np.repeat([1, 0], len(won))
        fit = LogisticRegression(C=100.0).fit(np.concatenate([x, x]), labels, weights)
        return float(fit.predict_proba([[0.0]])[0, 1])

    everything = np.ones(len(wins), dtype=bool)
    return rate(everything), np.array([rate(prompt != one) for one in range(prompt.max() + 1)])


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


def pair_accuracies(heldout: pd.DataFrame) -> Array:
    """Share of pairs of responses to one prompt that log-ratio and raw reward order alike.

    Args:
        heldout: Columns prompt_id, log_ratio, raw_reward.

    Returns:
        One number for each prompt with at least two different rewards, in order of prompt_id; a
        pair with equal log-ratios counts half.
    """
    accuracies = []
    for _, rows in heldout.groupby("prompt_id"):
        first, second = np.triu_indices(len(rows), 1)
        ratio, reward = (rows[name].to_numpy() for name in ("log_ratio", "raw_reward"))
        gap = reward[first] - reward[second]
        agrees = np.sign(gap) * np.sign(ratio[first] - ratio[second])
        if gap.any():
            accuracies.append(float((agrees[gap != 0].mean() + 1) / 2))
    return np.array(accuracies, dtype=np.float64)


def calibration_slope(heldout: pd.DataFrame) -> tuple[float, Array] | None:
    """How far the log-ratio rises for each step of reward over tau: 1 is what RPO aims at.

    Args:
        heldout: Columns prompt_id, log_ratio and scaled_reward (reward over tau).

    Returns:
        The least squares slope within prompts, and the slope without each prompt, in order of
        prompt_id; None where the objective has no such tau, or no two prompts have two rewards.
    """
    pairs = heldout[["prompt_id", "scaled_reward", "log_ratio"]].dropna()
    centred = pairs.set_index("prompt_id") - pairs.groupby("prompt_id").mean()
    x, y = centred["scaled_reward"], centred["log_ratio"]
    xy = (x * y).groupby("prompt_id").sum().to_numpy(np.float64)
    xx = (x * x).groupby("prompt_id").sum().to_numpy(np.float64)
    rest = xx.sum() - xx
    if not (rest > 0).all() or not len(rest):
        return None
    return float(xy.sum() / xx.sum()), (xy.sum() - xy) / rest


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
