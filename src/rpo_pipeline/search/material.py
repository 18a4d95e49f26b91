"""Data that the cells of a comparison are trained on, as logged and as studies change it."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rpo_pipeline.storage import model_fingerprint, value_digest

ROWS = "row_id prompt_id split prompt response behaviour_logps".split()


@dataclass(frozen=True)
class Material:
    """Data and caches of all cells, computed once."""

    feedback: pd.DataFrame
    rewards: pd.DataFrame
    reference_logps: pd.DataFrame
    mismatched_logps: pd.DataFrame
    samples: pd.DataFrame
    """Of the reference, for each prompt; empty where no method asks for them."""
    sampled_rows: pd.DataFrame
    """Samples for train prompts as if they had been logged; empty where no study asks for them."""
    reference: Path
    model_cache: Path
    """Of responses and their log-probabilities."""
    label_cache: Path

    @cached_property
    def digest(self) -> str:
        """Of the content of a cell's training: a finished cell of other material does not count."""
        tables = (
            self.feedback,
            self.rewards,
            self.reference_logps,
            self.mismatched_logps,
            self.samples,
        )
        texts = [table.to_json(orient="split", date_format="iso") for table in tables]
        return value_digest([*texts, model_fingerprint(self.reference)])


def change_log(material: Material, study: str, level: float, *, seed: int) -> Material:
    """Change one property of the train rows; validation and test rows stay as they are.

    Args:
        material: Material as logged.
        study: ``num_responses``, ``reward_noise`` or ``logged_share``, as in ``StudiesParams``.
        level: Level of the property.
        seed: Seed of the order of a prompt's responses, and of the noise.

    Returns:
        The changed material, equal to the original if the level changes nothing.
    """
    changes = {
        "num_responses": _fewer_responses,
        "reward_noise": _noisy_rewards,
        "logged_share": _mixed_responses,
    }
    return changes[study](material, level, np.random.default_rng(seed))


def sampled_rows(samples: pd.DataFrame, feedback: pd.DataFrame) -> pd.DataFrame:
    """Responses sampled from the reference for train prompts, as rows of a log.

    Args:
        samples: As ``reference_samples.sample_reference`` gives them.
        feedback: The feedback table.

    Returns:
        The columns of ``samples`` beside row_id, split, prompt, behaviour_logps and leaked.
    """
    train = feedback.loc[feedback["split"] == "train", ["prompt_id", "prompt", "split"]]
    rows = samples.merge(train.drop_duplicates("prompt_id"), on="prompt_id")
    row_id = rows["prompt_id"] + "-" + rows["sample"].astype(str)
    return rows.assign(row_id=row_id, behaviour_logps=np.nan, leaked=False)


def _fewer_responses(material: Material, level: float, draw: np.random.Generator) -> Material:
    learned = _shuffled_train(material, draw)
    dropped = learned[learned["place"] >= level]["row_id"]
    rewards = material.rewards
    return replace(material, rewards=rewards[~rewards["row_id"].isin(dropped)])


def _noisy_rewards(material: Material, level: float, draw: np.random.Generator) -> Material:
    rewards = material.rewards
    train = rewards["row_id"].isin(_shuffled_train(material, draw)["row_id"]).to_numpy()
    spread = float(rewards.loc[train, "reward"].std(ddof=0))
    noise = np.where(train, draw.normal(0.0, level * spread, len(rewards)), 0.0)
    return replace(material, rewards=rewards.assign(reward=rewards["reward"] + noise))


def _mixed_responses(material: Material, level: float, draw: np.random.Generator) -> Material:
    learned = _shuffled_train(material, draw)
    kept = (learned["size"] * level).round()
    dropped = learned[learned["place"] >= kept]
    missing = dropped.groupby("prompt_id").size()
    samples = material.sampled_rows
    place = samples.groupby("prompt_id").cumcount()
    added = samples[place < samples["prompt_id"].map(missing).fillna(0)]
    rewards = material.rewards[~material.rewards["row_id"].isin(dropped["row_id"])]
    return replace(
        material,
        feedback=_append(material.feedback, added),
        rewards=_append(rewards, added),
        reference_logps=_append(material.reference_logps, added),
        mismatched_logps=_append(
            material.mismatched_logps,
            added[["row_id", "mismatched_prompt_id", "mismatched_logps"]].rename(
                columns=lambda name: name.removeprefix("mismatched_")
            ),
        ),
    )


def _shuffled_train(material: Material, draw: np.random.Generator) -> pd.DataFrame:
    """Shuffle labelled train rows: row_id, prompt_id, place in the prompt from 0, its size.

    The order depends only on the seed, so a level contains the rows of lower levels.
    """
    feedback = material.feedback
    labelled = feedback["row_id"].isin(material.rewards["row_id"])
    rows = feedback.loc[(feedback["split"] == "train") & labelled, ["row_id", "prompt_id"]]
    rows = rows.sort_values("row_id").sample(frac=1, random_state=draw)
    by_prompt = rows.groupby("prompt_id")
    return rows.assign(place=by_prompt.cumcount(), size=by_prompt["row_id"].transform("size"))


def _append(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    known = rows.columns.intersection(table.columns)
    return pd.concat([table, rows[known]], ignore_index=True) if len(rows) else table
