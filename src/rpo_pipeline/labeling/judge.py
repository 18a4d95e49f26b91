"""A labeler that uses a language model as a judge."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from rpo_pipeline.ingestion import render_prompt
from rpo_pipeline.judge import JudgeClient, own_template, request_fields
from rpo_pipeline.labeling.label_cache import fetch_pairs
from rpo_pipeline.params import JudgeParams
from rpo_pipeline.storage import result_key, value_digest

logger = logging.getLogger(__name__)

SHARD_REQUESTS = 8
"""Answers that are stored together, in multiples of the number of concurrent requests; a killed run
loses no more."""


class JudgeLabeler:
    """Rates text by the criteria of a rubric; the raw_reward is their weighted sum.

    Answers are cached, in a folder of caches if there is one, without the weights, so a change of
    weights sends no request.
    """

    def __init__(self, settings: JudgeParams, cache: Path | None) -> None:
        self.name = settings.title
        self._settings = settings
        self._weights = {name: each.weight for name, each in settings.criteria.items()}
        answers = self._name_answers()
        self.fingerprint = value_digest([answers, self._weights])
        self._folder = cache / answers if cache else None
        self._client = JudgeClient(settings.endpoint)
        self.usage = self._client.usage
        """Requests, tokens and cost so far."""

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows; only rows without a cached answer are sent to the judge.

        The columns are raw_reward, and the answer to each criterion on the scale -1 to 1; null
        without a usable answer, or if a ceiling stopped the pass.
        """
        ratings = fetch_pairs(
            self._folder,
            rows,
            self._ask,
            verb=f"label by {self.name}",
            shard_rows=SHARD_REQUESTS * self._settings.endpoint.concurrency,
        )
        self._report(int(ratings.isna().any(axis=1).sum()), len(rows))
        weighted = sum(weight * ratings[name] for name, weight in self._weights.items())
        return ratings.assign(raw_reward=weighted)

    def _ask(self, rows: pd.DataFrame) -> pd.DataFrame:
        answers = self._client.each(
            lambda prompt, response: self._client.rate(prompt, response, self._settings),
            *(rows["prompt"].map(render_prompt), rows["response"]),
        )
        empty = dict.fromkeys(self._weights, np.nan)
        return pd.DataFrame(
            [answer or empty for answer in answers], columns=list(self._weights), dtype=float
        )

    def _name_answers(self) -> str:
        """Hash what the answers depend on beside the text."""
        settings = self._settings
        meanings = {name: each.meaning for name, each in settings.criteria.items()}
        template = settings.template or own_template("rate.j2")
        return result_key(
            *(settings.endpoint.decisive, meanings, settings.answer_scale, template),
            code=[JudgeClient.rate, request_fields],
            libraries=[],  # answers cost money and do not depend on any library
        )

    def _report(self, num_missing: int, num_rows: int) -> None:
        usage = self.usage
        logger.info(
            "%s: %d requests, %d retries, %d + %d tokens, cost %.4g",
            *(self.name, usage.num_requests, usage.num_retries),
            *(usage.prompt_tokens, usage.answer_tokens, usage.cost),
        )
        if num_missing:
            reasons = [f"{reason}: {count}" for reason, count in usage.unanswered.most_common()]
            reasons += [self._client.stopped] if self._client.stopped else []
            logger.warning(
                "%s gave no usable answer for %d of %d rows, which stay without its label until "
                "labelling runs again (new rows, or --runner SequentialRunner): %s",
                *(self.name, num_missing, num_rows, "; ".join(reasons)),
            )
