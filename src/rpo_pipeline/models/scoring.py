"""Log-probabilities of prompt groups: one code path for caching, training and evaluation.

Shapes: P prompts, R rows (responses), L tokens of the longest, T scored tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from rpo_pipeline.core.logps import sum_by_row, token_logps
from rpo_pipeline.data.groups import Group, GroupBatch, collate, pack
from rpo_pipeline.data.tokenisation import tokenise_groups
from rpo_pipeline.models.loading import LanguageModel
from rpo_pipeline.params import PolicyParams


def group_logps(language_model: LanguageModel, batch: GroupBatch) -> Tensor:
    """Log-probability of each response given its prompt, summed over its tokens.

    The vocabulary projection runs on response tokens only; an encoder reads each prompt once,
    however many responses it has. Gradients flow.

    Args:
        language_model: The model that scores.
        batch: Groups, padded.

    Returns:
        In nats, float32, shape ``(R,)``.
    """
    with language_model.autocast():
        if language_model.is_encoder_decoder:
            logits = _encoder_decoder_logits(language_model, batch)
        else:
            logits = _decoder_logits(language_model, batch)
    rows = torch.arange(len(batch.rows), device=logits.device).repeat_interleave(batch.num_tokens)
    scored = token_logps(logits, batch.response_ids[batch.loss_mask])
    return sum_by_row(scored, rows, len(batch.rows))


def score_groups(
    language_model: LanguageModel, groups: Sequence[Group], *, micro_batch_tokens: int, title: str
) -> Tensor:
    """Score groups without gradients, in micro-batches of a token budget.

    Args:
        language_model: The model that scores.
        groups: Whose rows are 0 to R - 1, each once.
        micro_batch_tokens: Tokens of a forward pass, padding included.
        title: Of the progress bar.

    Returns:
        Summed log-probabilities in nats, float32, shape ``(R,)``, by ``Group.rows``.
    """
    num_rows = sum(len(group.rows) for group in groups)
    logps = torch.zeros(num_rows)
    with torch.inference_mode(), tqdm(total=num_rows, desc=title, unit="row", disable=None) as bar:
        for micro_batch in pack(groups, micro_batch_tokens):
            batch = collate(micro_batch, language_model.tokenizer.pad_token_id)
            logps[batch.rows] = group_logps(language_model, batch)
            bar.update(len(batch.rows))
    return logps


def score_rows(
    language_model: LanguageModel,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    *,
    micro_batch_tokens: int,
    title: str,
) -> pd.DataFrame:
    """Score (prompt, response) pairs given as token ids.

    Rows that share a prompt are scored together.

    Args:
        language_model: The model that scores.
        prompts: Token ids of each row's prompt.
        responses: Token ids of each row's response.
        micro_batch_tokens: Tokens of a forward pass, padding included.
        title: Of the progress bar.

    Returns:
        Columns logps (summed, nats) and num_tokens, in the order of the input.
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        members.setdefault(tuple(prompt), []).append(row)
    groups = [Group(list(p), [responses[r] for r in rows], rows) for p, rows in members.items()]
    logps = score_groups(language_model, groups, micro_batch_tokens=micro_batch_tokens, title=title)
    return pd.DataFrame({"logps": logps.numpy(), "num_tokens": [len(ids) for ids in responses]})


def score_table(
    language_model: LanguageModel,
    table: pd.DataFrame,
    policy: PolicyParams,
    *,
    micro_batch_tokens: int,
) -> pd.DataFrame:
    """Score every row of a table of text.

    Args:
        language_model: The model that scores.
        table: Columns row_id, prompt_id, prompt, response.
        policy: Limits on tokens.
        micro_batch_tokens: Budget of a forward pass.

    Returns:
        row_id, logps (summed, nats) and num_tokens, in the order of the table.
    """
    text_format = language_model.text_format(
        max_prompt_tokens=policy.max_prompt_tokens, max_response_tokens=policy.max_response_tokens
    )
    groups = tokenise_groups(table, text_format)
    logps = score_groups(
        language_model, groups, micro_batch_tokens=micro_batch_tokens, title="scoring"
    )
    num_tokens = torch.zeros(len(table), dtype=torch.int64)
    for group in groups:
        num_tokens[group.rows] = torch.tensor([len(ids) for ids in group.responses])
    return pd.DataFrame(
        {
            "row_id": table["row_id"].to_numpy(),
            "logps": logps.numpy(),
            "num_tokens": num_tokens.numpy(),
        }
    )


def _encoder_decoder_logits(language_model: LanguageModel, batch: GroupBatch) -> Tensor:
    model = language_model.model
    encoded = model.get_encoder()(input_ids=batch.prompt_ids, attention_mask=batch.prompt_mask)
    start = torch.full_like(batch.response_ids[:, :1], model.config.decoder_start_token_id)
    with _head_reads(model, batch.loss_mask):
        logits: Tensor = model(
            encoder_outputs=BaseModelOutput(encoded.last_hidden_state[batch.prompt_index]),
            attention_mask=batch.prompt_mask[batch.prompt_index],
            decoder_input_ids=torch.cat([start, batch.response_ids[:, :-1]], dim=1),
            use_cache=False,
        ).logits
    return logits


def _decoder_logits(language_model: LanguageModel, batch: GroupBatch) -> Tensor:
    """One row ``[prompt | response]`` per response, the prompt padded on the left."""
    prompts, prompt_mask = _pad_left(batch.prompt_ids, batch.prompt_mask)
    input_ids = torch.cat([prompts[batch.prompt_index], batch.response_ids], dim=1)
    mask = torch.cat([prompt_mask[batch.prompt_index], batch.loss_mask.long()], dim=1)
    # The token at t is predicted at t - 1: the scored positions start at the prompt's last token.
    scored = torch.zeros_like(input_ids, dtype=torch.bool)
    first = prompts.shape[1] - 1
    scored[:, first : first + batch.loss_mask.shape[1]] = batch.loss_mask
    with _head_reads(language_model.model, scored):
        logits: Tensor = language_model.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=False,
        ).logits
    return logits


def _pad_left(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move right padding to the left; shapes ``(P, L)`` stay."""
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


@contextmanager
def _head_reads(model: PreTrainedModel, positions: Tensor) -> Iterator[None]:
    """Let the output head see only some positions, so that logits have shape ``(T, V)``.

    A hook on the head, rather than a call to it, keeps whatever a model does between its last
    layer and its logits (T5 scales the one, Gemma caps the other).
    """

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][positions],)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
