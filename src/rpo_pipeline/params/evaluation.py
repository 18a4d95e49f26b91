"""What models are measured by, compared on and promoted for."""

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rpo_pipeline.errors import did_you_mean
from rpo_pipeline.params.base import ModelPlace, Params, Seed
from rpo_pipeline.params.endpoint import EndpointParams, check_template
from rpo_pipeline.params.labelers import LabelerParams, check_new_text, check_titles
from rpo_pipeline.params.names import ModelName


class SamplingParams(Params):
    """How responses are sampled in evaluation."""

    sampling_temperature: float = Field(gt=0)
    """1: the model's own distribution."""
    responses_per_prompt: int = Field(gt=0)
    """Averaged per prompt; more make the intervals narrower."""


class EncoderParams(Params):
    """A local encoder that tells how near a response is in meaning to the best-rated one."""

    name_or_path: ModelPlace
    """Hub id or directory, with safetensors weights."""
    revision: str | None = None
    """Commit of the hub id; null for a directory."""
    layer: int = Field(gt=0)
    """BERTScore: layer whose token states are matched; the last but a few is usual."""
    max_tokens: int = Field(default=256, gt=1)
    """Longer responses are cut."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Tokens, padding included, of one forward pass."""


class PairwiseJudgeParams(Params):
    """A language model that compares the challenger's responses with its baselines'."""

    endpoint: EndpointParams
    """Which model, where, and what it may cost."""
    num_prompts: int = Field(gt=0)
    """Test prompts that it sees, with one response of each model; two requests a pair."""
    rated_pairs: int = Field(ge=0)
    """Pairs of logged responses that people rated differently, to see whether it agrees."""
    template: str | None = None
    """Jinja2 text of the request, from ``prompt``, ``first`` and ``second``, which are to be
    called A and B; null: the project's own (judge/templates/compare.j2)."""

    @model_validator(mode="after")
    def _template_is_filled(self) -> Self:
        if self.template:
            check_template(self.template, {"prompt", "first", "second"}, set())
        return self


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
    judge: PairwiseJudgeParams | None = None
    """Win rates by a judge; null: none is asked."""
    encoder: EncoderParams | None = None
    """Likeness in meaning to the best-rated logged response; null: only in words."""
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


STUDIES = {"num_responses": (1, math.inf), "reward_noise": (0, math.inf), "logged_share": (0, 1)}
"""Properties of a log that a comparison can vary, each with its least and its largest level."""


class StudiesParams(Params):
    """How much a property of the log matters to each method, at its best value."""

    levels: dict[Literal["num_responses", "reward_noise", "logged_share"], list[float]]
    """``num_responses``: labelled responses of a train prompt, at most; ``reward_noise``: added to
    the rewards of train, in their standard deviations; ``logged_share``: of the train rows of each
    prompt, the others being as many responses of the reference."""
    methods: list[str]
    """By name."""
    seeds: list[Seed] = Field(min_length=1)
    """With the first of ``comparison.seeds`` a level that changes nothing costs nothing."""

    @model_validator(mode="after")
    def _levels_are_possible(self) -> Self:
        for name, levels in self.levels.items():
            least, largest = STUDIES[name]
            wrong = [level for level in levels if not least <= level <= largest]
            if wrong:
                raise ValueError(f"levels.{name}: from {least} to {largest}, got {wrong}")
        return self


class ComparisonParams(Params):
    """``kedro run --pipelines comparison``: objectives at their best temperature, over seeds."""

    methods: list[MethodParams] = Field(min_length=1)
    """The first is the one that the others are compared with."""
    seeds: list[Seed] = Field(min_length=1)
    """Each method's best value is trained with all of them; the grid with the first."""
    settings: dict[str, Any]
    """Parameters of every cell, by dotted name, such as a shorter training."""
    num_prompts: int = Field(gt=1)
    """Prompts that a cell is judged on, of the validation or of the test split, at most."""
    studies: StudiesParams | None = None
    """More trainings, on a log that was changed; null: none."""

    @model_validator(mode="after")
    def _names_are_distinct_and_known(self) -> Self:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"names of methods and seeds must differ, got {names}, {self.seeds}")
        unknown = set(self.studies.methods if self.studies else ()) - set(names)
        if unknown:
            raise ValueError(f"studies.methods: {sorted(unknown)} are none of {names}")
        return self

    @property
    def mixes_samples(self) -> bool:
        """Whether some cells learn from responses of the reference as if they had been logged."""
        return self.studies is not None and "logged_share" in self.studies.levels


METRICS = (
    *("reward_mean", "win_rate", "length_controlled_win_rate", "judge_win_rate"),
    *("toxicity_mean", "toxicity_p95", "toxic_share", "kl_reference", "kl_from_reference"),
    *("chrf", "rouge_l", "bleu", "embedding_similarity", "bert_score"),
    *("distinct_1", "distinct_2", "vocabulary_entropy", "self_bleu", "repetition", "copied"),
    *("reference_nll", "rank_correlation", "pair_accuracy", "calibration_slope"),
    *("length_mean", "num_tokens_mean", "empty_share"),
)
"""What an evaluation measures, beside the components of labelers and tasks."""
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
"""What a registered version carries."""


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
    look at the same champion (``confidence``)."""

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
    """A registered version to gate and promote instead of this run's policy: a person's wish, so it
    goes past ``mode: manual`` and past an earlier rollback; null: this run's policy."""
    min_test_prompts: int = Field(ge=0)
    """Fewer prompts in the evaluation fail the gate."""
    confidence: float = Field(gt=0.5, lt=1)
    """At least this probable: of all challengers of one champion that are no better, none passes a
    gate on an end of an interval. Nearer to 1, fewer false and fewer true promotions."""
    require_ratings: bool
    """Whether a log without one human rating promotes nothing by itself."""
    require_agreement: bool
    """Whether labelers that judge must agree with held-out human ratings more than length does."""
    required_artifacts: list[Artifact]
    """What a version must carry to be promoted, by its name among the version's artifacts."""
    gates: list[GateParams] = Field(min_length=1)
    """All must pass."""
