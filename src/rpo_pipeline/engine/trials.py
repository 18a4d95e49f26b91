"""What was tried on a model before its results are relied on."""

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
    warnings: set[str] = field(default_factory=set)
    """Warnings of long rows that were given."""
