"""The engine: one model, with its scores and samples cached by content."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from rpo_pipeline.engine.batches import micro_batches, score_groups
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.engine.loading import LanguageModel, load_checkpoint
from rpo_pipeline.engine.sampling import sample_responses
from rpo_pipeline.engine.scoring import group_scores
from rpo_pipeline.engine.tokenisation import TextFormat, tokenise_groups
from rpo_pipeline.params import PolicyParams, TrainingParams
from rpo_pipeline.storage import (
    MODEL_LIBRARIES,
    SHARD_ROWS,
    content_key,
    fetch_rows,
    model_fingerprint,
    path_digest,
    result_key,
)

SAMPLING_TEMPERATURE = 1.0
"""Temperature of the model's own distribution, under which log_z is an expectation."""


class StoredModel:
    """A model directory with how it is read; as a context manager it releases the model at the end.

    It depends on neither scoring nor sampling, so results that need neither stay fresh when these
    change. The policy gives precision, prefix sharing and limits on tokens; the training, the token
    budget of a forward pass.
    """

    def __init__(self, directory: Path, policy: PolicyParams, training: TrainingParams) -> None:
        self.directory = directory
        self.policy = policy
        self.micro_batch_tokens = training.micro_batch_tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @cached_property
    def language_model(self) -> LanguageModel:
        """The model in evaluation mode; a ModelError says why it cannot be loaded."""
        return load_checkpoint(self.directory, self.policy)

    def release(self) -> None:
        """Free the memory of the model; it is loaded again when it is needed again."""
        self.__dict__.pop("language_model", None)

    @property
    def rows_at_once(self) -> int:
        """Number of rows of the greatest length that fit into a forward pass, at least one."""
        longest = self.policy.max_prompt_tokens + self.policy.max_response_tokens
        return max(1, self.micro_batch_tokens // longest)


class Engine(StoredModel):
    """Scores and samples with one model, which is loaded when it is first needed.

    Log-probabilities and samples are cached in a folder, unless it is null. ``shard_rows`` are
    computed between two writes to the cache. The other arguments are those of ``StoredModel``.
    """

    def __init__(
        self,
        directory: Path,
        policy: PolicyParams,
        training: TrainingParams,
        cache: Path | None = None,
        *,
        shard_rows: int = SHARD_ROWS,
    ) -> None:
        super().__init__(directory, policy, training)
        self._cache = cache
        self._shard_rows = shard_rows

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token ids by token; samples are scored by models of the same vocabulary only."""
        return self.language_model.tokenizer.get_vocab()

    def logps(self, table: pd.DataFrame) -> pd.DataFrame:
        """Score rows of text; what the cache holds is not scored again.

        The table has columns row_id, prompt_id, prompt and response. Returned are row_id, logps
        (summed, nats), num_tokens, and whether prompt_is_cut and response_is_cut at the limits on
        tokens, in the order of the table.
        """
        groups = tokenise_groups(table, self._text_format)
        end = self._text_format.end_token_id
        scores = self._logps(groups).assign(
            prompt_is_cut=[group.prompt_is_cut for group in groups for _ in group.rows],
            response_is_cut=[ids[-1] != end for group in groups for ids in group.responses],
        )
        return table[["row_id"]].reset_index(drop=True).join(scores)

    def sample_logps(self, samples: pd.DataFrame) -> pd.DataFrame:
        """Score sampled responses, of this model or another with its vocabulary, token by token.

        The samples have columns prompt_id, prompt and token_ids, as ``sample`` gives them. Returned
        are logps (summed, nats) and num_tokens, in the order of the samples.
        """
        return self._logps(tokenise_groups(samples, self._text_format, as_drawn=True)).sort_index()

    def sample(
        self,
        table: pd.DataFrame,
        seeds: Sequence[int],
        *,
        sampling_temperature: float = SAMPLING_TEMPERATURE,
    ) -> pd.DataFrame:
        """Write a response to each prompt; what the cache holds is not drawn again.

        The table has columns prompt_id and prompt, one line per response. The noise of a line comes
        from its seed, which with the prompt's tokens names the sample; temperature 1 is the model's
        own distribution. Returned are response, and token_ids as they were drawn, in the order of
        the table.
        """
        prompts = self._text_format.encode_prompts(table["prompt"].tolist())
        return self._samples(prompts, seeds, table["prompt_id"].tolist(), sampling_temperature)

    def sample_each(self, prompts: pd.DataFrame, num_samples: int) -> pd.DataFrame:
        """Write numbered responses to each prompt, from the model's own distribution.

        The noise of a sample comes from the tokens of its prompt and from its number, so one that
        is drawn again is the same, and a larger number draws the additional ones only.

        The prompts have columns prompt_id and prompt. Returned are prompt_id, prompt, sample (its
        number, from 0), response and token_ids; one line per sample, in the order of the prompts.
        """
        encoded = self._text_format.encode_prompts(prompts["prompt"].tolist())
        drawn = [(ids, number) for ids in encoded for number in range(num_samples)]
        repeated = prompts.loc[prompts.index.repeat(num_samples), ["prompt_id", "prompt"]]
        samples = self._samples(
            [ids for ids, _ in drawn],
            [int(content_key(ids, [number])[:14], 16) for ids, number in drawn],
            repeated["prompt_id"].tolist(),
        )
        numbers = [number for _, number in drawn]
        return repeated.reset_index(drop=True).assign(sample=numbers).join(samples)

    def prompt_states(self, prompts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Read prompts, and return the states at their end, float64, shape ``(P, H)``.

        A state is the mean of the encoder's states over the prompt, or for a decoder the last
        layer's at the last token.
        """
        end = self._text_format.end_token_id
        groups = [
            Group(ids, [[end]], [place])
            for place, ids in enumerate(self._text_format.encode_prompts(list(prompts)))
        ]
        states = torch.zeros(len(groups), self.language_model.model.config.hidden_size)
        with torch.inference_mode():
            for batch, route in micro_batches(self.language_model, groups, self.micro_batch_tokens):
                _, read = group_scores(self.language_model, batch, route)
                states[batch.rows.cpu()] = read[batch.prompt_index].cpu()
        return states.double().numpy()

    @property
    def _text_format(self) -> TextFormat:
        return self.language_model.text_format(self.policy)

    def _logps(self, groups: Sequence[Group]) -> pd.DataFrame:
        """Return columns logps and num_tokens, indexed by ``Group.rows``, prompt by prompt."""
        rows = [row for group in groups for row in group.rows]
        responses = [ids for group in groups for ids in group.responses]
        origins = [(i, place) for i, group in enumerate(groups) for place in range(len(group.rows))]

        def score(wanted: Sequence[int]) -> pd.DataFrame:
            logps = score_groups(
                self.language_model,
                _take(groups, origins, wanted),
                micro_batch_tokens=self.micro_batch_tokens,
            )
            sizes = [len(responses[row]) for row in wanted]
            return pd.DataFrame({"logps": logps.numpy(), "num_tokens": sizes})

        if self._cache is None:
            return score(range(len(rows))).set_index(pd.Index(rows))
        # A shard holds rows prompt by prompt, so that it computes each of its prompts once.
        scores = fetch_rows(
            self._cache / "logps" / logps_key(self.directory, self.policy),
            [content_key(group.prompt, ids) for group in groups for ids in group.responses],
            score,
            prompt_ids=[group.prompt_id for group in groups for _ in group.rows],
            verb="score",
            shard_rows=self._shard_rows,
        )
        return scores.set_index(pd.Index(rows))

    def _samples(
        self,
        prompts: Sequence[list[int]],
        seeds: Sequence[int],
        prompt_ids: Sequence[str],
        sampling_temperature: float = SAMPLING_TEMPERATURE,
    ) -> pd.DataFrame:
        def sample(rows: Sequence[int]) -> pd.DataFrame:
            responses = sample_responses(
                self.language_model,
                [prompts[row] for row in rows],
                seeds=[seeds[row] for row in rows],
                sampling_temperature=sampling_temperature,
                max_new_tokens=self.policy.max_response_tokens,
            )
            return pd.DataFrame(
                {
                    "response": [response.text for response in responses],
                    "token_ids": [response.token_ids for response in responses],
                }
            )

        if self._cache is None:
            return sample(range(len(prompts)))
        key = samples_key(self.directory, self.policy, sampling_temperature)
        return fetch_rows(
            self._cache / "samples" / key,
            [content_key(ids, [seed]) for ids, seed in zip(prompts, seeds, strict=True)],
            sample,
            prompt_ids=prompt_ids,
            verb="sample",
            shard_rows=self._shard_rows,
        )


def _take(
    groups: Sequence[Group], origins: Sequence[tuple[int, int]], rows: Sequence[int]
) -> list[Group]:
    """Select rows of groups, each given by its group and its place in it, and number them anew."""
    taken: dict[int, dict[int, int]] = {}
    for row, (group, place) in enumerate(origins[row] for row in rows):
        taken.setdefault(group, {})[row] = place
    return [replace(groups[group].take([*p.values()]), rows=[*p]) for group, p in taken.items()]


def logps_key(model: Path, policy: PolicyParams) -> str:
    """Hash what a log-probability depends on besides the tokens of its row.

    Of the policy only the precision counts, as limits show in the tokens.
    """
    return result_key(
        model_fingerprint(model),
        policy.dtype,
        code=[load_checkpoint, score_groups],
        libraries=MODEL_LIBRARIES,
    )


def samples_key(model: Path, policy: PolicyParams, sampling_temperature: float) -> str:
    """Hash what a sample depends on besides the tokens of its prompt and its noise.

    Of the policy only the precision and the limit of a response count.
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
