"""Stand-ins for packages that need a GPU, or that no load of an adapter asks: modules whose every name is an empty class."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import MutableSequence, Sequence
from typing import Any, ClassVar


class _Empty(type):
    """A class that has each attribute, is a decorator, a generic and part of a union."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _empty(name)

    def __or__(cls, other: Any) -> Any:
        return cls

    def __ror__(cls, other: Any) -> Any:
        return cls

    def __iter__(cls) -> Any:
        return iter(())

    def __getitem__(cls, item: Any) -> Any:
        return cls


def _made(*_: Any, **__: Any) -> None:
    """What any class here takes when it is made."""


def _called(_: Any, *arguments: Any, **__: Any) -> Any:
    return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else None


def _empty(name: str) -> Any:
    return _Empty(name, (), {"__init__": _made, "__call__": _called})


class _Module(types.ModuleType):
    __version__ = "0"
    __path__: ClassVar[MutableSequence[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, _empty(name))
        return vars(self)[name]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, *_: Any) -> Any:
        if fullname.partition(".")[0] in self.packages:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is in it until it is asked for."""


def stand_in_for(*packages: str) -> None:
    """From here on, importing one of `packages` or of what is below gives an empty module."""
    sys.meta_path.insert(0, _Finder(packages))
