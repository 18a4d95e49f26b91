"""Frozen records that stages exchange, and their form in JSON files.

Nodes of every stage import them, so they need neither torch nor MLflow. A file holds the fields of
a record by name; a file of an earlier release may lack fields with a default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record")
Metrics = Mapping[str, Any]
"""Numbers by metric, each as {value, low, high}."""


@dataclass(frozen=True)
class RunAddress:
    """Address of an MLflow run, or only of the registry."""

    tracking_uri: str
    experiment_id: str = ""
    """Empty for the address of a registry."""
    run_id: str = ""
    """Empty for the address of a registry."""
    registry_wait_seconds: float = 0.0
    """Time to wait for a registry that does not answer."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Tags of the run that name its code; may be empty."""


@dataclass(frozen=True)
class Champion:
    """The version with the alias ``champion``, which challengers are compared with."""

    version: str | None = None
    """None before there is a champion."""
    path: Path | None = None
    """Directory of its checkpoint on this machine."""


@dataclass(frozen=True)
class Registration:
    """Registration of a policy as a version."""

    version: str = ""
    """Version; all fields are empty in a run that promotes a named version before any other."""
    model_id: str = ""
    """Id of the version's logged model."""
    policy: str = ""
    """Fingerprint of the policy's directory."""


@dataclass(frozen=True)
class Decision:
    """Decision of the gate on a challenger."""

    passed: bool
    baseline: str = "champion"
    """``champion``, or ``reference`` while there is no champion."""
    champion_version: str | None = None
    """Version that the challenger was compared with."""
    look: int = 1
    """Number of the look (a comparison of challengers with that champion), from 1."""
    checks: tuple[Mapping[str, Any], ...] = ()
    """Checks with their numbers, ``passed`` and ``reason``. A ``waived`` check has failed but
    counts as passed, for the cause in its reason."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Numbers of every model on the held-out prompts."""

    num_prompts: int
    detectable_difference: float | None = None
    """Smallest true gain in reward_mean that would probably be found; None if there is none."""
    judge: Mapping[str, Any] | None = None
    """Agreement of the judge of pairs; None without a judge."""
    reference: Metrics
    challenger: Metrics
    champion: Metrics | None
    """None before there is a champion."""
    difference: Mapping[str, Metrics | None]
    """Differences of the challenger to its baselines: ``vs_reference``, ``vs_champion`` or null."""
    p_holm: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """P-value of each difference by baseline, with Holm's correction over metrics."""
    by_prompt: Mapping[str, Any] | None = None
    """Values by prompt of the challenger and of each difference, with the worst and best value."""

    def of(self, model: str) -> Metrics | None:
        """Return the numbers of ``reference``, ``challenger`` or ``champion`` (may be None)."""
        return {
            "reference": self.reference,
            "challenger": self.challenger,
            "champion": self.champion,
        }[model]

    @property
    def headline(self) -> dict[str, float | None]:
        """Values of the challenger by the names that MLflow shows."""
        return {f"eval/{name}": metric["value"] for name, metric in self.challenger.items()}

    def versus(self, baseline: str) -> Metrics:
        """Return the differences of the challenger to a baseline, empty without that baseline."""
        return self.difference.get(f"vs_{baseline}") or {}


@dataclass(frozen=True, kw_only=True)
class Evidence(Measured):
    """Numbers that a decision is made from."""

    champion_version: str | None = None
    look: int | None = None
    labelers: Mapping[str, Any] | None = None
    """Agreement of the labelers with ratings, from ``measure_labelers``."""

    @property
    def is_complete(self) -> bool:
        """Whether it holds everything for a decision, which files of earlier releases may not."""
        return None not in (self.by_prompt, self.labelers, self.look)


@dataclass(frozen=True, kw_only=True)
class Summary(Evidence):
    """Numbers of an evaluation, and the decision of the gate."""

    gate: Decision


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A candidate is the version to promote: this run's, or the one that a person names."""

    version: str
    summary: Summary | None = None
    """None if it compares with another champion than today's; the version is evaluated again."""
    path: Path | None = None
    """Directory of the checkpoint of a version that is evaluated again."""
    champion: Champion | None = None
    """Today's champion, for a version that is evaluated again."""


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Reports of the stages before the evaluation on data, labels and models."""

    row_account: Mapping[str, int]
    reasons: Sequence[Mapping[str, Any]]
    """Quarantined records by reason: reason, count, first."""
    source_parts: Sequence[Mapping[str, Any]]
    """Each source file with its rows and the hash of its content."""
    data_reports: Mapping[str, Mapping[str, Any]]
    """Reports on data, labels and rewards, by title."""
    partition_health: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    """Digest of the data, and fingerprints of the models."""


def from_json(record: type[Record], value: Any) -> Record:  # noqa: ANN401 (what JSON can say)
    """Build a record from the content of its file.

    Args:
        record: Class of the record.
        value: Content of the file.

    Returns:
        The record.

    Raises:
        ValueError: If a field is missing, or has another type.
    """
    return TypeAdapter(record).validate_python(value)


def to_json(record: "DataclassInstance") -> dict[str, Any]:
    """Convert a record to the content of its file."""
    return asdict(
        record, dict_factory=lambda fields: {name: _plain(value) for name, value in fields}
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 (what a field holds)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
