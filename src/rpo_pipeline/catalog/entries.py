"""What an entry of the catalog says of its dataset."""

from pathlib import Path
from typing import Any

from kedro.io import CatalogProtocol


def file_of(catalog: CatalogProtocol[Any, Any], name: str) -> Path | None:
    """File or folder of a dataset; None where it has none."""
    described: dict[str, Any] = catalog[name]._describe()  # Kedro has no public way to ask
    return Path(described["filepath"]) if described.get("filepath") else None


def use_in_mlflow(catalog: CatalogProtocol[Any, Any], name: str) -> Any:  # noqa: ANN401 (of YAML)
    """What MLflow keeps of a dataset, as its ``metadata`` says; None: nothing."""
    return (getattr(catalog[name], "metadata", None) or {}).get("mlflow")
