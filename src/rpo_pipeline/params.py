"""Typed parameters: YAML holds the values, this module the types, bounds and meanings.

One model per block of ``conf/base/parameters_<block>.yml``. Kedro builds and validates them before
any node runs, so a typo or a value out of bounds stops a run at once.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from jinja2 import Environment, TemplateSyntaxError, meta
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from rpo_pipeline.errors import ConfigError

Split = Literal["train", "validation", "test"]
Conflicts = Literal["mean", "latest", "quarantine"]
SourceFormat = Literal[
    "auto",
    "flat",
    "grouped",
    "messages",
    "trl_unpaired",
    "trl_preference",
    "ultrafeedback",
    "openai_chat",
]
PrefixSharing = Literal["auto", "tree", "cache", "off"]


class Params(BaseModel):
    """Base of every block: frozen, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


# ---- ingestion


def rating_word(value: object) -> str:
    """How a rating is spelled in ``values``: whole numbers without a point, no capitals."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()


class RatingParams(Params):
    """A column in which people rated responses, and how it maps to raw_reward."""

    column: str
    """Name of the column in the source."""
    scale: tuple[float, float] | None = None
    """Lowest and highest rating, mapped linearly to -1 and 1; null: the number as it is."""
    values: dict[str, float] | None = None
    """Raw reward of each word, such as ``{up: 1, down: -1}``; upper and lower case are one."""

    @field_validator("values", mode="before")
    @classmethod
    def _words(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        return {rating_word(word): number for word, number in values.items()}

    @model_validator(mode="after")
    def _one_mapping(self) -> Self:
        if self.scale and self.values:
            raise ValueError(f"rating column {self.column!r}: give `scale` or `values`, not both")
        if self.scale and self.scale[0] >= self.scale[1]:
            raise ValueError(f"rating column {self.column!r}: scale must rise, got {self.scale}")
        return self


DEFAULT_RATINGS: dict[str, tuple[RatingParams, ...]] = {
    "trl_unpaired": (
        RatingParams(column="label", values={"true": 1, "false": -1, "1": 1, "0": -1}),
    ),
    "trl_preference": (RatingParams(column="preference"),),
    "ultrafeedback": (
        RatingParams(column="overall_score", scale=(1, 10)),
        RatingParams(column="annotations_mean", scale=(1, 5)),
    ),
    "openai_chat": tuple(RatingParams(column=c) for c in ("reward", "rating", "metadata.rating")),
}
"""Ratings of formats that have their own."""
REWARD = (RatingParams(column="reward"),)
"""Of the others."""


class SourceParams(Params):
    """One source of feedback."""

    path: str
    """A file (.jsonl, .json, .csv, each also .gz; .parquet, .arrow), a folder of them such as a
    saved Hugging Face dataset, or a glob, from the project folder; or ``hf://OWNER/NAME`` with
    an optional glob behind it, a dataset of the Hugging Face hub."""
    format: SourceFormat = "auto"
    """Shape of a record; ``auto``: told from the first records of each file."""
    revision: str | None = None
    """Commit of a hub dataset, 40 hexadecimal digits, pinned so that a run can be repeated."""
    encoding: str = "utf-8"
    """Of text files without a byte order mark, such as ``cp1252``."""
    columns: dict[str, str] = {}
    """Our name to the source's, where they differ: ``{prompt: question}``, ``{prompt: log.q}``."""
    ratings: list[RatingParams] | None = Field(default=None, min_length=1)
    """Rating columns, the first that holds a value counts; none of them: the row is unrated.
    Null: those of the format."""

    @property
    def rating_columns(self) -> Sequence[RatingParams]:
        """The ratings that count."""
        return self.ratings or DEFAULT_RATINGS.get(self.format, REWARD)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.path.startswith("hf://") != (self.revision is not None):
            raise ValueError(
                f"source {self.path!r}: a hub dataset (hf://OWNER/NAME) needs a revision, and "
                "nothing else has one"
            )
        if self.revision is not None and (
            not re.fullmatch("hf://[^/]+/[^/]+(/.+)?", self.path) or ".." in self.path.split("/")
        ):
            raise ValueError(
                f"source {self.path!r}: a hub dataset is hf://OWNER/NAME[/GLOB], and the glob does "
                "not leave it"
            )
        if self.revision is not None and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"source {self.path!r}: the revision must be a commit of 40 hexadecimal digits, "
                f"which nobody can move, got {self.revision!r}"
            )
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(f"source {self.path!r}: no encoding {self.encoding!r}") from None
        return self


