"""Responses of every model to the same test prompts, drawn with the same noise."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from rpo_pipeline.engine import Engine, row_seed
from rpo_pipeline.params import SamplingParams, Split


def held_out_prompts(
    feedback: pd.DataFrame, num_prompts: int, split: Split = "test"
) -> pd.DataFrame:
    """Return prompt_id and prompt of the first prompts of a split by id, without leaked ones."""
    unseen = (feedback["split"] == split) & ~feedback["leaked"]
    held_out = feedback.loc[unseen, ["prompt_id", "prompt"]]
    return held_out.drop_duplicates("prompt_id").sort_values("prompt_id").head(num_prompts)


def generate(
    engines: Mapping[str, Engine],
    prompts: pd.DataFrame,
    sampling: SamplingParams,
    *,
    seed: int,
    scores_reference: bool = True,
) -> pd.DataFrame:
    """Sample responses with each model, one model in memory at a time.

    Args:
        engines: Engine of each model by name, ``reference`` among them. Results of earlier runs are
            read from their caches.
        prompts: Columns prompt_id and prompt.
        sampling: Sampling temperature, and number of responses per prompt.
        seed: Seed that decides the noise, with prompt and sample, in the same way for every model.
        scores_reference: Whether the models score the reference's responses.

    Returns:
        model, prompt_id, prompt, sample, response, num_tokens, and in nats logps (of the response
        under the model), ref_logps (of the response under the reference) and reference_sample_logps
        (of the reference's response under the model); the last two are NaN if the vocabulary of the
        model is not the reference's, the last also without ``scores_reference``.
    """
    rows = prompts.loc[prompts.index.repeat(sampling.responses_per_prompt)].reset_index(drop=True)
    rows["sample"] = rows.groupby("prompt_id").cumcount()
    seeds = [row_seed(seed, *key) for key in zip(rows["prompt_id"], rows["sample"], strict=True)]
    temperature = sampling.sampling_temperature
    tables: dict[str, pd.DataFrame] = {}
    written: dict[str, pd.DataFrame] = {}
    vocabularies = {}

    # The reference comes first, because the other models score its responses.
    for name in sorted(engines, key=lambda name: name != "reference"):
        with engines[name] as engine:
            samples = engine.sample(rows, seeds, sampling_temperature=temperature)
            written[name] = rows.join(samples)
            vocabularies[name] = engine.vocabulary
            table = rows.assign(model=name, response=samples["response"])
            table = table.join(engine.sample_logps(written[name]))
            table["reference_sample_logps"] = (
                engine.sample_logps(written["reference"])["logps"]
                if scores_reference and vocabularies[name] == vocabularies["reference"]
                else np.nan
            )
            tables[name] = table
    with engines["reference"] as reference:
        for name, table in tables.items():
            table["ref_logps"] = (
                reference.sample_logps(written[name])["logps"]
                if vocabularies[name] == vocabularies["reference"]
                else np.nan
            )
    return pd.concat(tables.values(), ignore_index=True)
