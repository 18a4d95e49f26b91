"""Near-duplicate prompts: MinHash signatures of distinct prompts, and clusters that persist.

Two prompts are near-duplicates if they share a band of their signatures and their estimated
similarity (Jaccard, of their sets of three consecutive words) reaches the threshold.

Shapes: P prompts, S = ``NUM_SLOTS`` numbers of a signature.
"""

import logging
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from ibis.expr.types import Table
from numpy.typing import NDArray
from rensa import RMinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rpo_pipeline.ingestion.chats import parse_prompt
from rpo_pipeline.params import NearDuplicateParams

logger = logging.getLogger(__name__)

# Signatures are stored. A change of these four, or of rensa's hash, voids those of earlier runs; it
# is noticed because some of their prompts are signed again.
NUM_SLOTS = 128
SHINGLE_WORDS = 3
SEED = 0
# A letter of a script without spaces (Thai, Lao, kana, Han) counts as a word.
WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")

MAX_MISS = 0.01
"""Probability that two prompts exactly as similar as the threshold share no band."""
WINDOW = 32
"""Largest number of neighbours in a bucket of a band that a prompt is compared with."""
BATCH = 8192
PROBES = 8
"""Number of prompts of earlier runs that are signed again, to check the stored signatures."""
CHUNK = 2**16

LARGE_CLUSTER, LARGE_SHARE = 20, 0.2
"""Number of prompts from which on a cluster with more than this share of them gives a warning."""
INSTRUCTIONS = frozenset({"system", "developer"})

CLUSTER_SCHEMA = pa.schema(
    [("prompt_id", pa.string()), ("cluster_id", pa.string()), ("signature", pa.binary())]
)

Signatures = NDArray[np.uint32]
Positions = NDArray[np.int64]
Wanted = Callable[[Positions, Positions], NDArray[np.bool_]]


def cluster_prompts(
    rows: Table, previous: Table | None, near_duplicates: NearDuplicateParams | None
) -> Table:
    """Put near-duplicate prompts into one cluster.

    Only prompts that are not in ``previous``, the table of earlier runs, are read and signed. A
    cluster keeps its name and its prompts. New prompts join clusters, and may unite two of them.
    Without settings ``previous`` is returned unchanged.

    The result holds prompt_id, cluster_id (the smallest of the cluster's first prompt_ids) and
    signature.
    """
    known = CLUSTER_SCHEMA.empty_table()
    if near_duplicates is None:
        return ibis.memtable(known if previous is None else previous.to_pyarrow())
    prompts = rows.select("prompt_id", "prompt").distinct()
    if previous is not None:
        known = _signed_alike(previous, prompts)
        prompts = prompts.anti_join(previous, "prompt_id")
    batches = prompts.to_pyarrow().to_batches(max_chunksize=BATCH)
    clusters = pa.concat_tables([known, *map(_signed, batches)])
    is_new = np.arange(len(clusters)) >= known.num_rows
    clusters = clusters.append_column("is_new", pa.array(is_new)).sort_by("prompt_id")
    names = clusters["cluster_id"].to_pandas()
    labels = _join(names, read_signatures(clusters), near_duplicates.threshold)
    cluster_ids = _name_clusters(names, labels, clusters["is_new"].to_numpy())
    warn_if_large(
        cluster_ids.value_counts().max(),
        len(cluster_ids),
        "%d of %d prompts are near-duplicates of one another and share a split: if they only "
        "share a template, raise ingestion.near_duplicates.threshold, or set "
        "ingestion.near_duplicates to null",
    )
    columns = [clusters["prompt_id"], pa.array(cluster_ids, pa.string()), clusters["signature"]]
    return ibis.memtable(pa.table(columns, schema=CLUSTER_SCHEMA))


