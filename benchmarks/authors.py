"""Peer (a): a straight implementation of the authors' published scheme, in float32.

Source and target are padded to 512 tokens. The partition pass takes one row at a time, encodes the
prompt again for each response and computes all logits; a training step carries a second, frozen
model and runs it again on every row. (Mathematics of b-faye/rpo@37c3995, log-sum-exp made stable.)
"""

import copy

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from rpo_pipeline.engine.groups import Group

LENGTH = 512
IGNORE_INDEX = -100
TRAINING_BATCH = 4


def rows_of(groups: list[Group]) -> list[dict[str, Tensor]]:
    """Padded tensors of each row, as a data loader of batch size 1 gives them."""
    return [
        {
            "input_ids": _padded(group.prompt, 0),
            "attention_mask": _padded([1] * len(group.prompt), 0),
            "labels": _padded(response, IGNORE_INDEX),
        }
        for group in groups
        for response in group.responses
    ]


def partition_pass(model: PreTrainedModel, groups: list[Group], tau: float = 5.0) -> Tensor:
    """Mean log-probability of each row, shape ``(R,)``; log Z of each prompt on the way."""
    rows = iter(rows_of(groups))
    logps = []
    with torch.no_grad():
        for group in groups:
            terms = [mean_logps(model, next(rows)) for _ in group.responses]
            torch.logsumexp(torch.cat(terms) + 1.0 / tau, dim=0)
            logps += terms
    return torch.cat(logps)


def mean_logps(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Mean log-probability of the response tokens of each row, from all logits."""
    labels = batch["labels"]
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
    ).logits
    scored = functional.log_softmax(logits, dim=-1)
    tokens = scored.gather(2, labels.clamp(min=0)[..., None]).squeeze(2)
    mask = labels != IGNORE_INDEX
    return (tokens * mask).sum(dim=1) / mask.sum(dim=1)


class TrainingStep:
    """Optimizer steps on the same rows, one a call, in batches of ``TRAINING_BATCH``."""

    def __init__(self, model: PreTrainedModel, groups: list[Group]) -> None:
        self.model, self._reference = model, copy.deepcopy(model)
        rows = rows_of(groups)
        self._batches = [
            {
                name: torch.cat([row[name] for row in rows[i : i + TRAINING_BATCH]])
                for name in rows[0]
            }
            for i in range(0, len(rows), TRAINING_BATCH)
        ]
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def __call__(self) -> None:
        """Take one step."""
        for batch in self._batches:
            logps = mean_logps(self.model, batch)
            with torch.no_grad():
                ref_logps = mean_logps(self._reference, batch)
            loss = 0.5 * (logps - ref_logps - 0.1).square().mean()
            (loss / len(self._batches)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()


def _padded(tokens: list[int], value: int) -> Tensor:
    return torch.tensor([tokens[:LENGTH] + [value] * (LENGTH - len(tokens))])
