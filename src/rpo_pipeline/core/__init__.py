"""The mathematics of RPO on tensors; this room imports only torch and our errors."""

from rpo_pipeline.core.bounds import lower_bound
from rpo_pipeline.core.logps import projected_logps, sum_by_row, token_logps
from rpo_pipeline.core.losses import (
    awr_loss,
    dro_loss,
    infonca_loss,
    kto_loss,
    kto_reference_point,
    nca_loss,
    rpo_loss,
    sft_loss,
    tgo_loss,
    weighted_rpo_loss,
)
from rpo_pipeline.core.partition import (
    Partition,
    Prior,
    behaviour_weights,
    calibration,
    effective_size,
    estimate_partition,
    fit_prior,
    partition_of_levels,
)
from rpo_pipeline.core.quantile import quantile_log_z, quantiles
from rpo_pipeline.core.segments import segment_logsumexp, segment_sum