class SplitShares(Params):
    """Share of prompts in each split; together 1."""

    train: float = Field(gt=0, le=1)
    validation: float = Field(ge=0, lt=1)
    test: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"split_shares must sum to 1, got {total:g}")
        return self


class RedactionParams(Params):
    """What is taken out of texts before anything is stored."""

    entities: list[Literal["email", "phone", "card"]] = Field(min_length=1)
    """Kinds that become ``<EMAIL>``, ``<PHONE>`` and ``<CARD>``."""
    regions: list[Annotated[str, Field(pattern="^[A-Z]{2}$")]] = []
    """``phone``: countries (``US``, ``FR``) whose numbers are known without an international
    prefix; numbers with one are always known."""


class NearDuplicateParams(Params):
    """Which prompts are so alike that they must be on one side of the split."""

    threshold: float = Field(ge=0.5, le=1)
    """Smallest share of common three-word runs, 0 to 1; lower puts more prompts together."""


class IngestionParams(Params):
    """Where feedback comes from, and what is done with it on the way in."""

    sources: list[SourceParams] = Field(min_length=1)
    """Every source is read in full."""
    split_shares: SplitShares
    """For prompts seen for the first time; a split once given stays."""
    near_duplicates: NearDuplicateParams | None
    """Prompts that share a split because they nearly share their text; null: each stands alone."""
    conflicts: Conflicts
    """A row with different ratings takes their mean, or the latest (by timestamp, then by order of
    reading), or leaves the data for the quarantine."""
    max_quarantine_share: float = Field(ge=0, le=1)
    """A run fails when a larger share of the rows read is quarantined."""
    redaction: RedactionParams | None = None
    """Personal data to take out of prompts, responses and quarantined text; null: nothing."""


# ---- labeling


RESERVED = frozenset(
    "row_id prompt_id prompt response rating raw_reward reward labeler labeler_fingerprint split "
    "model sample num_tokens logps ref_logps reference_sample_logps bleu chrf rouge_l self_bleu "
    "repetition copied".split()
)
"""Columns beside which labelers put theirs."""


class LabelerSettings(Params):
    """What every labeler can be told."""

    type: str
    """Which labeler it is."""
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """What stands in the column ``labeler``, and before the names of its components; null: its
    type, and components without a prefix. Two labelers of one type need it."""
    scale: float = Field(default=1.0, gt=0)
    """What it says is multiplied by this, to put it on the scale of the ratings."""
    offset: float = 0.0
    """Added behind the multiplication."""

    @property
    def title(self) -> str:
        """Its name, or else its type."""
        return self.name or self.type

    @property
    def scores_new_text(self) -> bool:
        """Whether it can label a response that nobody rated."""
        return True


class ColumnParams(LabelerSettings):
    """The ratings that people gave; they outrank every label."""

    type: Literal["column"] = "column"

    @property
    def scores_new_text(self) -> bool:
        """Nobody rated new text."""
        return False


