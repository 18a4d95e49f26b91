"""Frozen embeddings of texts, and of responses read after their prompts.

Shapes: N texts or rows, L tokens of the longest, H hidden size.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm
from transformers import AutoModel

from rpo_pipeline.engine.batches import micro_batches
from rpo_pipeline.engine.checks import check_precision, check_weights
from rpo_pipeline.engine.groups import Group, pack_rows
from rpo_pipeline.engine.loading import (
    LanguageModel,
    default_device,
    load_pretrained,
    loading_errors,
)
from rpo_pipeline.engine.routes import read_responses
from rpo_pipeline.engine.tokenisation import TextFormat
from rpo_pipeline.storage import use_hub_or_cache

Array = NDArray[np.float32]
UNREAD = ("pooler", "position_ids")
"""Weights of sentence encoders that a mean of the last states does not use."""


class SentenceEncoder:
    """Embeds a text as the mean of its token states, at length 1.

    The model is a directory or a hub id, with its commit, that has safetensors weights; a
    ModelError says that there is no such model.
    """

    def __init__(self, name_or_path: str, revision: str | None) -> None:
        setting = "name_or_path of labeler `fitted_reward_model`"
        use_hub_or_cache(name_or_path)
        with loading_errors(name_or_path, "a sentence encoder from", setting):
            self._model, self._tokenizer, report = load_pretrained(
                AutoModel,
                name_or_path,
                revision,
                ignore_mismatched_sizes=True,  # check_weights names them all
            )
        check_weights(name_or_path, report, UNREAD)
        check_precision(name_or_path, self._model, revision)
        nn.Module.to(self._model, default_device())  # transformers' own wrapper of it is untyped
        self._model.eval()

    def embed(self, texts: Sequence[str], *, max_tokens: int, micro_batch_tokens: int) -> Array:
        """Embed texts in any order, shape ``(N, H)``.

        A text is cut at ``max_tokens``; ``micro_batch_tokens`` counts the tokens of a forward pass,
        padding included.
        """
        limit = min(max_tokens, getattr(self._model.config, "max_position_embeddings", max_tokens))
        encoded = self._tokenizer(
            list(texts), truncation=True, max_length=limit, split_special_tokens=True
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        states = torch.zeros(len(texts), self._model.config.hidden_size)
        with (
            torch.inference_mode(),
            tqdm(total=len(texts), desc="embedding", unit="text", disable=None, leave=None) as bar,
        ):
            for rows in pack_rows(lengths, micro_batch_tokens):
                inputs = self._tokenizer.pad(
                    {name: [encoded[name][row] for row in rows] for name in encoded},
                    return_tensors="pt",
                ).to(self._model.device)
                hidden = self._model(**inputs).last_hidden_state.float()
                mask = inputs["attention_mask"][:, :, None]
                mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
                states[rows] = nn.functional.normalize(mean, dim=1).cpu()
                bar.update(len(rows))
        return states.numpy()


def embed_responses(
    language_model: LanguageModel,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    max_tokens: int,
    micro_batch_tokens: int,
) -> Array:
    """Embed responses as a language model reads them after their prompts, shape ``(N, H)``.

    An embedding is the mean of the last hidden states that predict the tokens of the response,
    which are the states of the token before each. Each prompt and each response is cut at
    ``max_tokens``; ``micro_batch_tokens`` counts the tokens of a forward pass, padding included.
    """
    limits = (max_tokens, max_tokens)
    text_format = TextFormat(language_model.tokenizer, language_model.is_encoder_decoder, *limits)
    ids = zip(
        text_format.encode_prompts(prompts), text_format.encode_responses(responses), strict=True
    )
    groups = [Group(prompt, [response], [row]) for row, (prompt, response) in enumerate(ids)]
    states = torch.zeros(len(groups), language_model.model.config.hidden_size)
    with torch.inference_mode():
        for batch, route in micro_batches(language_model, groups, micro_batch_tokens):
            with language_model.autocast():
                reading = read_responses(language_model.model, batch, route, with_logits=False)
            rows = torch.arange(len(batch.rows), device=batch.rows.device)
            total = states.new_zeros(len(rows), states.shape[1]).to(batch.rows.device)
            total.index_add_(0, rows.repeat_interleave(batch.num_tokens), reading.states.float())
            states[batch.rows.cpu()] = (total / batch.num_tokens[:, None]).cpu()
    return states.numpy()
