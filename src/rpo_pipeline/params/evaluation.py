"""Parameters of evaluation, comparison and promotion."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rpo_pipeline.errors import did_you_mean
from rpo_pipeline.params.base import ModelPlace, Params, Seed
from rpo_pipeline.params.endpoint import EndpointParams, check_template
from rpo_pipeline.params.labelers import LabelerParams, check_new_text, check_titles
from rpo_pipeline.params.names import ModelName
from rpo_pipeline.params.training import ObjectiveName


class SamplingParams(Params):
    """How responses are sampled in evaluation."""

    sampling_temperature: float = Field(gt=0)
    """Temperature of decoding; 1 samples from the model's own distribution."""
    responses_per_prompt: int = Field(gt=0)
    """Number of responses, averaged per prompt; more make the intervals narrower."""


class EncoderParams(Params):
    """Local encoder that measures the similarity of responses to the best-rated ones."""

    name_or_path: ModelPlace
    """Hub id or directory, with safetensors weights."""
    revision: str | None = None
    """Commit of the hub id; null for a directory."""
    layer: int = Field(gt=0)
    """Layer whose token states BERTScore matches; usually one of the last."""
    max_tokens: int = Field(default=256, gt=1)
    """Largest number of tokens of a response; longer ones are cut."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Tokens of one forward pass, padding included."""


class PairwiseJudgeParams(Params):
    """Language model that compares the challenger's responses with its baselines'."""

    endpoint: EndpointParams
    """Model, address and ceilings of the judge."""
    num_prompts: int = Field(gt=0)
    """Number of test prompts to compare, with one response of each model; two requests a pair."""
    rated_pairs: int = Field(ge=0)
    """Number of pairs of differently rated logged responses, to measure the judge's agreement."""
    template: str | None = None
    """Jinja2 template with ``prompt``, ``first`` and ``second``, which it must call A and B; null
    for the project's own (judge/templates/compare.j2)."""

    @model_validator(mode="after")
    def _template_is_filled(self) -> Self:
        if self.template:
            check_template(self.template, {"prompt", "first", "second"}, set())
        return self


class LmEvalParams(Params):
    """Tasks of the lm-evaluation-harness; needs the extra ``lm-eval``."""

    tasks: list[str] = Field(min_length=1)
    """Names of the tasks; each gives metrics ``lm_eval_<task>_<metric>``."""
    limit: int | None = Field(default=None, gt=0)
    """Largest number of documents of a task; null for all."""
    include_path: str | None = None
    """Folder of your own task files."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Number of examples before each question; null for the number that the task states."""


class EvaluationParams(Params):
    """How the challenger is evaluated."""

    num_prompts: int = Field(gt=1)
    """Largest number of test prompts, for new responses and for the ranking of logged ones."""
    sampling: SamplingParams
    """Sampling of responses, with the same prompts and noise for every model."""
    labelers: list[LabelerParams] = Field(min_length=1)
    """Labelers of new text; the first gives reward_mean, the others give components."""
    bootstrap_samples: int = Field(ge=100)
    """Number of resamples of the prompts for each 95 % interval."""
    judge: PairwiseJudgeParams | None = None
    """Judge that compares pairs of responses; null for none."""
    encoder: EncoderParams | None = None
    """Encoder that measures similarity in meaning; null for none."""
    lm_eval: LmEvalParams | None = None
    """Tasks of the lm-evaluation-harness to run on every model; null for none."""

    @model_validator(mode="after")
    def _labelers_score_new_text(self) -> Self:
        check_new_text(self.labelers, "evaluation.labelers")
        check_titles(self.labelers)
        return self


