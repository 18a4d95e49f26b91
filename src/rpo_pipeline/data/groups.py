"""Prompt groups: one prompt and its responses as token ids, the unit of work everywhere.

Shapes: P prompts, R rows (responses), L tokens of the longest, T scored tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """One prompt and its responses."""

    prompt: list[int]
    """Token ids of the prompt."""
    responses: list[list[int]]
    """Token ids of each response, its end token included."""
    rows: list[int]
    """Position of each response in the table that the group was made from."""
    prompt_id: str = ""
    """Names the group in messages."""


@dataclass(frozen=True)
class GroupBatch:
    """Padded tensors of several groups; each prompt stands once."""

    prompt_ids: Tensor
    """Int64, shape ``(P, L)``, padded on the right."""
    prompt_mask: Tensor
    """1 on prompt tokens, int64, shape ``(P, L)``."""
    response_ids: Tensor
    """Int64, shape ``(R, L)``, padded on the right."""
    loss_mask: Tensor
    """True on response tokens, bool, shape ``(R, L)``."""
    prompt_index: Tensor
    """Prompt of each row, int64, shape ``(R,)``."""
    rows: Tensor
    """Position of each row in its table, int64, shape ``(R,)``."""

    @property
    def num_tokens(self) -> Tensor:
        """Response tokens of each row, int64, shape ``(R,)``."""
        return self.loss_mask.sum(dim=1)


def collate(groups: Sequence[Group], pad_token_id: int) -> GroupBatch:
    """Pad groups to one batch."""
    prompts, prompt_mask = _pad([group.prompt for group in groups], pad_token_id)
    responses, loss_mask = _pad([ids for group in groups for ids in group.responses], pad_token_id)
    sizes = torch.tensor([len(group.responses) for group in groups])
    return GroupBatch(
        prompt_ids=prompts,
        prompt_mask=prompt_mask.long(),
        response_ids=responses,
        loss_mask=loss_mask,
        prompt_index=torch.repeat_interleave(torch.arange(len(groups)), sizes),
        rows=torch.tensor([row for group in groups for row in group.rows]),
    )


def pack(groups: Sequence[Group], max_tokens: int) -> Iterator[list[Group]]:
    """Fill micro-batches up to a token budget, longest groups first, so that little is padded.

    Args:
        groups: Groups in any order.
        max_tokens: Budget of one micro-batch, in padded tokens: rows times the longest prompt plus
            the longest response among them. A group over the budget is split; one row that is
            over it alone still makes a batch.

    Yields:
        Lists of groups; together they hold every row once.
    """
    pieces = [piece for group in groups for piece in _split(group, max_tokens)]
    batch: list[Group] = []
    for piece in sorted(pieces, key=_longest_row, reverse=True):
        if batch and _padded_tokens([*batch, piece]) > max_tokens:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _split(group: Group, max_tokens: int) -> Iterator[Group]:
    size = max(1, max_tokens // max(1, _longest_row(group)))
    for start in range(0, len(group.responses), size):
        part = slice(start, start + size)
        yield replace(group, responses=group.responses[part], rows=group.rows[part])


def _longest_row(group: Group) -> int:
    return len(group.prompt) + max(map(len, group.responses))


def _padded_tokens(groups: Sequence[Group]) -> int:
    num_rows = sum(len(group.responses) for group in groups)
    longest_prompt = max(len(group.prompt) for group in groups)
    longest_response = max(len(ids) for group in groups for ids in group.responses)
    return num_rows * (longest_prompt + longest_response)


def _pad(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(ids) for ids in sequences])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    padded = torch.full(mask.shape, pad_token_id, dtype=torch.long)
    padded[mask] = torch.tensor([token for ids in sequences for token in ids], dtype=torch.long)
    return padded, mask
