"""Chooses prompts whose responses the report shows side by side."""

from difflib import SequenceMatcher
from itertools import chain
from typing import Any

import pandas as pd

from rpo_pipeline.ingestion import render_prompt

EACH = 8
"""Number of prompts of each kind."""


def choose_samples(generations: pd.DataFrame, baseline: str) -> list[dict[str, Any]]:
    """Choose prompts and put the first response of every model side by side.

    Each prompt is there once, with its ``kinds``: ``random``, ``best`` and ``worst`` (where the
    challenger's raw reward rose and fell most against the baseline), ``changed`` (where its words
    differ most); ``gain`` in raw reward; ``answers`` as (model, response, raw reward).
    """
    first = generations[generations["sample"] == 0]
    responses = first.pivot(index="prompt_id", columns="model", values="response")
    rewards = first.pivot(index="prompt_id", columns="model", values="raw_reward")
    models = [name for name in ("reference", "champion", "challenger") if name in responses.columns]
    prompts = first.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    gain = rewards["challenger"] - rewards[baseline]
    kinds: dict[str, list[str]] = {
        "random": sorted(gain.index)[:EACH],  # the ids are hashes
        "best": gain[gain > 0].nlargest(EACH).index.tolist(),
        "worst": gain[gain < 0].nsmallest(EACH).index.tolist(),
        "changed": _sameness(responses, baseline).nsmallest(EACH).index.tolist(),
    }
    return [
        {
            "kinds": [kind for kind, chosen in kinds.items() if prompt_id in chosen],
            "prompt": render_prompt(prompts[prompt_id]),
            "gain": gain[prompt_id],
            "answers": [
                (model, responses[model][prompt_id], rewards[model][prompt_id]) for model in models
            ],
        }
        for prompt_id in dict.fromkeys(chain.from_iterable(kinds.values()))
    ]


def _sameness(responses: pd.DataFrame, baseline: str) -> pd.Series:
    """Compute the share of words that challenger and baseline have in common, in order."""
    pairs = zip(responses[baseline], responses["challenger"], strict=True)
    ratios = [SequenceMatcher(None, a.split(), b.split(), autojunk=False).ratio() for a, b in pairs]
    return pd.Series(ratios, index=responses.index)
