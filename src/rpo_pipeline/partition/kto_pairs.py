"""Mismatched pairs, which combine each response with another prompt, fixed for a whole run."""

import hashlib

import pandas as pd

from rpo_pipeline.engine import Engine
from rpo_pipeline.errors import DataError


def mismatched_pairs(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Pair the responses of each prompt with one other prompt.

    Prompts form a circle in a random order, and each is paired with the next one. In this
    derangement a new prompt changes the partner of only one other prompt.

    Args:
        rows: Columns row_id, prompt_id, prompt, response.
        seed: Seed of the order.

    Returns:
        row_id and response (of the row), prompt_id and prompt (of the partner), in the order of
        ``rows``.

    Raises:
        DataError: If all rows have the same prompt.
    """
    prompts = rows.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    if len(prompts) == 1:
        raise DataError(
            f"KTO pairs each response with another prompt, but all {len(rows)} labelled rows of "
            "train and validation have the same one (log more prompts, or choose another "
            "training.objective)"
        )
    circle = sorted(prompts.index, key=lambda prompt_id: _place(prompt_id, seed))
    partner = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    partners = rows["prompt_id"].map(partner)
    pairs = rows[["row_id", "response"]].assign(prompt_id=partners, prompt=partners.map(prompts))
    return pairs.reset_index(drop=True)


def score_mismatched(
    rows: pd.DataFrame, engine: Engine, *, seed: int, is_needed: bool
) -> pd.DataFrame:
    """Compute the reference's log-probability of responses to another prompt.

    Args:
        rows: Labelled rows: row_id, prompt_id, split, prompt, response.
        engine: The reference.
        seed: Of the pairing.
        is_needed: Whether an objective asks for it, which KTO alone does.

    Returns:
        row_id (of the response), prompt_id (of the other prompt) and logps in nats, for rows of
        train and validation; empty if it is not needed.
    """
    if not is_needed:
        return pd.DataFrame(columns=["row_id", "prompt_id", "logps"])
    pairs = mismatched_pairs(rows[rows["split"].isin(["train", "validation"])], seed)
    logps = engine.logps(pairs)["logps"]
    return pairs[["row_id", "prompt_id"]].assign(logps=logps.to_numpy())


def _place(prompt_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{prompt_id}".encode(), digest_size=16).digest()
