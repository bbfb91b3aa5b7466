"""What the expressions of a source may come to, and its files by their names."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from module_trees import Source

T = TypeVar("T")


def needed(value: T | None, what: str) -> T:
    """What a checkout has to have."""
    if value is None:
        raise SystemExit(f"not found in the checkout: {what}")
    return value


class TooLarge(Exception):  # noqa: N818 - an answer: this class is not read
    """A class cannot be followed within MAX_CALLS."""


class Class(NamedTuple):
    """A class of the source."""

    module: Module
    node: ast.ClassDef

    @property
    def name(self) -> str:
        return self.node.name


class Func(NamedTuple):
    """A function or lambda, with the variables around it and the object that it is a method of."""

    module: Module
    node: ast.FunctionDef | ast.Lambda
    env: dict[str, Values]
    owner: Instance | None


class Items(NamedTuple):
    """A list, a tuple or a dict, of which only the values count."""

    values: Values


class Several(NamedTuple):
    """What a helper returns alone, or among numbers in a tuple."""

    values: Values


class Leaf(NamedTuple):
    """A module that holds weights."""

    kind: str


class Registered(NamedTuple):
    """A model that is made by the registry: of the architectures named, or of what a part of the config says."""

    architectures: tuple[str, ...]


class Const(NamedTuple):
    """A literal."""

    value: Any


class Instance:
    """An object of a class: its attributes are what `__init__` sets, whichever way it goes."""

    def __init__(self, cls: Class) -> None:
        self.cls = cls
        self.attributes: dict[str, Values] = {}

    def add(self, name: str, values: Values) -> None:
        self.attributes[name] = union(self.attributes.get(name, ()), values)


Value = Class | Func | Items | Several | Leaf | Registered | Const | Instance
Values = tuple[Value, ...]


def union(*several: Iterable[Value]) -> Values:
    """All values, each once."""
    known: list[Value] = []
    for values in several:
        for value in values:
            if not any(value is other or (type(value) is type(other) and _same(value, other)) for other in known):
                known.append(value)
    return tuple(known)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (Leaf, Registered, Class)):
        return bool(one == other)
    return isinstance(one, Const) and repr(one) == repr(other)


class Module:
    """A file of Python, and the names at its top."""

    def __init__(self, source: Source, name: str, path: str) -> None:
        self.source, self.name, self.path = source, name, path

    @cached_property
    def tree(self) -> ast.Module:
        with open(self.path, encoding="utf-8") as file:
            return ast.parse(file.read())

    @cached_property
    def names(self) -> dict[str, ast.AST]:
        found: dict[str, ast.AST] = {}
        for node in _statements(self.tree.body):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found[node.name] = node
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                found.update({alias.asname or alias.name.partition(".")[0]: node for alias in node.names})
            elif isinstance(node, ast.Assign):
                found.update({target.id: node.value for target in node.targets if isinstance(target, ast.Name)})
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                found[node.target.id] = node.value
        return found

    def literal(self, name: str) -> Any:
        """The value of a name at the top of the file, which has to be a literal."""
        node = needed(self.names.get(name), name)
        return ast.literal_eval(node) if isinstance(node, ast.expr) else None

    def imported(self, node: ast.Import | ast.ImportFrom, name: str) -> tuple[Module | None, str]:
        """Where an imported name comes from: the module, None outside the source, and its name there."""
        alias = next(alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) == name)
        if isinstance(node, ast.Import):
            return None, alias.name
        parts = self.name.split(".")
        if not self.path.endswith("__init__.py"):
            parts = parts[:-1]
        if node.level:
            parts = parts[: len(parts) - node.level + 1]
            target = ".".join([*parts, *(node.module or "").split(".")]).rstrip(".")
        else:
            target = node.module or ""
        inner = self.source.module(f"{target}.{alias.name}")
        return (inner, "") if inner else (self.source.module(target), alias.name)

    def lookup(self, name: str, seen: frozenset[str] = frozenset()) -> tuple[Module, ast.AST] | None:
        """The definition of a name at the top of the file, through imports."""
        node = self.names.get(name)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module, other = self.imported(node, name)
            key = f"{module.name if module else ''}:{other}"
            return module.lookup(other, seen | {key}) if module and other and key not in seen else None
        return (self, node) if node is not None else None


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, those in branches too."""
    for node in body:
        yield node
        for inner in (getattr(node, name, []) for name in ("body", "orelse", "finalbody")):
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) and isinstance(inner, list):
                yield from _statements(inner)
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)
