"""Responses of every model to the same test prompts, drawn with the same noise."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from rpo_pipeline.engine import Engine, row_seed
from rpo_pipeline.params import SamplingParams


def generate(
    engines: Mapping[str, Engine],
    prompts: pd.DataFrame,
    sampling: SamplingParams,
    *,
    seed: int,
    scores_reference: bool = True,
) -> pd.DataFrame:
    """Sample responses with each model, one model in memory at a time.

    One of the engines is the ``reference``; results of earlier runs are read from their caches. The
    seed decides the noise, with prompt and sample, in the same way for every model.

    The table holds model, prompt_id, prompt, sample, response, num_tokens, and in nats logps (of
    the response under the model), ref_logps (of the response under the reference) and
    reference_sample_logps (of the reference's response under the model); the last two are NaN if
    the vocabulary of the model is not the reference's, the last also without ``scores_reference``.
    """
    rows = prompts.loc[prompts.index.repeat(sampling.responses_per_prompt)].reset_index(drop=True)
    rows["sample"] = rows.groupby("prompt_id").cumcount()
    seeds = [row_seed(seed, *key) for key in zip(rows["prompt_id"], rows["sample"], strict=True)]
    temperature = sampling.sampling_temperature
    tables: dict[str, pd.DataFrame] = {}
    written: dict[str, pd.DataFrame] = {}
    vocabularies: dict[str, dict[str, int]] = {}

    def logps(engine: Engine, name: str, samples: pd.DataFrame) -> pd.Series | float:
        """Score samples of the reference by a model, or of the model by the reference."""
        comparable = vocabularies[name] == vocabularies["reference"]
        return engine.sample_logps(samples)["logps"] if comparable else np.nan

    # The reference comes first, because the other models score its responses.
    for name in sorted(engines, key=lambda name: name != "reference"):
        with engines[name] as engine:
            samples = engine.sample(rows, seeds, sampling_temperature=temperature)
            written[name] = rows.join(samples)
            vocabularies[name] = engine.vocabulary
            table = rows.assign(model=name, response=samples["response"])
            table = table.join(engine.sample_logps(written[name]))
            table["reference_sample_logps"] = (
                logps(engine, name, written["reference"]) if scores_reference else np.nan
            )
            tables[name] = table
    with engines["reference"] as reference:
        for name, table in tables.items():
            table["ref_logps"] = logps(reference, name, written[name])
    return pd.concat(tables.values(), ignore_index=True)
