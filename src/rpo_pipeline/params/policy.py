"""The language model that is trained."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rpo_pipeline.params.base import ModelPlace, Params

PrefixSharing = Literal["auto", "tree", "cache", "off"]


class FromConfigParams(BaseModel):
    """A model built from scratch; further keys that are not null go to its configuration."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    model_type: str
    """Architecture by its transformers name: ``llama``, ``t5``, ..."""
    vocab_size: int = Field(gt=300)
    """Upper limit of the byte-level BPE vocabulary fitted on train."""

    @model_validator(mode="after")
    def _has_something_of_each(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            counts = name.startswith("num_") or name.endswith("_size")
            if counts and isinstance(value, int | float) and value < 1:
                raise ValueError(f"policy.from_config.{name} must be at least 1, got {value}")
        return self


class LoraParams(Params):
    """Low-rank adapters; only they are trained, and the base weights are the reference."""

    r: int = Field(gt=0)
    """Rank of each adapter; a higher rank can learn more and costs more."""
    alpha: float = Field(gt=0)
    """Scale of the adapters: their product is multiplied by ``alpha / r``."""
    target_modules: str | list[str]
    """Layers with an adapter: ``all-linear`` for every linear layer but the head, a list of names,
    or a regular expression for whole names, for instance of the upper layers."""


class PolicyParams(Params):
    """The language model that is trained; its frozen start is the reference."""

    name_or_path: ModelPlace | None
    """Hub id or directory of a pretrained model; null to build one from ``from_config``."""
    revision: str | None
    """Commit of the hub id, pinned so that a run can be repeated."""
    from_config: FromConfigParams | None
    """Configuration of a model built from scratch; null to load ``name_or_path``."""
    warm_start_epochs: float = Field(ge=0)
    """Passes of supervised fine-tuning over the train rows that make the reference; 0 for none."""
    warm_start_learning_rate: float = Field(gt=0)
    """Peak learning rate of the warm start."""
    reset_reference: bool
    """Whether to rebuild the reference, which voids every cached log-probability."""
    min_log_overlap: float = Field(ge=0, le=1)
    """Smallest share of the rows of the reference's warm start, or of the last run, that the log
    must still hold; with fewer it counts as another log, which needs its own reference. 0 accepts
    any log."""
    max_prompt_tokens: int = Field(gt=0)
    """Largest number of tokens of a prompt; longer ones are cut and counted."""
    max_response_tokens: int = Field(gt=0)
    """Largest number of tokens of a response, logged (longer ones are cut and counted) or
    generated."""
    dtype: Literal["float32", "bfloat16"]
    """Precision of the forward pass, the same for policy and reference."""
    prefix_sharing: PrefixSharing
    """How a decoder computes a prompt once for all its responses. ``tree``: in one row with a tree
    mask; ``cache``: over cached keys and values; ``off``: not; ``auto``: by the cheapest way."""
    lora: LoraParams | None
    """Low-rank adapters to train, merged into the policy when it is saved; null to train every
    weight."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.name_or_path is None) == (self.from_config is None):
            raise ValueError(
                "give exactly one of policy.name_or_path (a directory, or a hub id with its "
                "revision) and policy.from_config (a model built from scratch)"
            )
        return self
