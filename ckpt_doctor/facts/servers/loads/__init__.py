"""The load of an adapter, followed in each server: which module of its class each pair of factors comes to.

The way is one for all: a name is stripped and renamed, the module is looked up, a part is put into its fused module,
rank, rows and experts are looked at, and what is left over is told. What differs between servers is in their files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from ..record import Server
from .load import Fate, Load

Follow = Callable[[Server, Load], Iterator[Fate]]

FOLLOWED = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llama_cpp", "transformers": "transformers"}
"""Servers whose load is followed by the model's architecture, by the name of their file here."""


def follow(server: Server, load: Load) -> tuple[Fate, ...]:
    """What becomes of the factors of an adapter in a release of a server."""
    function: Follow = import_module(f".{FOLLOWED[server.name]}", __name__).follow
    return tuple(function(server, load))


__all__ = ["FOLLOWED", "Fate", "Load", "follow"]
