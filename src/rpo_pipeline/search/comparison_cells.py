"""Cells of a comparison; a cell is one training: a method with one value and one seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.params import (
    ComparisonParams,
    EvaluationParams,
    LabelingParams,
    MethodParams,
    ObjectiveParams,
    Params,
    PolicyParams,
    RpoParams,
    TrainingParams,
)


class Settings(ObjectiveParams):
    """The parameter blocks that a cell depends on."""

    labeling: LabelingParams
    policy: PolicyParams
    training: TrainingParams
    evaluation: EvaluationParams

    @property
    def objectives(self) -> ObjectiveParams:
        """The blocks of the objectives alone."""
        return ObjectiveParams(
            **{name: getattr(self, name) for name in ObjectiveParams.model_fields}
        )


class Plan(Params):
    """Parameters of the run that a comparison reads, as one record."""

    settings: Settings
    folders: dict[str, str | None]
    """Hash of each folder that the settings only name, as a model may be replaced in its folder."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One training, which is measured on test prompts."""

    method: MethodParams
    value: float
    """Value of the method's parameter."""
    seed: int
    study: tuple[str, float] | None = None
    """Property of the log that is changed, and its level; None for the log as it is."""

    @property
    def name(self) -> str:
        """Readable name, such as ``kto beta=0.1 seed 3``."""
        short = self.method.parameter.rpartition(".")[2]
        name = f"{self.method.name} {short}={self.value:g} seed {self.seed}"
        return f"{name} {self.study[0]}={self.study[1]:g}" if self.study else name


def trains(comparison: ComparisonParams, objective: str) -> bool:
    """Tell whether a method of the comparison has an objective."""
    return any(method.objective == objective for method in comparison.methods)


def samples_reference(
    comparison: ComparisonParams, rpo: RpoParams, labeling: LabelingParams
) -> bool:
    """Tell whether a method or a study of the comparison may read samples of the reference.

    Args:
        comparison: Methods and studies.
        rpo: Block of the run, whose estimator a method has that names none.
        labeling: Labelers; ``rpo.estimator: auto`` takes samples only if one scores new text, and
            only where log-probabilities are summed and no level is fitted.

    Returns:
        Whether samples are needed.
    """
    can_label = any(each.scores_new_text for each in labeling.labelers)

    def samples(method: MethodParams) -> bool:
        own = {**comparison.settings, **method.settings}
        estimator = own.get("rpo.estimator", rpo.estimator)
        summed = own.get("rpo.logp_reduction", rpo.logp_reduction) == "sum"
        may_sample = summed and not own.get("rpo.fit_level", rpo.fit_level) and can_label
        is_auto = estimator == "auto" and method.objective == "rpo" and may_sample
        return estimator == "reference_samples" or is_auto or method.objective == "qrpo"

    return comparison.mixes_samples or any(map(samples, comparison.methods))


def curve_cells(comparison: ComparisonParams) -> list[Cell]:
    """List a cell for each value of each method and each seed of the curves."""
    return [
        Cell(method, value, seed)
        for method in comparison.methods
        for value in method.grid
        for seed in comparison.curve_seeds
    ]


def final_cells(comparison: ComparisonParams, chosen: Mapping[str, float]) -> list[Cell]:
    """List a cell for each method at its chosen value and each seed."""
    return [
        Cell(method, chosen[method.name], seed)
        for method in comparison.methods
        for seed in comparison.seeds
    ]


def study_cells(comparison: ComparisonParams, chosen: Mapping[str, float]) -> list[Cell]:
    """List a cell for each level, method and seed of each study."""
    studies = comparison.studies
    if studies is None:
        return []
    return [
        Cell(method, chosen[method.name], seed, (study, level))
        for study, levels in studies.levels.items()
        for level in levels
        for method in comparison.methods
        if method.name in studies.methods
        for seed in studies.seeds
    ]


def settings_of(cell: Cell, settings: Settings, shared: Mapping[str, Any]) -> Settings:
    """Build the parameters of a cell.

    Args:
        cell: Cell to train.
        settings: Parameters of the run.
        shared: Settings of every cell by dotted name; those of its method override them.

    Returns:
        Validated parameters.

    Raises:
        ConfigError: If a dotted name is no parameter, or a value is out of bounds.
    """
    own = {"training.objective": cell.method.objective, cell.method.parameter: cell.value}
    changes = {**shared, **cell.method.settings, **own, "training.seed": cell.seed}
    values = settings.model_dump()
    for name, value in changes.items():
        block, _, key = name.partition(".")
        if key not in values.get(block, {}):
            raise ConfigError(
                f"{name!r} is no parameter that a comparison can set (comparison.settings, "
                "comparison.methods[].parameter and .settings take names such as rpo.tau)"
            )
        values[block][key] = value
    try:
        return Settings.model_validate(values)
    except ValidationError as err:
        wrong = err.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise ConfigError(f"{cell.name}: {where}: {wrong['msg']}, got {wrong['input']!r}") from err


def what_counts(settings: Settings) -> dict[str, Any]:
    """Return the parameters that decide the result of a cell.

    The blocks of other objectives do not count, nor does ``rpo`` but for the reduction that every
    objective shares. Values of the type's defaults do not count either, so that new parameters void
    no finished cell.
    """
    objective = settings.training.objective
    # The targets of qrpo hold its tau, so its training alone does not read it.
    read = {objective, *settings.objectives.read_by(objective)}
    unread = ObjectiveParams.model_fields.keys() - read
    content = settings.model_dump(mode="json", exclude_defaults=True, exclude=unread)
    if objective not in ("rpo", "qrpo"):
        content["rpo"] = settings.rpo.averages_tokens(objective)
    return content
