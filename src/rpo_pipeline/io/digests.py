"""Hashes of content: files, folders, models, values of parameters."""

import hashlib
import json
from pathlib import Path
from typing import Any

from rpo_pipeline.io.places import files_below

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
    for file in [path] if path.is_file() else sorted(files_below(path)):
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
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
