"""Environment variables; blank ones, which env files may leave, count as unset."""

import os
from typing import overload

READ_BY_LIBRARIES = ("RPO_", "MLFLOW_", "HF_", "AWS_")
"""Beginnings of the names of variables that Python packages read by themselves. A blank
``CUDA_VISIBLE_DEVICES`` has a meaning, so it is not among them."""

DEFAULTS = {
    # MLflow's default of seven retries would delay a run by minutes, several times.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    # MLflow would print the server's address with the password in it.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow would report its usage to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Default values of variables that libraries read."""


@overload
def variable(name: str) -> str | None: ...
@overload
def variable(name: str, default: str) -> str: ...
def variable(name: str, default: str | None = None) -> str | None:
    """Return the value of a variable, or the default if it is unset, empty or white space."""
    value = os.environ.get(name, "")
    return value if value.strip() else default


def prepare_environment() -> None:
    """Remove blank variables, so that libraries see them as unset too, and set our defaults."""
    for name in list(os.environ):
        if name.startswith(READ_BY_LIBRARIES) and variable(name) is None:
            os.environ.pop(name, None)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