class MethodParams(Params):
    """One method of a comparison: an objective, its settings, the values of its temperature."""

    name: str
    """Name in the table."""
    objective: ObjectiveName
    """Objective of the training."""
    parameter: str
    """Dotted name of the parameter that the grid varies: ``rpo.tau``, ``kto.beta``; for SFT, which
    has no temperature, ``training.learning_rate``."""
    grid: list[float]
    """Values of the parameter, each a point of the method's curve of reward over divergence."""
    settings: dict[str, Any] = {}
    """Other parameters of this method, by dotted name: ``{rpo.estimator: self_normalized}``."""

    @field_validator("grid")
    @classmethod
    def _makes_a_curve(cls, grid: list[float]) -> list[float]:
        if len(grid) < 2 or len(set(grid)) < len(grid):
            raise ValueError(
                "a curve needs at least two different values, better four or five that reach from "
                f"less to more divergence than comparison.budget, got {grid}"
            )
        return grid


Study = Literal["num_responses", "reward_noise", "num_rewards", "logged_share"]
STUDIES: dict[Study, tuple[float, float]] = {
    "num_responses": (1, math.inf),
    "reward_noise": (0, math.inf),
    "num_rewards": (2, math.inf),
    "logged_share": (0, 1),
}
"""Properties of a log that a comparison can vary, each with its smallest and largest level."""


class StudiesParams(Params):
    """Studies of the effect of a property of the log on each method, at its value of the table."""

    levels: dict[Study, list[float]]
    """Levels of each property. ``num_responses``: largest number of labelled responses of a train
    prompt; ``reward_noise``: noise added to the rewards of train, in their standard deviations;
    ``num_rewards``: number of different rewards in train, as frequent as each other: 2 for thumbs;
    ``logged_share``: share of each prompt's train rows that stay, while responses of the reference
    replace the others."""
    methods: list[str]
    """Names of the methods to study."""
    seeds: list[Seed] = Field(min_length=1)
    """Seeds; with those of ``comparison.seeds``, an unchanged log needs no new training."""

    @model_validator(mode="after")
    def _levels_are_possible(self) -> Self:
        for name, levels in self.levels.items():
            least, largest = STUDIES[name]
            wrong = [level for level in levels if not least <= level <= largest]
            if wrong:
                raise ValueError(f"levels.{name}: from {least} to {largest}, got {wrong}")
        return self


class ComparisonParams(Params):
    """``kedro run --pipelines comparison`` compares methods at the same divergence, over seeds.

    A cell is one training: a method with one value of its grid and one seed.
    """

    methods: list[MethodParams] = Field(min_length=1)
    """Methods; the others are compared with the first."""
    metric: Literal["reward_mean", "rank_correlation"]
    """Number that is compared, by test prompt: raw reward of new responses, or the rank correlation
    of log-ratio and reward over logged ones, where no labeler of new text can be trusted."""
    budget: float = Field(gt=0)
    """Divergence from the reference, in nats a response, at which the winner is named. Each method
    is reported at the value that comes nearest to it from below on validation prompts."""
    budgets: list[Annotated[float, Field(gt=0)]]
    """Other divergences, in nats a response, at which the curves are compared."""
    seeds: list[Seed] = Field(min_length=1)
    """Each method's chosen value is trained with all of them."""
    curve_seeds: list[Seed] = Field(min_length=1)
    """Those of the seeds with which every value of a grid is trained."""
    settings: dict[str, Any]
    """Parameters of every cell, by dotted name, such as a shorter training."""
    rows: int | None = Field(gt=0)
    """Largest number of labelled train rows, as whole prompts, that a cell is trained on; null for
    all. The choice of the prompts is the same for all cells."""
    num_prompts: int = Field(gt=1)
    """Largest number of validation prompts, and of test prompts, that are read; at most 100 of the
    former are answered."""
    num_processes: int = Field(gt=0)
    """Number of cells that are run at the same time, each in a process with its own model."""
    studies: StudiesParams | None = None
    """Studies with a changed log; null for none."""

    @model_validator(mode="after")
    def _names_are_distinct_and_known(self) -> Self:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"names of methods and seeds must differ, got {names}, {self.seeds}")
        if not set(self.curve_seeds) <= set(self.seeds):
            raise ValueError(
                f"curve_seeds must be among the seeds {self.seeds}, got {self.curve_seeds}"
            )
        unknown = set(self.studies.methods if self.studies else ()) - set(names)
        if unknown:
            raise ValueError(f"studies.methods: {sorted(unknown)} are none of {names}")
        return self

    @property
    def every_budget(self) -> list[float]:
        """Main and other budgets, in nats, from small to large."""
        return sorted({self.budget, *self.budgets})

    @property
    def mixes_samples(self) -> bool:
        """Whether some cells are trained on responses of the reference in place of logged ones."""
        return self.studies is not None and "logged_share" in self.studies.levels


