"""Finds the definitions of one source file without importing it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EFFECTS = ""
"""Name of a module's statements that define nothing, such as a call, but have an effect."""
BINDING = ast.Import | ast.ImportFrom
_SCOPE = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_OWN_NAMES = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda


class Module:
    """Definitions and imports of the source file of a module with a dotted name."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.is_package = file.name == "__init__.py"
        self._package = name if self.is_package else name.rpartition(".")[0]
        self.bindings: dict[str, str] = {}
        self.definitions: dict[str, list[ast.stmt]] = {EFFECTS: []}
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            self._take(statement)

    def _take(self, statement: ast.stmt) -> None:
        if is_text(statement):
            return
        if not isinstance(statement, _SCOPE):  # an import under `if` or `try` counts as well
            self.bindings |= self.bound_in(statement)
        for name in sorted(_defined(statement)) or [EFFECTS]:
            self.definitions.setdefault(name, []).append(statement)
        if isinstance(statement, ast.ClassDef):
            for method in statement.body:
                if isinstance(method, ast.FunctionDef):
                    self.definitions[f"{statement.name}.{method.name}"] = [method]

    def bound_in(self, statement: ast.stmt) -> dict[str, str]:
        """Find the imports inside a statement: dotted origin by name."""
        found: dict[str, str] = {}
        for node in ast.walk(statement):
            if isinstance(node, BINDING):
                found |= self._bound(node)
        return found

    def _bound(self, statement: ast.Import | ast.ImportFrom) -> dict[str, str]:
        if isinstance(statement, ast.Import):
            return {
                each.asname or each.name.partition(".")[0]: (
                    each.name if each.asname else each.name.partition(".")[0]
                )
                for each in statement.names
            }
        origin = statement.module or ""
        if statement.level:
            parents = self._package.split(".")
            base = ".".join(parents[: len(parents) + 1 - statement.level])
            origin = f"{base}.{origin}".strip(".")
        return {each.asname or each.name: f"{origin}.{each.name}" for each in statement.names}


def _defined(node: ast.AST) -> Iterator[str]:
    """Yield names that a statement at the top of a module defines, other than by import."""
    if isinstance(node, _SCOPE):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, _OWN_NAMES):
        for child in ast.iter_child_nodes(node):
            yield from _defined(child)


def is_text(node: ast.AST) -> bool:
    """Tell whether a node is a docstring of a module, class, function or field."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def spell(part: Any, words: list[str]) -> None:  # noqa: ANN401 (a node, a list or a constant)
    """Write a syntax tree as words that are equal in all versions of Python that parse it alike."""
    if isinstance(part, list):
        words.append("[")
        for each in part:
            spell(each, words)
        words.append("]")
    elif not isinstance(part, ast.AST):
        words.append(repr(part))
    elif not (isinstance(part, BINDING) or is_text(part)):
        words.append(type(part).__name__)
        for name in part._fields:
            value = getattr(part, name, None)
            if value is not None and value != [] and name not in ("ctx", "kind", "type_comment"):
                words.append(name)
                spell(value, words)
