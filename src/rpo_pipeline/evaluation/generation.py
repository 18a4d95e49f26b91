"""Responses of every model to the same test prompts, under the same noise."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rpo_pipeline.models.generation import row_seed, sample_responses
from rpo_pipeline.models.loading import LanguageModel, load_checkpoint
from rpo_pipeline.models.row_scoring import score_rows
from rpo_pipeline.params import PolicyParams, SamplingParams


def test_prompts(feedback: pd.DataFrame, num_prompts: int) -> pd.DataFrame:
    """The first test prompts in order of prompt_id, without leaked ones: prompt_id and prompt."""
    unseen = (feedback["split"] == "test") & ~feedback["leaked"]
    test = feedback.loc[unseen, ["prompt_id", "prompt"]]
    return test.drop_duplicates("prompt_id").sort_values("prompt_id").head(num_prompts)


def generate(
    models: Mapping[str, Path],
    prompts: pd.DataFrame,
    sampling: SamplingParams,
    policy: PolicyParams,
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
        seed: With prompt and sample it decides the noise, the same for every model.
        micro_batch_tokens: Budget of a scoring pass.

    Returns:
        model, prompt_id, prompt, sample, response, num_tokens, and in nats logps (under the model
        itself, of its own tokens) and ref_logps (under the reference; NaN where a model's
        vocabulary is not the reference's).
    """
    rows = prompts.loc[prompts.index.repeat(sampling.responses_per_prompt)].reset_index(drop=True)
    rows["sample"] = rows.groupby("prompt_id").cumcount()
    seeds = [row_seed(seed, *key) for key in zip(rows["prompt_id"], rows["sample"], strict=True)]
    tables, tokens, vocabularies = [], {}, {}
    # The reference last, so that it is at hand to score what the others wrote.
    for name in sorted(models, key=lambda name: name == "reference"):
        language_model = load_checkpoint(models[name], policy)
        ids = _encode(language_model, rows["prompt"], policy)
        responses = sample_responses(
            language_model,
            ids,
            seeds=seeds,
            sampling_temperature=sampling.sampling_temperature,
            max_new_tokens=policy.max_response_tokens,
        )
        tokens[name] = [response.token_ids for response in responses]
        vocabularies[name] = language_model.tokenizer.get_vocab()
        table = rows.assign(model=name, response=[response.text for response in responses])
        tables.append(table.join(_score(language_model, ids, tokens[name], micro_batch_tokens)))
    for table in tables:
        name = table["model"].iloc[0]
        comparable = vocabularies[name] == vocabularies["reference"]
        table["ref_logps"] = (
            _score(language_model, ids, tokens[name], micro_batch_tokens)["logps"]
            if comparable
            else np.nan
        )
    return pd.concat(tables, ignore_index=True)


def _score(
    language_model: LanguageModel,
    prompts: list[list[int]],
    responses: list[list[int]],
    micro_batch_tokens: int,
) -> pd.DataFrame:
    return score_rows(
        language_model, prompts, responses, micro_batch_tokens=micro_batch_tokens, title="scoring"
    )


def _encode(
    language_model: LanguageModel, prompts: pd.Series, policy: PolicyParams
) -> list[list[int]]:
    text_format = language_model.text_format(policy)
    return text_format.encode_prompts(prompts.tolist())
