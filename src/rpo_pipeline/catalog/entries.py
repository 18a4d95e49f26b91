"""Reads properties of a dataset from its catalog entry."""

from pathlib import Path
from typing import Any

from kedro.io import CatalogProtocol


def file_of(catalog: CatalogProtocol[Any, Any], name: str) -> Path | None:
    """Return the file or folder of a dataset, or None if it has none."""
    described: dict[str, Any] = catalog[name]._describe()  # Kedro has no public way to ask
    return Path(described["filepath"]) if described.get("filepath") else None


def use_in_mlflow(catalog: CatalogProtocol[Any, Any], name: str) -> Any:  # noqa: ANN401 (of YAML)
    """Return what MLflow stores of a dataset by its ``metadata``, or None for nothing."""
    return (getattr(catalog[name], "metadata", None) or {}).get("mlflow")
