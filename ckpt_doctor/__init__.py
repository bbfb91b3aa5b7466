"""The fsck for fine-tuning adapters. What a program calls is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adapter import Adapter, AdapterError, NotExactError
    from .adapter.findings import Finding
    from .adapter.runtimes import UnknownRuntimeError
    from .api import FixResult, compare, fix, load, preload, ranks, scan, scan_tree
    from .verbs.compare import Comparison
    from .verbs.preload import AdapterRejected
    from .verbs.ranks import Ranks, Run
    from .verbs.report import Report

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "adapter", "AdapterError": "adapter", "AdapterRejected": "verbs.preload", "Comparison": "verbs.compare",
    "Finding": "adapter.findings", "FixResult": "api", "NotExactError": "adapter", "Ranks": "verbs.ranks",
    "Report": "verbs.report", "Run": "verbs.ranks",
    "UnknownRuntimeError": "adapter.runtimes", "compare": "api", "fix": "api", "load": "api", "preload": "api",
    "ranks": "api", "scan": "api", "scan_tree": "api",
}  # fmt: skip

__all__ = [
    "Adapter", "AdapterError", "AdapterRejected", "Comparison", "Finding", "FixResult", "NotExactError", "Ranks",
    "Report", "Run", "UnknownRuntimeError", "compare", "fix", "load", "preload", "ranks", "scan", "scan_tree",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
