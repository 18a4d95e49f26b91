"""Keeps secrets out of logs, parameters and reports.

A secret is recognised by its value, if an environment variable or a credential holds it, in every
form in which a message may write it; by the shape that its issuer gives it; or by its place in an
address.
"""

import html
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "***"
MIN_CHARACTERS = 8  # a shorter value may be an ordinary word, or `true`
_WORDS = "KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|AUTH|AUTHORIZATION|CREDENTIAL|PAT|DSN"
# These match a word of the name, or its end: OPENAI_APIKEY, but neither PATH nor KEYBOARD.
SECRET_NAME = re.compile(
    rf"(?:^|[_\-.])(?:{_WORDS})S?(?:[_\-.\d]|$)|(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)S?$",
    re.IGNORECASE,
)
WEBHOOK_VARIABLE = "RPO_WEBHOOK_URL"
SHAPES = re.compile(
    r"\b(?:sk|rk|pk)-[\w-]{16,}|\bgh[pousr]_\w{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}"
    r"|\bhf_[A-Za-z0-9]{16,}|\bxox[abeoprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|(?<=\bBearer )[\w.~+/-]{8,}=*|(?<=\bBasic )[\w+/]{8,}=*"
)
USER_INFO = re.compile(r"(?<=://)(?:([^\s/@:?#]*):[^\s/]+|[^\s/@?#]+)@")
"""User information in an address: a name and a password, or only a token."""
_QUERY = "key|token|secret|password|passwd|auth|sig|signature|credential|pat|dsn"
QUERY = re.compile(
    rf"([?&;](?:[\w.%-]*[_.-])?(?:{_QUERY})s?(?:[_.-][\w.%-]*)?="
    r"|[?&;]\w*(?:key|token|secret)=)[^&;\s\"'<>#]+",
    re.IGNORECASE,
)
WEBHOOK = re.compile(
    r"(https?://(?:hooks\.[^\s/]+|[^\s/]*webhook[^\s/]*|api\.telegram\.org|[^\s/]+/(?:[\w-]+/)*webhooks?\d*)/)"
    r"[^\s\"'<>]+",
    re.IGNORECASE,
)
"""Addresses whose path is the password."""
_kept: set[str] = set()


def keep_secret(credentials: Any) -> None:  # noqa: ANN401 (whatever YAML can say)
    """Hide every value of these credentials from now on."""
    if isinstance(credentials, Mapping | list | tuple):
        for one in credentials.values() if isinstance(credentials, Mapping) else credentials:
            keep_secret(one)
    elif isinstance(credentials, str | int) and not isinstance(credentials, bool):
        _kept.add(str(credentials))


def without_password(uri: str) -> str:
    """Hide passwords and tokens in an address."""
    uri = USER_INFO.sub(lambda found: f"{found[1]}:{HIDDEN}@" if found[1] else f"{HIDDEN}@", uri)
    return WEBHOOK.sub(rf"\1{HIDDEN}", QUERY.sub(rf"\1{HIDDEN}", uri))


def hide(text: str) -> str:
    """Hide secrets in a text: known values, keys, and secret parts of addresses."""
    for value in _secrets():
        for spelling in _spellings(value):
            text = text.replace(spelling, HIDDEN)
    return SHAPES.sub(HIDDEN, without_password(text))


def hide_in(value: Any) -> Any:  # noqa: ANN401 (whatever YAML can say)
    """Hide secrets in every text of nested parameters."""
    if isinstance(value, Mapping):
        return {key: hide_in(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(one) for one in value]
    return hide(value) if isinstance(value, str) else value


def _secrets() -> list[str]:
    # Names are read one at a time, because other threads, such as MLflow's, may remove some.
    named = {
        os.environ.get(name, "")
        for name in os.environ
        if name == WEBHOOK_VARIABLE or SECRET_NAME.search(name)
    }
    values = {value.strip() for value in named if not _is_path(value)} | _kept
    return sorted((one for one in values if len(one) >= MIN_CHARACTERS), key=len, reverse=True)


@lru_cache
def _is_path(value: str) -> bool:
    """Tell whether a value is the path of a secret (SSH_AUTH_SOCK), and no secret itself."""
    return (
        value.startswith("/")
        and len(value) < os.pathconf("/", "PC_PATH_MAX")
        and Path(value).exists()
    )


@lru_cache
def _spellings(value: str) -> tuple[str, ...]:
    """Write a value as in a message, in JSON, in an address, in HTML, or as Python shows it."""
    spelt = {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(value, errors="replace"),
        quote(value, safe="", errors="replace"),
        quote_plus(value, errors="replace"),
        html.escape(value),
        repr(value)[1:-1],
        repr(value.encode(errors="replace"))[2:-1],
    }
    return tuple(sorted(spelt, key=len, reverse=True))
