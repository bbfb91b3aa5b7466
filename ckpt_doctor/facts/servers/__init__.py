"""One record a server: what it does with an adapter, field by field. It is found by the server's name."""

from __future__ import annotations

from importlib import import_module

from ...adapter.runtimes import RAN, READ
from .record import ANY, FIELDS, MISLOADS, NOTHING, REJECTS, TAKES, UNKNOWN, Outcome, Scale, Server, Table, outcome


def _record(name: str) -> Server:
    """`llama.cpp` → LLAMA_CPP of llama_cpp.py."""
    plain = name.replace(".", "_").replace("-", "_")
    server: Server = getattr(import_module(f".{plain}", __name__), plain.upper())
    return server


SERVERS = tuple(_record(name) for name in (*RAN, *READ))
"""The records of all servers that `runtimes.py` names, in its order."""

__all__ = [
    "ANY", "FIELDS", "MISLOADS", "NOTHING", "REJECTS", "SERVERS", "TAKES", "UNKNOWN", "Outcome", "Scale", "Server",
    "Table", "outcome",
]  # fmt: skip
