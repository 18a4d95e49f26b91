"""Whether a result is still the right one: what decided it, put into one hash.

A result is decided by content (``digests``), by values of parameters, by the code that it rests
on and by the libraries that compute its numbers. Nodes of the pipeline, parts of sources, and rows
that are kept because they are dear, all ask here.
"""

import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from rpo_pipeline.storage.digests import value_digest
from rpo_pipeline.storage.source_code import EVERYTHING, Reach, SourceCode, Symbol

PACKAGE = Path(__file__).parents[1]
MODEL_LIBRARIES = ("tokenizers", "torch", "transformers")
"""They decide the numbers of a model's forward pass, and its samples."""
PARAMS = frozenset({f"{PACKAGE.name}.params"})
"""Types and bounds of parameters: where the values are in a key, this code need not be."""

# What only tells whether a result is still right makes none.
_BOOKKEEPING = frozenset(
    f"{PACKAGE.name}.storage.{name}" for name in ("freshness", "source_code", "source_module")
)
# They check, wait, fetch or show progress; no number is theirs.
_NEUTRAL = frozenset(
    "click filelock huggingface_hub packaging pandera pluggy pydantic pydantic_core "
    "requests safetensors tqdm".split()
)
_DISTRIBUTIONS = {
    "ibis": "ibis-framework",
    "lm_eval": "lm-eval",
    "sklearn": "scikit-learn",
    "stdnum": "python-stdnum",
    "yaml": "PyYAML",
}
"""Names that libraries are installed by, where it is not the one they are imported by."""
# What a library is a surface of: the package that computes has a version of its own.
_BEHIND = {"ibis": "duckdb", "transformers": "tokenizers"}

Definition = Callable[..., Any]
"""A function, a method or a class."""


def code_digest(*definitions: Definition, source: SourceCode | None = None) -> str:
    """Hash of the code that functions and classes rest on, and of the templates that it names.

    Comments, docstrings and formatting do not count.

    Args:
        *definitions: Functions, methods or classes.
        source: Where their code is read; null: this package, as it is installed.

    Returns:
        32 hexadecimal digits.
    """
    return _digest_of(reach(*definitions, source=source))


def library_versions(
    *definitions: Definition, source: SourceCode | None = None
) -> dict[str, str | None]:
    """Versions of the libraries that functions and classes rest on, without those that decide none.

    Args:
        *definitions: Functions, methods or classes.
        source: Where their code is read; null: this package, as it is installed.

    Returns:
        By name as it is imported; null where it is not installed.
    """
    found = reach(*definitions, source=source)
    return {name: installed_version(name) for name in _deciding(found)}


def result_key(
    *content: Any,  # noqa: ANN401 (any value that JSON can say)
    code: Iterable[Definition],
    libraries: Iterable[str] | None = None,
    without: frozenset[str] = PARAMS,
) -> str:
    """Name of results that are kept: all that decides them, beside what tells one from another.

    Args:
        *content: Values of parameters and fingerprints of content, templates among them.
        code: What computes the results.
        libraries: Whose versions decide them; null: all that the code rests on.
        without: Packages of ours whose code does not count.

    Returns:
        32 hexadecimal digits.
    """
    found = _reach(tuple(code), without)
    names = _deciding(found) if libraries is None else libraries
    versions = {name: installed_version(name) for name in names}
    return value_digest([*content, sorted(found.definitions.values()), versions])


@cache
def installed_version(library: str) -> str | None:
    """Public version of a package by the name it is imported by; builds of one version are equal.

    Args:
        library: Such as ``sklearn``.

    Returns:
        Null where it is not installed.
    """
    name = _DISTRIBUTIONS.get(library, library)
    try:
        found = version(name)
    except PackageNotFoundError:
        return None
    try:
        return Version(found).public  # a CPU's build and a GPU's differ by rounding alone
    except InvalidVersion:
        return found


def reach(*definitions: Definition, source: SourceCode | None = None) -> Reach:
    """All that functions and classes rest on.

    Args:
        *definitions: Functions, methods or classes.
        source: Where their code is read; null: this package, as it is installed.

    Returns:
        Their code, templates and libraries.
    """
    if source is None:
        return _reach(definitions, frozenset())
    return source.reach(map(_symbol, definitions), without=_BOOKKEEPING)


@cache
def _reach(definitions: tuple[Definition, ...], without: frozenset[str]) -> Reach:
    source = _source_of(definitions)
    return source.reach(map(_symbol, definitions), without=without | _BOOKKEEPING)


def _deciding(found: Reach) -> list[str]:
    """Libraries that numbers come from."""
    named = found.libraries - _NEUTRAL
    return sorted(named | {_BEHIND[name] for name in named if name in _BEHIND})


def _digest_of(found: Reach) -> str:
    return value_digest([sorted(found.definitions.values()), sorted(found.templates.values())])


def _symbol(definition: Definition) -> Symbol:
    while isinstance(definition, partial):
        definition = definition.func
    if not hasattr(definition, "__qualname__"):
        definition = type(definition)
    name = definition.__qualname__.partition(".<locals>")[0]
    return definition.__module__, EVERYTHING if "<" in name else name


def _source_of(definitions: Iterable[Definition]) -> SourceCode:
    """This package, and those of the definitions where they are others."""
    packages = {PACKAGE.name: PACKAGE}
    for definition in definitions:
        name, _ = _symbol(definition)
        file = getattr(sys.modules[name], "__file__", None)
        if name.partition(".")[0] not in packages and file:
            packages |= _package_of(name, Path(file))
    return _read(tuple(packages.items()))


def _package_of(module: str, file: Path) -> dict[str, Path]:
    """Name and place of the package, or the lone file, that a module belongs to."""
    top, *rest = module.split(".")
    if file.name == "__init__.py":
        return {top: file.parents[len(rest)]}
    return {top: file.parents[len(rest) - 1] if rest else file}


@cache
def _read(packages: tuple[tuple[str, Path], ...]) -> SourceCode:
    return SourceCode(dict(packages))