def similar_pairs(
    signatures: Signatures, threshold: float, wanted: Wanted
) -> Iterator[tuple[Positions, Positions]]:
    """Find near-duplicates among all prompts.

    Args:
        signatures: Signatures in order of prompt_id, which decides the neighbours in full buckets.
        threshold: Smallest share of equal numbers, an estimate of the Jaccard similarity.
        wanted: Function that tells which pairs of positions to compare; called for every band.

    Yields:
        Left and right positions of the pairs of one band; several bands may yield a pair.
    """
    width = _band_width(threshold)
    for start in range(0, NUM_SLOTS - width + 1, width):
        band = pd.DataFrame(signatures[:, start : start + width])
        keys = pd.util.hash_pandas_object(band, index=False).to_numpy()
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for distance in range(1, min(WINDOW, len(keys) - 1) + 1):
            same = np.flatnonzero(keys[distance:] == keys[:-distance])
            if not len(same):
                break
            for chunk in np.array_split(same, -(-len(same) // CHUNK)):
                left, right = order[chunk], order[chunk + distance]
                worth = wanted(left, right)
                left, right = left[worth], right[worth]
                equal = (signatures[left] == signatures[right]).mean(axis=1) >= threshold
                yield left[equal], right[equal]


def read_signatures(clusters: pa.Table) -> Signatures:
    """Return the signatures of a table of clusters, shape ``(P, S)``."""
    stored = b"".join(clusters["signature"].to_pylist())
    return np.frombuffer(stored, dtype="<u4").reshape(-1, NUM_SLOTS)


def shingles(prompt: str) -> list[str]:
    """Return the runs of three words of a prompt.

    Case, punctuation, spaces and letter forms make no difference. The system message of a chat does
    not count, for it may be longer than the turns and the same in all chats.
    """
    words = WORD.findall(unicodedata.normalize("NFKC", _turns(prompt)).casefold())
    words = words or [prompt.strip()]
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return [" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last)]


def _turns(prompt: str) -> str:
    parsed = parse_prompt(prompt)
    if isinstance(parsed, str):
        return parsed
    return "\n".join(turn["content"] for turn in parsed if turn["role"] not in INSTRUCTIONS)


def sign_prompts(prompts: Sequence[str]) -> Signatures:
    """Compute the MinHash signatures of prompts, shape ``(P, S)``."""
    matrix = RMinHash.digest_matrix_from_token_sets(
        [shingles(prompt) for prompt in prompts], NUM_SLOTS, SEED
    )
    return np.array(matrix.to_rows(), dtype="<u4").reshape(-1, NUM_SLOTS)


def _signed_alike(previous: Table, prompts: Table) -> pa.Table:
    """Return earlier clusters with signatures that can be compared with new ones.

    If another version of rensa hashes differently, the prompts that the log still holds are signed
    again.
    """
    known = previous.to_pyarrow()
    texts = prompts.semi_join(previous, "prompt_id")
    if _same_signatures(known, texts.limit(PROBES)):
        return known
    logger.warning(
        "the signatures of %d prompts are of another version of rensa or of this project and "
        "are computed again",
        len(known),
    )
    batches = texts.to_pyarrow().to_batches(BATCH)
    again = pa.concat_tables([CLUSTER_SCHEMA.empty_table(), *map(_signed, batches)])
    table = known.to_pandas()
    table["signature"] = table["prompt_id"].map(_by_prompt(again)).fillna(table["signature"])
    return pa.Table.from_pandas(table, known.schema, preserve_index=False)


def _same_signatures(known: pa.Table, probes: Table) -> bool:
    texts = probes.to_pyarrow()
    ids = texts["prompt_id"].to_pylist()
    stored = known.filter(pc.is_in(known["prompt_id"], pa.array(ids, pa.string())))
    held = _by_prompt(stored)
    fresh = sign_prompts(texts["prompt"].to_pylist())
    return all(held[name] == row.tobytes() for name, row in zip(ids, fresh, strict=True))


def _by_prompt(clusters: pa.Table) -> dict[str, bytes]:
    columns = (clusters[name].to_pylist() for name in ("prompt_id", "signature"))
    return dict(zip(*columns, strict=True))


def _signed(batch: pa.RecordBatch) -> pa.Table:
    ids = batch["prompt_id"]
    signatures = [row.tobytes() for row in sign_prompts(batch["prompt"].to_pylist())]
    return pa.table([ids, ids, pa.array(signatures, pa.binary())], schema=CLUSTER_SCHEMA)


def _band_width(threshold: float) -> int:
    """Return the largest number of signature numbers in a band that misses few near-duplicates."""

    def miss(width: int) -> float:
        return float((1 - threshold**width) ** (NUM_SLOTS // width))

    return max(width for width in range(1, NUM_SLOTS + 1) if width == 1 or miss(width) <= MAX_MISS)


def _join(names: pd.Series, signatures: Signatures, threshold: float) -> Positions:
    """Number each prompt's cluster, from its earlier cluster and its near-duplicates."""
    labels = pd.factorize(names)[0].astype(np.int64)

    def apart(left: Positions, right: Positions) -> NDArray[np.bool_]:
        return np.asarray(labels[left] != labels[right])

    for left, right in similar_pairs(signatures, threshold, apart):
        if len(left):
            labels[:] = components(labels[left], labels[right], int(labels.max()) + 1)[labels]
    return labels


def components(left: Positions, right: Positions, num_nodes: int) -> Positions:
    """Number the connected component of each node of a graph with edges from left to right."""
    edges = (np.ones(len(left), np.int8), (left, right))
    graph = coo_array(edges, shape=(num_nodes, num_nodes))
    return np.asarray(connected_components(graph, directed=False)[1])


def warn_if_large(size: int, num_prompts: int, warning: str) -> None:
    """Give a warning, with these two numbers, if a cluster holds a large share of all prompts."""
    if num_prompts >= LARGE_CLUSTER and size > LARGE_SHARE * num_prompts:
        logger.warning(warning, size, num_prompts)


def _name_clusters(names: pd.Series, labels: Positions, is_new: NDArray[np.bool_]) -> pd.Series:
    """Name the clusters: the smallest name of its earlier clusters, else of its new prompts."""
    table = pd.DataFrame({"label": labels, "is_new": is_new, "name": names})
    first = table.sort_values(["label", "is_new", "name"]).drop_duplicates("label")
    return pd.Series(labels).map(first.set_index("label")["name"])
