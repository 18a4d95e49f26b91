"""Schemas of the stored tables, which the catalog checks.

A catalog entry names its schema as ``validator``; Kedro checks a table before it is written, and
when it is read unless the same run wrote it.
"""

from typing import get_args

from pandera.pandas import Check

from rpo_pipeline.catalog.table_schema import Column, TableSchema
from rpo_pipeline.ingestion import Reason
from rpo_pipeline.params import Split

# ---- columns

_LARGEST = 1e38  # within single precision
_FINITE = Check.in_range(-_LARGEST, _LARGEST, error="a finite number")
_HASH = Check.str_matches("^[0-9a-f]{32}$", error="a content hash of 32 hexadecimal digits")

ID = Column(str, _HASH)
TEXT = Column(str, Check.str_length(min_value=1, error="a text"))
WORD_OR_NULL = Column(str, nullable=True)
NUMBER = Column(check=_FINITE)
NUMBER_OR_NULL = Column(check=_FINITE, nullable=True)
LOGPS = Column(check=Check.in_range(-_LARGEST, 0, error="a log-probability (finite, at most 0)"))
COUNT = Column(int, Check.ge(0, error="a count"))
FLAG = Column(bool)
SPLIT = Column(str, Check.isin(get_args(Split), error=f"one of {', '.join(get_args(Split))}"))
REASON = Column(str, Check.isin([reason.value for reason in Reason], error="a known reason"))


# ---- tables, in the order in which a run makes them

_INPUT = (
    "see ingestion.sources, and 02_intermediate/rejected_rows.parquet in the data folder of the "
    "environment"
)
_REJECTED = {"origin": TEXT, "line": COUNT, "reason": REASON, "raw": Column(str)}

REJECTED_ROWS = TableSchema("rejected_rows", None, _REJECTED, "data_ingestion", _INPUT)
QUARANTINE = TableSchema("quarantine", None, _REJECTED, "data_ingestion", _INPUT)
RAW_ROWS = TableSchema(
    "raw_rows",
    None,
    {
        "row_id": Column(str),  # not ID, whose check is slow on a million rows in five nodes
        "prompt_id": Column(str),
        "prompt": TEXT,
        "response": TEXT,
        "raw_reward": NUMBER_OR_NULL,
        "origin": TEXT,
        "position": COUNT,
        "split_point": Column(check=Check.in_range(0, 1, error="from 0 to 1")),
        "conversation": WORD_OR_NULL,
    },
    "data_ingestion",
    _INPUT,
)
PROMPT_CLUSTERS = TableSchema(
    "prompt_clusters",
    "prompt_id",
    {"prompt_id": ID, "cluster_id": ID, "signature": Column()},
    "data_ingestion",
    "if it was changed by hand, remove it: signatures are computed again",
)
SPLITS = TableSchema(
    "splits",
    "prompt_id",
    {"prompt_id": ID, "split": SPLIT, "leaked": FLAG},
    "data_ingestion",
    "splits are given once: put back the file of an earlier run",
)
FEEDBACK = TableSchema(
    "feedback",
    "row_id",
    {
        "row_id": ID,
        "prompt_id": ID,
        "prompt": TEXT,
        "response": TEXT,
        "raw_reward": NUMBER_OR_NULL,
        "num_ratings": COUNT,
        "reward_source": WORD_OR_NULL,
        "split": SPLIT,
        "leaked": FLAG,
        "origin": TEXT,
        "timestamp": Column(nullable=True),
        "model_version": WORD_OR_NULL,
        "behaviour_logps": Column(check=LOGPS.check, nullable=True),
    },
    "data_ingestion",
    _INPUT,
)

_LABELERS = "see labeling.labelers"
LABELS = TableSchema(
    "labels",
    "row_id",
    {"row_id": ID, "raw_reward": NUMBER, "labeler": TEXT},
    "reward_labeling",
    _LABELERS,
)
REWARDS = TableSchema(
    "rewards",
    "row_id",
    {**LABELS.columns, "reward": NUMBER},
    "reward_labeling",
    "see labeling.labelers and labeling.normaliser",
)

_MODEL = "see the policy block: a model that gives such numbers cannot be trained"
REFERENCE_LOGPS = TableSchema(
    "reference_logps",
    "row_id",
    {
        "row_id": ID,
        "logps": LOGPS,
        "num_tokens": COUNT,
        "prompt_is_cut": FLAG,
        "response_is_cut": FLAG,
    },
    "partition_estimation",
    _MODEL,
)
PARTITION = TableSchema(
    "partition",
    "prompt_id",
    {
        "prompt_id": ID,
        "n": COUNT,
        "n_used": COUNT,
        "log_z": NUMBER,
        "log_z_se": NUMBER_OR_NULL,
        "ess": NUMBER,
        "target_mean": NUMBER,
        "target_std": NUMBER,
    },
    "partition_estimation",
    "see rpo.estimator and rpo.tau",
)
TARGETS = TableSchema(
    "targets",
    "row_id",
    {"row_id": ID, "target": NUMBER, "rho": NUMBER, "huber_delta": NUMBER_OR_NULL},
    "partition_estimation",
    "see rpo.estimator and rpo.tau",
)
TRAINING_ROWS = TableSchema(
    "training_rows",
    "row_id",
    {
        "row_id": ID,
        "prompt_id": ID,
        "split": SPLIT,
        "prompt": TEXT,
        "response": TEXT,
        "reward": NUMBER,
        "ref_logps": LOGPS,
        "target": NUMBER,
        "rho": NUMBER,
        "huber_delta": NUMBER_OR_NULL,
    },
    "rpo_training",
    "tables of earlier runs do not fit together: run from data_ingestion",
)

_GENERATED = {
    "model": TEXT,
    "prompt_id": ID,
    "prompt": TEXT,
    "sample": COUNT,
    "response": Column(str),
    "num_tokens": COUNT,
    "logps": LOGPS,
    "ref_logps": Column(check=LOGPS.check, nullable=True),
}
GENERATIONS = TableSchema("generations", None, _GENERATED, "evaluation", _MODEL)
GENERATION_REWARDS = TableSchema(
    "generation_rewards",
    None,
    {**_GENERATED, "raw_reward": NUMBER},
    "evaluation",
    "see evaluation.labelers",
)
HELDOUT = TableSchema(
    "heldout",
    "row_id",
    {
        "row_id": ID,
        "prompt_id": ID,
        "raw_reward": NUMBER,
        "reward": NUMBER,
        "log_ratio": NUMBER,
    },
    "evaluation",
    _MODEL,
)
