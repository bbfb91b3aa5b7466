"""A cause: what an adapter has that a server has to take, and what its record makes of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ...adapter.findings import Code
from ...facts.servers import SERVERS
from ...facts.servers.record import ANY, MISLOADS, REJECTS, TAKES, UNKNOWN, Outcome, Server, Table, outcome
from ...facts.subject import Subject

Answer = Callable[[Server], Outcome]


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The gravest of several outcomes of one load."""
    return min(outcomes, key=(REJECTS, MISLOADS, UNKNOWN, TAKES).index, default=TAKES)


class Field:
    """The answer that a field gives: what it says, or the gravest that its table says of several entries."""

    def __init__(self, name: str, *entries: str) -> None:
        self.name, self.entries = name, frozenset(entries)

    def __call__(self, server: Server) -> Outcome:
        value: Any = getattr(server, self.name)
        if not self.entries:
            answer: Outcome = value
            return answer
        # A table has a word of its own for few; of the hundred thousand that an adapter may name it says one thing.
        named = self.entries & value.keys()
        return worst(outcome(value, entry) for entry in (*named, *[ANY] * (len(named) < len(self.entries))))


class Cause(NamedTuple):
    """What an adapter has that a server has to take, and what a server makes of it.

    `needs` is what would decide it where it is undecided; `about` is the field that has a server's own words for it,
    where `answer` is no field. `option` is that of the servers that makes them take it, `remedy` what can be done by
    hand.
    """

    code: Code
    message: str
    answer: Answer
    tensors: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    needs: str = "a load in that runtime"
    about: str = ""
    option: str = ""
    remedy: str = ""

    def words(self, server: Server) -> str:
        """What a server says as it rejects this, or nothing."""
        field = self.answer.name if isinstance(self.answer, Field) else self.about
        words = server.says.get(field)
        return f' ({server.name} says "{words}")' if words else ""


Stage = Callable[[Subject], Iterable[Cause]]


def alike(field: str, entries: Iterable[str]) -> Iterator[list[str]]:
    """Entries of a table in groups of which every server makes the same."""
    tables: list[Table] = [getattr(server, field) for server in SERVERS]
    named = {name for table in tables for name in table}
    others = tuple(outcome(table, ANY) for table in tables)
    groups: dict[tuple[Outcome, ...], list[str]] = {}
    for entry in dict.fromkeys(entries):
        made = tuple(outcome(table, entry) for table in tables) if entry in named else others
        groups.setdefault(made, []).append(entry)
    yield from groups.values()
