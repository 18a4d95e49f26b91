"""A model in training.

It shares no code with the caches of ``Engine``, so a change of these does not make a training
stale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd
import torch
from torch import Tensor

from rpo_pipeline.engine.adapters import add_adapters
from rpo_pipeline.engine.batches import check_routes, micro_batches
from rpo_pipeline.engine.groups import Group, GroupBatch
from rpo_pipeline.engine.loading import LanguageModel, load_checkpoint
from rpo_pipeline.engine.routes import Route
from rpo_pipeline.engine.scoring import group_logps, group_scores
from rpo_pipeline.engine.tokenisation import tokenise_groups
from rpo_pipeline.params import PolicyParams


@dataclass(frozen=True)
class TrainView:
    """A model whose weights change: its passes have gradients, and no result of it is cached."""

    language_model: LanguageModel
    policy: PolicyParams
    """Limits on tokens."""
    micro_batch_tokens: int
    """Number of tokens of a forward pass, padding included."""

    @classmethod
    def load(
        cls, directory: Path, policy: PolicyParams, *, micro_batch_tokens: int, seed: int
    ) -> Self:
        """Load the model that a training starts from; of one with adapters, these alone train.

        torch is seeded from now on, which decides new adapters too. A ModelError says that the
        model cannot be loaded, a ConfigError that the adapters fit no layer.
        """
        language_model = load_checkpoint(directory, policy)
        torch.manual_seed(seed)
        if policy.lora:
            add_adapters(language_model.model, policy.lora)
        return cls(language_model, policy, micro_batch_tokens)

    def groups(self, table: pd.DataFrame) -> list[Group]:
        """Tokenise rows, columns prompt_id, prompt and response: one group per prompt_id."""
        return tokenise_groups(table, self.language_model.text_format(self.policy))

    def micro_batches(self, groups: Sequence[Group]) -> list[tuple[GroupBatch, Route]]:
        """Return batches within a token budget that hold every row once, each with its route."""
        return list(micro_batches(self.language_model, groups, self.micro_batch_tokens))

    def check_routes(self, groups: Sequence[Group]) -> None:
        """Compare the routes with scoring row by row, which a sharded model cannot do any more."""
        check_routes(self.language_model, groups)

    def logps(self, batch: GroupBatch, route: Route) -> Tensor:
        """Compute the summed log-probability of each response, in nats, shape ``(R,)``."""
        return group_logps(self.language_model, batch, route)

    def scores(self, batch: GroupBatch, route: Route) -> tuple[Tensor, Tensor]:
        """Compute ``logps``, and detached states of the prompts, shape ``(P, H)``."""
        return group_scores(self.language_model, batch, route)
