"""Responses of every model to the same test prompts, under the same noise."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from rpo_pipeline.engine import Engine, row_seed
from rpo_pipeline.params import SamplingParams, Split


def held_out_prompts(
    feedback: pd.DataFrame, num_prompts: int, split: Split = "test"
) -> pd.DataFrame:
    """The first prompts of a split by prompt_id, without leaked ones: prompt_id and prompt."""
    unseen = (feedback["split"] == split) & ~feedback["leaked"]
    held_out = feedback.loc[unseen, ["prompt_id", "prompt"]]
    return held_out.drop_duplicates("prompt_id").sort_values("prompt_id").head(num_prompts)


def generate(
    engines: Mapping[str, Engine], prompts: pd.DataFrame, sampling: SamplingParams, *, seed: int
) -> pd.DataFrame:
    """Sample responses with each model, one model in memory at a time.

    Args:
        engines: Each model by name; ``reference`` must be among them. What a model wrote and
            scored before is in its cache.
        prompts: Columns prompt_id and prompt.
        sampling: Temperature and responses per prompt.
        seed: With prompt and sample it decides the noise, the same for every model.

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
    written: dict[str, pd.DataFrame] = {}
    vocabularies = {}

    # The reference first: the others score what it wrote while they are at hand.
    for name in sorted(engines, key=lambda name: name != "reference"):
        with engines[name] as engine:
            samples = engine.sample(rows, seeds, sampling_temperature=temperature)
            written[name] = rows.join(samples)
            vocabularies[name] = engine.vocabulary
            table = rows.assign(model=name, response=samples["response"])
            table = table.join(engine.sample_logps(written[name]))
            table["reference_sample_logps"] = (
                engine.sample_logps(written["reference"])["logps"]
                if vocabularies[name] == vocabularies["reference"]
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
