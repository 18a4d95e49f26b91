"""Checks of names that MLflow would refuse only at the end of a run."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

MAX_CHARACTERS = 256
"""Largest length of a name in MLflow's database."""
BAD_IN_MODEL = "/:'\"\\#?%@`"
"""Characters with a meaning in an address such as ``models:/NAME@champion``, or in a search."""
FILE_STORE = re.compile(r"(file:|[a-zA-Z]:[\\/]|[^:]*$)")
"""A folder, which MLflow no longer takes as a store of runs."""
WITHOUT_PLACE = ("databricks", "databricks-uc", "uc")
SQLITE = "sqlite:///"
SQLITE_FILE = re.compile(rf"{SQLITE}(?!:memory:).+")


def _name(name: str) -> str:
    if not name.strip() or name != name.strip():
        raise ValueError("it must hold a name, without white space around it")
    if len(name) > MAX_CHARACTERS:
        raise ValueError(f"it may have {MAX_CHARACTERS} characters, and has {len(name)}")
    if not name.isprintable():
        raise ValueError("it may hold no line break or other control character")
    return name


def _model_name(name: str) -> str:
    bad = sorted({letter for letter in name if letter in BAD_IN_MODEL})
    if bad:
        raise ValueError(f"the name of a registered model may not hold {' '.join(bad)}")
    if name in (".", ".."):
        raise ValueError("it must hold a letter or a digit")
    return _name(name)


def _tracking_uri(uri: str) -> str:
    if uri in WITHOUT_PLACE:
        return uri
    if uri.strip() != uri:
        raise ValueError("it may have no white space around it")
    if not uri.strip() or FILE_STORE.match(uri):
        raise ValueError(
            "it must be the address of an MLflow server (https://...) or of a database "
            "(sqlite:///mlflow.db); MLflow keeps no runs in a plain folder any more, and "
            "`mlflow migrate-filestore` moves those of one into a database"
        )
    if uri.startswith("sqlite:") and not SQLITE_FILE.fullmatch(uri):
        raise ValueError(
            "an SQLite database is sqlite:/// and a path, as in sqlite:///mlflow.db (in the "
            "project folder) or sqlite:////var/lib/mlflow.db"
        )
    return uri


def database_file(tracking_uri: str) -> Path | None:
    """The file of an SQLite database; None of another tracking server."""
    is_file = tracking_uri.startswith(SQLITE)
    return Path(tracking_uri.removeprefix(SQLITE)) if is_file else None


ModelName = Annotated[str, AfterValidator(_model_name)]
ExperimentName = Annotated[str, AfterValidator(_name)]
TrackingUri = Annotated[str, AfterValidator(_tracking_uri)]
