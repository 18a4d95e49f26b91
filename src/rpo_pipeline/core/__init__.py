"""The mathematics of RPO on tensors; this room imports only torch and our errors."""

from rpo_pipeline.core.bounds import lower_bound
from rpo_pipeline.core.logps import projected_logps, sum_by_row, token_logps
from rpo_pipeline.core.losses import dro_loss, kto_loss, kto_reference_point, rpo_loss, sft_loss
from rpo_pipeline.core.partition import (
    Partition,
    Prior,
    behaviour_weights,
    calibration,
    effective_size,
    estimate_partition,
    fit_prior,
)
from rpo_pipeline.core.quantile import quantile_log_z, quantiles

__all__ = [
    "Partition",
    "Prior",
    "behaviour_weights",
    "calibration",
    "dro_loss",
    "effective_size",
    "estimate_partition",
    "fit_prior",
    "kto_loss",
    "kto_reference_point",
    "lower_bound",
    "projected_logps",
    "quantile_log_z",
    "quantiles",
    "rpo_loss",
    "sft_loss",
    "sum_by_row",
    "token_logps",
]
