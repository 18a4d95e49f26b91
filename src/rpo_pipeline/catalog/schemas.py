"""What every stored table must look like, one schema per table, checked by the catalog.

A catalog entry names its schema as ``validator``; Kedro checks a table before it is written, and
when it is read unless the same run wrote it.
"""

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, get_args
from weakref import WeakKeyDictionary

import ibis.expr.operations as ops
import pandas as pd
import pandera.ibis
import pandera.pandas
from ibis.expr.types import Table
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors
from pandera.pandas import Check

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion import Reason
from rpo_pipeline.params import Split

AT_MOST_NAMED = 5
MAX_EXAMPLE = 80
_VALID: WeakKeyDictionary[ops.Node, str] = WeakKeyDictionary()
"""Tables that Ibis reads and that were found to be as a schema says, which is named."""


@dataclass(frozen=True)
class Column:
    """What the values of a column must be."""

    dtype: type | None = None
    """``str``, ``int``, ``bool``; None: any, which numbers of any precision need."""
    check: Check | None = None
    nullable: bool = False


@dataclass(frozen=True)
class TableSchema:
    """A table's columns; further ones are allowed."""

    name: str
    key: str | None
    """The column whose values are unique."""
    columns: dict[str, Column]
    pipeline: str
    """That writes the table."""
    advice: str
    """Where to look when values are wrong."""

    def validate(self, table: Any) -> Any:  # noqa: ANN401 (pandas or Ibis, as the dataset has it)
        """Check a table; Kedro calls this.

        Args:
            table: An Ibis table, which is computed once for all checks, a pandas table, or None
                for a file that may be missing.

        Returns:
            The table.

        Raises:
            DataError: With every column that is wrong, what is, in how many rows, and an example.
        """
        if table is None:
            return None
        if isinstance(table, Table):
            if not isinstance(table.op(), ops.PhysicalTable):
                table = table.cache()
            if _VALID.get(table.op()) == self.name:
                return table
        try:
            self._schema(rows := _checkable(table)).validate(rows, lazy=True)
        except SchemaErrors as errors:
            found = [_explain(error, self.key) for error in errors.schema_errors]
            more = f"; and {len(found) - AT_MOST_NAMED} more" if len(found) > AT_MOST_NAMED else ""
            raise DataError(
                f"table {self.name} is not as it must be: {'; '.join(found[:AT_MOST_NAMED])}{more} "
                f"({self.advice}; `kedro run --pipelines {self.pipeline}` writes the table anew)"
            ) from errors
        if isinstance(table, Table):
            _VALID[table.op()] = self.name
        return table

    def _schema(self, table: Any) -> Any:  # noqa: ANN401 (a schema of either library)
        library = pandera.ibis if isinstance(table, Table) else pandera.pandas
        # An empty pandas table has columns without types.
        typed = not (isinstance(table, pd.DataFrame) and table.empty)
        return _build(self, library, typed=typed)

    def __hash__(self) -> int:
        return hash(self.name)


def _checkable(table: Any) -> Any:  # noqa: ANN401 (pandas or Ibis)
    """What pandera can check: it fails on an index that repeats, and on an empty Ibis table."""
    if isinstance(table, pd.DataFrame):
        return table.reset_index(drop=True)
    return table if table.count().execute() else table.to_pandas()


@cache
def _build(schema: TableSchema, library: ModuleType, *, typed: bool) -> Any:  # noqa: ANN401
    columns = {
        name: library.Column(
            column.dtype if typed else None,
            column.check if typed else None,
            nullable=column.nullable,
        )
        for name, column in schema.columns.items()
    }
    return library.DataFrameSchema(columns, unique=[schema.key] if schema.key else None)


def _explain(error: SchemaError, key: str | None) -> str:
    cases = error.failure_cases
    name = getattr(error.schema, "name", None) or key
    if error.reason_code is SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME:
        return f"column {cases} is missing"
    if error.reason_code is SchemaErrorReason.WRONG_DATATYPE:
        return f"column {name} is not of type {error.schema.dtype}"
    if isinstance(cases, Table):
        count = int(cases.count().execute())
        example = next(iter(cases.limit(1).to_pyarrow().to_pylist()[0].values()))
    elif isinstance(cases, pd.DataFrame):
        count, example = len(cases), cases["failure_case"].iloc[0]
    else:
        return f"column {name} cannot be checked: {cases}"
    problem = {
        SchemaErrorReason.SERIES_CONTAINS_NULLS: "have no value",
        SchemaErrorReason.DUPLICATES: "repeat another one's value",
    }.get(error.reason_code) or f"are not {getattr(error.check, 'error', error.check)}"
    return f"{count} rows of column {name} {problem}, such as {str(example)[:MAX_EXAMPLE]!r}"


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
        "row_id": Column(str),  # not ID: a million rows are read by five nodes
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
    {"row_id": ID, "target": NUMBER},
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
