"""Keeping secrets out of what people read: logs, parameters, reports."""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)
MIN_CHARACTERS = 8  # a shorter value may be a word of the language
_kept: set[str] = set()
URL_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@")


def keep_secret(credentials: Any) -> None:  # noqa: ANN401 (whatever YAML can say)
    """Hide every text of these credentials from now on."""
    if isinstance(credentials, Mapping):
        for one in credentials.values():
            keep_secret(one)
    elif isinstance(credentials, str):
        _kept.add(credentials)


def without_password(uri: str) -> str:
    """An address as it may be shown: the password in it, if there is one, is hidden."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{HIDDEN}@{place}"))


def hide(text: str) -> str:
    """A text without passwords in addresses, and without secrets of environment or credentials."""
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    return URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)


def hide_in(value: Any) -> Any:  # noqa: ANN401 (whatever YAML can say)
    """The same for every text in nested parameters."""
    if isinstance(value, Mapping):
        return {key: hide_in(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(one) for one in value]
    return hide(value) if isinstance(value, str) else value


def _secrets() -> list[str]:
    # One name at a time: other threads, such as MLflow's, take theirs away meanwhile.
    named = {os.environ.get(name, "") for name in os.environ if SECRET_NAME.search(name)}
    return sorted((v for v in named | _kept if len(v) >= MIN_CHARACTERS), key=len, reverse=True)
