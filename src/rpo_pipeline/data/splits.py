"""Splits by prompt: given once by the hash of the prompt or of its cluster, and kept."""

from typing import get_args

import ibis
import numpy as np
from ibis import _
from ibis.expr.types import Table

from rpo_pipeline.data.near_duplicates import read_signatures, similar_pairs
from rpo_pipeline.errors import DataError
from rpo_pipeline.params import Split, SplitShares

SPLITS: tuple[str, ...] = get_args(Split)
TRAIN, VALIDATION, TEST = range(3)
"""In order of rank: a new prompt takes the first of its cluster's."""


def assign_splits(
    rows: Table, clusters: Table, previous: Table | None, shares: SplitShares
) -> Table:
    """Give every prompt a split, near-duplicates the same.

    A split once given stays, even when the shares change. A new prompt takes the split of its
    cluster; a new cluster's depends on the text of one prompt in it alone. Where a new prompt
    joins clusters of several splits, it goes to the first of train, validation and test, and their
    test prompts are leaked.

    Args:
        rows: As read; prompt_id and split_point are used.
        clusters: prompt_id, cluster_id; a prompt that is not in it stands alone.
        previous: prompt_id and split given by earlier runs.
        shares: For clusters seen for the first time.

    Returns:
        prompt_id, split and leaked (a test prompt with a near-duplicate among those learned
        from), ordered by prompt_id; prompts of earlier runs stay in it.

    Raises:
        DataError: If no prompt is left to train on, or none to test on.
    """
    prompts = rows.group_by("prompt_id").agg(split_point=_.split_point.min())
    prompts = prompts.mutate(given=ibis.null("int8"), was_leaked=ibis.literal(False))
    if previous is not None:
        known = previous.select(
            "prompt_id",
            split_point=ibis.null("float64"),
            given=_rank(previous.split),
            was_leaked=previous.leaked if "leaked" in previous.columns else ibis.literal(False),
        )
        prompts = known.union(prompts.anti_join(known, "prompt_id"))
    cluster_ids = clusters.select("prompt_id", "cluster_id")
    prompts = prompts.left_join(cluster_ids, "prompt_id").select(
        "prompt_id",
        "given",
        "split_point",
        "was_leaked",
        cluster_id=ibis.coalesce(_.cluster_id, _.prompt_id),
    )
    together = ibis.window(group_by="cluster_id")
    # The founder is chosen by the half of its hash that its own split does not depend on.
    from_founder = ibis.window(group_by="cluster_id", order_by=_.prompt_id.substr(16, 16))
    drawn = _draw(_.split_point.first().over(from_founder), shares)
    placed = prompts.mutate(cluster_rank=ibis.coalesce(_.given.min().over(together), drawn))
    placed = placed.mutate(rank=ibis.coalesce(_.given, _.cluster_rank))
    splits = placed.select(
        "prompt_id",
        split=_.rank.cases(*enumerate(SPLITS)),
        leaked=_.was_leaked | ((_.rank == TEST) & (_.cluster_rank < TEST)),
    ).order_by("prompt_id")
    _check_both_sides(splits, shares)
    return splits


def check_leakage(splits: Table, clusters: Table, threshold: float) -> None:
    """Refuse splits with near-duplicates on both sides.

    Args:
        splits: prompt_id, split, leaked.
        clusters: prompt_id, signature.
        threshold: Of their similarity.

    Raises:
        DataError: If a prompt of train is a near-duplicate of a test prompt that is not flagged.
    """
    sides = clusters.left_join(splits, "prompt_id").select(
        "prompt_id",
        "signature",
        side=ibis.cases((_.split == "train", 1), ((_.split == "test") & ~_.leaked, 2), else_=0),
    )
    table = sides.order_by("prompt_id").to_pyarrow()
    side = table["side"].to_numpy()

    def across(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.asarray(side[left] + side[right] == 3)

    pairs = {
        pair
        for left, right in similar_pairs(read_signatures(table), threshold, across)
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    }
    if pairs:
        one, other = (table["prompt_id"][position].as_py() for position in min(pairs))
        raise DataError(
            f"{len(pairs)} pairs of near-duplicate prompts stand in train and in test, such as "
            f"{one} and {other}: was a file of data/03_primary changed by hand?"
        )


def _rank(split: ibis.Column) -> ibis.Column:
    return split.cases(*((name, rank) for rank, name in enumerate(SPLITS))).cast("int8")


def _draw(point: ibis.Column, shares: SplitShares) -> ibis.Column:
    return ibis.cases(
        (point < shares.train, TRAIN),
        (point < shares.train + shares.validation, VALIDATION),
        else_=TEST,
    ).cast("int8")


def _check_both_sides(splits: Table, shares: SplitShares) -> None:
    usable = splits.filter(~splits.leaked)
    counts = dict(usable.group_by("split").agg(n=_.count()).execute().itertuples(index=False))
    if not counts.get("train") or not counts.get("test"):
        seen = ", ".join(f"{counts.get(name, 0)} {name}" for name in SPLITS)
        raise DataError(
            f"prompts must be in train and in test, but there are {seen} with shares "
            f"{shares.train:g} / {shares.validation:g} / {shares.test:g} "
            "(ingestion.split_shares, or add prompts: a split is drawn by the hash of each, and "
            "near-duplicates share one: ingestion.near_duplicates)"
        )
