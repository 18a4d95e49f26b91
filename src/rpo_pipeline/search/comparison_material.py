"""Data that the cells of a comparison are trained on, as logged and as studies change it."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rpo_pipeline.engine import Engine, row_seed
from rpo_pipeline.errors import DataError
from rpo_pipeline.evaluation import held_out_prompts
from rpo_pipeline.params import ComparisonParams, Split
from rpo_pipeline.partition import labelled_rows, score_mismatched
from rpo_pipeline.search.comparison_cells import trains
from rpo_pipeline.storage import model_fingerprint, value_digest

HELD_OUT: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class Material:
    """Data and caches of all cells, computed once."""

    rows: pd.DataFrame
    """Rows of the log from ``choose_rows``, with mismatched_prompt_id and
    mismatched_logps, null where there is no pair."""
    samples: pd.DataFrame
    """Samples of the reference for each prompt; empty if no method reads them."""
    sampled_rows: pd.DataFrame
    """Samples for train prompts as if they had been logged, with the columns of ``rows``; empty
    if no study reads them."""
    reference: Path
    model_cache: Path
    """Folder of cached responses and their log-probabilities."""
    label_cache: Path

    @cached_property
    def digest(self) -> str:
        """Digest of the data; a cell that was finished with other data does not count."""
        tables = (self.rows, self.samples)
        texts = [table.to_json(orient="split", date_format="iso") for table in tables]
        return value_digest([*texts, model_fingerprint(self.reference)])

    @property
    def labelled(self) -> pd.DataFrame:
        """The rows that have a reward."""
        return labelled_rows(self.rows)


def choose_rows(scored_rows: pd.DataFrame, comparison: ComparisonParams) -> pd.DataFrame:
    """Choose the rows that a comparison reads, so that a big log makes short trainings.

    Args:
        scored_rows: Rows of the log, from ``partition.join_scores``.
        comparison: ``rows`` and ``num_prompts``.

    Returns:
        Whole train prompts with at most ``rows`` labelled rows, in an order that depends on the
        prompt alone, and the first ``num_prompts`` prompts of validation and of test.

    Raises:
        DataError: If a split has no prompt, no train prompt fits, or no responses can be ranked.
    """
    chosen = {
        "train": _train_prompts(scored_rows, comparison.rows),
        **{
            split: held_out_prompts(scored_rows, comparison.num_prompts, split)["prompt_id"]
            for split in HELD_OUT
        },
    }
    empty = [split for split, prompts in chosen.items() if prompts.empty]
    if empty:
        raise DataError(
            f"a comparison needs prompts of every split, and there is none of {', '.join(empty)}: "
            "see ingestion.split_shares, and comparison.rows, which must hold the labelled rows of "
            f"one train prompt at least, got {comparison.rows}"
        )
    parts = {
        split: scored_rows[(scored_rows["split"] == split) & scored_rows["prompt_id"].isin(prompts)]
        for split, prompts in chosen.items()
    }
    rewards = parts["test"].groupby("prompt_id")["raw_reward"].nunique()
    if comparison.metric == "rank_correlation" and not (rewards > 1).any():
        raise DataError(
            "comparison.metric: rank_correlation needs test prompts with different rewards, and "
            f"none of {len(rewards)} has two; take reward_mean, or a log with more responses"
        )
    return pd.concat(parts.values()).sort_index().reset_index(drop=True)


def _train_prompts(scored_rows: pd.DataFrame, most: int | None) -> pd.Series:
    labelled = labelled_rows(scored_rows)
    sizes = labelled.loc[labelled["split"] == "train", "prompt_id"].value_counts()
    shuffled = sizes.loc[sorted(sizes.index, key=lambda prompt_id: row_seed(0, prompt_id))]
    return shuffled[shuffled.cumsum() <= (most or math.inf)].index.to_series()


def gather_rows(
    scored_rows: pd.DataFrame, pairs: pd.DataFrame, sampled_rows: pd.DataFrame
) -> pd.DataFrame:
    """Put the logged and the sampled rows of a comparison into one table.

    Args:
        scored_rows: Rows of the log, from ``choose_rows``.
        pairs: KTO's mismatched pairs of the logged rows, from ``partition.score_mismatched``.
        sampled_rows: Samples as rows of a log, with the mismatched columns.

    Returns:
        The rows with mismatched_prompt_id, mismatched_logps and is_logged.
    """
    logged = scored_rows.join(pairs.set_index("row_id").add_prefix("mismatched_"), on="row_id")
    tables = [logged.assign(is_logged=True)]
    if len(sampled_rows):
        tables.append(sampled_rows.reindex(columns=logged.columns).assign(is_logged=False))
    return pd.concat(tables, ignore_index=True)


def change_log(material: Material, study: str, level: float, *, seed: int) -> Material:
    """Change one property of the train rows; validation and test rows stay as they are.

    Args:
        material: Material as logged.
        study: Name of the property, as in ``StudiesParams``.
        level: Level of the property.
        seed: Seed of the order of a prompt's responses, and of the noise.

    Returns:
        The changed material, equal to the original if the level changes nothing.
    """
    changes = {
        "num_responses": _fewer_responses,
        "reward_noise": _noisy_rewards,
        "num_rewards": _graded_rewards,
        "logged_share": _mixed_responses,
    }
    return changes[study](material, level, np.random.default_rng(seed))


def score_sampled_rows(
    samples: pd.DataFrame,
    scored_rows: pd.DataFrame,
    engine: Engine,
    comparison: ComparisonParams,
    seed: int,
) -> pd.DataFrame:
    """Score samples for train prompts as if they had been logged, if a study mixes them in.

    Args:
        samples: Labelled samples of the reference.
        scored_rows: Rows of the log.
        engine: Engine of the reference.
        comparison: Methods and studies of the comparison.
        seed: Seed of KTO's mismatched pairs.

    Returns:
        Rows with the columns of ``gather_rows`` except is_logged; empty without such a study.
    """
    if not comparison.mixes_samples:
        return pd.DataFrame(columns=["row_id", "prompt_id"])
    rows = sampled_rows(samples, scored_rows).drop(columns="token_ids")
    pairs = score_mismatched(rows, engine, seed=seed, is_needed=trains(comparison, "kto"))
    pairs = pairs.set_index("row_id").add_prefix("mismatched_")
    return rows.merge(engine.logps(rows), on="row_id").join(pairs, on="row_id")


def sampled_rows(samples: pd.DataFrame, scored_rows: pd.DataFrame) -> pd.DataFrame:
    """Convert samples of the reference for train prompts to rows of a log.

    Args:
        samples: Samples of the reference, from ``partition.label_samples``.
        scored_rows: Rows of the log.

    Returns:
        The columns of ``samples``, and row_id, split, prompt, behaviour_logps and leaked.
    """
    train = scored_rows.loc[scored_rows["split"] == "train", ["prompt_id", "prompt", "split"]]
    rows = samples.merge(train.drop_duplicates("prompt_id"), on="prompt_id")
    row_id = rows["prompt_id"] + "-" + rows["sample"].astype(str)
    return rows.assign(row_id=row_id, behaviour_logps=np.nan, leaked=False)


def _fewer_responses(material: Material, level: float, draw: np.random.Generator) -> Material:
    learned = _shuffled_train(material, draw)
    return _without(material, learned[learned["place"] >= level])


def _noisy_rewards(material: Material, level: float, draw: np.random.Generator) -> Material:
    rows, is_labelled = material.rows, material.rows["reward"].notna().to_numpy()
    rewards = rows["reward"].to_numpy(np.float64, copy=True)
    train = rows["row_id"].isin(_shuffled_train(material, draw)["row_id"]).to_numpy()
    spread = float(rows.loc[train, "reward"].std(ddof=0))
    noise = draw.normal(0.0, level * spread, int(is_labelled.sum()))
    rewards[is_labelled] += np.where(train[is_labelled], noise, 0.0)
    return replace(material, rows=rows.assign(reward=rewards))


def _graded_rewards(material: Material, level: float, _: np.random.Generator) -> Material:
    rows = material.rows
    train = rows.loc[rows["split"] == "train", "reward"].dropna()
    grades = np.ceil(train.rank(pct=True) * min(level, len(train)))
    rewards = rows["reward"].copy()
    rewards[train.index] = train.groupby(grades).transform("mean")
    return replace(material, rows=rows.assign(reward=rewards))


def _mixed_responses(material: Material, level: float, draw: np.random.Generator) -> Material:
    learned = _shuffled_train(material, draw)
    dropped = learned[learned["place"] >= (learned["size"] * level).round()]
    missing = dropped.groupby("prompt_id").size()
    samples = material.sampled_rows
    place = samples.groupby("prompt_id").cumcount()
    added = samples[place < samples["prompt_id"].map(missing).fillna(0)]
    left = _without(material, dropped)
    if added.empty:
        return left
    return replace(left, rows=pd.concat([left.rows, added[left.rows.columns]], ignore_index=True))


def _without(material: Material, dropped: pd.DataFrame) -> Material:
    rows = material.rows
    return replace(material, rows=rows[~rows["row_id"].isin(dropped["row_id"])])


def _shuffled_train(material: Material, draw: np.random.Generator) -> pd.DataFrame:
    """Shuffle labelled train rows: row_id, prompt_id, place in the prompt from 0, its size.

    The order depends only on the seed, so a level contains the rows of lower levels.
    """
    labelled = material.labelled
    rows = labelled.loc[labelled["split"] == "train", ["row_id", "prompt_id"]]
    rows = rows.sort_values("row_id").sample(frac=1, random_state=draw)
    by_prompt = rows.groupby("prompt_id")
    return rows.assign(place=by_prompt.cumcount(), size=by_prompt["row_id"].transform("size"))
