"""Responses of every model to the same test prompts, under the same noise."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rpo_pipeline.engine import (
    LanguageModel,
    cache_key,
    fetch_logps,
    fetch_samples,
    load_checkpoint,
    row_seed,
    samples_key,
)
from rpo_pipeline.params import PolicyParams, SamplingParams, Split


def held_out_prompts(
    feedback: pd.DataFrame, num_prompts: int, split: Split = "test"
) -> pd.DataFrame:
    """The first prompts of a split by prompt_id, without leaked ones: prompt_id and prompt."""
    unseen = (feedback["split"] == split) & ~feedback["leaked"]
    held_out = feedback.loc[unseen, ["prompt_id", "prompt"]]
    return held_out.drop_duplicates("prompt_id").sort_values("prompt_id").head(num_prompts)


def generate(
    models: Mapping[str, Path],
    prompts: pd.DataFrame,
    sampling: SamplingParams,
    policy: PolicyParams,
    cache: Path,
    *,
    seed: int,
    micro_batch_tokens: int,
) -> pd.DataFrame:
    """Sample responses with each model, one model in memory at a time.

    Args:
        models: Directory of each model by name; ``reference`` must be among them.
        prompts: Columns prompt_id and prompt.
        sampling: Temperature and responses per prompt.
        policy: Limits on tokens and precision.
        cache: What a model wrote and scored before is kept in it, by the model's fingerprint.
        seed: With prompt and sample it decides the noise, the same for every model.
        micro_batch_tokens: Budget of a scoring pass.

    Returns:
        model, prompt_id, prompt, sample, response, num_tokens, and in nats logps (under the model
        itself, of its own tokens), ref_logps (of them under the reference) and
        reference_sample_logps (under the model, of the reference's tokens); both NaN where a
        model's vocabulary is not the reference's.
    """
    rows = prompts.loc[prompts.index.repeat(sampling.responses_per_prompt)].reset_index(drop=True)
    rows["sample"] = rows.groupby("prompt_id").cumcount()
    seeds = [row_seed(seed, *key) for key in zip(rows["prompt_id"], rows["sample"], strict=True)]
    temperature = sampling.sampling_temperature
    tables: dict[str, pd.DataFrame] = {}
    written: dict[str, list[list[int]]] = {}
    vocabularies = {}

    encoded: dict[str, list[list[int]]] = {}

    def score(language_model: LanguageModel, name: str, responses: list[list[int]]) -> pd.DataFrame:
        return fetch_logps(
            language_model,
            encoded[name],
            responses,
            cache / "logps" / cache_key(models[name], policy),
            prompt_ids=rows["prompt_id"].tolist(),
            micro_batch_tokens=micro_batch_tokens,
        )

    # The reference first: the others score what it wrote while they are at hand.
    for name in sorted(models, key=lambda name: name != "reference"):
        language_model = load_checkpoint(models[name], policy)
        encoded[name] = _encode(language_model, rows["prompt"], policy)
        samples = fetch_samples(
            language_model,
            encoded[name],
            policy,
            cache / "samples" / samples_key(models[name], policy, temperature),
            seeds=seeds,
            prompt_ids=rows["prompt_id"].tolist(),
            sampling_temperature=temperature,
        )
        written[name] = [list(map(int, tokens)) for tokens in samples["token_ids"]]
        vocabularies[name] = language_model.tokenizer.get_vocab()
        table = rows.assign(model=name, response=samples["response"])
        table = table.join(score(language_model, name, written[name]))
        table["reference_sample_logps"] = (
            score(language_model, name, written["reference"])["logps"]
            if vocabularies[name] == vocabularies["reference"]
            else np.nan
        )
        tables[name] = table
    reference = load_checkpoint(models["reference"], policy)
    for name, table in tables.items():
        table["ref_logps"] = (
            score(reference, "reference", written[name])["logps"]
            if vocabularies[name] == vocabularies["reference"]
            else np.nan
        )
    return pd.concat(tables.values(), ignore_index=True)


def _encode(
    language_model: LanguageModel, prompts: pd.Series, policy: PolicyParams
) -> list[list[int]]:
    text_format = language_model.text_format(policy)
    return text_format.encode_prompts(prompts.tolist())
