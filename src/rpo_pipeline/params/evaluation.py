"""What models are measured by, compared on and promoted for."""

from importlib.util import find_spec
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


class LmEvalParams(Params):
    """Tasks of the lm-evaluation-harness; needs the extra ``lm-eval``."""

    tasks: list[str] = Field(min_length=1)
    """By name; each gives metrics ``lm_eval_<task>_<metric>``."""
    limit: int | None = Field(default=None, gt=0)
    """Documents of a task, at most; null: all."""
    include_path: str | None = None
    """Folder of task files of your own, beside those of the harness."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples before each question; null: as the task says."""

    @model_validator(mode="after")
    def _installed(self) -> Self:
        if find_spec("lm_eval") is None:
            raise ValueError("needs the package lm_eval: pip install 'rpo-pipeline[lm-eval]'")
        return self


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
    lm_eval: LmEvalParams | None = None
    """Tasks that every model is measured on beside the prompts; null: none."""

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
    """Which number must pass: the estimate, or an end of its 95 % interval."""


class PromotionParams(Params):
    """When a version becomes champion."""

    model_name: str = Field(min_length=1)
    """Registered model in MLflow."""
    mode: Literal["auto", "manual"]
    """``auto``: a challenger that passes becomes champion; ``manual``: it stays challenger."""
    min_test_prompts: int = Field(ge=0)
    """Fewer prompts in the evaluation fail the gate."""
    gates: list[GateParams] = Field(min_length=1)
    """All must pass."""
