"""Frozen records that one stage hands to the next, and how they lie in JSON files.

The nodes of every stage name them, so they need neither torch nor MLflow. A file holds the fields
of a record under their names; one of an earlier release may lack those that have a default.
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
    """Where an MLflow run, or the registry beside it, is found."""

    tracking_uri: str
    experiment_id: str = ""
    """Empty where only the registry is asked."""
    run_id: str = ""
    """Empty where only the registry is asked."""
    registry_wait_seconds: float = 0.0
    """Time that a registry that is away is waited for."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Tags of the run that say which code it is of; none where nothing tells."""


@dataclass(frozen=True)
class Champion:
    """What a challenger is compared with: the version that holds the alias ``champion``."""

    version: str | None = None
    """None before there is a champion."""
    path: Path | None = None
    """Directory of its checkpoint on this machine."""


@dataclass(frozen=True)
class Registration:
    """A policy that is a version in the registry."""

    version: str = ""
    """Empty, as are the others, where a run that promotes a named version found none."""
    model_id: str = ""
    """Id of the logged model that the version points to."""
    policy: str = ""
    """Fingerprint of the policy's directory."""


@dataclass(frozen=True)
class Decision:
    """What the gate says of a challenger."""

    passed: bool
    baseline: str = "champion"
    """``champion``, or ``reference`` while there is no champion."""
    champion_version: str | None = None
    """Version that the challenger was compared with."""
    look: int = 1
    """Which look at the challengers of that champion it was, from 1."""
    checks: tuple[Mapping[str, Any], ...] = ()
    """Each with its numbers, ``passed``, and a ``reason`` for people. One that is ``waived`` has
    failed, and counts as passed because of what its reason says."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Numbers of every model on the held-out prompts."""

    num_prompts: int
    detectable_difference: float | None = None
    """Smallest true gain in reward_mean that would probably be seen; None if there is none."""
    judge: Mapping[str, Any] | None = None
    """How far the judge of pairs can be trusted; None without one."""
    reference: Metrics
    challenger: Metrics
    champion: Metrics | None
    """None before there is a champion."""
    difference: Mapping[str, Metrics | None]
    """Of the challenger to its baselines: ``vs_reference``, and ``vs_champion`` or null."""
    p_holm: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """P-value of each difference by baseline, by Holm over the metrics beside it."""
    by_prompt: Mapping[str, Any] | None = None
    """Of the challenger and of each difference: values of the prompts, worst and best possible."""

    def of(self, model: str) -> Metrics | None:
        """Numbers of ``reference``, ``challenger`` or ``champion``; None if there is no such."""
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
        """Differences of the challenger to a baseline; none where there is no such."""
        return self.difference.get(f"vs_{baseline}") or {}


@dataclass(frozen=True, kw_only=True)
class Evidence(Measured):
    """What a decision is made from."""

    champion_version: str | None = None
    look: int | None = None
    labelers: Mapping[str, Any] | None = None
    """What judges beside people's ratings, as ``measure_labelers`` gives it."""

    @property
    def is_complete(self) -> bool:
        """Whether it holds all that a decision is made from; of earlier releases it may not."""
        return None not in (self.by_prompt, self.labelers, self.look)


@dataclass(frozen=True, kw_only=True)
class Summary(Evidence):
    """The numbers and what the gate says of them."""

    gate: Decision


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The version to promote."""

    version: str
    summary: Summary | None = None
    """None where it is about another champion than today's, so that it is measured again."""
    path: Path | None = None
    """Directory of its checkpoint, where it is measured again."""
    champion: Champion | None = None
    """Today's, where it is measured again."""


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What the stages before the evaluation say of data, labels and models."""

    row_account: Mapping[str, int]
    reasons: Sequence[Mapping[str, Any]]
    """Quarantined rows by reason: reason, count, first."""
    source_parts: Sequence[Mapping[str, Any]]
    """Each source file with its rows and the hash of its content."""
    data_reports: Mapping[str, Mapping[str, Any]]
    """What is known of data, labels and rewards, by title."""
    partition_health: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    """Digest of the data, and fingerprints of the models."""


def from_json(record: type[Record], value: Any) -> Record:  # noqa: ANN401 (what JSON can say)
    """A record from what its file holds.

    Raises:
        ValueError: If a field is missing, or is of another type.
    """
    return TypeAdapter(record).validate_python(value)


def to_json(record: "DataclassInstance") -> dict[str, Any]:
    """What the file of a record holds."""
    return asdict(
        record, dict_factory=lambda fields: {name: _plain(value) for name, value in fields}
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 (what a field holds)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
