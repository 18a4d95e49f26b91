"""Prompt groups: one prompt and its responses as token ids, the unit of work everywhere.

Shapes: P prompts, R rows (responses), L tokens of the longest, T scored tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

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
    responses = [len(ids) for group in groups for ids in group.responses]
    return len(responses) * (_longest_prompt(groups) + max(responses))


def tree_tokens(groups: Sequence[Group]) -> int:
    """Count the padded tokens of a row ``[prompt | y_1 | ... | y_n]`` per group."""
    return len(groups) * max(group.num_tokens for group in groups)


def shared_tokens(groups: Sequence[Group]) -> int:
    """Count the padded tokens of each prompt once, and of responses in parts of like length."""
    prompts = len(groups) * _longest_prompt(groups)
    lengths = [len(ids) for group in groups for ids in group.responses]
    return prompts + sum(len(part) * lengths[part[0]] for part in parts_of_like_length(lengths))


def parts_of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """Cut rows into parts that are computed one after the other, so that little is padded.

    The parts hold positions in ``lengths``, the longest first, each once.
    """
    parts: list[list[int]] = []
    padded = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        padded += lengths[parts[-1][0]] - lengths[row] if parts else 0
        if not parts or padded > PART_PADDING:
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

    A group over the budget is split; one row that is over it alone still makes a batch. The tokens
    of a micro-batch are counted by ``padded_tokens``. With ``by_prompt`` the longest prompts come
    first, for a pass that pads only prompts. Together the batches hold every row once.
    """

    def fits(batch: list[Group]) -> bool:
        return padded_tokens(batch) <= max_tokens

    pieces = [piece for group in groups for piece in _split(group, fits)]
    order = (lambda piece: len(piece.prompt)) if by_prompt else lambda piece: padded_tokens([piece])
    yield from _fill(sorted(pieces, key=order, reverse=True), fits)


def _split(group: Group, fits: Callable[[list[Group]], bool]) -> Iterator[Group]:
    for places in _fill(range(len(group.rows)), lambda places: fits([group.take(places)])):
        yield group.take(places)


def pack_rows(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Cut rows, the longest first, into batches of a token budget, padding included.

    A row over the budget is a batch of its own. The batches hold positions in ``lengths``.
    """
    longest_first = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return _fill(longest_first, lambda rows: lengths[rows[0]] * len(rows) <= max_tokens)


def _fill(items: Iterable[T], fits: Callable[[list[T]], bool]) -> Iterator[list[T]]:
    """Cut items, in their order, into batches as large as fits; a batch of one always does."""
    batch: list[T] = []
    for item in items:
        if batch and not fits([*batch, item]):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _longest_prompt(groups: Sequence[Group]) -> int:
    return max(len(group.prompt) for group in groups)


def _pad(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(ids) for ids in sequences])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    padded = torch.full(mask.shape, pad_token_id, dtype=torch.long)
    padded[mask] = torch.tensor([token for ids in sequences for token in ids], dtype=torch.long)
    return padded, mask
