"""Compares the agreement of labels with ratings to that of the length of the responses.

Pairs hold two responses to one prompt, because rewards are compared there; in a log with few such
pairs they hold responses to two prompts. Each prompt counts once, and intervals are over prompts.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from rpo_pipeline.core import lower_bound

MIN_PROMPTS = 30
"""Smallest number of prompts with pairs of their own; with fewer, pairs are across prompts."""
MAX_ROWS = 2000
"""Largest number of rows compared of one prompt, or across prompts; costs grow with its square."""
ERROR = 0.025
"""Error probability of the lower bound, which is that of a 95 % interval."""
WITHIN, ACROSS = "within prompts", "across prompts"
ALL_RIGHT = 1.0
"""Largest possible difference of two shares of pairs."""

Array = NDArray[np.float64]


def against_length(rows: pd.DataFrame) -> dict[str, Any]:
    """Compare the agreement of labels with ratings to that of length alone.

    The rows hold prompt_id, response, rating and label, none missing. The result holds pairs
    (``within prompts`` or ``across prompts``) and num_prompts; agreement and length_agreement, the
    shares of the differently rated pairs that the labels, or the numbers of words, put in the same
    order, equal ones counting half (length is reversed if people prefer short responses); value and
    low, the difference of the two shares and the lower end of its 95 % interval. Null if no two
    ratings differ.
    """
    table = rows.assign(length=count_words(rows["response"]))
    shares, pairs = _within(table), WITHIN
    if len(shares) < MIN_PROMPTS:
        shares, pairs = _across(table.head(MAX_ROWS)), ACROSS
    return {"pairs": pairs, **compare_shares(shares[:, 0], shares[:, 1])}


def compare_shares(agreement: Array, length_agreement: Array) -> dict[str, Any]:
    """Compare the shares of each prompt's pairs that labels and length order as people do.

    Both have the shape ``(P,)``; the result is that of ``against_length`` without ``pairs``.
    """
    if not len(agreement):
        numbers = ("agreement", "length_agreement", "value", "low")
        return {"num_prompts": 0} | dict.fromkeys(numbers)
    if length_agreement.mean() < 1 / 2:
        length_agreement = 1 - length_agreement
    gain = torch.tensor(agreement - length_agreement)
    low = lower_bound(gain, torch.tensor(-ALL_RIGHT, dtype=gain.dtype), error=ERROR)
    return {
        "num_prompts": len(gain),
        "agreement": float(agreement.mean()),
        "length_agreement": float(length_agreement.mean()),
        "value": float(gain.mean()),
        "low": float(low),
    }


def count_words(responses: pd.Series) -> pd.Series:
    """Count the words of each response, separated by white space."""
    return responses.map(lambda response: len(response.split()))


def _within(table: pd.DataFrame) -> Array:
    """Return the shares by labels and by length of each prompt with pairs, shape ``(P, 2)``."""
    shares = []
    for _, several in table.groupby("prompt_id"):
        rows = several.head(MAX_ROWS)
        ahead = np.greater.outer(rows["rating"].to_numpy(), rows["rating"].to_numpy())
        if ahead.any():
            shares.append([_right(rows[name])[ahead].mean() for name in ("label", "length")])
    return np.array(shares, np.float64).reshape(-1, 2)


def _across(table: pd.DataFrame) -> Array:
    """Return the shares of all pairs, each moved by a prompt's influence on it, shape ``(P, 2)``.

    Source: Hajek's projection of a U-statistic of degree 2 (Hoeffding 1948).
    """
    ratings, (prompts, names) = table["rating"].to_numpy(), pd.factorize(table["prompt_id"])
    ahead = np.greater.outer(ratings, ratings) & np.not_equal.outer(prompts, prompts)
    if not ahead.any():
        return np.empty((0, 2))

    def by_prompt(pairs: Array) -> Array:
        """Sum over the pairs that hold a response to a prompt."""
        sums = pairs.sum(axis=0) + pairs.sum(axis=1)
        return np.bincount(prompts, sums, len(names)).astype(np.float64)

    weights = by_prompt(ahead.astype(np.float64))
    shares = []
    for name in ("label", "length"):
        right = np.where(ahead, _right(table[name]), 0.0)
        share = right.sum() / ahead.sum()
        shares.append(share + 2 * (by_prompt(right) - share * weights) / weights.mean())
    return np.column_stack(shares)


def _right(values: pd.Series) -> Array:
    """Tell for each pair whether the first value is larger: 1, 1/2 or 0."""
    numbers = values.to_numpy(np.float64)
    right: Array = (np.sign(np.subtract.outer(numbers, numbers)) + 1) / 2
    return right
