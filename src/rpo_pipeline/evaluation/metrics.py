"""Metrics of sampled and of logged responses.

Shapes: P prompts; a table of generations holds k responses to each.
"""

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from rpo_pipeline.evaluation.statistics import Array
from rpo_pipeline.labeling import count_words

NGram = tuple[str, ...]

TEXT_METRICS = [
    *("bleu", "chrf", "rouge_l", "self_bleu", "repetition", "copied"),
    *("embedding_similarity", "bert_score"),
]
NO_COMPONENTS = [
    *("raw_reward", "logps", "ref_logps", "reference_sample_logps", "num_tokens", "sample"),
    *("toxicity", *TEXT_METRICS),
]
"""Numeric columns that are no components, and the component that has a metric of its own."""
COMPONENT = "component_"
"""Prefix of a metric that is named after a component or a labeler."""
TOXIC = 0.5
"""Toxicity above which a response counts as toxic."""


def response_numbers(generations: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Compute numbers of one model's responses; their means over prompts are its metrics.

    Both tables are ordered by prompt_id and sample. Each response has a line: prompt_id,
    reward_mean (raw reward), win_rate (1 for more reward than the reference's response under the
    same noise, ties 1/2), toxicity_mean (if a labeler gives it), kl_reference (log-ratio in nats of
    the model's sample), kl_from_reference (minus the log-ratio of the reference's sample),
    length_mean (words), num_tokens_mean, empty_share, reference_nll (negative log-likelihood by the
    reference in nats per token), toxic_share (whether toxicity is above 1/2), the columns of
    ``text_columns`` and ``similarity_columns`` if the table has them, and component_ with the name
    of every other component and labeler.
    """
    own, other = (table.reset_index(drop=True) for table in (generations, reference))
    words = count_words(own["response"])
    columns = own[["prompt_id"]].assign(
        reward_mean=own["raw_reward"],
        win_rate=wins_over(own, other),
        kl_reference=own["logps"] - own["ref_logps"],
        kl_from_reference=other["logps"] - own["reference_sample_logps"],
        length_mean=words.astype(np.float64),
        num_tokens_mean=own["num_tokens"].astype(np.float64),
        empty_share=(words == 0).astype(np.float64),
        reference_nll=-own["ref_logps"] / own["num_tokens"],
    )
    if "toxicity" in own:
        toxicity = own["toxicity"].to_numpy(np.float64)
        columns["toxicity_mean"] = toxicity
        columns["toxic_share"] = np.where(np.isnan(toxicity), np.nan, toxicity > TOXIC)
    text_metrics = own[own.columns.intersection(TEXT_METRICS)]
    numbers = own.select_dtypes("number")
    components = numbers[numbers.columns.difference(NO_COMPONENTS)]
    return pd.concat([columns, text_metrics, components.add_prefix(COMPONENT)], axis=1)


def prompt_means(generations: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Array]:
    """Average ``response_numbers`` over the responses to each prompt."""
    return average(response_numbers(generations, reference))


def average(responses: pd.DataFrame) -> dict[str, Array]:
    """Average columns over the responses to each prompt, shape ``(P,)`` in order of prompt_id."""
    means = responses.groupby("prompt_id").mean()
    return {str(name): means[name].to_numpy(np.float64) for name in means}


def wins_over(generations: pd.DataFrame, others: pd.DataFrame) -> Array:
    """Return 1 for each response with more reward than another model's, 1/2 for a tie, else 0."""
    ahead = generations["raw_reward"].to_numpy() - others["raw_reward"].to_numpy()
    return np.asarray((np.sign(ahead) + 1) / 2, dtype=np.float64)


def length_controlled_wins(
    generations: pd.DataFrame, reference: pd.DataFrame
) -> tuple[float, Array]:
    """Estimate the win rate against the reference for responses of equal length.

    It is the value at 0 of a logistic regression of the wins on the difference in length. Both
    tables are ordered by prompt_id and sample. The result is the rate, and the rate without each
    prompt in order of prompt_id, shape ``(P,)``.

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
    """Compute distinct-n: different over all n-grams of a model's responses (lower-cased words).

    The result is the ratio, and the ratio without each prompt in order of prompt_id, shape
    ``(P,)``; 0 if there is no n-gram.

    Source:
        Li et al., arXiv:1510.03055.
    """
    by_prompt = _count_ngrams(generations, n)
    total = sum(counts.total() for counts in by_prompt)
    prompts_with = Counter(gram for counts in by_prompt for gram in counts)
    without = []
    for counts in by_prompt:
        only_here = sum(prompts_with[gram] == 1 for gram in counts)
        without.append(_ratio(len(prompts_with) - only_here, total - counts.total()))
    return _ratio(len(prompts_with), total), np.array(without)


def vocabulary_entropy(generations: pd.DataFrame) -> tuple[float, Array]:
    """Compute the entropy of the (lower-cased) words of a model's responses, in bits per word.

    The result is the entropy, and that without each prompt in order of prompt_id, shape ``(P,)``.
    """
    by_prompt = _count_ngrams(generations, 1)
    total = sum(by_prompt, start=Counter[NGram]())
    return _entropy(total), np.array([_entropy(total - counts) for counts in by_prompt])


def rank_correlations(heldout: pd.DataFrame) -> Array:
    """Compute the Spearman correlation of log-ratio and raw reward within each prompt.

    There is one number for each prompt with at least two different rewards, in order of prompt_id;
    0 if all log-ratios are equal.
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
    """Compute the share of pairs within each prompt that log-ratio and raw reward order alike.

    There is one number for each prompt with at least two different rewards, in order of prompt_id;
    a pair with equal log-ratios counts half.
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
    """Fit the slope of the log-ratio on reward over tau within prompts; RPO aims at 1.

    The result is the least squares slope, and the slope without each prompt, in order of prompt_id;
    None if the objective has no such tau, or fewer than two prompts have different rewards.
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


def ngrams(words: list[str], n: int) -> list[NGram]:
    """List the runs of n words."""
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _count_ngrams(generations: pd.DataFrame, n: int) -> list[Counter[NGram]]:
    """Count the n-grams of all responses to each prompt, in order of prompt_id."""
    words = generations["response"].str.lower().str.split()
    return [
        Counter(gram for row in rows for gram in ngrams(row, n))
        for _, rows in words.groupby(generations["prompt_id"])
    ]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _entropy(counts: Counter[NGram]) -> float:
    if not counts:
        return 0.0
    shares = np.array(list(counts.values())) / counts.total()
    return float(-(shares * np.log2(shares)).sum())
