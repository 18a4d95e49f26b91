"""The same expressions on Spark: the tables are those of DuckDB."""

import ibis
import pandas as pd
import pyarrow.parquet as pq
import pytest

from rpo_pipeline.ingestion.feedback import account_rows, build_feedback, quarantine_conflicts
from rpo_pipeline.ingestion.near_duplicates import cluster_prompts
from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.ingestion.splits import assign_splits
from rpo_pipeline.ingestion.statistics import describe_data
from tests.conftest import block, read_log

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A sample log whose ratings conflict here and there, as a Parquet file."""
    folder = tmp_path_factory.mktemp("log")
    write_sample_data(folder / "log.jsonl", 400, seed=1)
    source = block("ingestion").sources[0].model_copy(update={"path": str(folder / "log.jsonl")})
    table, rejected = read_log(source, folder=folder / "parts")
    again = table.slice(0, 60).to_pandas()
    again["position"] += len(table)
    again["raw_reward"] = 0.25
    again.loc[:20, "timestamp"] = None
    table = pd.concat([table.to_pandas(), again])
    table.to_parquet(folder / "rows.parquet", index=False)
    pq.write_table(pq.read_table(folder / "rows.parquet"), folder / "rows.parquet")
    return folder / "rows.parquet", rejected


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    from pyspark.sql import SparkSession  # noqa: PLC0415 (an extra)

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("spark")))
        .getOrCreate()
    )
    yield ibis.pyspark.connect(session)
    session.stop()


def ingest(backend, path, rejected):
    """Everything that data ingestion makes of rows, in one backend; tables are stored between."""
    ingestion = block("ingestion")

    def stored(name, table):
        return backend.create_table(name, table, overwrite=True)

    rows = backend.read_parquet(str(path))
    clusters = cluster_prompts(rows, None, ingestion.near_duplicates).to_pyarrow()
    clusters = stored("clusters", clusters)
    splits = stored("splits", assign_splits(rows, clusters, None, ingestion.split_shares))
    made = {
        "clusters": clusters.order_by("prompt_id").execute(),
        "splits": splits.order_by("prompt_id").execute(),
    }
    for conflicts in ("mean", "latest", "quarantine"):
        feedback = stored("feedback", build_feedback(rows, splits, conflicts))
        quarantine = quarantine_conflicts(rows, rejected, conflicts)
        made[f"feedback, {conflicts}"] = feedback.order_by("row_id").execute()
        made[f"quarantine, {conflicts}"] = quarantine
        account = account_rows(rows, rejected, quarantine, feedback, conflicts)
        made[f"account, {conflicts}"] = pd.DataFrame([account])
    statistics = flat(describe_data(feedback, splits, clusters))
    made["statistics"] = pd.DataFrame([statistics])
    return made


def test_spark_makes_the_tables_that_duckdb_makes(rows, spark):
    ours = ingest(ibis.duckdb.connect(), *rows)
    theirs = ingest(spark, *rows)
    assert ours.keys() == theirs.keys()
    for name in ours:
        tables = in_nanoseconds(ours[name]), in_nanoseconds(theirs[name])
        pd.testing.assert_frame_equal(*tables, check_dtype=False, obj=name)
    assert ours["account, quarantine"]["quarantined"].item() > 20


def in_nanoseconds(table):
    """The same times, which each backend gives in a unit of its own."""
    times = table.select_dtypes(["datetime", "datetimetz"])
    return table.assign(**{name: times[name].dt.as_unit("ns") for name in times})


def flat(numbers, prefix=""):
    """Numbers of a nested table by their path."""
    found = {}
    for name, value in numbers.items():
        nested = isinstance(value, dict)
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found
