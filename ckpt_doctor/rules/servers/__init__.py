"""Rules about what serving runtimes make of an adapter. Imported only where one is asked for.

An adapter is followed through the stages of a load; each stage says what there is that a server has to take, and every
server's record (`facts/servers/`) what it makes of that. Where a record has no answer, it is undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...adapter.findings import Finding
from ...facts.servers import SERVERS
from ...facts.servers.record import MISLOADS, REJECTS, TAKES, UNKNOWN, Outcome, Server
from ...facts.subject import Subject
from .blocks import first_block
from .cause import Stage
from .config import config, files, method, options, targets
from .follow import fates, followed, superseded
from .ranks import largest_rank, limits, needed_flag, scale
from .tensors import base, factors, grouping, keys, siblings, tensors

STAGES: tuple[Stage, ...] = (
    files, config, method, options, scale, targets, grouping, keys, factors, tensors, limits, base,
)  # fmt: skip
"""The stages of a load, in their order."""


def judge(subject: Subject, servers: Iterable[Server] = SERVERS) -> Iterator[Finding]:
    """All findings about servers."""
    servers = tuple(servers)
    first = first_block(subject)
    if first is None or any(_judged(first, servers)):
        yield from _judged(subject, servers)


def _judged(subject: Subject, servers: tuple[Server, ...]) -> Iterator[Finding]:
    into = followed(subject, servers)
    for stage in STAGES:
        yield from findings(stage, subject, servers, into)
    if into:
        yield from fates(subject, into)


def findings(
    stage: Stage, subject: Subject, servers: Iterable[Server] = SERVERS, into: Iterable[Server] = ()
) -> Iterator[Finding]:  # fmt: skip
    """The findings of one stage: one for each cause that not every server takes.

    `into` are the servers that the load is followed into, which decides some causes by itself.
    """
    deciding = {server.id for server in into}
    for cause in stage(subject):
        words = ""
        made: dict[Outcome, set[str]] = {REJECTS: set(), MISLOADS: set(), UNKNOWN: set(), TAKES: set()}
        for server in servers:
            if server.id in deciding and superseded(cause, server):
                continue
            made[answer := cause.answer(server)].add(server.id)
            if answer == REJECTS:
                words = words or cause.words(server)
        rejects, misloads, undecided = (frozenset(made[kind]) for kind in (REJECTS, MISLOADS, UNKNOWN))
        if rejects | misloads | undecided:
            yield cause.code(
                cause.message + words, tensors=cause.tensors, keys=cause.keys, rejects=rejects, misloads=misloads,
                undecided=undecided, needs=cause.needs if undecided else None, option=cause.option, remedy=cause.remedy,
            )  # fmt: skip


__all__ = ["SERVERS", "STAGES", "fates", "findings", "followed", "judge", "largest_rank", "needed_flag", "siblings"]
