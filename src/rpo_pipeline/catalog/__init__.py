"""Datasets, schemas of stored tables, layers of the configuration, and the runner, for Kedro."""

from rpo_pipeline.catalog.atomic_file import AtomicFileDataset
from rpo_pipeline.catalog.config_loader import (
    LOADER_ARGUMENTS,
    LayeredConfigLoader,
    environment_names,
)
from rpo_pipeline.catalog.entries import file_of, use_in_mlflow
from rpo_pipeline.catalog.model_directory import ModelDirectoryDataset
from rpo_pipeline.catalog.parquet_stream import ParquetStreamDataset
from rpo_pipeline.catalog.record import RecordDataset
from rpo_pipeline.catalog.runner import ALWAYS, refuse_several
from rpo_pipeline.catalog.workspace import WorkspaceDataset

__all__ = [
    "ALWAYS",
    "LOADER_ARGUMENTS",
    "AtomicFileDataset",
    "LayeredConfigLoader",
    "ModelDirectoryDataset",
    "ParquetStreamDataset",
    "RecordDataset",
    "WorkspaceDataset",
    "environment_names",
    "file_of",
    "refuse_several",
    "use_in_mlflow",
]
