"""Settings of labelers, which give raw_rewards to rows."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rpo_pipeline.params.base import ModelPlace, Params
from rpo_pipeline.params.endpoint import EndpointParams, check_template

RESERVED = frozenset(
    "row_id prompt_id prompt response rating raw_reward reward labeler labeler_fingerprint split "
    "model sample num_tokens logps ref_logps reference_sample_logps bleu chrf rouge_l self_bleu "
    "repetition copied embedding_similarity bert_score".split()
)
"""Names of columns that labelers and components must not have."""


class LabelerSettings(Params):
    """Settings that every labeler has."""

    type: str
    """Type of the labeler."""
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """Value of the column ``labeler``, and prefix of the components' names; null for the type, and
    components without a prefix. Two labelers of one type need names."""
    scale: float = Field(default=1.0, gt=0)
    """Factor that puts the raw rewards on the scale of the ratings."""
    offset: float = 0.0
    """Raw reward that is added after the multiplication."""

    @property
    def title(self) -> str:
        """Name of the labeler, or its type if it has none."""
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
        """False, because new text has no ratings."""
        return False


class RulesParams(LabelerSettings):
    """A weighted sum of scorers, for any text."""

    type: Literal["rules"] = "rules"
    weights: dict[Literal["sentiment", "toxicity", "coverage", "length"], float] = {}
    """Weight of each scorer in the raw_reward; scorers without one are only components."""
    detail_pattern: str | None = None
    """Regular expression of ``coverage``; its distinct matches in a prompt are the details."""
    target_words: int = Field(default=25, gt=0)
    """Number of words at which ``length`` is 1; it is 0 at half and at twice as many."""
    toxic_words: list[str] = []
    """Words that ``toxicity`` adds to the library's list."""
    harmless_words: list[str] = []
    """Words that ``toxicity`` removes from the library's list."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError(
                "labeler `rules` needs a weight that is not 0 (weights: {sentiment: 1})"
            )
        if self.weights.get("coverage") and not self.detail_pattern:
            raise ValueError("scorer `coverage` needs a detail_pattern")
        return self


class RewardModelParams(LabelerSettings):
    """A sequence classification model of Hugging Face."""

    type: Literal["reward_model"] = "reward_model"
    name_or_path: ModelPlace
    """Hub id or directory, with safetensors weights."""
    revision: str | None = None
    """Commit of the hub id, required for it; null for a directory."""
    positive_label: str | None = None
    """Label of a head with several; the raw reward is its logit minus that of ``negative_label``.
    Null for a head with one logit."""
    negative_label: str | None = None
    """Label whose logit is subtracted; see ``positive_label``."""
    max_tokens: int = Field(default=2048, gt=1)
    """Largest number of tokens of prompt and response; longer pairs are cut and counted. The limit
    of the model applies as well."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Tokens of one forward pass, padding included."""
    num_processes: int = Field(default=1, gt=0)
    """Number of processes that share the rows; 1 labels in the process of ``kedro run``."""
    accelerate_config: str | None = None
    """Configuration of ``accelerate launch``; null to start by ``torch.distributed.run``."""

    @model_validator(mode="after")
    def _two_ends(self) -> Self:
        if (self.positive_label is None) != (self.negative_label is None):
            raise ValueError("give both of positive_label and negative_label, or neither")
        return self


class CriterionParams(Params):
    """One question that a judge answers with a number."""

    meaning: str
    """Text of the question; part of the rubric."""
    weight: float
    """Weight in the raw_reward of the answer, which is mapped to -1 .. 1."""


class JudgeParams(LabelerSettings):
    """A language model that rates each response by criteria."""

    type: Literal["judge"] = "judge"
    endpoint: EndpointParams
    """Model, address and ceilings of the judge."""
    criteria: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], CriterionParams] = Field(
        min_length=1
    )
    """Criteria by name; each is a component, and the raw_reward is their weighted sum."""
    answer_scale: tuple[float, float]
    """Lowest and highest answer, mapped linearly to -1 and 1."""
    template: str | None = None
    """Jinja2 template with ``prompt``, ``response``, ``criteria`` (name: meaning), ``lowest`` and
    ``highest``; null for the project's own (judge/templates/rate.j2)."""

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
            check_template(self.template, {"prompt", "response"}, {"criteria", "lowest", "highest"})
        return self


class FittedRewardModelParams(LabelerSettings):
    """A linear reward head on frozen embeddings, fitted on the train rows that people rated."""

    type: Literal["fitted_reward_model"] = "fitted_reward_model"
    head: str
    """JSON file of the fitted head, relative to the project folder."""
    embedding: Literal["sentence_encoder", "language_model"]
    """Features. ``sentence_encoder``: embeddings of prompt and response, and their product;
    ``language_model``: last hidden states over the response, read after its prompt."""
    name_or_path: ModelPlace
    """Hub id or directory of the embedding model, with safetensors weights."""
    revision: str | None = None
    """Commit of the hub id, required for it; null for a directory."""
    max_tokens: int = Field(default=256, gt=1)
    """Largest number of tokens of a prompt, and of a response; longer ones are cut."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Tokens of one forward pass, padding included."""
    num_folds: int = Field(default=5, ge=3)
    """Number of folds of the prompts; all figures come from prompts outside the fitted folds."""
    min_correlation: float = Field(ge=0, le=1)
    """Smallest held-out rank correlation with the ratings for the head to be used."""
    min_margin: float = Field(ge=0, le=1)
    """Smallest amount by which the held-out share of pairs in the right order must exceed that of
    "longer is better"; if no prompt has two different ratings, rank correlations are compared."""
    on_failure: Literal["error", "skip"]
    """What happens if a head fails: ``error`` stops the run, ``skip`` leaves rows unlabelled."""


class EnsembleParams(LabelerSettings):
    """Several labelers combined into one."""

    type: Literal["ensemble"] = "ensemble"
    members: list["LabelerParams"] = Field(min_length=2)
    """Labelers to combine; their ``scale`` and ``offset`` must put them on one scale."""
    combine: Literal["mean", "min", "penalised"]
    """How raw rewards are combined; ``penalised`` is the mean less ``penalty`` times the standard
    deviation over the members."""
    weights: list[Annotated[float, Field(gt=0)]] | None = None
    """Weight of each member in ``mean`` and ``penalised``; null for equal weights."""
    penalty: float | None = Field(default=None, gt=0)
    """Raw reward that ``penalised`` subtracts per standard deviation of disagreement."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_new_text(self.members, "members of an ensemble")
        check_titles(self.members)
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
"""Every type of labeler, for messages; validation uses ``LabelerParams``."""

LabelerParams = Annotated[
    ColumnParams
    | RulesParams
    | RewardModelParams
    | FittedRewardModelParams
    | JudgeParams
    | EnsembleParams,
    Field(discriminator="type"),
]
"""Settings of a labeler of any type."""


def check_titles(labelers: Sequence[LabelerSettings]) -> None:
    """Refuse labelers with equal names, or with the name of a column of ours."""
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


def check_new_text(labelers: Sequence[LabelerSettings], what: str) -> None:
    """Refuse labelers that cannot score new text."""
    for labeler in labelers:
        if not labeler.scores_new_text:
            raise ValueError(f"{what}: `{labeler.type}` cannot score new text; use `rules`")
