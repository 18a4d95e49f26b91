"""Keeping secrets out of what people read."""

from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"


def without_password(uri: str) -> str:
    """An address as it may be shown: the password in it, if there is one, is hidden."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{HIDDEN}@{place}"))
