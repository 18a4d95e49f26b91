"""Optional packages: the extras that install them, and the settings that need them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from rpo_pipeline.params.base import Params
from rpo_pipeline.params.evaluation import EvaluationParams
from rpo_pipeline.params.ingestion import IngestionParams
from rpo_pipeline.params.labelers import EnsembleParams, JudgeParams, LabelerSettings
from rpo_pipeline.params.labeling import LabelingParams

EXTRAS: dict[str, tuple[str, ...]] = {
    "judge": ("openai",),
    "similarity": ("bert_score",),
    "lm-eval": ("lm_eval",),
    "privacy": ("phonenumbers", "stdnum"),
    "spark": ("pyspark",),
    "server": ("boto3", "psycopg"),
    "airflow": ("kedro_airflow",),
}
"""Names under which the packages of each extra are imported."""
REDACTED_BY = {"phone": "phonenumbers", "card": "stdnum"}
DRIVER = "postgresql+psycopg:"


@dataclass(frozen=True)
class Need:
    """An optional package that a configuration needs."""

    package: str
    """Name under which it is imported."""
    feature: str
    """Feature that needs it, in words."""
    place: str
    """Setting that asks for the feature."""

    @property
    def extra(self) -> str:
        """Extra that installs the package."""
        return next(name for name, packages in EXTRAS.items() if self.package in packages)

    @property
    def is_met(self) -> bool:
        """Whether the package is installed."""
        return find_spec(self.package) is not None

    def __str__(self) -> str:
        return (
            f"{self.feature} needs the package {self.package}: "
            f"pip install 'rpo-pipeline[{self.extra}]' ({self.place})"
        )


def block_needs(blocks: Mapping[str, Params]) -> Iterator[Need]:
    """Yield the packages that parameters need; blocks that could not be built are skipped."""
    labeling, evaluation, ingestion = (
        blocks.get(name) for name in ("labeling", "evaluation", "ingestion")
    )
    if isinstance(labeling, LabelingParams):
        yield from _labeler_needs(labeling.labelers, "labeling.labelers")
    if isinstance(evaluation, EvaluationParams):
        yield from _labeler_needs(evaluation.labelers, "evaluation.labelers")
        if evaluation.judge:
            yield Need("openai", "the judge of pairs", "evaluation.judge")
        if evaluation.encoder:
            yield Need("bert_score", "likeness in meaning", "evaluation.encoder")
        if evaluation.lm_eval:
            yield Need("lm_eval", "the lm-evaluation-harness", "evaluation.lm_eval")
    if isinstance(ingestion, IngestionParams) and ingestion.redaction:
        for kind, package in REDACTED_BY.items():
            if kind in ingestion.redaction.entities:
                yield Need(package, f"redaction of `{kind}`", "ingestion.redaction.entities")


def catalog_needs(catalog: Mapping[str, Any]) -> Iterator[Need]:
    """Yield the packages that the entries of a catalog need."""
    for name, entry in catalog.items():
        if "pyspark" in _backends(entry):
            yield Need("pyspark", "a table on Spark", f"conf/*/catalog_*.yml: {name}")


def tracking_needs(tracking_uri: str) -> Iterator[Need]:
    """Yield the packages that the address of a tracking database needs."""
    if tracking_uri.startswith(DRIVER):
        yield Need("psycopg", "MLflow on PostgreSQL", "conf/*/mlflow.yml: tracking_uri")


def unmet(needs: Iterable[Need]) -> list[str]:
    """Write one sentence for each package that is not installed."""
    return [str(need) for need in needs if not need.is_met]


def _labeler_needs(labelers: Sequence[LabelerSettings], place: str) -> Iterator[Need]:
    for index, labeler in enumerate(labelers):
        if isinstance(labeler, JudgeParams):
            yield Need("openai", "labeler `judge`", f"{place}[{index}]")
        elif isinstance(labeler, EnsembleParams):
            yield from _labeler_needs(labeler.members, f"{place}[{index}].members")


def _backends(entry: object) -> Iterator[str]:
    """Yield the backends of Ibis that an entry names at any depth."""
    if isinstance(entry, Mapping):
        for key, value in entry.items():
            if key == "backend":
                yield str(value)
            yield from _backends(value)
