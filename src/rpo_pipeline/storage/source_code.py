"""What code a function or class rests on, found in source files: nothing is imported to find out.

The unit is a definition at the top of a module: a function, a class, or an assignment. A definition
rests on what its text names: definitions of its own module and of others, followed through packages
that re-export them, and templates that it names in a text. What a text names beyond the packages
that are followed is remembered as a library.
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
    """All that some definitions rest on."""

    definitions: dict[Symbol, str] = field(default_factory=dict)
    """By symbol a hash of its code, and of where the names in it come from."""
    templates: dict[str, str] = field(default_factory=dict)
    """By path the text of each template."""
    libraries: set[str] = field(default_factory=set)
    """Packages, as they are imported, that are neither followed nor Python's own."""

    @property
    def modules(self) -> set[str]:
        """Those that something is reached in."""
        return {module for module, _ in self.definitions}


class SourceCode:
    """The source files of some packages, each read once.

    Args:
        packages: By name the folder, or the file, of each package that is followed.
    """

    def __init__(self, packages: Mapping[str, Path]) -> None:
        self._packages = dict(packages)
        self._modules: dict[str, Module | None] = {}
        self._named: dict[Symbol, _Names] = {}

    def reach(self, symbols: Iterable[Symbol], *, without: frozenset[str] = frozenset()) -> Reach:
        """Find all that some definitions rest on.

        Args:
            symbols: The definitions, which exist.
            without: Packages of ours, dotted, in which nothing is followed.

        Returns:
            The definitions themselves, and whatever they name, directly or not.
        """
        reach, waiting, seen = Reach(), list(symbols), set[Symbol]()
        while waiting:
            name, top = symbol = waiting.pop()
            module = self._module(name)
            if module is None or symbol in seen or _lies_in(name, without):
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
        """What a dotted name of ours means, through re-exports; nothing where it is a library's."""
        name, rest = self._split(origin)
        module = self._module(name)
        if module is None:
            return []
        if not rest:
            return [(name, EVERYTHING)]
        if rest[0] in module.definitions:
            return [(name, rest[0])]
        if rest[0] in module.bindings:
            return self.find(".".join([module.bindings[rest[0]], *rest[1:]]))
        return [(name, EVERYTHING)]  # made while the module runs

    def library(self, origin: str) -> str | None:
        """The package that a dotted name comes from in the end, if it is a library."""
        top = origin.partition(".")[0]
        if not self.is_followed(origin):
            return None if top in sys.stdlib_module_names else top
        name, rest = self._split(origin)
        module = self._module(name)
        if module and rest and rest[0] not in module.definitions and rest[0] in module.bindings:
            return self.library(module.bindings[rest[0]])
        return None

    def is_followed(self, origin: str) -> bool:
        """Whether a dotted name is of one of the packages."""
        return origin.partition(".")[0] in self._packages

    def is_module(self, origin: str) -> bool:
        """Whether a dotted name is a module of one of the packages, and no package itself."""
        file = self._file(origin)
        return file is not None and file.name != "__init__.py"

    def _split(self, origin: str) -> tuple[str, list[str]]:
        """The longest part of a dotted name that is a module, and what follows."""
        parts = origin.split(".")
        for length in range(len(parts), 0, -1):
            name = ".".join(parts[:length])
            if self._module(name):
                return name, parts[length:]
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
    """What the text of a symbol names.

    Args:
        source: Where the names are looked up.
        module: Of the symbol.
        top: The symbol's name in it.
    """

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
    """The words of ``a.b.c``; nothing of another expression."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    return [node.id, *attributes] if isinstance(node, ast.Name) else []


def _lies_in(module: str, packages: frozenset[str]) -> bool:
    return any(each in packages for each in _with_parents(module))


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
