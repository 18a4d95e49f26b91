"""Parameters of the objectives and of the training loop."""

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


def _ratio_or_auto(value: object) -> float | Literal["auto"]:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    try:
        return _number_or_auto(value)
    except ValueError:
        raise ValueError("must be a number from 0, or `auto`") from None


class ReferenceSamplesParams(Params):
    """Responses sampled from the reference and labelled like logged ones."""

    num_samples: int = Field(gt=1)
    """Number of samples per prompt; quantiles have steps of one over it."""
    below_responses: int = Field(gt=0)
    """Number of logged responses from which on ``reference_samples`` uses these instead of
    samples. ``quantile`` samples for every prompt."""


class RpoParams(Params):
    """Reward Partition Optimization."""

    tau: Annotated[float | Literal["auto"], PlainValidator(_number_or_auto)]
    """Temperature in units of the normalised reward; larger stays nearer the reference. ``auto``
    chooses from ``tau_grid`` on the validation split."""
    tau_grid: list[Annotated[float, Field(gt=0)]] = Field(min_length=2)
    """Temperatures that ``tau: auto`` tries."""
    tau_search_epochs: float = Field(gt=0)
    """Passes over the train rows with each temperature that a search tries."""
    max_divergence: float | None = Field(gt=0)
    """Largest divergence of the policy from the reference, in nats a response, on validation
    prompts: tau is then searched for, from ``tau`` on. Null lets ``tau`` decide."""
    estimator: Literal[
        "auto",
        "monte_carlo",
        "self_normalized",
        "reference_samples",
        "quantile",
        "reference_weighted",
    ]
    """Estimator of log_z; see docs/method.md. ``auto`` chooses by the number of responses a prompt
    and by what can label new text."""
    logp_reduction: Literal["sum", "mean"]
    """Log-probability of a response in the objectives rpo, qrpo, dro and rebel: the ``sum`` over
    its tokens (as in theory) or their ``mean`` (as in the authors' code). Other objectives sum."""
    self_normalized_alpha: float = Field(gt=0)
    """Factor of the log-weights of ``self_normalized``."""
    self_normalized_clip: float = Field(gt=0)
    """Largest distance, in nats, of a behaviour log-weight of ``self_normalized`` from the mean of
    its prompt."""
    reference_samples: ReferenceSamplesParams
    """Samples for ``reference_samples`` and ``quantile``."""
    prior_strength: float = Field(ge=0)
    """Number of responses that the prior of log_z counts for; 0 for no prior."""
    huber_delta: float | None = Field(ge=1e-3)
    """Distance of the log-ratio from its target, in units of the reward, beyond which the loss is
    linear (Huber), so that a reward far from the others pulls no harder; null for the square."""
    rho: Annotated[float | Literal["auto"], PlainValidator(_ratio_or_auto)]
    """Variance of the error of log_z over that of a row: 0 trusts log_z, a larger number relies on
    differences within a prompt. ``auto`` takes that of each prompt from its standard error."""
    fit_level: bool
    """Whether a level that all prompts share is fitted while training, against an error of log_z
    that they share."""

    @property
    def searches_tau(self) -> bool:
        """Whether tau is chosen by trainings."""
        return self.tau == "auto" or self.max_divergence is not None

    @property
    def fixed_tau(self) -> float:
        """The tau that is set; the middle of the grid for ``auto``, where no search is made."""
        return sorted(self.tau_grid)[len(self.tau_grid) // 2] if self.tau == "auto" else self.tau

    def averages_tokens(self, objective: str) -> bool:
        """Tell whether the loss of an objective reads log-probabilities averaged over tokens."""
        if objective in ("sft", "awr"):
            return True
        return self.logp_reduction == "mean" and objective in ("rpo", "qrpo", "dro", "rebel")

    def tau_or(self, chosen: float) -> float:
        """Return the tau that was chosen by trainings, or the one that is set."""
        return chosen if self.searches_tau else self.fixed_tau

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
    """Responses to train on: ``top``, the best of each prompt by reward, or ``all``."""


class KtoParams(Params):
    """Kahneman-Tversky Optimization (``training.objective: kto``), arXiv 2402.01306."""

    beta: float = Field(gt=0)
    """Sharpness of the preference, per nat of the log-ratio; smaller moves further."""
    desirable_weight: float = Field(gt=0)
    """Weight of the losses of desirable responses, whose reward is above the mean of train."""
    undesirable_weight: float = Field(gt=0)
    """Weight of the losses of the other responses."""


class DroParams(Params):
    """DRO-V (``training.objective: dro``), arXiv 2405.19107."""

    tau: float = Field(gt=0)
    """Temperature in units of the normalised reward; larger stays nearer the reference."""
    value_learning_rate: float = Field(gt=0)
    """Peak learning rate of the value head, which is not pretrained."""


class QrpoParams(Params):
    """Quantile rewards (``training.objective: qrpo``), arXiv 2507.08068."""

    tau: float = Field(gt=0)
    """Temperature in units of the quantile, 0 to 1; larger stays nearer the reference."""


class RebelParams(Params):
    """REBEL (``training.objective: rebel``), arXiv 2404.16767: differences within a prompt."""

    tau: float = Field(gt=0)
    """Temperature in units of the normalised reward; larger stays nearer the reference."""


class TgoParams(Params):
    """Threshold-guided optimization (``training.objective: tgo``)."""

    beta: float = Field(gt=0)
    """Sharpness, per nat of the log-ratio; smaller moves further."""


class NcaParams(Params):
    """Contrastive alignment (``training.objective: nca`` or ``infonca``), arXiv 2402.05369."""

    alpha: float = Field(gt=0)
    """Temperature of the rewards within a prompt, in units of the normalised reward."""
    beta: float = Field(gt=0)
    """Sharpness, per nat of the log-ratio; smaller moves further."""


class AwrParams(Params):
    """Advantage-weighted regression (``training.objective: awr``), arXiv 1910.00177."""

    tau: float = Field(gt=0)
    """Temperature of the weights, in units of the normalised reward; larger weighs rows alike."""
    mean_over: Literal["prompt", "train"]
    """Rows over which the weights have the mean 1: those of the ``prompt``, or all of ``train``."""


class ObjectiveParams(Params):
    """The blocks of the objectives."""

    rpo: RpoParams
    """Block ``rpo``; other objectives read ``logp_reduction`` from it."""
    sft: SftParams | None = None
    kto: KtoParams | None = None
    dro: DroParams | None = None
    qrpo: QrpoParams | None = None
    rebel: RebelParams | None = None
    tgo: TgoParams | None = None
    nca: NcaParams | None = None
    awr: AwrParams | None = None

    def read_by(self, objective: str) -> dict[str, Params]:
        """Return the blocks that the training of an objective reads, by name."""
        own = {"qrpo": "rpo", "infonca": "nca"}.get(objective, objective)
        return {"rpo": self.rpo, own: getattr(self, own)}


ObjectiveName = Literal["rpo", "sft", "kto", "dro", "qrpo", "rebel", "tgo", "nca", "infonca", "awr"]
"""Loss of the training loop."""


class TrainingParams(Params):
    """The training loop."""

    objective: ObjectiveName
    """Loss of the loop: Reward Partition Optimization, or a baseline over the same rows."""
    num_epochs: float = Field(ge=0)
    """Passes over the train rows."""
    learning_rate: float = Field(ge=0)
    """Peak of the schedule: linear warm-up, then cosine to a tenth of it."""
    warmup_share: float = Field(ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(gt=0)
    """Largest norm of the gradient; a larger gradient is scaled down to it."""
    micro_batch_tokens: int = Field(gt=0)
    """Tokens of one forward pass on one device, padding included."""
    global_batch_groups: int = Field(gt=0)
    """Number of prompt groups in one optimizer step."""
    validation_every: int = Field(gt=0)
    """Number of steps between two validation losses; the best model is kept."""
    patience: int | None = Field(gt=0)
    """Number of validations without a better loss after which training stops; null for never."""
    checkpoint_every: int = Field(gt=0)
    """Number of steps between two checkpoints, from which a killed training resumes."""
    keep_last: int = Field(gt=0)
    """Number of checkpoints to keep while training."""
    resume: bool
    """Whether to resume a killed training from its checkpoint; false to start anew."""
    gradient_checkpointing: bool
    """Whether to compute activations again in the backward pass, which saves memory and takes about
    a third more time."""
    num_processes: int = Field(gt=0)
    """Number of processes that share each step; 1 trains in the process of ``kedro run``."""
    accelerate_config: str | None
    """Configuration of ``accelerate launch``, such as ``conf/accelerate/fsdp2.yaml``, for GPUs;
    null to start by ``torch.distributed.run``."""
    seed: Seed
    """Seed of every random choice in a run."""
