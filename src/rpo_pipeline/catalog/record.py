from typing import Any

from kedro_datasets.json import JSONDataset

from rpo_pipeline import records


class RecordDataset(JSONDataset):  # type: ignore[misc] # the package has no types
    """A frozen record in a JSON file that holds its fields by name.

    Args:
        record: Name of a class in ``rpo_pipeline.records``.
        **settings: Arguments of ``json.JSONDataset``.
    """

    def __init__(self, *, record: str, **settings: Any) -> None:  # noqa: ANN401 (of another class)
        super().__init__(**settings)
        self._record = getattr(records, record)

    def load(self) -> Any:  # noqa: ANN401 (an instance of the record)
        """Load the record."""
        return records.from_json(self._record, super().load())

    def save(self, data: Any) -> None:  # noqa: ANN401
        """Write the record."""
        super().save(records.to_json(data))