METRICS = (
    *("reward_mean", "win_rate", "length_controlled_win_rate", "judge_win_rate"),
    *("toxicity_mean", "toxicity_p95", "toxic_share", "kl_reference", "kl_from_reference"),
    *("chrf", "rouge_l", "bleu", "embedding_similarity", "bert_score"),
    *("distinct_1", "distinct_2", "vocabulary_entropy", "self_bleu", "repetition", "copied"),
    *("reference_nll", "rank_correlation", "pair_accuracy", "calibration_slope"),
    *("length_mean", "num_tokens_mean", "empty_share"),
)
"""Metrics of an evaluation, beside the components of labelers and tasks."""
FAMILIES = ("component_", "lm_eval_")
Artifact = Literal[
    "checkpoint",
    "summary.json",
    "normaliser.json",
    "provenance.json",
    "parameters.json",
    "report.html",
    "model_card.md",
    "serving.json",
    "encoding.py",
]
"""Artifacts of a registered version."""


class GateParams(Params):
    """One condition for promotion, on the challenger or on its paired difference to a baseline."""

    metric: str
    """A metric of summary.json, such as ``reward_mean``."""
    against: Literal["champion", "reference", "none"]
    """Baseline of the difference; ``champion`` means the reference while there is no champion;
    ``none``: the challenger's own value."""
    direction: Literal["above", "below"]
    """Side of the threshold on which the number must lie; a number equal to it fails."""
    threshold: float
    """Threshold in units of the metric; for a difference, the margin over the baseline."""
    bound: Literal["value", "low", "high"]
    """Number that must pass: the estimate, or an end of its interval. A look is one comparison of
    challengers with a champion; the interval widens with every look (``confidence``)."""

    @field_validator("metric")
    @classmethod
    def _is_measured(cls, metric: str) -> str:
        if metric not in METRICS and not metric.startswith(FAMILIES):
            hint = did_you_mean(metric, METRICS)
            raise ValueError(
                f"{hint}a metric is component_NAME of a labeler, lm_eval_TASK_METRIC, or one of "
                f"{', '.join(METRICS)}"
            )
        return metric


class PromotionParams(Params):
    """When a version becomes champion."""

    model_name: ModelName
    """Registered model in MLflow."""
    mode: Literal["auto", "manual"]
    """``auto``: a challenger that passes becomes champion; ``manual``: it stays challenger."""
    version: int | None = Field(default=None, ge=1)
    """Registered version to gate and promote instead of this run's policy. As a person names it,
    ``mode: manual`` and an earlier rollback do not prevent it. Null for this run's policy."""
    min_test_prompts: int = Field(ge=0)
    """Smallest number of prompts in an evaluation that can pass."""
    confidence: float = Field(gt=0.5, lt=1)
    """Least probability that, of all challengers of one champion that are no better, none passes a
    gate on an end of an interval. Nearer to 1, fewer false and fewer true promotions."""
    require_ratings: bool
    """Whether a log without any human rating promotes nothing."""
    require_agreement: bool
    """Whether labelers that judge must agree with held-out human ratings more than length does."""
    required_artifacts: list[Artifact]
    """Artifacts that a version must have to be promoted."""
    gates: list[GateParams] = Field(min_length=1)
    """Conditions that must all hold."""
