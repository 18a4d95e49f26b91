"""Datasets, schemas of stored tables, layers of the configuration, and the runner, for Kedro."""

from rpo_pipeline.catalog.config_loader import (
    LOADER_ARGUMENTS,
    LayeredConfigLoader,
    environment_names,
)
from rpo_pipeline.catalog.datasets import (
    AtomicFileDataset,
    ModelDirectoryDataset,
    ParquetStreamDataset,
    RecordDataset,
    WorkspaceDataset,
    file_of,
    use_in_mlflow,
)
from rpo_pipeline.catalog.runner import ALWAYS, refuse_several
