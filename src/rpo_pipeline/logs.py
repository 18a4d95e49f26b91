"""Log lines for people or for machines, each without secrets.

``RPO_LOG_FORMAT=json`` writes one JSON object a line, with the MLflow run that it belongs to.
"""

import json
import logging
import os
from datetime import UTC, datetime

from rpo_pipeline.secrets import hide

FORMAT_VARIABLE = "RPO_LOG_FORMAT"
_bound: dict[str, str] = {}


class Formatter(logging.Formatter):
    """A line as another formatter writes it, or an object.

    Args:
        plain: Writes lines for people.
    """

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
    """Put fields, such as ``run_id``, into every JSON line from now on."""
    _bound.update(fields)


def take_over() -> None:
    """Put ``Formatter`` around what the handlers of the process have."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, Formatter):
            handler.setFormatter(Formatter(handler.formatter or logging.Formatter()))
