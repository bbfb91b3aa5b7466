"""Which modules a class of a model has, from its source alone: `__init__` is followed, both ways at every condition.

Nothing is imported or run. What cannot be followed is left out, so that a module which is not found is unknown.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator

from source_values import (
    Class,
    Const,
    Func,
    Instance,
    Items,
    Leaf,
    Module,
    Registered,
    Several,
    TooLarge,
    Value,
    Values,
    needed,
    union,
)  # fmt: skip

__all__ = [
    "Class", "Const", "Instance", "Items", "Leaf", "Maker", "Module", "Registered", "Several", "Source", "TooLarge",
    "Value", "Values", "needed", "union",
]  # fmt: skip

MAX_DEPTH = 60
"""Of calls within calls; a model that nests deeper is cut off."""
MAX_CALLS = 20_000
"""For one model."""


class Source:
    """A package's source: `kind` names the leaf that a class is, from its name and those of its bases; `made` what a
    call of a function outside the models comes to, by its name.
    """

    def __init__(
        self, root: str, kind: Callable[[list[str]], str | None], made: Callable[[str, Maker, ast.Call], Values | None]
    ) -> None:
        self.root, self.kind, self.made = root, kind, made
        self._modules: dict[str, Module | None] = {}
        self.calls = 0

    def module(self, name: str) -> Module | None:
        """The module of a dotted name, None outside the source."""
        if name not in self._modules:
            path = os.path.join(self.root, *name.split("."))
            files = [file for file in (f"{path}.py", os.path.join(path, "__init__.py")) if os.path.isfile(file)]
            self._modules[name] = Module(self, name, files[0]) if files else None
        return self._modules[name]

    def find(self, module: str, name: str) -> Class | None:
        """A class by its module and name."""
        at = self.module(module)
        found = at.lookup(name) if at else None
        return Class(found[0], found[1]) if found and isinstance(found[1], ast.ClassDef) else None

    def bases(self, cls: Class) -> list[Class | str]:
        """The direct bases, as a name where they are outside the source."""
        found: list[Class | str] = []
        for base in cls.node.bases:
            base = base.value if isinstance(base, ast.Subscript) else base
            text = ast.unparse(base)
            at = cls.module.lookup(text) if isinstance(base, ast.Name) else None
            if at is None and isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
                node = cls.module.names.get(base.value.id)
                inner = cls.module.imported(node, base.value.id)[0] if isinstance(node, ast.ImportFrom) else None
                at = inner.lookup(base.attr) if inner else None
            found.append(Class(at[0], at[1]) if at and isinstance(at[1], ast.ClassDef) else text.rpartition(".")[2])
        return found

    def mro(self, cls: Class) -> list[Class]:
        """The class and its bases within the source, nearest first."""
        order = [cls]
        for base in self.bases(cls):
            if isinstance(base, Class) and base.node is not cls.node:
                order += [other for other in self.mro(base) if all(other.node is not known.node for known in order)]
        return order

    def names(self, cls: Class) -> list[str]:
        """The names of a class and of all its bases."""
        names = [cls.name]
        for base in self.bases(cls):
            names += self.names(base) if isinstance(base, Class) and base.node is not cls.node else [str(base)]
        return names

    def attribute(self, cls: Class, name: str) -> tuple[Class, ast.AST] | None:
        """A method or a value in the body of a class, of it or of a base, with the class that has it."""
        for owner in self.mro(cls):
            for node in owner.node.body:
                if isinstance(node, ast.FunctionDef) and node.name == name:
                    return owner, node
                if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                    return owner, node.value
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                    return (owner, node.value) if node.value else None
        return None

    def instance(self, cls: Class, named: dict[str, Values] | None = None, depth: int = 0) -> Instance:
        """An object of a class. Raises TooLarge."""
        self.calls = 0
        made = Instance(cls)
        found = self.attribute(cls, "__init__")
        if found and isinstance(found[1], ast.FunctionDef) and depth < MAX_DEPTH:
            function = Func(found[0].module, found[1], {}, made)
            Maker(self, found[0], depth + 1).run(function, [], named or {})
        return made

    def paths(self, value: Instance, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str, Instance | None]]:
        """The modules below an object: path, kind of leaf (or "@" and the architectures of a registered model)."""
        self.calls += 1
        if self.calls > 2 * MAX_CALLS:
            raise TooLarge
        for name, values in value.attributes.items():
            yield from self._below(values, f"{prefix}{name}", depth)

    def _below(self, values: Values, path: str, depth: int) -> Iterator[tuple[str, str, Instance | None]]:
        for value in values if depth < 20 else ():
            if isinstance(value, Leaf):
                yield path, value.kind, None
            elif isinstance(value, Several):
                yield from self._below(value.values, path, depth)
            elif isinstance(value, Registered):
                yield path, "@" + ",".join(value.architectures), None
            elif isinstance(value, Instance):
                yield path, "", value
                yield from self.paths(value, f"{path}.", depth + 1)
            elif isinstance(value, Items):
                yield from self._below(value.values, f"{path}.#", depth + 1)


class Maker:
    """Follows functions: `cls` is the class whose code it is, for `super()`."""

    def __init__(self, source: Source, cls: Class | None, depth: int) -> None:
        self.source, self.cls, self.depth = source, cls, depth
        self.module: Module
        self.env: dict[str, Values] = {}
        self.self_: Instance | None = None
        self.returned: Values = ()

    def run(self, function: Func, args: list[Values], named: dict[str, Values]) -> Values:
        """What a function returns; what it sets on `self` is kept there."""
        self.source.calls += 1
        if self.source.calls > MAX_CALLS:
            raise TooLarge
        self.module, self.self_, self.env = function.module, function.owner, dict(function.env)
        node = function.node
        spec = node.args
        positional = [arg.arg for arg in (*spec.posonlyargs, *spec.args)]
        if function.owner is not None and positional and isinstance(node, ast.FunctionDef):
            self.env[positional.pop(0)] = (function.owner,)
        defaults = zip(reversed([*spec.posonlyargs, *spec.args]), reversed(spec.defaults), strict=False)
        for arg, default in (*defaults, *zip(spec.kwonlyargs, spec.kw_defaults, strict=True)):
            self.env[arg.arg] = self.value(default) if default is not None else ()
        self.env.update(zip(positional, args, strict=False))
        known = {*positional, *(arg.arg for arg in spec.kwonlyargs)}
        self.env.update({name: values for name, values in named.items() if name in known})
        if spec.kwarg:
            extra = {name: values for name, values in named.items() if name not in known}
            self.env["**" + spec.kwarg.arg] = tuple(Const((name, values)) for name, values in extra.items())
        if isinstance(node, ast.Lambda):
            return self.value(node.body)
        self.body(node.body)
        return self.returned

    def body(self, statements: Iterable[ast.stmt]) -> None:
        for node in statements:
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef):
            self.env[node.name] = (Func(self.module, node, self.env, None),)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            values = self.value(node.value)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self.assign(target, values)
        elif isinstance(node, ast.Return) and node.value is not None:
            self.returned = union(self.returned, self.value(node.value))
        elif isinstance(node, ast.Expr):
            self.value(node.value)
        elif isinstance(node, ast.For):
            self.assign(node.target, ())
            self.body(node.body)
        elif isinstance(node, (ast.If, ast.With, ast.While, ast.Try)):
            self.body(node.body)
            self.body(getattr(node, "orelse", []))
            self.body(getattr(node, "finalbody", []))

    def assign(self, target: ast.expr, values: Values) -> None:
        if not isinstance(target, ast.Tuple):
            values = union(*((value.values if isinstance(value, Several) else (value,)) for value in values))
        if isinstance(target, ast.Name):
            self.env[target.id] = union(self.env.get(target.id, ()), values)
        elif isinstance(target, ast.Attribute):
            for owner in self.value(target.value):
                if isinstance(owner, Instance):
                    owner.add(target.attr, values)
        elif isinstance(target, ast.Tuple):
            inner = union(*(value.values for value in values if isinstance(value, (Items, Several))))
            modules = tuple(value for value in inner if not isinstance(value, Const))
            for part in target.elts:
                self.assign(part, modules if isinstance(part, (ast.Attribute, ast.Name)) else ())

    def value(self, node: ast.expr) -> Values:
        """All that an expression may come to."""
        if self.depth > MAX_DEPTH:
            return ()
        if isinstance(node, ast.Constant):
            return (Const(node.value),)
        if isinstance(node, ast.Name):
            return self.named(node.id)
        if isinstance(node, ast.IfExp):
            return union(self.value(node.body), self.value(node.orelse))
        if isinstance(node, ast.BoolOp):
            return union(*map(self.value, node.values))
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return (Items(union(*map(self.value, node.elts))),)
        if isinstance(node, ast.Dict):
            return (Items(union(*map(self.value, node.values))),)
        if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
            for part in node.generators:
                self.assign(part.target, ())
            return (Items(self.value(node.elt)),)
        if isinstance(node, ast.Starred):
            return union(*(value.values for value in self.value(node.value) if isinstance(value, Items)))
        if isinstance(node, ast.Lambda):
            return (Func(self.module, node, self.env, self.self_),)
        if isinstance(node, ast.Subscript):
            return union(*(value.values for value in self.value(node.value) if isinstance(value, Items)))
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        return self.call(node) if isinstance(node, ast.Call) else ()

    def named(self, name: str) -> Values:
        if name in self.env:
            return self.env[name]
        return self.at(self.module.lookup(name))

    def at(self, found: tuple[Module, ast.AST] | None) -> Values:
        if found is None:
            return ()
        module, node = found
        if isinstance(node, ast.ClassDef):
            return (Class(module, node),)
        if isinstance(node, ast.FunctionDef):
            return (Func(module, node, {}, None),)
        if isinstance(node, ast.expr):
            inner = Maker(self.source, None, self.depth + 1)
            inner.module = module
            return inner.value(node)
        return ()

    def attribute(self, node: ast.Attribute) -> Values:
        if isinstance(node.value, ast.Name) and node.value.id not in self.env:
            top = self.module.names.get(node.value.id)
            if isinstance(top, ast.ImportFrom):
                inner, name = self.module.imported(top, node.value.id)
                if inner and not name:
                    return self.at(inner.lookup(node.attr))
        found: list[Values] = []
        for value in self.value(node.value):
            if isinstance(value, Instance):
                found.append(value.attributes.get(node.attr, ()))
            cls = value.cls if isinstance(value, Instance) else value if isinstance(value, Class) else None
            member = self.source.attribute(cls, node.attr) if cls else None
            if member and isinstance(member[1], ast.FunctionDef):
                owner = value if isinstance(value, Instance) else None
                found.append((Func(member[0].module, member[1], {}, owner),))
            elif member and isinstance(member[1], ast.expr):
                found.append(self.at((member[0].module, member[1])))
        return union(*found)

    def call(self, node: ast.Call) -> Values:
        text = ast.unparse(node.func)
        if text == "super":
            return ()
        made = self.source.made(text.rpartition(".")[2], self, node)
        if made is not None:
            return made
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords if keyword.arg}
        for keyword in node.keywords:
            if keyword.arg is None and isinstance(keyword.value, ast.Name):
                extra = self.env.get("**" + keyword.value.id, ())
                named.update(dict(value.value for value in extra if isinstance(value, Const)))
        args = [self.value(arg) for arg in node.args]
        if text.startswith("super().") and self.cls and self.self_:
            return self.inherited(text.removeprefix("super()."), args, named)
        return union(*(self.made(value, args, named) for value in self.value(node.func)))

    def inherited(self, name: str, args: list[Values], named: dict[str, Values]) -> Values:
        order = self.source.mro(needed(self.self_, name).cls)
        at = next((i for i, cls in enumerate(order) if self.cls and cls.node is self.cls.node), len(order))
        for cls in order[at + 1 :]:
            for node in cls.node.body:
                if isinstance(node, ast.FunctionDef) and node.name == name:
                    function = Func(cls.module, node, {}, self.self_)
                    return Maker(self.source, cls, self.depth + 1).run(function, args, named)
        return ()

    def made(self, value: Value, args: list[Values], named: dict[str, Values]) -> Values:
        """What a call of a value comes to."""
        if isinstance(value, Class):
            kind = self.source.kind(self.source.names(value))
            if kind is not None:
                return (Leaf(kind),) if kind else ()
            found = self.source.attribute(value, "__init__")
            instance = Instance(value)
            if found and isinstance(found[1], ast.FunctionDef) and self.depth < MAX_DEPTH:
                Maker(self.source, found[0], self.depth + 1).run(
                    Func(found[0].module, found[1], {}, instance), args, named
                )
            return (instance,)
        if isinstance(value, Func) and self.depth < MAX_DEPTH:
            cls = value.owner.cls if value.owner else None
            owner = next(
                (c for c in self.source.mro(cls) if value.node in c.node.body), cls
            ) if cls else None  # fmt: skip
            return Maker(self.source, owner, self.depth + 1).run(value, args, named)
        return (value,) if isinstance(value, Leaf) else ()  # a helper chose its class: get_moe_impl_class(…)(…)