class RulesParams(LabelerSettings):
    """A weighted sum of scorers, for any text."""

    type: Literal["rules"] = "rules"
    weights: dict[Literal["sentiment", "toxicity", "coverage", "length"], float] = {}
    """Weight of each scorer in the raw_reward; those without one are components all the same."""
    detail_pattern: str | None = None
    """``coverage``: regular expression; its distinct matches in a prompt are its details."""
    target_words: int = Field(default=25, gt=0)
    """``length``: number of words that scores 1; half or twice as many score 0."""
    toxic_words: list[str] = []
    """``toxicity``: words to add to the library's list."""
    harmless_words: list[str] = []
    """``toxicity``: words to take off the library's list."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError(
                "labeler `rules` needs a weight that is not 0 (weights: {sentiment: 1})"
            )
        if self.weights.get("coverage") and not self.detail_pattern:
            raise ValueError("scorer `coverage` needs a detail_pattern")
        return self


def _penalty(value: object) -> float | Literal["auto"] | None:
    if value is None or value == "auto":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError("must be a number, `auto`, or null")


class RewardModelParams(LabelerSettings):
    """A sequence classification model of Hugging Face."""

    type: Literal["reward_model"] = "reward_model"
    name_or_path: str
    """Hub id or directory, with safetensors weights."""
    revision: str | None = None
    """Commit of the hub id, which then must be given; null for a directory."""
    positive_label: str | None = None
    """A head with several labels: the reward is this one's logit minus ``negative_label``'s; null:
    the head has one logit."""
    negative_label: str | None = None
    """See ``positive_label``."""
    max_tokens: int = Field(default=2048, gt=1)
    """Longer pairs of prompt and response are cut, and counted; at most what the model can read."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Tokens, padding included, of one forward pass."""
    num_processes: int = Field(default=1, gt=0)
    """Processes that share the rows; 1 labels in the process of ``kedro run``."""
    accelerate_config: str | None = None
    """Configuration of ``accelerate launch``; null: ``torch.distributed.run``."""

    @model_validator(mode="after")
    def _two_ends(self) -> Self:
        if (self.positive_label is None) != (self.negative_label is None):
            raise ValueError("give both of positive_label and negative_label, or neither")
        return self


class EndpointParams(Params):
    """A language model behind an OpenAI-compatible endpoint, and what it may cost."""

    base_url: str
    """Of the endpoint, up to and without ``/chat/completions``."""
    model: str
    """Its name there."""
    api_key_variable: str | None = None
    """Environment variable that holds the key; null: the endpoint asks for none."""
    concurrency: int = Field(default=8, gt=0)
    """Requests under way at one time."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """Of one attempt."""
    max_retries: int = Field(default=5, ge=0)
    """Attempts after the first, with growing pauses, where the endpoint is busy or fails."""
    give_up_after: int = Field(default=20, gt=0)
    """Requests in a row without an answer, retries included, after which no more are sent."""
    max_answer_tokens: int = Field(default=300, gt=0)
    """Longer answers are cut, and then broken."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Tokens, of prompts and answers, that one pass may use; null: no ceiling."""
    max_cost: float | None = Field(default=None, gt=0)
    """What one pass may cost, in the currency of the prices; null: no ceiling."""
    prompt_price: float | None = Field(default=None, ge=0)
    """Of a million tokens sent."""
    answer_price: float | None = Field(default=None, ge=0)
    """Of a million tokens received."""
    seed: int = 0
    """Sent with each request, as is temperature 0."""
    request: dict[str, Any] = {}
    """Fields to add to each request, or to replace; null leaves one out, such as ``seed`` where
    the endpoint refuses it."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if "@" in self.base_url.partition("://")[2].partition("/")[0]:
            raise ValueError("base_url must not hold a password; use api_key_variable")
        if (self.prompt_price is None) != (self.answer_price is None):
            raise ValueError("give both of prompt_price and answer_price, or neither")
        if self.max_cost is not None and self.prompt_price is None:
            raise ValueError("max_cost needs prompt_price and answer_price")
        return self


class CriterionParams(Params):
    """One question that a judge answers with a number."""

    meaning: str
    """What is asked, in words; part of the rubric."""
    weight: float
    """Of the answer, mapped to -1 .. 1, in the raw_reward."""


class JudgeParams(LabelerSettings):
    """A language model that rates each response by criteria."""

    type: Literal["judge"] = "judge"
    endpoint: EndpointParams
    """Which model, where, and what it may cost."""
    criteria: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], CriterionParams] = Field(
        min_length=1
    )
    """By name: each is a component, and the raw_reward is their weighted sum."""
    answer_scale: tuple[float, float]
    """Lowest and highest answer, mapped linearly to -1 and 1."""
    template: str | None = None
    """Jinja2 text of the request, from ``prompt``, ``response``, ``criteria`` (name: meaning),
    ``lowest`` and ``highest``; null: the project's own (rewards/templates/rate.j2)."""

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.answer_scale[0] >= self.answer_scale[1]:
            raise ValueError(f"answer_scale must rise, got {self.answer_scale}")
        if not any(criterion.weight for criterion in self.criteria.values()):
            raise ValueError("labeler `judge` needs a criterion whose weight is not 0")
        if taken := sorted({*self.criteria} & RESERVED):
            raise ValueError(
                f"a criterion cannot be called {taken[0]!r}, which is a column of ours"
            )
        if self.template:
            _check_template(
                self.template, {"prompt", "response"}, {"criteria", "lowest", "highest"}
            )
        return self


