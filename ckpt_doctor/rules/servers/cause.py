"""A cause: what an adapter has that a server has to take, and what its record makes of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ...adapter import Adapter
from ...facts.servers import MISLOADS, REJECTS, SERVERS, TAKES, UNKNOWN, Outcome, Server, outcome
from ...findings import Code
from ...layers import Layer

Answer = Callable[[Server], Outcome]
Layers = dict[str, Layer]


class Cause(NamedTuple):
    """What an adapter has that a server has to take, and what a server makes of it.

    `needs` is what would decide it where it is undecided.
    """

    code: Code
    message: str
    answer: Answer
    tensors: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    needs: str = "a load in that runtime"


Stage = Callable[[Adapter, Layers], Iterable[Cause]]


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The gravest of several outcomes of one load."""
    return min(outcomes, key=(REJECTS, MISLOADS, UNKNOWN, TAKES).index, default=TAKES)


def of(field: str, *entries: str) -> Answer:
    """What a field says, or the gravest that its table says of several entries."""

    def answer(server: Server) -> Outcome:
        value: Any = getattr(server, field)
        return worst(outcome(value, entry) for entry in entries) if entries else value

    return answer


def alike(field: str, entries: Iterable[str]) -> Iterator[list[str]]:
    """Entries of a table in groups of which every server makes the same."""
    groups: dict[tuple[Outcome, ...], list[str]] = {}
    for entry in dict.fromkeys(entries):
        groups.setdefault(tuple(outcome(getattr(server, field), entry) for server in SERVERS), []).append(entry)
    yield from groups.values()
