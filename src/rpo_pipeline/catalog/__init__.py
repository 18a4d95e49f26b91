"""Kedro dataset classes that kedro-datasets lacks."""

from rpo_pipeline.catalog.atomic_file import AtomicFileDataset
from rpo_pipeline.catalog.model_directory import ModelDirectoryDataset
from rpo_pipeline.catalog.parquet_stream import ParquetStreamDataset
from rpo_pipeline.catalog.workspace import WorkspaceDataset

__all__ = ["AtomicFileDataset", "ModelDirectoryDataset", "ParquetStreamDataset", "WorkspaceDataset"]
