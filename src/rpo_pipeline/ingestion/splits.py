"""Assigns each prompt a permanent split, by its hash or that of another prompt of its cluster."""

from typing import get_args

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.near_duplicates import (
    components,
    read_signatures,
    similar_pairs,
    warn_if_large,
)
from rpo_pipeline.params import Split, SplitShares

SPLITS: tuple[str, ...] = get_args(Split)
TRAIN, VALIDATION, TEST = range(3)
"""Ranks of the splits; a new prompt takes the lowest rank of its cluster."""


def assign_splits(
    rows: Table,
    clusters: Table,
    previous: Table | None,
    shares: SplitShares,
    *,
    by_conversation: bool = True,
) -> Table:
    """Assign every prompt a split, the same one to near-duplicates and to turns of a conversation.

    Conversations that begin with the same turn of a user count as one (``by_conversation``),
    because later turns hold the responses to earlier ones; with their near-duplicates they form a
    cluster. An assigned split never changes, even when the shares do. A new prompt takes the split
    of its cluster, and the split of a new cluster depends on the text of one prompt in it. A new
    prompt that unites clusters of several splits takes the first of train, validation and test, and
    the test prompts of these clusters are leaked.

    Of the rows prompt_id, split_point and conversation are used. ``clusters`` holds prompt_id and
    cluster_id; a prompt that is not in it has no near-duplicate. ``previous`` is what earlier runs
    assigned. The result holds prompt_id, split, leaked (whether train or validation holds a
    near-duplicate of a test prompt or another turn of its conversation) and conversation (null
    unless the prompt is a chat), ordered by prompt_id, of earlier runs too. Without a prompt in
    train or in test, ``DataError`` is raised.
    """
    prompts = rows.group_by("prompt_id").agg(
        split_point=_.split_point.min(), conversation=_.conversation.min()
    )
    prompts = _with_clusters(_with_previous(prompts, previous), clusters)
    if by_conversation:
        prompts = _join_conversations(prompts)
    splits = (
        _with_ranks(prompts, shares)
        .select(
            "prompt_id",
            split=_.rank.cases(*enumerate(SPLITS)),
            leaked=_.was_leaked | ((_.rank == TEST) & (_.cluster_rank < TEST)),
            conversation=_.conversation,
        )
        .order_by("prompt_id")
    )
    _check_both_sides(splits, shares)
    return splits


def check_leakage(splits: Table, clusters: Table, threshold: float) -> None:
    """Refuse splits in which a test prompt that is not leaked has a near-duplicate in train.

    The splits hold prompt_id, split and leaked, the clusters prompt_id and signature. Prompts are
    near-duplicates from this similarity on; one such pair raises ``DataError``.
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
            f"{len(pairs)} pairs of near-duplicate prompts are in train and in test, such as "
            f"{one} and {other}: was a file of data/03_primary changed by hand?"
        )


def _with_previous(prompts: Table, previous: Table | None) -> Table:
    """Add the prompts of earlier runs, and to each prompt its assigned split and leakage."""
    prompts = prompts.mutate(given=ibis.null("int8"), was_leaked=ibis.literal(False))
    if previous is None:
        return prompts
    now = prompts.select("prompt_id", now=_.conversation)
    before = _optional(previous, "conversation", ibis.null("string"))
    known = previous.mutate(before=before).left_join(now, "prompt_id")
    known = known.select(
        "prompt_id",
        split_point=ibis.null("float64"),
        conversation=ibis.coalesce(known.before, known.now),
        given=known.split.cases(*((name, rank) for rank, name in enumerate(SPLITS))).cast("int8"),
        was_leaked=_optional(known, "leaked", ibis.literal(False)),
    )
    return known.union(prompts.anti_join(known, "prompt_id"))


def _with_clusters(prompts: Table, clusters: Table) -> Table:
    """Add the cluster of near-duplicates; a prompt without any is a cluster of its own."""
    cluster_ids = clusters.select("prompt_id", "cluster_id")
    prompts = prompts.left_join(cluster_ids, "prompt_id").drop("prompt_id_right")
    return prompts.mutate(cluster_id=ibis.coalesce(_.cluster_id, _.prompt_id))


def _with_ranks(prompts: Table, shares: SplitShares) -> Table:
    """Add the ranks of two splits: that of a prompt, and that which its cluster gives new ones."""
    together = ibis.window(group_by="cluster_id")
    # The founder decides the cluster's split, so it is chosen by the other half of the hashes.
    from_founder = ibis.window(group_by="cluster_id", order_by=_.prompt_id.substr(16, 16))
    point = _.split_point.first().over(from_founder)
    drawn = ibis.cases(
        (point < shares.train, TRAIN),
        (point < shares.train + shares.validation, VALIDATION),
        else_=TEST,
    ).cast("int8")
    placed = prompts.mutate(cluster_rank=ibis.coalesce(_.given.min().over(together), drawn))
    return placed.mutate(rank=ibis.coalesce(_.given, _.cluster_rank))


def _optional(table: Table, name: str, otherwise: ibis.Value) -> ibis.Value:
    """Return a column, or a default for tables of earlier versions that lack it."""
    return table[name] if name in table.columns else otherwise


def _join_conversations(prompts: Table) -> Table:
    """Unite the clusters that hold prompts of one conversation."""
    own = prompts.select("prompt_id", own_cluster=_.cluster_id)
    # A conversation is named by the prompt_id of its first turn, which may be a prompt of the log.
    chats = prompts.filter(prompts.conversation.notnull()).left_join(
        own, [("conversation", "prompt_id")]
    )
    chats = chats.mutate(beginning=ibis.coalesce(_.own_cluster, _.conversation))
    pairs = chats.group_by("cluster_id", "beginning").agg(size=_.count())
    edges = pairs.order_by("cluster_id", "beginning").to_pyarrow().to_pandas()
    if edges.empty:
        return prompts
    ends, names = pd.factorize(pd.concat([edges["cluster_id"], edges["beginning"]]))
    left, right = np.split(ends, 2)
    labels = pd.Series(components(left, right, len(names)))
    sizes = edges["size"].groupby(labels[left].to_numpy()).sum()
    warn_if_large(
        int(sizes.max()),
        int(prompts.count().execute()),
        "%d of %d prompts are conversations that begin alike and share a split: if they only "
        "share a greeting, set ingestion.conversations_share_split to false",
    )
    joined = pd.Series(names).groupby(labels).transform("min")
    columns = {"former": names, "joined": joined}
    renamed = pa.table({name: pa.array(ids, pa.string()) for name, ids in columns.items()})
    prompts = prompts.left_join(ibis.memtable(renamed), [("cluster_id", "former")])
    return prompts.mutate(cluster_id=ibis.coalesce(_.joined, _.cluster_id))


def _check_both_sides(splits: Table, shares: SplitShares) -> None:
    usable = splits.filter(~splits.leaked)
    counts = dict(usable.group_by("split").agg(n=_.count()).execute().itertuples(index=False))
    if not counts.get("train") or not counts.get("test"):
        seen = ", ".join(f"{counts.get(name, 0)} {name}" for name in SPLITS)
        raise DataError(
            f"prompts must be in train and in test, but there are {seen} with shares "
            f"{shares.train:g} / {shares.validation:g} / {shares.test:g} "
            "(ingestion.split_shares, or add prompts: a split is drawn by the hash of each, "
            "near-duplicates share one, and so do conversations that begin alike: "
            "ingestion.near_duplicates, ingestion.conversations_share_split)"
        )
