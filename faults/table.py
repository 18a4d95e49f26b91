"""What was expected and what was seen, as the table of docs/reliability.md."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One kind of fault."""

    fault: str
    expected: str
    times: int
    problems: list[str] = field(default_factory=list)
    """What was seen and not expected; empty: everything went as it should."""
    note: str = ""

    def __str__(self) -> str:
        seen = "; ".join(self.problems) or "as expected"
        cells = (self.fault, self.expected, f"{seen}{self.note and f' ({self.note})'}", self.times)
        return f"| {' | '.join(map(str, cells))} |"


HEADER = "| fault | expected | seen | times |\n|---|---|---|---|"
