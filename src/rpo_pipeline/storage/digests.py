"""Hashes of content: files, folders, models, values of parameters."""

import hashlib
import json
from pathlib import Path
from typing import Any

from rpo_pipeline.storage.places import files_below

# Files that decide log-probabilities; others (on its training, or generation) do not count.
FINGERPRINTED = (
    *("*.safetensors", "config.json", "chat_template*"),
    *("tokenizer*", "special_tokens_map.json", "vocab*", "merges*", "*.model"),
)


def path_digest(path: Path) -> str | None:
    """Hash a file, or a folder's files and their names; the result is None if there is neither."""
    if not path.exists():
        return None
    digest = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else sorted(files_below(path)):
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def model_fingerprint(directory: Path) -> str:
    """Hash the content of a model directory: weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in FINGERPRINTED for p in directory.glob(pattern)}):
        if not path.is_file():  # a folder of that name, or a broken link
            continue
        digest.update(path.relative_to(directory).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def named_content(
    value: Any,  # noqa: ANN401 (any value that JSON can say)
    known: dict[str, str | None] | None = None,
) -> dict[str, str | None]:
    """Hash each folder that parameters name and whose content decides a result.

    Args:
        value: A number, text, list, mapping or parameter block.
        known: Known hashes, which are not computed again; new ones are added.

    Returns:
        Hash by folder; hub ids have none, because their revision is a parameter.
    """
    known = {} if known is None else known
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    if isinstance(plain, list | tuple):
        parts = list(plain)
    elif isinstance(plain, dict):
        parts = list(plain.values())
    else:
        return {}
    found: dict[str, str | None] = {}
    for part in parts:
        found |= named_content(part, known)
    for key, digest in NAMED_FOLDERS.items():
        name = plain.get(key) if isinstance(plain, dict) else None
        if name and isinstance(name, str) and Path(name).is_dir():
            found[name] = known[name] = known.get(name) or digest(Path(name))
    return found


NAMED_FOLDERS = {"name_or_path": model_fingerprint, "include_path": path_digest}
"""Parameters that may name a folder that no node writes, and the functions that hash it."""


def value_digest(value: Any) -> str:  # noqa: ANN401 (any value that JSON can say)
    """Hash a value of parameters: a number, text, list, mapping or parameter block."""
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
