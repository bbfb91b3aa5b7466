"""One record a server: what it does with an adapter, field by field. It is found by the server's name."""

from __future__ import annotations

from importlib import import_module

from ...adapter.runtimes import NAMED
from .record import ANY, FIELDS, MISLOADS, NOTHING, REJECTS, TAKES, UNKNOWN, Outcome, Scale, Server, Table, outcome


def _records(name: str) -> tuple[Server, ...]:
    """`llama.cpp` → LLAMA_CPP of llama_cpp.py, and what OLDER has there, if there is one."""
    plain = name.replace(".", "_").replace("-", "_")
    module = import_module(f".{plain}", __name__)
    return (getattr(module, plain.upper()), *getattr(module, "OLDER", ()))


SERVERS = tuple(server for name in NAMED for server in _records(name))
"""The records of all servers that `runtimes.py` names, in its order, each with its older releases behind it."""

__all__ = [
    "ANY", "FIELDS", "MISLOADS", "NOTHING", "REJECTS", "SERVERS", "TAKES", "UNKNOWN", "Outcome", "Scale", "Server",
    "Table", "outcome",
]  # fmt: skip