class FittedRewardModelParams(LabelerSettings):
    """A linear reward head on frozen embeddings, fitted on the train rows that people rated."""

    type: Literal["fitted_reward_model"] = "fitted_reward_model"
    head: str
    """JSON file, from the project folder, that the fitted head is kept in."""
    embedding: Literal["sentence_encoder", "language_model"]
    """``sentence_encoder``: prompt and response embedded apart, and their product;
    ``language_model``: last hidden states over the response, read after its prompt."""
    name_or_path: str
    """Hub id or directory of the model that embeds, with safetensors weights."""
    revision: str | None = None
    """Commit of the hub id, which then must be given; null for a directory."""
    max_tokens: int = Field(default=256, gt=1)
    """Longer prompts and longer responses are cut."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Tokens, padding included, of one forward pass."""
    num_folds: int = Field(default=5, ge=3)
    """Of the prompts; every figure is of rows whose prompts the head was not fitted on."""
    min_correlation: float = Field(ge=0, le=1)
    """Held-out rank correlation with the ratings, below which the head is not used."""
    min_margin: float = Field(ge=0, le=1)
    """By which its held-out share of pairs in the right order must pass that of "longer is
    better"; where no prompt has two ratings that differ, its rank correlation must."""
    on_failure: Literal["error", "skip"]
    """Where it falls short: ``error`` stops the run, ``skip`` leaves the rows without a label."""


