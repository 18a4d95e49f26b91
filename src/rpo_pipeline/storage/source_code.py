"""Finds the code that a function or class depends on in source files, without importing them.

The unit is a definition at the top of a module: a function, a class, or an assignment. A definition
depends on what its code names: definitions of its own module and of others, followed through
packages that re-export them, and templates that it names in a text. Names from other packages are
recorded as libraries.
"""

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from rpo_pipeline.storage.source_module import BINDING, EFFECTS, Module, is_text, spell

EVERYTHING = "*"
"""Name of all that a module holds."""
TEMPLATES = "*.j2"
_NAMED_TEMPLATE = re.compile(r"""["']([^"'\s]+\.j2)["']""")
_MODULE = re.compile(r"\w+(\.\w+)+")

Symbol = tuple[str, str]
"""Module, and a name at its top, or ``Class.method``, ``EFFECTS`` or ``EVERYTHING``."""


@dataclass
class Reach:
    """Everything that definitions depend on."""

    definitions: dict[Symbol, str] = field(default_factory=dict)
    """Hash of the code, and of the origins of its names, by symbol."""
    templates: dict[str, str] = field(default_factory=dict)
    """Text of each template by path."""
    libraries: set[str] = field(default_factory=set)
    """Names of imported packages that are neither followed nor part of Python."""

    @property
    def modules(self) -> set[str]:
        """Modules of the definitions."""
        return {module for module, _ in self.definitions}


class SourceCode:
    """Source files of the packages that are followed, by name; each is read once."""

    def __init__(self, packages: Mapping[str, Path]) -> None:
        self._packages = dict(packages)
        self._modules: dict[str, Module | None] = {}
        self._named: dict[Symbol, _Names] = {}

    def reach(self, symbols: Iterable[Symbol], *, without: frozenset[str] = frozenset()) -> Reach:
        """Find definitions that exist, and everything that they name, directly or indirectly.

        ``without`` holds dotted names of packages of ours that are not followed.
        """
        reach, waiting, seen = Reach(), list(symbols), set[Symbol]()
        while waiting:
            name, top = symbol = waiting.pop()
            module = self._module(name)
            if module is None or symbol in seen or not without.isdisjoint(_with_parents(name)):
                continue
            seen.add(symbol)
            if top == EVERYTHING or top not in module.definitions:
                waiting += [(name, each) for each in module.definitions if "." not in each]
                if module.is_package:
                    waiting += [s for o in module.bindings.values() for s in self.find(o)]
                continue
            if symbol not in self._named:
                self._named[symbol] = _Names(self, module, top)
            named = self._named[symbol]
            reach.definitions[symbol] = named.digest
            reach.libraries |= named.libraries
            for template in named.templates:
                self._add_template(template, reach)
            waiting += named.symbols
            waiting += [(each, EFFECTS) for each in _with_parents(name)]
        return reach

    def find(self, origin: str) -> list[Symbol]:
        """Resolve a dotted name through re-exports; the result is empty for a library's name."""
        name, rest = self._resolve(origin)
        module = self._module(name)
        if module is None:
            return []
        if rest and rest[0] in module.definitions:
            return [(name, rest[0])]
        return [(name, EVERYTHING)]  # of a module, or of a name that is created while it runs

    def library(self, origin: str) -> str | None:
        """Return the library that a dotted name finally comes from, if it is one."""
        top = self._resolve(origin)[0].partition(".")[0]
        return None if top in self._packages or top in sys.stdlib_module_names else top

    def is_module(self, origin: str) -> bool:
        """Tell whether a dotted name is a module, not a package, of one of the packages."""
        file = self._file(origin)
        return file is not None and file.name != "__init__.py"

    def _resolve(self, origin: str) -> tuple[str, list[str]]:
        """Follow a dotted name through re-exports, and split it after its longest module.

        The name of a library is not split.
        """
        for name in reversed(_with_parents(origin)):
            if module := self._module(name):
                first, *more = origin.removeprefix(name).removeprefix(".").split(".")
                if first in module.bindings and first not in module.definitions:
                    return self._resolve(".".join([module.bindings[first], *more]))
                return name, [first, *more] if first else []
        return origin, []

    def _module(self, name: str) -> Module | None:
        if name not in self._modules:
            file = self._file(name)
            self._modules[name] = Module(name, file) if file else None
        return self._modules[name]

    def _file(self, name: str) -> Path | None:
        top, *rest = name.split(".")
        root = self._packages.get(top)
        if root is None:
            return None
        path = root.joinpath(*rest)
        files = (path, path.with_name(f"{path.name}.py"), path / "__init__.py")
        return next((file for file in files if file.suffix == ".py" and file.is_file()), None)

    @cached_property
    def _template_files(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for root in self._packages.values():
            for file in sorted(root.rglob(TEMPLATES)):
                found.setdefault(file.name, []).append(file)
        return found

    def _add_template(self, name: str, reach: Reach) -> None:
        for file in self._template_files.get(name, []):
            if str(file) not in reach.templates:
                text = reach.templates[str(file)] = file.read_text(encoding="utf-8")
                for other in _NAMED_TEMPLATE.findall(text):
                    self._add_template(other, reach)


class _Names:
    """Names in the code of a symbol, ``top`` of a module, as the source code resolves them."""

    def __init__(self, source: SourceCode, module: Module, top: str) -> None:
        statements = module.definitions[top]
        self.symbols: list[Symbol] = []
        self.libraries: set[str] = set()
        self.templates: list[str] = []
        self._origins: dict[str, str] = {}
        self._source, self._module = source, module
        self._owner = top.rpartition(".")[0]
        self._bindings = dict(module.bindings)
        for statement in statements:
            self._bindings |= module.bound_in(statement)
        words: list[str] = []
        for statement in statements:
            self._read(statement)
            spell(statement, words)
        words += [f"{word}={origin}" for word, origin in sorted(self._origins.items())]
        self.digest = blake2b(" ".join(words).encode(), digest_size=16).hexdigest()
        """Hash of the text without comments, docstrings and formatting, and of its origins."""

    def _read(self, node: ast.AST) -> None:
        if isinstance(node, BINDING) or is_text(node):
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self._read_text(node.value)
        chain = _chain(node)
        if chain:
            self._read_name(*chain)
            return
        for child in ast.iter_child_nodes(node):
            self._read(child)

    def _read_name(self, word: str, *attributes: str) -> None:
        if word in self._bindings:
            origin = self._origins[word] = self._bindings[word]
            self.symbols += self._source.find(".".join([origin, *attributes]))
            library = self._source.library(origin)
            self.libraries |= {library} if library else set()
        elif word in self._module.definitions:
            self.symbols.append((self._module.name, word))
        elif word in ("self", "cls") and attributes:
            method = f"{self._owner}.{attributes[0]}"
            if self._owner and method in self._module.definitions:
                self.symbols.append((self._module.name, method))

    def _read_text(self, text: str) -> None:
        if text.endswith(".j2"):
            self.templates.append(text)
        elif _MODULE.fullmatch(text) and self._source.is_module(text):
            self.symbols.append((text, EVERYTHING))


def _chain(node: ast.AST) -> list[str]:
    """Return the words of ``a.b.c``, and nothing for other expressions."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    return [node.id, *attributes] if isinstance(node, ast.Name) else []


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
