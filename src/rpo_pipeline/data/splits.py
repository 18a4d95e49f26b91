"""Splits by prompt: given once by the hash of the prompt, and kept."""

import ibis
from ibis import _
from ibis.expr.types import Table

from rpo_pipeline.errors import DataError
from rpo_pipeline.params import SplitShares


def assign_splits(rows: Table, previous: Table | None, shares: SplitShares) -> Table:
    """Give every prompt a split.

    A prompt's split depends on its text alone, not on the other prompts, and a split once given
    stays even when the shares change.

    Args:
        rows: As read; prompt_id and split_point are used.
        previous: prompt_id and split given by earlier runs.
        shares: For prompts seen for the first time.

    Returns:
        prompt_id and split, ordered by prompt_id; prompts of earlier runs stay in it.

    Raises:
        DataError: If no prompt is left to train on, or none to test on.
    """
    given = (
        rows.group_by("prompt_id")
        .agg(split_point=_.split_point.min())
        .mutate(
            split=ibis.cases(
                (_.split_point < shares.train, "train"),
                (_.split_point < shares.train + shares.validation, "validation"),
                else_="test",
            )
        )
        .select("prompt_id", "split")
    )
    _check(given if previous is None else _keep(given, previous), shares)
    return (given if previous is None else _keep(given, previous)).order_by("prompt_id")


def _keep(given: Table, previous: Table) -> Table:
    return previous.select("prompt_id", "split").union(given.anti_join(previous, "prompt_id"))


def _check(splits: Table, shares: SplitShares) -> None:
    counts = dict(splits.group_by("split").agg(n=_.count()).execute().itertuples(index=False))
    if not counts.get("train") or not counts.get("test"):
        seen = ", ".join(
            f"{counts.get(name, 0)} {name}" for name in ("train", "validation", "test")
        )
        raise DataError(
            f"prompts must be in train and in test, but there are {seen} with shares "
            f"{shares.train:g} / {shares.validation:g} / {shares.test:g} "
            "(ingestion.split_shares, or add prompts: a split is drawn by the hash of each)"
        )
