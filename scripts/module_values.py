"""Values in the body of a class: constants, and the few calls that models are described with."""

from __future__ import annotations

import ast
from typing import Any

from module_trees import Class, Instance, Source

UNREAD = "?"
"""A value that is worked out when the class is made."""


class Attributes:
    """The attributes of a class that are constants, its bases' too."""

    def __init__(self, source: Source, cls: Class) -> None:
        self.source, self.cls = source, cls

    def value(self, name: str, cls: Class | None = None) -> Any:
        """A constant, None where there is none."""
        found = self.source.attribute(cls or self.cls, name)
        if found is None or isinstance(found[1], ast.FunctionDef):
            return None
        return self.literal(found[1], found[0])

    def literal(self, node: ast.AST, cls: Class) -> Any:
        """A constant as Python has it; UNREAD for what is none."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return [self.literal(part, cls) for part in node.elts]
        if isinstance(node, ast.Dict):
            values: dict[Any, Any] = {}
            for key, value in zip(node.keys, node.values, strict=True):
                if key is None:
                    inner = self.literal(value, cls)
                    values.update(inner if isinstance(inner, dict) else {UNREAD: UNREAD})
                else:
                    values[self.literal(key, cls)] = self.literal(value, cls)
            return values
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return _joined(self.literal(node.left, cls), self.literal(node.right, cls))
        if isinstance(node, ast.Attribute):
            return self._member(node, cls)
        if isinstance(node, ast.Name):
            member = self.source.attribute(cls, node.id)
            if member and not isinstance(member[1], ast.FunctionDef) and member[1] is not node:
                return self.literal(member[1], member[0])
            at = cls.module.lookup(node.id)
            return self.literal(at[1], Class(at[0], cls.node)) if at and isinstance(at[1], ast.expr) else UNREAD
        return self._call(node, cls) if isinstance(node, ast.Call) else UNREAD

    def _member(self, node: ast.Attribute, cls: Class) -> Any:
        if not isinstance(node.value, ast.Name):
            return UNREAD
        if node.value.id in ("self", "cls"):
            return self.value(node.attr, cls)
        at = cls.module.lookup(node.value.id)
        if at is None or not isinstance(at[1], ast.ClassDef):
            return UNREAD
        return self.value(node.attr, Class(at[0], at[1]))

    def _call(self, node: ast.Call, cls: Class) -> Any:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name == "WeightsMapper":
            return {str(part.arg): self.literal(part.value, cls) for part in node.keywords}
        if name == "compile" and node.args:
            return self.literal(node.args[0], cls)
        if name in ("dict", "frozenset", "set", "list") and len(node.args) == 1:
            return self.literal(node.args[0], cls)
        return UNREAD

    def merged(self, name: str, instance: Instance) -> Any:
        """A dict of the class, with what `__init__` adds; where it has none, those of its parts."""
        whole = dict(self.value(name) or {}) if self.value(name) != UNREAD else {UNREAD: []}
        for cls in self.source.mro(self.cls):
            for node in ast.walk(cls.node):
                if not isinstance(node, ast.Assign):
                    continue
                target = node.targets[0]
                if isinstance(target, ast.Subscript) and ast.unparse(target.value) == f"self.{name}":
                    whole[self.literal(target.slice, cls)] = self.literal(node.value, cls)
                elif ast.unparse(target) == f"self.{name}":
                    inner = self.literal(node.value, cls)
                    whole.update(inner if isinstance(inner, dict) else {UNREAD: []})
        if not whole:
            for values in instance.attributes.values():
                for value in values:
                    if isinstance(value, Instance):
                        inner = self.value(name, value.cls)
                        whole.update(inner if isinstance(inner, dict) else {})
        return whole

    def renames(self, name: str) -> dict[str, Any]:
        """The parts of a WeightsMapper that rename (not those that stack or drop); UNREAD for what is added later."""
        mapper = self.value(name)
        plain: dict[str, Any] = {}
        for part, table in mapper.items() if isinstance(mapper, dict) else ():
            short = part.removeprefix("orig_to_new_")
            if short == "stacked":
                continue
            if not isinstance(table, dict):
                plain[UNREAD] = True
                continue
            kept = {str(old): new for old, new in table.items() if new is not None}
            if UNREAD in kept or UNREAD in kept.values():
                plain[UNREAD] = True
            elif kept:
                plain[short] = kept
        if mapper == UNREAD:
            plain[UNREAD] = True
        for cls in self.source.mro(self.cls):
            for node in ast.walk(cls.node):
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == f"self.{name}":
                    added = self.literal(node.value, cls)
                    text = ast.unparse(node.value)
                    if "None for" not in text and ": None" not in text and added != mapper:
                        plain[UNREAD] = True
        return plain

    def expert_names(self, instance: Instance) -> list[str]:
        """The names of gate, down and up of an expert in a file."""
        names = ["gate_proj", "down_proj", "up_proj"]
        keys = ("ckpt_gate_proj_name", "ckpt_down_proj_name", "ckpt_up_proj_name")
        for holder in [instance, *(part for _, _, part in self.source.paths(instance) if part is not None)]:
            for cls in self.source.mro(holder.cls):
                for node in ast.walk(cls.node):
                    if not isinstance(node, ast.Call):
                        continue
                    given = {part.arg: part.value for part in node.keywords}
                    if "ckpt_names" in given:
                        named = self.literal(given["ckpt_names"], cls)
                        if isinstance(named, (list, tuple)):
                            return [name for name in named if isinstance(name, str)]
                    if set(keys) & given.keys():
                        found = [self.literal(given[key], cls) if key in given else None for key in keys]
                        if all(isinstance(name, str) for name in found):
                            return [str(name) for name in found]
        return names

    def towers(self) -> dict[str, list[str]]:
        """The prefixes of the language model, the connector and the towers."""
        found = self.source.attribute(self.cls, "get_mm_mapping")
        if found is None:
            return {}
        for node in ast.walk(found[1]):
            if isinstance(node, ast.Call) and "MultiModelKeys" in ast.unparse(node.func):
                parts = {str(part.arg): self.literal(part.value, found[0]) for part in node.keywords}
                return {key: [value] if isinstance(value, str) else value or [] for key, value in parts.items()}
        return {UNREAD: []}

    def pattern(self, method: str) -> str:
        """The regex that a method matches names with."""
        found = self.source.attribute(self.cls, method)
        if found is None:
            return ""
        for node in ast.walk(found[1]):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".match", ".search", ".fullmatch")):
                name = ast.unparse(node.func).split(".")[-2]
                value = self.value(name)
                if isinstance(value, str) and value != UNREAD:
                    return value
        return UNREAD


def _joined(one: Any, other: Any) -> Any:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return UNREAD
    whole = dict(one)
    for key, value in other.items():
        both = isinstance(whole.get(key), dict) and isinstance(value, dict)
        whole[key] = {**whole[key], **value} if both else value
    return whole
