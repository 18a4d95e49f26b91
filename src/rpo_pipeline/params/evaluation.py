"""What models are measured by, compared on and promoted for."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rpo_pipeline.params.base import Params
from rpo_pipeline.params.labelers import LabelerParams, check_new_text, check_titles


class SamplingParams(Params):
    """How responses are sampled in evaluation."""

    sampling_temperature: float = Field(gt=0)
    """1: the model's own distribution."""
    responses_per_prompt: int = Field(gt=0)
    """Averaged per prompt; more make the intervals narrower."""


class EvaluationParams(Params):
    """What the challenger is measured on."""

    num_prompts: int = Field(gt=1)
    """Test prompts to generate for, and to rank the logged responses of, at most."""
    sampling: SamplingParams
    """Same prompts and same noise for every model."""
    labelers: list[LabelerParams] = Field(min_length=1)
    """The first gives reward_mean, the others components; each must score new text."""
    bootstrap_samples: int = Field(ge=100)
    """Resamples of the prompts behind each 95 % interval."""

    @model_validator(mode="after")
    def _labelers_score_new_text(self) -> Self:
        check_new_text(self.labelers, "evaluation.labelers")
        check_titles(self.labelers)
        return self


class MethodParams(Params):
    """A line of a comparison: an objective, its settings, the values of its temperature."""

    name: str
    """As it stands in the table."""
    objective: Literal["rpo", "sft", "kto", "dro", "qrpo"]
    """Of the training."""
    parameter: str
    """What the grid is over, by dotted name: ``rpo.tau``, ``kto.beta``; for SFT, which has no
    temperature, ``training.learning_rate``."""
    grid: list[float] = Field(min_length=1)
    """Its values; the best on validation prompts is reported on test prompts."""
    settings: dict[str, Any] = {}
    """Other parameters of this method, by dotted name: ``{rpo.estimator: self_normalized}``."""


class ComparisonParams(Params):
    """``kedro run --pipelines comparison``: objectives at their best temperature, over seeds."""

    methods: list[MethodParams] = Field(min_length=1)
    """The first is the one that the others are compared with."""
    seeds: list[int] = Field(min_length=1)
    """Each method's best value is trained with all of them; the grid with the first."""
    settings: dict[str, Any]
    """Parameters of every cell, by dotted name, such as a shorter training."""
    num_prompts: int = Field(gt=1)
    """Prompts that a cell is judged on, of the validation or of the test split, at most."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"names of methods and seeds must differ, got {names}, {self.seeds}")
        return self


class GateParams(Params):
    """One condition for promotion, on the challenger or on its paired difference to a baseline."""

    metric: str
    """A metric of summary.json, such as ``reward_mean``."""
    against: Literal["champion", "reference", "none"]
    """Baseline of the difference; ``champion`` means the reference while there is no champion;
    ``none``: the challenger's own value."""
    direction: Literal["above", "below"]
    """On which side of the threshold the number must lie; a number equal to it fails."""
    threshold: float
    """In units of the metric; for a difference, the margin over the baseline."""
    bound: Literal["value", "low", "high"]
    """Which number must pass: the estimate, or an end of its interval, which widens with every
    challenger of the same champion (``confidence``)."""


class PromotionParams(Params):
    """When a version becomes champion."""

    model_name: str = Field(min_length=1)
    """Registered model in MLflow."""
    mode: Literal["auto", "manual"]
    """``auto``: a challenger that passes becomes champion; ``manual``: it stays challenger."""
    version: int | None = Field(default=None, ge=1)
    """A registered version to gate and promote instead of this run's policy: a person's wish, so it
    goes past ``mode: manual`` and past an earlier rollback; null: this run's policy."""
    min_test_prompts: int = Field(ge=0)
    """Fewer prompts in the evaluation fail the gate."""
    confidence: float = Field(gt=0.5, lt=1)
    """At least this probable: of all challengers of one champion that are no better, none passes a
    gate on an end of an interval. Nearer to 1, fewer false and fewer true promotions."""
    required_artifacts: list[str]
    """What a version must carry to be promoted, by its name among the version's artifacts."""
    gates: list[GateParams] = Field(min_length=1)
    """All must pass."""
