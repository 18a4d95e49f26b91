"""A model directory that is loaded when it is first needed."""

from functools import cached_property
from pathlib import Path
from typing import Self

from rpo_pipeline.engine.loading import LanguageModel, load_checkpoint
from rpo_pipeline.params import PolicyParams, TrainingParams


class StoredModel:
    """A model directory with how it is read; as a context manager it releases the model at the end.

    It depends on neither scoring nor sampling, so results that need neither stay fresh when these
    change. The policy gives precision, prefix sharing and limits on tokens; the training, the token
    budget of a forward pass.
    """

    def __init__(self, directory: Path, policy: PolicyParams, training: TrainingParams) -> None:
        self.directory = directory
        self.policy = policy
        self.micro_batch_tokens = training.micro_batch_tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @cached_property
    def language_model(self) -> LanguageModel:
        """The model in evaluation mode; a ModelError says why it cannot be loaded."""
        return load_checkpoint(self.directory, self.policy)

    def release(self) -> None:
        """Free the memory of the model; it is loaded again when it is needed again."""
        self.__dict__.pop("language_model", None)

    @property
    def rows_at_once(self) -> int:
        """Number of rows of the greatest length that fit into a forward pass, at least one."""
        longest = self.policy.max_prompt_tokens + self.policy.max_response_tokens
        return max(1, self.micro_batch_tokens // longest)
