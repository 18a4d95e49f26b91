"""The policy as one module with one forward pass, which is what accelerate can wrap."""

from torch import nn

from rpo_pipeline.data.groups import GroupBatch
from rpo_pipeline.models.loading import LanguageModel
from rpo_pipeline.models.routes import Route
from rpo_pipeline.models.scoring import group_logps
from rpo_pipeline.training.objectives import RowScores

POLICY = "policy"


class Scorer(nn.Module):
    """Scores prompt groups with the policy, whatever route that takes through it.

    Args:
        language_model: The policy.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self._language_model = language_model
        self.add_module(POLICY, language_model.model)
        self._no_split_modules = language_model.model._no_split_modules  # accelerate shards by it

    def forward(self, batch: GroupBatch, route: Route) -> RowScores:
        """Log-probabilities of the rows of a batch."""
        return RowScores(logps=group_logps(self._language_model, batch, route))
