"""Formats log lines as text or JSON, without secrets.

``RPO_LOG_FORMAT=json`` writes one JSON object per line, with the id of the MLflow run.
"""

import json
import logging
import os
from datetime import UTC, datetime

from rpo_pipeline.secrets import hide

FORMAT_VARIABLE = "RPO_LOG_FORMAT"
_bound: dict[str, str] = {}


class Formatter(logging.Formatter):
    """Writes a record as a formatter of lines of text does, or as a JSON object."""

    def __init__(self, plain: logging.Formatter) -> None:
        super().__init__()
        self._plain = plain

    def format(self, record: logging.LogRecord) -> str:
        """Format a record and hide secrets."""
        if os.environ.get(FORMAT_VARIABLE) != "json":
            return hide(self._plain.format(record))
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_bound,
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: hide(value) for name, value in fields.items()})


def bind(**fields: str) -> None:
    """Add fields, such as ``run_id``, to every JSON line from now on."""
    _bound.update(fields)


def take_over() -> None:
    """Wrap the formatters of the process's handlers by ``Formatter``."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, Formatter):
            handler.setFormatter(Formatter(handler.formatter or logging.Formatter()))
