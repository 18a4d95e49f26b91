"""Addresses of tracking servers, of which one may be an SQLite database of the project."""

from pathlib import Path

SQLITE = "sqlite:///"


def database_file(tracking_uri: str) -> Path | None:
    """The file of an SQLite database; None of another server."""
    is_file = tracking_uri.startswith(SQLITE)
    return Path(tracking_uri.removeprefix(SQLITE)) if is_file else None


def resolve_tracking_uri(tracking_uri: str, project_path: Path) -> str:
    """URI of a tracking server; a relative sqlite path starts at the project folder."""
    file = database_file(tracking_uri)
    return tracking_uri if file is None else f"{SQLITE}{project_path / file}"
