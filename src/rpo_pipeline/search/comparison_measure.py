"""Measures the policy of a cell: on test prompts, and its divergence on validation prompts."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.engine import Engine
from rpo_pipeline.evaluation import (
    distinct,
    generate,
    held_out_prompts,
    log_ratios,
    prompt_means,
    rank_correlations,
)
from rpo_pipeline.labeling import label_responses
from rpo_pipeline.search.comparison_cells import Settings
from rpo_pipeline.search.comparison_material import Material

RANK = "rank_correlation"
METRICS = (
    *("reward_mean", "win_rate", "toxicity_mean", "kl_reference", "length_mean", "empty_share"),
    RANK,
)
"""Numbers of a test prompt; without a labeler of toxicity there is no toxicity_mean."""

VALIDATION_PROMPTS = 100
"""Largest number of prompts that tell a divergence, to about 0.15 nats with four responses each."""


def measure(
    material: Material, settings: Settings, policy: Path, num_prompts: int, *, on_validation: bool
) -> tuple[pd.DataFrame, dict[str, float | None]]:
    """Sample responses of a policy, and rank the logged ones.

    The reference answers the same prompts under the same noise; its answers come from the cache.

    Args:
        material: Data and caches of all cells.
        settings: Parameters of the cell.
        policy: Directory of the trained model.
        num_prompts: Largest number of test prompts.
        on_validation: Whether to measure the divergence on validation prompts as well.

    Returns:
        One line per test prompt, by prompt_id: ``METRICS``, and those of the reference as
        ``reference_...``; rank_correlation is NaN for a prompt without two different rewards. Then
        distinct_2 of the test responses, and validation_divergence in nats a response, null if it
        was not asked for.
    """
    engine = partial(Engine, policy=settings.policy, training=settings.training)
    challenger = engine(policy)
    prompts = [held_out_prompts(material.rows, num_prompts)]
    if on_validation:
        most = min(num_prompts, VALIDATION_PROMPTS)
        prompts.append(held_out_prompts(material.rows, most, "validation"))
    answers = generate(
        {"reference": engine(material.reference, cache=material.model_cache), "policy": challenger},
        pd.concat(prompts),
        settings.evaluation.sampling,
        seed=0,  # the same noise for every cell
        scores_reference=False,
    )
    is_test = answers["prompt_id"].isin(prompts[0]["prompt_id"])
    rows = material.labelled
    rows = rows[rows["prompt_id"].isin(prompts[0]["prompt_id"])]
    rows = rows.rename(columns={"logps": "ref_logps"})
    per_token = settings.rpo.averages_tokens(settings.training.objective)
    heldout = rows.assign(log_ratio=log_ratios(rows, challenger, per_token=per_token))
    tables = _label(answers[is_test].reset_index(drop=True), settings, material.label_cache)
    numbers = {
        "distinct_2": distinct(tables["policy"], 2)[0],
        "validation_divergence": _divergence(answers[~is_test]) if on_validation else None,
    }
    return _by_prompt(tables, heldout), numbers


def _label(answers: pd.DataFrame, settings: Settings, label_cache: Path) -> dict[str, pd.DataFrame]:
    """Label the answers; the table of each model is ordered by prompt and sample."""
    texts = answers["prompt"].tolist(), answers["response"].tolist()
    labels = label_responses(*texts, settings.evaluation.labelers, label_cache, every=True)
    return {
        str(model): rows.sort_values(["prompt_id", "sample"], ignore_index=True)
        for model, rows in pd.concat([answers, labels], axis=1).groupby("model")
    }


def _by_prompt(tables: dict[str, pd.DataFrame], heldout: pd.DataFrame) -> pd.DataFrame:
    columns: dict[str, Any] = {"prompt_id": sorted(tables["policy"]["prompt_id"].unique())}
    for model, prefix in (("policy", ""), ("reference", "reference_")):
        means = prompt_means(tables[model], tables["reference"])
        columns |= {f"{prefix}{name}": means[name] for name in METRICS if name in means}
    by_prompt = pd.DataFrame(columns)
    num_rewards = heldout.groupby("prompt_id")["raw_reward"].nunique()
    ranks = pd.Series(rank_correlations(heldout), num_rewards.index[num_rewards > 1])
    by_prompt[RANK] = by_prompt["prompt_id"].map(ranks).astype(float)
    # The reference prefers nothing: all its log-ratios are 0.
    return by_prompt.assign(**{f"reference_{RANK}": by_prompt[RANK] * 0.0})


def _divergence(answers: pd.DataFrame) -> float:
    own = answers[answers["model"] == "policy"]
    return float((own["logps"] - own["ref_logps"]).groupby(own["prompt_id"]).mean().mean())
