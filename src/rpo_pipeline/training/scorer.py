"""Wraps the policy as one module with one forward pass, as accelerate needs it."""

from torch import nn

from rpo_pipeline.engine import GroupBatch, Route, TrainView
from rpo_pipeline.training.objective import RowScores
from rpo_pipeline.training.value_head import ValueHead

POLICY = "policy"


class Scorer(nn.Module):
    """Scores prompt groups with the policy by any route (way to compute log-probabilities).

    Args:
        view: Policy to train.
        with_values: Whether to add a value head, which reads the policy's states of the prompts.
    """

    def __init__(self, view: TrainView, *, with_values: bool) -> None:
        super().__init__()
        model = view.language_model.model
        self._view = view
        self._no_split_modules = model._no_split_modules  # accelerate uses it for sharding
        self.add_module(POLICY, model)
        self.value_head = (
            ValueHead(model.config.hidden_size).to(model.device) if with_values else None
        )

    def forward(self, batch: GroupBatch, route: Route) -> RowScores:
        """Compute log-probabilities of a batch's rows, and values of their prompts if wanted."""
        if self.value_head is None:
            return RowScores(logps=self._view.logps(batch, route))
        logps, prompt_states = self._view.scores(batch, route)
        return RowScores(logps, values=self.value_head(prompt_states)[batch.prompt_index])
