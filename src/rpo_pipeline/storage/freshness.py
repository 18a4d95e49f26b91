"""Hashes everything that decides a result, to tell whether a stored result is still valid.

A result is decided by content (``digests``), by values of parameters, by the code that it depends
on, and by the libraries that compute its numbers. Nodes of the pipeline, parts of sources and
caches of rows use these hashes.
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
"""Libraries that decide the numbers of a model's forward pass, and its samples."""
PARAMS = frozenset({f"{PACKAGE.name}.params"})
"""Room of the types and bounds of parameters, which a key need not hold beside their values."""

# What only tells whether a result is still right makes none.
_BOOKKEEPING = frozenset(
    f"{PACKAGE.name}.storage.{name}" for name in ("freshness", "source_code", "source_module")
)
# These libraries check, wait, download or show progress; they compute no number.
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
"""Names by which libraries are installed, if they differ from those by which they are imported."""
# Packages, with versions of their own, that compute for a library.
_BEHIND = {"ibis": "duckdb", "transformers": "tokenizers"}

Definition = Callable[..., Any]
"""A function, a method or a class."""


def code_digest(*definitions: Definition, source: SourceCode | None = None) -> str:
    """Hash the code that functions and classes depend on, and the templates that it names.

    Comments, docstrings and formatting do not count. The source is this package as it is installed,
    if it is not given. The hash has 32 hexadecimal digits.
    """
    found = reach(*definitions, source=source)
    return value_digest([sorted(found.definitions.values()), sorted(found.templates.values())])


def library_versions(*definitions: Definition) -> dict[str, str | None]:
    """Find the versions of the libraries that compute numbers for functions and classes.

    They are given by name of import; a library that is not installed has none.
    """
    return {name: installed_version(name) for name in _deciding(reach(*definitions))}


def result_key(
    *content: Any,  # noqa: ANN401 (any value that JSON can say)
    code: Iterable[Definition],
    libraries: Iterable[str] | None = None,
    without: frozenset[str] = PARAMS,
) -> str:
    """Hash everything that decides cached results, beside their own keys: 32 hexadecimal digits.

    The content is values of parameters and fingerprints, templates included; the code, what
    computes the results, and the libraries, those whose versions decide them (null for all that the
    code uses). The code of our packages ``without`` does not count.
    """
    found = _reach(tuple(code), without)
    names = _deciding(found) if libraries is None else libraries
    versions = {name: installed_version(name) for name in names}
    return value_digest([*content, sorted(found.definitions.values()), versions])


@cache
def installed_version(library: str) -> str | None:
    """Find the public version of a package by its name of import; null if it is not installed.

    Builds of one version are equal.
    """
    name = _DISTRIBUTIONS.get(library, library)
    try:
        found = version(name)
    except PackageNotFoundError:
        return None
    try:
        return Version(found).public  # builds for CPU and GPU differ only by rounding
    except InvalidVersion:
        return found


def reach(*definitions: Definition, source: SourceCode | None = None) -> Reach:
    """Find the code, templates and libraries that functions and classes depend on."""
    if source is None:
        return _reach(definitions, frozenset())
    return source.reach(map(_symbol, definitions), without=_BOOKKEEPING)


@cache
def _reach(definitions: tuple[Definition, ...], without: frozenset[str]) -> Reach:
    source = _source_of(definitions)
    return source.reach(map(_symbol, definitions), without=without | _BOOKKEEPING)


def _deciding(found: Reach) -> list[str]:
    """List the libraries that compute numbers."""
    named = found.libraries - _NEUTRAL
    return sorted(named | {_BEHIND[name] for name in named if name in _BEHIND})


def _symbol(definition: Definition) -> Symbol:
    while isinstance(definition, partial):
        definition = definition.func
    if not hasattr(definition, "__qualname__"):
        definition = type(definition)
    name = definition.__qualname__.partition(".<locals>")[0]
    return definition.__module__, EVERYTHING if "<" in name else name


def _source_of(definitions: Iterable[Definition]) -> SourceCode:
    """Return the source code of this package and of the definitions' packages."""
    packages = {PACKAGE.name: PACKAGE}
    for definition in definitions:
        name, _ = _symbol(definition)
        file = getattr(sys.modules[name], "__file__", None)
        top, *rest = name.split(".")
        if top not in packages and file:
            path = Path(file)
            # The folder of the package, or the single file, that the module belongs to.
            packages[top] = [path, *path.parents][len(rest) + (path.name == "__init__.py")]
    return _read(tuple(packages.items()))


@cache
def _read(packages: tuple[tuple[str, Path], ...]) -> SourceCode:
    return SourceCode(dict(packages))
