"""Log-probabilities of rows, kept under what they depend on, so that only new rows are scored."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pandas as pd

from rpo_pipeline.io.durable import put_in_place, temporary_sibling
from rpo_pipeline.models.loading import LanguageModel, model_fingerprint
from rpo_pipeline.models.scoring import score_table
from rpo_pipeline.params import PolicyParams

logger = logging.getLogger(__name__)

SHARD_ROWS = 4096


def cache_key(model: Path, policy: PolicyParams) -> str:
    """Name of what the log-probability of a row depends on beside its text.

    Args:
        model: Model directory: weights, configuration, tokenizer.
        policy: Precision and truncation; nothing else of it counts.

    Returns:
        32 hexadecimal digits.
    """
    parts = (
        model_fingerprint(model),
        policy.dtype,
        policy.max_prompt_tokens,
        policy.max_response_tokens,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def score_new_rows(
    language_model: LanguageModel,
    table: pd.DataFrame,
    policy: PolicyParams,
    cache: Path,
    *,
    micro_batch_tokens: int,
    shard_rows: int = SHARD_ROWS,
) -> pd.DataFrame:
    """Score the rows that the cache does not hold, shard by shard, and give all.

    A shard counts once it is complete, so an interrupted pass goes on where it stopped.

    Args:
        language_model: The model that scores.
        table: Columns row_id, prompt_id, prompt, response.
        policy: Limits on tokens.
        cache: Folder of one ``cache_key``.
        micro_batch_tokens: Budget of a forward pass.
        shard_rows: Rows of a shard, give or take a group.

    Returns:
        row_id, logps (summed, nats) and num_tokens, in the order of the table.
    """
    known = _load(cache)
    missing = table[~table["row_id"].isin(known["row_id"])]
    logger.info("%d rows to score, %d in the cache", len(missing), len(table) - len(missing))
    parts = [known]
    for shard in _shards(missing, shard_rows):
        scored = score_table(language_model, shard, policy, micro_batch_tokens=micro_batch_tokens)
        _save(scored, cache)
        parts.append(scored)
    scores = pd.concat([part for part in parts if len(part)])
    return table[["row_id"]].merge(scores, on="row_id", validate="many_to_one")


def _load(cache: Path) -> pd.DataFrame:
    shards = [pd.read_parquet(file) for file in sorted(cache.glob("shard-*.parquet"))]
    columns = pd.DataFrame(columns=["row_id", "logps", "num_tokens"])
    # Two runs at once may have scored the same rows.
    return pd.concat(shards).drop_duplicates("row_id") if shards else columns


def _save(scored: pd.DataFrame, cache: Path) -> None:
    target = cache / f"shard-{uuid4().hex}.parquet"
    prepared = temporary_sibling(target)
    scored.to_parquet(prepared, index=False)
    put_in_place(prepared, target)


def _shards(rows: pd.DataFrame, shard_rows: int) -> Iterator[pd.DataFrame]:
    """Whole prompt groups, so that a prompt is still computed once."""
    rows = rows.sort_values(["prompt_id", "row_id"])
    position = pd.Series(range(len(rows)), index=rows.index)
    shard = position.groupby(rows["prompt_id"]).transform("min") // shard_rows
    for _, part in rows.groupby(shard.to_numpy()):
        yield part.reset_index(drop=True)
