"""Responses sampled from a model, kept under what they depend on, so that only new ones are drawn.

The noise of a sample comes from its content key, so a sample that is drawn again is the same.
"""

from hashlib import blake2b
from pathlib import Path

import pandas as pd

from rpo_pipeline.io.row_store import SHARD_ROWS, content_key, fetch_rows
from rpo_pipeline.models.generation import sample_responses
from rpo_pipeline.models.loading import LanguageModel, model_fingerprint
from rpo_pipeline.params import PolicyParams

SAMPLING_TEMPERATURE = 1.0
"""The model's own distribution: log_z is an expectation under it."""


def samples_key(model: Path, policy: PolicyParams) -> str:
    """Name of what a sample depends on beside the tokens of its prompt and its number.

    Args:
        model: Model directory: weights, configuration, tokenizer.
        policy: Precision and the limit of a response; nothing else of it counts.

    Returns:
        32 hexadecimal digits.
    """
    parts = (
        model_fingerprint(model),
        policy.dtype,
        policy.max_response_tokens,
        SAMPLING_TEMPERATURE,
    )
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def sample_new_rows(
    language_model: LanguageModel,
    prompts: pd.DataFrame,
    policy: PolicyParams,
    cache: Path,
    *,
    num_samples: int,
    shard_rows: int = SHARD_ROWS,
) -> pd.DataFrame:
    """Draw the samples that the cache does not hold, and give all.

    Args:
        language_model: The model that writes.
        prompts: Columns prompt_id and prompt, one line per prompt.
        policy: Limits on tokens.
        cache: Folder of one ``samples_key``.
        num_samples: Of each prompt; raising it draws the additional ones.
        shard_rows: Samples drawn between two writes.

    Returns:
        prompt_id, prompt, sample (its number, from 0), response, and token_ids as they were drawn;
        one line per sample, in the order of the prompts.
    """
    text_format = language_model.text_format(policy)
    encoded = text_format.encode_prompts(prompts["prompt"].tolist())
    drawn = [(ids, sample) for ids in encoded for sample in range(num_samples)]
    keys = [content_key(ids, [sample]) for ids, sample in drawn]

    def sample(rows: list[int]) -> pd.DataFrame:
        responses = sample_responses(
            language_model,
            [drawn[row][0] for row in rows],
            seeds=[int(keys[row][:14], 16) for row in rows],
            sampling_temperature=SAMPLING_TEMPERATURE,
            max_new_tokens=policy.max_response_tokens,
        )
        return pd.DataFrame(
            {
                "response": [response.text for response in responses],
                "token_ids": [response.token_ids for response in responses],
            }
        )

    repeated = prompts.loc[prompts.index.repeat(num_samples), ["prompt_id", "prompt"]]
    samples = fetch_rows(
        cache,
        keys,
        sample,
        prompt_ids=repeated["prompt_id"].tolist(),
        verb="sample",
        shard_rows=shard_rows,
    )
    numbers = [number for _, number in drawn]
    return repeated.reset_index(drop=True).assign(sample=numbers).join(samples)
