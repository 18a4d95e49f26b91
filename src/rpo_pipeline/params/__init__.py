"""Typed parameters: YAML holds the values, these modules the types, bounds and meanings.

One model per block of ``conf/base/parameters_<block>.yml``. Kedro builds and validates them before
any node runs, so a typo or a value out of bounds stops a run at once.
"""

from rpo_pipeline.params.base import Params, Split
from rpo_pipeline.params.blocks import BLOCKS, validate_blocks, validate_catalog, validate_tracking
from rpo_pipeline.params.endpoint import EndpointParams
from rpo_pipeline.params.evaluation import (
    ComparisonParams,
    EncoderParams,
    EvaluationParams,
    GateParams,
    LmEvalParams,
    MethodParams,
    PairwiseJudgeParams,
    PromotionParams,
    SamplingParams,
    StudiesParams,
)
from rpo_pipeline.params.extras import EXTRAS, Need, block_needs, catalog_needs, tracking_needs
from rpo_pipeline.params.ingestion import (
    Conflicts,
    IngestionParams,
    NearDuplicateParams,
    RatingParams,
    RedactionParams,
    SourceParams,
    SplitShares,
    rating_word,
)
from rpo_pipeline.params.labelers import (
    RESERVED,
    ColumnParams,
    EnsembleParams,
    FittedRewardModelParams,
    JudgeParams,
    LabelerParams,
    LabelerSettings,
    RewardModelParams,
    RulesParams,
)
from rpo_pipeline.params.labeling import LabelingParams
from rpo_pipeline.params.names import SQLITE, database_file
from rpo_pipeline.params.operations import CachesParams, TrackingParams
from rpo_pipeline.params.policy import FromConfigParams, LoraParams, PolicyParams, PrefixSharing
from rpo_pipeline.params.refresh import Event, LiveRatingsParams, NotificationParams, RefreshParams
from rpo_pipeline.params.training import (
    AwrParams,
    DroParams,
    KtoParams,
    NcaParams,
    ObjectiveName,
    ObjectiveParams,
    QrpoParams,
    RebelParams,
    RpoParams,
    SftParams,
    TgoParams,
    TrainingParams,
)
from rpo_pipeline.params.variables import prepare_environment, variable
