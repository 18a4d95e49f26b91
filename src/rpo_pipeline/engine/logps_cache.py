"""Log-probabilities of rows, kept under what they depend on, so that only new rows are scored."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rpo_pipeline.engine.loading import LanguageModel, load_checkpoint
from rpo_pipeline.engine.row_scoring import score_rows
from rpo_pipeline.engine.tokenisation import tokenise_groups
from rpo_pipeline.params import PolicyParams
from rpo_pipeline.storage import (
    MODEL_LIBRARIES,
    SHARD_ROWS,
    content_key,
    fetch_rows,
    model_fingerprint,
    result_key,
)


def cache_key(model: Path, policy: PolicyParams) -> str:
    """Name of what the log-probability of a row depends on beside its tokens.

    Args:
        model: Model directory: weights, configuration, tokenizer.
        policy: Precision; nothing else of it counts. Where a text is cut decides its tokens.

    Returns:
        32 hexadecimal digits.
    """
    return result_key(
        model_fingerprint(model),
        policy.dtype,
        code=[load_checkpoint, score_rows],
        libraries=MODEL_LIBRARIES,
    )


def score_new_rows(
    language_model: LanguageModel,
    table: pd.DataFrame,
    policy: PolicyParams,
    cache: Path,
    *,
    micro_batch_tokens: int,
    shard_rows: int = SHARD_ROWS,
) -> pd.DataFrame:
    """Score the rows whose tokens the cache does not hold, and give all.

    Args:
        language_model: The model that scores.
        table: Columns row_id, prompt_id, prompt, response.
        policy: Limits on tokens.
        cache: Folder of one ``cache_key``.
        micro_batch_tokens: Budget of a forward pass.
        shard_rows: Rows scored between two writes.

    Returns:
        row_id, logps (summed, nats), num_tokens, and whether prompt_is_cut and response_is_cut at
        the limits on tokens, in the order of the table.
    """
    text_format = language_model.text_format(policy)
    groups = tokenise_groups(table, text_format)
    # Prompt by prompt, so that a shard computes each of its prompts once.
    order = [row for group in groups for row in group.rows]
    prompts = [group.prompt for group in groups for _ in group.rows]
    responses = [ids for group in groups for ids in group.responses]

    scores = fetch_logps(
        language_model,
        prompts,
        responses,
        cache,
        prompt_ids=[group.prompt_id for group in groups for _ in group.rows],
        micro_batch_tokens=micro_batch_tokens,
        shard_rows=shard_rows,
    )
    end = text_format.end_token_id
    scores["prompt_is_cut"] = [group.prompt_is_cut for group in groups for _ in group.rows]
    scores["response_is_cut"] = [ids[-1] != end for ids in responses]
    return table[["row_id"]].reset_index(drop=True).join(scores.set_index(pd.Index(order)))


def fetch_logps(
    language_model: LanguageModel,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    cache: Path,
    *,
    prompt_ids: Sequence[str],
    micro_batch_tokens: int,
    shard_rows: int = SHARD_ROWS,
) -> pd.DataFrame:
    """Score the (prompt, response) pairs that the cache does not hold, and give all.

    Args:
        language_model: The model that scores.
        prompts: Token ids of each row's prompt; neighbours that share one are scored together.
        responses: Token ids of each row's response.
        cache: Folder of one ``cache_key``.
        prompt_ids: Prompt of each row.
        micro_batch_tokens: Budget of a forward pass.
        shard_rows: Rows scored between two writes.

    Returns:
        logps (summed, nats) and num_tokens, in the order of the input.
    """

    def score(rows: list[int]) -> pd.DataFrame:
        return score_rows(
            language_model,
            [prompts[row] for row in rows],
            [responses[row] for row in rows],
            micro_batch_tokens=micro_batch_tokens,
            title="scoring",
        )

    keys = [content_key(*tokens) for tokens in zip(prompts, responses, strict=True)]
    return fetch_rows(
        cache, keys, score, prompt_ids=prompt_ids, verb="score", shard_rows=shard_rows
    )
