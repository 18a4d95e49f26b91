"""Features of fitted reward models: frozen embeddings of prompt and response, kept by content."""

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rpo_pipeline.engine import LanguageModel, SentenceEncoder, embed_responses, load_language_model
from rpo_pipeline.ingestion import prompt_key, render_prompt, row_key
from rpo_pipeline.labeling.reward_model import weights_name
from rpo_pipeline.params import FittedRewardModelParams
from rpo_pipeline.storage import MODEL_LIBRARIES, fetch_rows, result_key


class FeatureExtractor:
    """Computes features of rows.

    Args:
        settings: Settings of the model that embeds.
        cache: Folder that gets a folder of embeddings; null to cache none.
    """

    def __init__(self, settings: FittedRewardModelParams, cache: Path | None) -> None:
        self.fingerprint = result_key(
            *(settings.embedding, settings.max_tokens, weights_name(settings)),
            code=[FeatureExtractor.__call__],
            libraries=MODEL_LIBRARIES,
        )
        self._settings = settings
        self._folder = cache / self.fingerprint if cache else None

    def __call__(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Compute features of rows.

        Args:
            rows: Columns prompt and response; at least one row.

        Returns:
            For a language model, the embedding of the response; for a sentence encoder, those of
            prompt and response, and their product. Shape ``(rows, features)``.
        """
        if self._folder is None:
            states = self._embed(rows)
        else:
            keys = [row_key(*pair) for pair in zip(rows["prompt"], rows["response"], strict=True)]
            stored = fetch_rows(
                self._folder,
                keys,
                lambda places: pd.DataFrame({"states": list(self._embed(rows.iloc[places]))}),
                prompt_ids=rows["prompt"].map(prompt_key).tolist(),
                verb=f"embed for {self._settings.title}",
            )
            states = np.stack(stored["states"].tolist())
        if self._settings.embedding == "language_model":
            return states.astype(np.float64)
        prompts, responses = np.split(states.astype(np.float64), 2, axis=1)
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
