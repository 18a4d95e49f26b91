"""Labelers: what gives a raw_reward to a row."""

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


class RewardModelParams(LabelerSettings):
    """A sequence classification model of Hugging Face."""

    type: Literal["reward_model"] = "reward_model"
    name_or_path: ModelPlace
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
    ``lowest`` and ``highest``; null: the project's own (judge/templates/rate.j2)."""

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
    """JSON file, from the project folder, that the fitted head is kept in."""
    embedding: Literal["sentence_encoder", "language_model"]
    """``sentence_encoder``: prompt and response embedded apart, and their product;
    ``language_model``: last hidden states over the response, read after its prompt."""
    name_or_path: ModelPlace
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


def check_titles(labelers: Sequence[LabelerSettings]) -> None:
    """Refuse labelers of one name, or of a name that is a column of ours."""
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
    """Refuse labelers that cannot score new text where they must."""
    for labeler in labelers:
        if not labeler.scores_new_text:
            raise ValueError(f"{what}: `{labeler.type}` cannot score new text; use `rules`")
