"""Checks a stored table, of pandas or Ibis, against its schema."""

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import ibis.expr.operations as ops
import pandas as pd
import pandera.ibis
import pandera.pandas
from ibis.expr.types import Table
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors
from pandera.pandas import Check

from rpo_pipeline.errors import DataError

AT_MOST_NAMED = 5
MAX_EXAMPLE = 80
_VALID: WeakKeyDictionary[ops.Node, str] = WeakKeyDictionary()
"""Tables of Ibis that passed a check, with the name of the schema."""


@dataclass(frozen=True)
class Column:
    """Conditions on the values of a column."""

    dtype: type | None = None
    """``str``, ``int`` or ``bool``; None for any type, such as numbers of any precision."""
    check: Check | None = None
    nullable: bool = False


@dataclass(frozen=True, eq=False)
class TableSchema:
    """Columns that a table must have; further ones are allowed."""

    name: str
    key: str | None
    """Column whose values are unique."""
    columns: dict[str, Column]
    pipeline: str
    """Pipeline that writes the table."""
    advice: str
    """Advice for wrong values."""

    def validate(self, table: Any) -> Any:  # noqa: ANN401 (pandas or Ibis, as the dataset has it)
        """Check a table, and return it; Kedro calls this.

        An Ibis table is computed once for all checks; None stands for a file that may be missing.
        A DataError names wrong columns, the fault, the number of rows, and an example.
        """
        if table is None:
            return None
        if isinstance(table, Table):
            if not isinstance(table.op(), ops.PhysicalTable):
                table = table.cache()
            if _VALID.get(table.op()) == self.name:
                return table
        try:
            rows = _checkable(table)
            # An empty pandas table has columns without types.
            typed = isinstance(rows, Table) or not rows.empty
            library = pandera.ibis if isinstance(rows, Table) else pandera.pandas
            _build(self, library, typed=typed).validate(rows, lazy=True)
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


def _checkable(table: Any) -> Any:  # noqa: ANN401 (pandas or Ibis)
    """Adapt a table for pandera, which fails on repeated index values and empty Ibis tables."""
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
