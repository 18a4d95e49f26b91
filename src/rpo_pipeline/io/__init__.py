"""Kedro dataset classes that kedro-datasets lacks."""

from rpo_pipeline.io.atomic_file import AtomicFileDataset
from rpo_pipeline.io.model_directory import ModelDirectoryDataset
from rpo_pipeline.io.parquet_stream import ParquetStreamDataset
from rpo_pipeline.io.workspace import WorkspaceDataset

__all__ = ["AtomicFileDataset", "ModelDirectoryDataset", "ParquetStreamDataset", "WorkspaceDataset"]
