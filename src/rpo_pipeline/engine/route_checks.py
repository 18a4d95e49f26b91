"""Results of the first passes through a model, so that no check is made twice."""

from dataclasses import dataclass, field


@dataclass
class Trials:
    """Results of what was tried on a model; null before it was tried.

    Copies of a ``LanguageModel`` with another precision or another route share one object.
    """

    routes: dict[str, bool] = field(default_factory=dict)
    """Whether each route agreed with scoring row by row."""
    route_lengths: dict[str, int] = field(default_factory=dict)
    """Number of tokens of the longest group that each route was tried for."""
    head_is_plain: bool | None = None
    """Whether the logits are those of a linear head, neither scaled nor capped."""
    compared_rows: bool = False
    """Whether rows in a batch were compared with the same rows alone."""
    samples_by_padding: dict[bool, bool] = field(default_factory=dict)
    """Whether prompts in a batch got the same responses as alone, by whether they were padded."""
    warned_of_window: bool = False
    """Whether a warning of rows over the attention window was given."""
    warned_of_frequencies: bool = False
    """Whether a warning of rows beyond the trained length of rotary frequencies was given."""
