"""What the first passes through a model have shown, so that nothing is tried twice."""

from dataclasses import dataclass, field


@dataclass
class Trials:
    """Results of what was tried on a model; null where it was not tried yet.

    Copies of a ``LanguageModel`` with another precision or another route share one object.
    """

    routes: dict[str, bool] = field(default_factory=dict)
    """By route, whether it agreed with scoring row by row."""
    route_lengths: dict[str, int] = field(default_factory=dict)
    """By route, tokens of the longest group that it was tried for."""
    head_is_plain: bool | None = None
    """Whether the logits are those of a linear head, neither scaled nor capped."""
    compared_rows: bool = False
    """Whether rows in a batch were compared with the same rows alone."""
    samples_by_padding: dict[bool, bool] = field(default_factory=dict)
    """By whether prompts were padded, whether a batch gave each its response alone."""
    warned_of_window: bool = False
    """Whether rows over the attention window were told of."""
    warned_of_frequencies: bool = False
    """Whether rows beyond the trained length of rotary frequencies were told of."""
