"""A labeler that asks a language model."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from rpo_pipeline.ingestion import prompt_key, render_prompt, row_key
from rpo_pipeline.judge import JudgeClient, Usage, own_template, request_fields
from rpo_pipeline.params import JudgeParams
from rpo_pipeline.storage import fetch_rows, result_key, value_digest

logger = logging.getLogger(__name__)

SHARD_REQUESTS = 8
"""Requests, for each that may be under way at one time, whose answers are stored together: what a
killed run loses at most."""


class JudgeLabeler:
    """Rates text by the criteria of a rubric; the raw_reward is their weighted sum.

    What the judge answered is kept without the weights: changing them asks nobody again.

    Args:
        settings: Endpoint, rubric and weights.
        cache: Answers are kept in a folder of it; null: every answer is a new one.
    """

    def __init__(self, settings: JudgeParams, cache: Path | None) -> None:
        self.name = settings.title
        self._settings = settings
        self._weights = {name: each.weight for name, each in settings.criteria.items()}
        answers = self._name_answers()
        self.fingerprint = value_digest([answers, self._weights])
        self._folder = cache / answers if cache else None
        self._client = JudgeClient(settings.endpoint)

    @property
    def usage(self) -> Usage:
        """What the judge used so far."""
        return self._client.usage

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Ask for the rows that were never answered before.

        Args:
            rows: As every labeler takes them.

        Returns:
            raw_reward, and by criterion the answer on the scale -1 to 1; null where there is no
            usable answer, or the pass had to stop.
        """
        if self._folder is None or rows.empty:
            ratings = self._ask(rows)
        else:
            ratings = fetch_rows(
                self._folder,
                [row_key(*pair) for pair in zip(rows["prompt"], rows["response"], strict=True)],
                lambda places: self._ask(rows.iloc[places]),
                prompt_ids=rows["prompt"].map(prompt_key).tolist(),
                verb=f"label by {self.name}",
                shard_rows=SHARD_REQUESTS * self._settings.endpoint.concurrency,
            )
        self._report(int(ratings.isna().any(axis=1).sum()), len(rows))
        weighted = sum(weight * ratings[name] for name, weight in self._weights.items())
        return ratings.assign(raw_reward=weighted).set_axis(rows.index)

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
        """What the answers depend on beside the text."""
        settings = self._settings
        meanings = {name: each.meaning for name, each in settings.criteria.items()}
        template = settings.template or own_template("rate.j2")
        return result_key(
            *(settings.endpoint.decisive, meanings, settings.answer_scale, template),
            code=[JudgeClient.rate, request_fields],
            libraries=[],  # an answer is paid for, and no library writes it
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
