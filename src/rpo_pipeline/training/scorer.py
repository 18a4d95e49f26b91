"""The policy as one module with one forward pass, which is what accelerate can wrap."""

from torch import nn

from rpo_pipeline.engine import GroupBatch, Route, TrainView
from rpo_pipeline.training.objectives import RowScores
from rpo_pipeline.training.value_head import ValueHead

POLICY = "policy"


class Scorer(nn.Module):
    """Scores prompt groups with the policy, whatever route that takes through it.

    Args:
        view: The policy.
        with_values: Add a value head, which reads the policy's states of the prompts.
    """

    def __init__(self, view: TrainView, *, with_values: bool) -> None:
        super().__init__()
        model = view.language_model.model
        self._view = view
        self._no_split_modules = model._no_split_modules  # accelerate shards by it
        self.add_module(POLICY, model)
        self.value_head = (
            ValueHead(model.config.hidden_size).to(model.device) if with_values else None
        )

    def forward(self, batch: GroupBatch, route: Route) -> RowScores:
        """Log-probabilities of the rows of a batch, and values of their prompts if asked for."""
        if self.value_head is None:
            return RowScores(logps=self._view.logps(batch, route))
        logps, prompt_states = self._view.scores(batch, route)
        return RowScores(logps, values=self.value_head(prompt_states)[batch.prompt_index])
