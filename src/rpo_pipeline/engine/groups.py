"""Prompt groups: one prompt and its responses as token ids, the unit of work everywhere.

Shapes: P prompts, R rows (responses), L tokens of the longest, T scored tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PART_PADDING = 64
"""Number of padded tokens that cost about as much as one more call of a model."""


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
    """Name of the group in messages."""
    prompt_is_cut: bool = False
    """Whether the prompt was cut at the limit on tokens."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the prompt and of every response."""
        return len(self.prompt) + sum(map(len, self.responses))

    def take(self, places: Sequence[int]) -> "Group":
        """Select responses, in the order of their places in the group."""
        return replace(
            self,
            responses=[self.responses[place] for place in places],
            rows=[self.rows[place] for place in places],
        )


@dataclass(frozen=True)
class GroupBatch:
    """Padded tensors of several groups, which hold each prompt once."""

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
        """Number of response tokens of each row, int64, shape ``(R,)``."""
        return self.loss_mask.sum(dim=1)

    def to(self, device: torch.device) -> "GroupBatch":
        """Return the same batch on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})

    def take(self, rows: Sequence[int]) -> "GroupBatch":
        """Select rows of the batch, no wider than the longest; all prompts stay."""
        index = torch.tensor(rows, device=self.rows.device)
        width = int(self.num_tokens[index].max())
        return replace(
            self,
            response_ids=self.response_ids[index, :width],
            loss_mask=self.loss_mask[index, :width],
            prompt_index=self.prompt_index[index],
            rows=self.rows[index],
        )


def collate(groups: Sequence[Group], pad_token_id: int) -> GroupBatch:
    """Pad groups to one batch, on the CPU."""
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


def rowwise_tokens(groups: Sequence[Group]) -> int:
    """Count the padded tokens of a row ``[prompt | response]`` per response."""
    return _num_rows(groups) * (_longest_prompt(groups) + _longest_response(groups))


def tree_tokens(groups: Sequence[Group]) -> int:
    """Count the padded tokens of a row ``[prompt | y_1 | ... | y_n]`` per group."""
    rows = (len(group.prompt) + sum(map(len, group.responses)) for group in groups)
    return len(groups) * max(rows)


def shared_tokens(groups: Sequence[Group]) -> int:
    """Count the padded tokens of each prompt once, and of responses in parts of like length."""
    prompts = len(groups) * _longest_prompt(groups)
    lengths = [len(ids) for group in groups for ids in group.responses]
    return prompts + sum(len(part) * lengths[part[0]] for part in parts_of_like_length(lengths))


def parts_of_like_length(lengths: Sequence[int], padding: int = PART_PADDING) -> list[list[int]]:
    """Cut rows into parts that are computed one after the other, so that little is padded.

    Args:
        lengths: Number of tokens of each row.
        padding: Number of tokens that may be padded in a part, equal to the cost of another part.

    Returns:
        Positions in ``lengths``, the longest first, each once.
    """
    parts: list[list[int]] = []
    padded = padding
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        padded += lengths[parts[-1][0]] - lengths[row] if parts else 1
        if padded > padding:
            parts.append([])
            padded = 0
        parts[-1].append(row)
    return parts


def pack(
    groups: Sequence[Group],
    max_tokens: int,
    padded_tokens: Callable[[Sequence[Group]], int] = rowwise_tokens,
    *,
    by_prompt: bool = False,
) -> Iterator[list[Group]]:
    """Fill micro-batches up to a token budget, longest groups first, so that little is padded.

    Args:
        groups: Groups in any order.
        max_tokens: Budget of one micro-batch. A group over it is split; one row that is over it
            alone still makes a batch.
        padded_tokens: Function that counts the tokens of a micro-batch in a forward pass.
        by_prompt: Whether the longest prompts come first, for a pass that pads only prompts.

    Yields:
        Lists of groups; together they hold every row once.
    """
    pieces = [piece for group in groups for piece in _split(group, max_tokens, padded_tokens)]
    batch: list[Group] = []
    order = (lambda piece: len(piece.prompt)) if by_prompt else lambda piece: padded_tokens([piece])
    for piece in sorted(pieces, key=order, reverse=True):
        if batch and padded_tokens([*batch, piece]) > max_tokens:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _split(
    group: Group, max_tokens: int, padded_tokens: Callable[[Sequence[Group]], int]
) -> Iterator[Group]:
    start = 0
    for stop in range(1, len(group.rows) + 1):
        if stop - start > 1 and padded_tokens([group.take(range(start, stop))]) > max_tokens:
            yield group.take(range(start, stop - 1))
            start = stop - 1
    yield group.take(range(start, len(group.rows)))


def _num_rows(groups: Sequence[Group]) -> int:
    return sum(len(group.rows) for group in groups)


def _longest_prompt(groups: Sequence[Group]) -> int:
    return max(len(group.prompt) for group in groups)


def _longest_response(groups: Sequence[Group]) -> int:
    return max(len(ids) for group in groups for ids in group.responses)


def _pad(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(ids) for ids in sequences])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    padded = torch.full(mask.shape, pad_token_id, dtype=torch.long)
    padded[mask] = torch.tensor([token for ids in sequences for token in ids], dtype=torch.long)
    return padded, mask


def pack_rows(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Cut rows, the longest first, into batches of a token budget, padding included.

    Args:
        lengths: Number of tokens of each row.
        max_tokens: Budget of one batch; a longer row is a batch of its own.

    Yields:
        Positions of the rows.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
