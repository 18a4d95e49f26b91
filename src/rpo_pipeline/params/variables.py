"""Environment variables. One that is set and blank counts as unset, as env files leave them."""

import os
from typing import overload

READ_BY_LIBRARIES = ("RPO_", "MLFLOW_", "HF_", "AWS_")
"""Beginnings of names that Python packages read without asking us. Not among them is
``CUDA_VISIBLE_DEVICES``, where blank has a meaning."""

DEFAULTS = {
    # MLflow's own seven retries would hold up a run for minutes, more than once.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    # It would print the server's address with the password in it.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # It would report to its makers what it is used for.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Values of variables that libraries read, where the environment does not set them."""


@overload
def variable(name: str) -> str | None: ...
@overload
def variable(name: str, default: str) -> str: ...
def variable(name: str, default: str | None = None) -> str | None:
    """The value of a variable, or the default where it is unset, empty or white space."""
    value = os.environ.get(name, "")
    return value if value.strip() else default


def prepare_environment() -> None:
    """Take blank variables out, so that libraries see them as unset too, and set our defaults."""
    for name in list(os.environ):
        if name.startswith(READ_BY_LIBRARIES) and variable(name) is None:
            os.environ.pop(name, None)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
