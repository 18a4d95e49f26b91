"""Environment variables. One that is set and blank counts as unset, as env files leave them."""

import os
from typing import overload

READ_BY_LIBRARIES = ("RPO_", "MLFLOW_", "HF_", "AWS_")
"""Beginnings of names that Python packages read without asking us. Not among them is
``CUDA_VISIBLE_DEVICES``, where blank has a meaning."""


@overload
def variable(name: str) -> str | None: ...
@overload
def variable(name: str, default: str) -> str: ...
def variable(name: str, default: str | None = None) -> str | None:
    """The value of a variable, or the default where it is unset, empty or white space."""
    value = os.environ.get(name, "")
    return value if value.strip() else default


def unset_blank() -> None:
    """Take blank variables out of the environment, so that libraries see them as unset too."""
    for name in list(os.environ):
        if name.startswith(READ_BY_LIBRARIES) and variable(name) is None:
            os.environ.pop(name, None)
