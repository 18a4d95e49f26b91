"""The mathematics of the objectives, and the training loop."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from rpo_pipeline.params.base import Params, Seed


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
    seed: Seed
    """Of every random choice in a run."""
