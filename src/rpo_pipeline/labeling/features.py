"""Features of fitted reward models: frozen embeddings of prompt and response, kept by content."""

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rpo_pipeline.engine import LanguageModel, SentenceEncoder, embed_responses, load_language_model
from rpo_pipeline.ingestion import render_prompt
from rpo_pipeline.labeling.label_cache import fetch_pairs
from rpo_pipeline.labeling.reward_model import weights_name
from rpo_pipeline.params import FittedRewardModelParams
from rpo_pipeline.storage import MODEL_LIBRARIES, result_key


class FeatureExtractor:
    """Computes features of rows, and keeps embeddings in a folder of the cache if there is one."""

    def __init__(self, settings: FittedRewardModelParams, cache: Path | None) -> None:
        self.fingerprint = result_key(
            *(settings.embedding, settings.max_tokens, weights_name(settings)),
            code=[FeatureExtractor.__call__],
            libraries=MODEL_LIBRARIES,
        )
        self._settings = settings
        self._folder = cache / self.fingerprint if cache else None

    def __call__(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Compute features of at least one row of prompt and response, shape ``(rows, features)``.

        For a language model they are the embedding of the response; for a sentence encoder, those
        of prompt and response, and their product.
        """
        stored = fetch_pairs(
            self._folder,
            rows,
            lambda missing: pd.DataFrame({"states": list(self._embed(missing))}),
            verb=f"embed for {self._settings.title}",
        )
        states = np.stack(stored["states"].tolist()).astype(np.float64)
        if self._settings.embedding == "language_model":
            return states
        prompts, responses = np.split(states, 2, axis=1)
        return np.hstack([prompts, responses, prompts * responses])

    def _embed(self, rows: pd.DataFrame) -> NDArray[np.float32]:
        settings = self._settings
        limits = {
            "max_tokens": settings.max_tokens,
            "micro_batch_tokens": settings.micro_batch_tokens,
        }
        prompts, responses = rows["prompt"].tolist(), rows["response"].tolist()
        if settings.embedding == "language_model":
            return embed_responses(self._language_model, prompts, responses, **limits)
        places, distinct = pd.factorize(rows["prompt"].map(render_prompt))
        states = self._encoder.embed([*distinct, *responses], **limits)
        return np.hstack([states[places], states[len(distinct) :]])

    @cached_property
    def _encoder(self) -> SentenceEncoder:
        return SentenceEncoder(self._settings.name_or_path, self._settings.revision)

    @cached_property
    def _language_model(self) -> LanguageModel:
        return load_language_model(self._settings.name_or_path, revision=self._settings.revision)
