"""Responses sampled from a model, kept by content, so that only new ones are drawn."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rpo_pipeline.engine.generation import sample_responses
from rpo_pipeline.engine.loading import LanguageModel, load_checkpoint
from rpo_pipeline.params import PolicyParams
from rpo_pipeline.storage import (
    MODEL_LIBRARIES,
    content_key,
    fetch_rows,
    model_fingerprint,
    path_digest,
    result_key,
)

SAMPLING_TEMPERATURE = 1.0
"""The model's own distribution: log_z is an expectation under it."""


def samples_key(
    model: Path, policy: PolicyParams, sampling_temperature: float = SAMPLING_TEMPERATURE
) -> str:
    """Name of what a sample depends on beside the tokens of its prompt and its noise.

    Args:
        model: Model directory: weights, configuration, tokenizer.
        policy: Precision and the limit of a response; nothing else of it counts.
        sampling_temperature: Of the sampling.

    Returns:
        32 hexadecimal digits.
    """
    return result_key(
        model_fingerprint(model),
        path_digest(model / "generation_config.json"),  # it may name tokens that end a response
        policy.dtype,
        policy.max_response_tokens,
        sampling_temperature,
        code=[load_checkpoint, sample_responses],
        libraries=MODEL_LIBRARIES,
    )


def sample_new_rows(
    language_model: LanguageModel,
    prompts: pd.DataFrame,
    policy: PolicyParams,
    cache: Path,
    *,
    num_samples: int,
) -> pd.DataFrame:
    """Draw the numbered samples of prompts that the cache does not hold, and give all.

    The noise of a sample comes from its prompt and number, so one that is drawn again is the same.

    Args:
        language_model: The model that writes.
        prompts: Columns prompt_id and prompt, one line per prompt.
        policy: Limits on tokens.
        cache: Folder of one ``samples_key``.
        num_samples: Of each prompt; raising it draws the additional ones.

    Returns:
        prompt_id, prompt, sample (its number, from 0), response, and token_ids as they were drawn;
        one line per sample, in the order of the prompts.
    """
    text_format = language_model.text_format(policy)
    encoded = text_format.encode_prompts(prompts["prompt"].tolist())
    drawn = [(ids, number) for ids in encoded for number in range(num_samples)]
    repeated = prompts.loc[prompts.index.repeat(num_samples), ["prompt_id", "prompt"]]
    samples = fetch_samples(
        language_model,
        [ids for ids, _ in drawn],
        policy,
        cache,
        seeds=[int(content_key(ids, [number])[:14], 16) for ids, number in drawn],
        prompt_ids=repeated["prompt_id"].tolist(),
    )
    numbers = [number for _, number in drawn]
    return repeated.reset_index(drop=True).assign(sample=numbers).join(samples)


def fetch_samples(
    language_model: LanguageModel,
    prompts: Sequence[list[int]],
    policy: PolicyParams,
    cache: Path,
    *,
    seeds: Sequence[int],
    prompt_ids: Sequence[str],
    sampling_temperature: float = SAMPLING_TEMPERATURE,
) -> pd.DataFrame:
    """Draw the samples that the cache does not hold, and give all.

    Args:
        language_model: The model that writes.
        prompts: Token ids of the prompt of each sample.
        policy: Limit of a response.
        cache: Folder of one ``samples_key``.
        seeds: Of the noise of each sample; with the prompt's tokens it names the sample.
        prompt_ids: Prompt of each sample.
        sampling_temperature: That of ``cache``.

    Returns:
        response, and token_ids as they were drawn, in the order of the prompts.
    """

    def sample(rows: list[int]) -> pd.DataFrame:
        responses = sample_responses(
            language_model,
            [prompts[row] for row in rows],
            seeds=[seeds[row] for row in rows],
            sampling_temperature=sampling_temperature,
            max_new_tokens=policy.max_response_tokens,
        )
        return pd.DataFrame(
            {
                "response": [response.text for response in responses],
                "token_ids": [response.token_ids for response in responses],
            }
        )

    keys = [content_key(ids, [seed]) for ids, seed in zip(prompts, seeds, strict=True)]
    return fetch_rows(cache, keys, sample, prompt_ids=prompt_ids, verb="sample")