class EnsembleParams(LabelerSettings):
    """Several labelers that answer as one."""

    type: Literal["ensemble"] = "ensemble"
    members: list["LabelerParams"] = Field(min_length=2)
    """On one scale: see ``scale`` and ``offset`` of each."""
    combine: Literal["mean", "min", "penalised"]
    """Of the members' raw rewards; ``penalised``: the mean, less ``penalty`` times the standard
    deviation over the members."""
    weights: list[Annotated[float, Field(gt=0)]] | None = None
    """``mean`` and ``penalised``: weight of each member; null: equal ones."""
    penalty: float | None = Field(default=None, gt=0)
    """``penalised``: raw reward that one standard deviation of disagreement costs, over it."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_new_text(self.members, "members of an ensemble")
        _check_titles(self.members)
        if any(isinstance(member, EnsembleParams) for member in self.members):
            raise ValueError("a member of an ensemble cannot be an ensemble")
        if (self.penalty is None) == (self.combine == "penalised"):
            raise ValueError("`penalty` goes with `combine: penalised`, and with nothing else")
        if self.weights and self.combine == "min":
            raise ValueError("`combine: min` takes no weights")
        if self.weights and len(self.weights) != len(self.members):
            raise ValueError(
                f"{len(self.members)} members need as many weights, got {len(self.weights)}"
            )
        return self


LABELERS: dict[str, type[LabelerSettings]] = {
    "column": ColumnParams,
    "rules": RulesParams,
    "reward_model": RewardModelParams,
    "fitted_reward_model": FittedRewardModelParams,
    "judge": JudgeParams,
    "ensemble": EnsembleParams,
}
"""Every type of labeler, for messages; ``LabelerParams`` is what is validated."""

LabelerParams = Annotated[
    ColumnParams
    | RulesParams
    | RewardModelParams
    | FittedRewardModelParams
    | JudgeParams
    | EnsembleParams,
    Field(discriminator="type"),
]
"""What gives a raw_reward to a row."""


def _check_template(template: str, needed: set[str], known: set[str]) -> None:
    try:
        used = meta.find_undeclared_variables(Environment(autoescape=False).parse(template))
    except TemplateSyntaxError as err:
        raise ValueError(f"template: line {err.lineno}: {err.message}") from None
    if needed - used:
        raise ValueError(f"template: {{{{ {min(needed - used)} }}}} does not stand in it")
    if used - needed - known:
        raise ValueError(
            f"template: there is no {{{{ {min(used - needed - known)} }}}}, only "
            f"{', '.join(sorted(needed | known))}"
        )


def _check_titles(labelers: Sequence[LabelerSettings]) -> None:
    titles = [labeler.title for labeler in labelers]
    for labeler in labelers:
        if isinstance(labeler, EnsembleParams) and labeler.name is None:
            titles += [member.title for member in labeler.members]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise ValueError(f"two labelers are called {twice[0]!r}: give one of them a `name`")
    taken = sorted({*titles} & RESERVED)
    if taken:
        raise ValueError(f"a labeler cannot be called {taken[0]!r}, which is a column of ours")


def _check_new_text(labelers: Sequence[LabelerSettings], what: str) -> None:
    for labeler in labelers:
        if not labeler.scores_new_text:
            raise ValueError(f"{what}: `{labeler.type}` cannot score new text; use `rules`")


class LabelingParams(Params):
    """How rows get their reward."""

    labelers: list[LabelerParams] = Field(min_length=1)
    """By rank: a row takes the raw_reward of the first that gives one, but for ratings: where
    ``column`` is among them it comes first, wherever it stands."""
    agreement_rows: int = Field(ge=0)
    """Rated rows, at most, that other labelers label too, to be compared with people."""
    drift_rows: int = Field(ge=0)
    """Rows of the previous run, at most, that each labeler labels again without its cache."""
    max_drift: float = Field(gt=0)
    """A mean absolute change of those labels above this warns; in standard deviations of them."""
    normaliser: Literal["zscore", "rank", "per_prompt", "none"]
    """From raw_reward to reward, fitted on train rows: mean 0 and standard deviation 1; the rank
    among the train rows; each prompt to a mean of 0 and a standard deviation of 1; as it is."""
    winsorise: tuple[float, float] | None = None
    """Quantiles of the train rows, such as ``[0.01, 0.99]``, that raw rewards are drawn in to."""
    length_penalty: Annotated[float | Literal["auto"] | None, PlainValidator(_penalty)] = None
    """Raw reward taken off a response whose log length is one standard deviation above the mean of
    train, and added to one below. ``auto``: what length earns within the prompts of train."""

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Self:
        if self.winsorise and not 0 <= self.winsorise[0] < self.winsorise[1] <= 1:
            raise ValueError(
                f"winsorise must be two rising quantiles from 0 to 1, got {list(self.winsorise)}"
            )
        return self

    @model_validator(mode="after")
    def _labelers_differ(self) -> Self:
        _check_titles(self.labelers)
        return self


# ---- policy


class FromConfigParams(BaseModel):
    """A model built from scratch: keys beyond these, unless null, go to its configuration."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    model_type: str
    """Architecture by its transformers name: ``llama``, ``t5``, ..."""
    vocab_size: int = Field(gt=300)
    """Upper limit of the byte-level BPE vocabulary fitted on train."""


class LoraParams(Params):
    """Low-rank adapters: only they are trained, and the base weights are the reference."""

    r: int = Field(gt=0)
    """Rank of each adapter; more can learn more, and costs more."""
    alpha: float = Field(gt=0)
    """Scale of the adapters: their product is multiplied by ``alpha / r``."""
    target_modules: str | list[str]
    """Layers that get one: ``all-linear`` for every linear layer but the head, a list of names, or
    a regular expression for whole names, such as the upper layers'."""


