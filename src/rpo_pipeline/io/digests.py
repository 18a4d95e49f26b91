"""Hashes of content: what decides whether a result is still the right one."""

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import requires, version
from pathlib import Path
from textwrap import dedent
from typing import Any

from packaging.requirements import Requirement

PACKAGE = Path(__file__).parents[1]
# What decides a log-probability; notes beside it (how it was made, how it generates) do not.
FINGERPRINTED = (
    *("*.safetensors", "config.json", "chat_template*"),
    *("tokenizer*", "special_tokens_map.json", "vocab*", "merges*", "*.model"),
)


def path_digest(path: Path) -> str | None:
    """Hash of a file, or of a folder's files and their names; None where there is neither."""
    if not path.exists():
        return None
    digest = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def model_fingerprint(directory: Path) -> str:
    """Content hash of a model directory: weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in FINGERPRINTED for p in directory.glob(pattern)}):
        digest.update(path.relative_to(directory).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def value_digest(value: Any) -> str:  # noqa: ANN401 (any value that JSON can say)
    """Hash of parameters: a number, text, list, mapping or parameter block."""
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return _text_digest(json.dumps(plain, sort_keys=True, default=str))


def code_digest(function: Callable[..., Any]) -> str:
    """Hash of a function and of all of this package that it reaches through its imports.

    Templates beside a module count with it, and so do the installed versions of the packages that
    the project depends on. Other functions of the function's own module do not count.
    """
    source = inspect.getsource(function)
    parts = [source, *_installed_versions()]
    parts += [path.read_text() for path in sorted(_reached(source))]
    return _text_digest(*parts)


def _reached(source: str) -> set[Path]:
    found: set[Path] = set()
    waiting = list(_imported(source))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found |= {path, *path.parent.rglob("*.j2")}
            waiting += _imports_of(path)
    return found


@cache
def _imports_of(path: Path) -> tuple[Path, ...]:
    return tuple(_imported(path.read_text()))


def _imported(source: str) -> Iterator[Path]:
    for node in ast.walk(ast.parse(dedent(source))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package == PACKAGE.name:
                path = PACKAGE.joinpath(*rest)
                files = (path.with_suffix(".py"), path / "__init__.py")
                yield from (file for file in files if file.is_file())


@cache
def _installed_versions() -> tuple[str, ...]:
    needed = [Requirement(text) for text in requires("rpo-pipeline") or []]
    names = [one.name for one in needed if not one.marker or one.marker.evaluate({"extra": ""})]
    return tuple(f"{name}=={version(name)}" for name in sorted(names))


def _text_digest(*texts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(len(text).to_bytes(8, "little") + text.encode())
    return digest.hexdigest()
