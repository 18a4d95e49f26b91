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
    files = [path] if path.is_file() else sorted(files_below(path))
    return _digest_files(files, path, "blake2b", hashlib.blake2b(digest_size=16))


def model_fingerprint(directory: Path) -> str:
    """Hash the content of a model directory: weights, configuration and tokenizer."""
    found = {path for pattern in FINGERPRINTED for path in directory.glob(pattern)}
    files = sorted(path for path in found if path.is_file())  # no folder, and no broken link
    return _digest_files(files, directory, "sha256", hashlib.sha256())[:32]


def _digest_files(files: list[Path], root: Path, algorithm: str, digest: Any) -> str:  # noqa: ANN401 (hashlib's)
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, algorithm).digest())
    return str(digest.hexdigest())


def named_content(
    value: Any,  # noqa: ANN401 (any value that JSON can say)
    known: dict[str, str | None] | None = None,
) -> dict[str, str | None]:
    """Hash each folder that parameters name and whose content decides a result.

    The parameters are a number, text, list, mapping or block. Known hashes are not computed again,
    and new ones are added to them. Hub ids have no hash, because their revision is a parameter.
    """
    known = {} if known is None else known
    plain = _plain(value)
    if isinstance(plain, list | tuple):
        plain = dict(enumerate(plain))
    if not isinstance(plain, dict):
        return {}
    found: dict[str, str | None] = {}
    for part in plain.values():
        found |= named_content(part, known)
    for key, digest in NAMED_FOLDERS.items():
        name = plain.get(key)
        if name and isinstance(name, str) and Path(name).is_dir():
            found[name] = known[name] = known.get(name) or digest(Path(name))
    return found


NAMED_FOLDERS = {"name_or_path": model_fingerprint, "include_path": path_digest}
"""Parameters that may name a folder that no node writes, and the functions that hash it."""


def value_digest(value: Any) -> str:  # noqa: ANN401 (any value that JSON can say)
    """Hash a value of parameters: a number, text, list, mapping or parameter block."""
    text = json.dumps(_plain(value), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:  # noqa: ANN401
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