class PolicyParams(Params):
    """The language model that is trained; its frozen start is the reference."""

    name_or_path: str | None
    """Hub id or directory of a pretrained model; null: built from ``from_config``."""
    revision: str | None
    """Commit of the hub id, pinned so that a run can be repeated."""
    from_config: FromConfigParams | None
    """A model built from scratch; null: loaded from ``name_or_path``."""
    warm_start_epochs: float = Field(ge=0)
    """Passes of supervised fine-tuning over the train rows that make the reference; 0: none."""
    warm_start_learning_rate: float = Field(gt=0)
    """Peak learning rate of the warm start."""
    reset_reference: bool
    """Rebuild the reference; every cached log-probability is void then."""
    max_prompt_tokens: int = Field(gt=0)
    """Longer prompts are cut, and counted."""
    max_response_tokens: int = Field(gt=0)
    """Longer responses are cut, and counted; also the limit of generation."""
    dtype: Literal["float32", "bfloat16"]
    """Precision of the forward pass, the same for policy and reference."""
    prefix_sharing: PrefixSharing
    """How a decoder computes a prompt once for all its responses: in one row with a tree mask, over
    cached keys and values, not at all, or by whichever is cheapest."""
    lora: LoraParams | None
    """Train low-rank adapters, merged into the policy when it is saved; null: every weight."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.name_or_path is None) == (self.from_config is None):
            raise ValueError("give exactly one of policy.name_or_path and policy.from_config")
        return self


# ---- mathematics and training


def _number_or_auto(value: object) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int | float) and value > 0 and math.isfinite(value):
        return float(value)
    raise ValueError("must be a number greater than 0, or `auto`")


class ReferenceSamplesParams(Params):
    """Responses sampled from the reference, labelled like those that were logged."""

    num_samples: int = Field(gt=1)
    """Samples of each prompt; a quantile cannot be finer than one over it."""
    below_responses: int = Field(gt=0)
    """``reference_samples``: only prompts with fewer logged responses than this are sampled for;
    the others use what was logged. ``quantile`` samples for every prompt."""


class RpoParams(Params):
    """Reward Partition Optimization."""

    tau: Annotated[float | Literal["auto"], PlainValidator(_number_or_auto)]
    """Temperature in units of the normalised reward; larger stays nearer the reference. ``auto``:
    chosen from ``tau_grid`` on the validation split."""
    tau_grid: list[Annotated[float, Field(gt=0)]] = Field(min_length=2)
    """``tau: auto``: the candidates."""
    tau_search_epochs: float = Field(gt=0)
    """``tau: auto``: passes over the train rows that each candidate is trained for."""
    estimator: Literal[
        "monte_carlo", "self_normalized", "reference_samples", "quantile", "reference_weighted"
    ]
    """How log_z is estimated; see docs/method.md."""
    logp_reduction: Literal["sum", "mean"]
    """``sum``: of the whole response (the theory's); ``mean``: per token (the authors'). Of the
    objectives rpo, qrpo and dro; KTO always sums."""
    self_normalized_alpha: float = Field(gt=0)
    """``self_normalized``: strength of the log-weights."""
    self_normalized_clip: float = Field(gt=0)
    """``self_normalized``: largest distance, in nats, of a behaviour log-weight from the mean of
    its prompt."""
    reference_samples: ReferenceSamplesParams
    """``reference_samples`` and ``quantile``: what is sampled from the reference."""
    prior_strength: float = Field(ge=0)
    """Responses that the prior over few-response prompts counts for; 0: none."""

    @model_validator(mode="after")
    def _prior_has_a_meaning(self) -> Self:
        if self.prior_strength and self.estimator == "reference_weighted":
            raise ValueError(
                "rpo.prior_strength is for normalised estimators: reference_weighted is not one, "
                "so there is no level to borrow (set rpo.prior_strength: 0)"
            )
        return self


class SftParams(Params):
    """Supervised fine-tuning (``training.objective: sft``)."""

    responses: Literal["top", "all"]
    """``top``: the response with the highest reward of each prompt; ``all``: every one."""


class KtoParams(Params):
    """Kahneman-Tversky Optimization (``training.objective: kto``), arXiv 2402.01306."""

    beta: float = Field(gt=0)
    """Sharpness of the preference, per nat of the log-ratio; smaller moves further."""
    desirable_weight: float = Field(gt=0)
    """Weight of the losses of desirable responses: rewarded above the mean of the train rows."""
    undesirable_weight: float = Field(gt=0)
    """Weight of the losses of the others."""


class DroParams(Params):
    """DRO-V (``training.objective: dro``), arXiv 2405.19107."""

    tau: float = Field(gt=0)
    """Temperature in units of the normalised reward; larger stays nearer the reference."""
    value_learning_rate: float = Field(gt=0)
    """Peak learning rate of the value head, which starts from nothing."""


class QrpoParams(Params):
    """Quantile rewards (``training.objective: qrpo``), arXiv 2507.08068."""

    tau: float = Field(gt=0)
    """Temperature in units of the quantile, 0 to 1; larger stays nearer the reference."""


class ObjectiveParams(Params):
    """The blocks that an objective needs, as training takes them."""

    rpo: RpoParams
    """How log-probabilities are reduced, also for other objectives than ``rpo``."""
    sft: SftParams | None = None
    kto: KtoParams | None = None
    dro: DroParams | None = None


class TrainingParams(Params):
    """The training loop."""

    objective: Literal["rpo", "sft", "kto", "dro", "qrpo"]
    """Loss of the loop: Reward Partition Optimization, or a baseline over the same rows."""
    num_epochs: float = Field(ge=0)
    """Passes over the train rows."""
    learning_rate: float = Field(ge=0)
    """Peak of the schedule: linear warm-up, then cosine to a tenth of it."""
    warmup_share: float = Field(ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(gt=0)
    """Gradients with a larger norm are scaled down to it."""
    micro_batch_tokens: int = Field(gt=0)
    """Tokens, padding included, of one forward pass on one device."""
    global_batch_groups: int = Field(gt=0)
    """Prompt groups of one optimizer step."""
    validation_every: int = Field(gt=0)
    """Steps between two validation losses; the best model is kept."""
    patience: int | None = Field(gt=0)
    """Validations without a better loss before training stops; null: never."""
    checkpoint_every: int = Field(gt=0)
    """Steps between two checkpoints, from which a killed training goes on."""
    keep_last: int = Field(gt=0)
    """Checkpoints kept while training."""
    resume: bool
    """Go on from the checkpoint of a training that was killed; false: start anew."""
    gradient_checkpointing: bool
    """Compute activations again in the backward pass: less memory, about a third more time."""
    num_processes: int = Field(gt=0)
    """Processes that share each step; 1 trains in the process of ``kedro run``."""
    accelerate_config: str | None
    """Configuration of ``accelerate launch``, such as ``conf/accelerate/fsdp2.yaml``, for GPUs;
    null: ``torch.distributed.run``."""
    seed: int = Field(ge=0)
    """Of every random choice in a run."""


# ---- evaluation and promotion


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
        _check_new_text(self.labelers, "evaluation.labelers")
        _check_titles(self.labelers)
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


# ---- caches


class CachesParams(Params):
    """Limits of the folder of log-probabilities, samples and labels, kept after every run."""

    max_gigabytes: float = Field(gt=0)
    """Above it, what was not asked for in the longest time goes; never what this run uses."""
    max_age_days: float = Field(gt=0)
    """What nobody asked for in as many days goes."""


# ---- tracking (conf/base/mlflow.yml)


class TrackingParams(Params):
    """Where runs are logged."""

    tracking_uri: str
    """Of the MLflow server or database; a relative sqlite path starts at the project folder."""
    experiment: str
    """Name of the MLflow experiment."""


# ---- all blocks

BLOCKS: dict[str, type[Params]] = {
    "ingestion": IngestionParams,
    "labeling": LabelingParams,
    "policy": PolicyParams,
    "rpo": RpoParams,
    "sft": SftParams,
    "kto": KtoParams,
    "dro": DroParams,
    "qrpo": QrpoParams,
    "training": TrainingParams,
    "evaluation": EvaluationParams,
    "promotion": PromotionParams,
    "comparison": ComparisonParams,
    "caches": CachesParams,
}


def validate_blocks(parameters: Mapping[str, Any]) -> dict[str, Params]:
    """Build every block from the merged YAML and ``--params``.

    Args:
        parameters: Raw values by block; names with a leading underscore are YAML's own helpers.

    Returns:
        The typed blocks, by name.

    Raises:
        ConfigError: Naming every wrong value at once, what is allowed, and where it is set.
    """
    named = [name for name in parameters if not name.startswith("_")]
    problems = [f"{name}: {_unknown(name, BLOCKS)}" for name in named if name not in BLOCKS]
    problems += [
        f"{name}: this block is missing (conf/base/parameters_{name}.yml)"
        for name in BLOCKS
        if name not in parameters
    ]
    blocks = {}
    for name, block in BLOCKS.items():
        if name in parameters:
            try:
                blocks[name] = block.model_validate(parameters[name])
            except ValidationError as err:
                problems += [_explain(name, block, detail) for detail in err.errors()]
    problems += _contradictions(blocks)
    if problems:
        raise _cannot_work("the parameters", problems)
    return blocks


def _contradictions(blocks: Mapping[str, Params]) -> Iterator[str]:
    """What blocks, each right alone, say against one another."""
    rpo, training, labeling = (blocks.get(name) for name in ("rpo", "training", "labeling"))
    if not isinstance(rpo, RpoParams) or not isinstance(training, TrainingParams):
        return
    if rpo.estimator == "quantile" and training.objective != "qrpo":
        yield (
            "rpo.estimator: `quantile` goes with training.objective `qrpo` only, which takes it by "
            f"itself, got training.objective {training.objective!r} (conf/*/parameters_rpo.yml, or "
            "--params training.objective=qrpo)"
        )
    samples = rpo.estimator in ("reference_samples", "quantile") or training.objective == "qrpo"
    if not samples or not isinstance(labeling, LabelingParams):
        return
    if not any(labeler.scores_new_text for labeler in labeling.labelers):
        qrpo = training.objective == "qrpo"
        cause = "training.objective `qrpo`" if qrpo else f"rpo.estimator `{rpo.estimator}`"
        yield (
            f"labeling.labelers: {cause} samples responses that nobody rated, and `column` cannot "
            "score new text; add a labeler such as `rules` (conf/*/parameters_labeling.yml)"
        )


def validate_tracking(raw: Mapping[str, Any]) -> TrackingParams:
    """Build the tracking settings from ``mlflow.yml``.

    Args:
        raw: Values of the file.

    Returns:
        The typed settings.

    Raises:
        ConfigError: Naming every wrong value.
    """
    try:
        return TrackingParams.model_validate(raw)
    except ValidationError as err:
        problems = [_explain("mlflow", TrackingParams, detail) for detail in err.errors()]
        raise _cannot_work("the tracking settings", problems) from None


def _cannot_work(what: str, problems: list[str]) -> ConfigError:
    return ConfigError(f"{what} cannot work:\n" + "\n".join(f"  - {line}" for line in problems))


def _explain(name: str, block: type[Params], detail: ErrorDetails) -> str:
    """One sentence: what is wrong, the value, and where to change it."""
    loc = detail["loc"]
    # Pydantic puts the type of a labeler into the path, where YAML has none.
    tags = [place for place in range(2, len(loc)) if loc[place - 2] in ("labelers", "members")]
    path = ".".join([name, *(str(part) for place, part in enumerate(loc) if place not in tags)])
    where = (
        f"conf/*/parameters_{name}.yml, or --params {path}=..."
        if name in BLOCKS
        else f"conf/*/{name}.yml"
    )
    got: Any = detail["input"]
    if detail["type"] == "extra_forbidden":
        of_labeler = tags and tags[-1] == len(loc) - 2
        owner = LABELERS[str(loc[-2])] if of_labeler else block if len(loc) == 1 else None
        siblings = owner.model_fields if owner else ()
        return f"{path}: {_unknown(str(loc[-1]), siblings)} ({where})"
    if detail["type"] == "missing":
        return f"{path} is missing ({where})"
    if detail["type"].startswith("union_tag"):
        return f"{path}.type: {_wrong_type(got)} ({where.replace(path, f'{path}.type')})"
    message = detail["msg"].removeprefix("Value error, ")
    shown = f", got {got!r}" if not isinstance(got, dict | list) else ""
    return f"{path}: {message[0].lower()}{message[1:]}{shown} ({where})"


def _wrong_type(labeler: object) -> str:
    given = labeler.get("type") if isinstance(labeler, Mapping) else labeler
    close = get_close_matches(str(given), LABELERS)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}a labeler is one of {', '.join(LABELERS)}, got {given!r}"


def _unknown(name: str, known: Mapping[str, Any] | tuple[()]) -> str:
    close = get_close_matches(name, known)
    hint = (
        f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}" if known else ""
    )
    return f"no such parameter{'; ' + hint if hint else ''}"
