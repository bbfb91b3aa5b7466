"""The stage that follows an adapter into the model's own class, in servers that have a table by architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ...adapter import Base, codes
from ...adapter.findings import Code, Finding
from ...facts.methods import LORAS
from ...facts.servers.loads import FOLLOWED, Load, follow
from ...facts.servers.loads.llama_cpp import TOWERS
from ...facts.servers.loads.vllm import head
from ...facts.servers.record import MISLOADS, REJECTS, UNKNOWN, Server
from ...facts.subject import Subject
from .cause import Cause, Field

ABOUT: dict[str, Code] = {
    "model": codes.SERVER_MODEL, "module": codes.SERVER_CLASS, "place": codes.SERVER_NOT_IN_BASE,
    "group": codes.SERVER_FUSED_GROUP, "factor": codes.SERVER_FACTOR, "experts": codes.SERVER_EXPERTS,
    "tensor": codes.SERVER_TENSOR, "size": codes.SERVER_SIZE, "targets": codes.SERVER_TARGETS,
}  # fmt: skip


def followed(subject: Subject, servers: Iterable[Server]) -> list[Server]:
    """The servers into whose class for this model the adapter is followed."""
    if subject.question.base is None or subject.method not in LORAS or not subject.tensors:
        return []
    known = [server for server in servers if server.name in FOLLOWED]
    return [server for server in known if subject.method == "LORA" or server.peft]


def fates(subject: Subject, servers: Iterable[Server]) -> Iterator[Finding]:
    """What becomes of the factors in each server: one finding for each reason."""
    load = Load(subject.config, subject.tensor_shapes, subject.question.base or Base({}, {}))
    for server in servers:
        one = frozenset((server.id,))
        for fate in follow(server, load):
            keys = tuple(key for module in fate.modules if module in load.pairs for key in load.pairs[module].keys)
            yield ABOUT[fate.about](
                fate.message, tensors=keys or tuple(m for m in fate.modules if m in subject.tensors),
                rejects=one if fate.outcome == REJECTS else frozenset(),
                misloads=one if fate.outcome == MISLOADS else frozenset(),
                undecided=one if fate.outcome == UNKNOWN else frozenset(), needs=fate.needs,
                option=fate.option,
            )  # fmt: skip


_DECIDED = (
    codes.SERVER_MODEL, codes.SERVER_NOT_IN_BASE, codes.SERVER_SIZE, codes.BASE_UNSEEN, codes.SERVER_FUSED_GROUP,
    codes.SERVER_PARTIAL_TYPE,
)  # fmt: skip
TENSORS: dict[str, Callable[[str], object]] = {"vllm": head, "llama.cpp": TOWERS.search}
"""Server → which tensors that are no factor its load decides."""
_HALVES = ("A alone", "B alone", "B alone in a fused group")


def superseded(cause: Cause, server: Server) -> bool:
    """Whether what a cause asks is decided by following the load into a server."""
    if cause.code is codes.SERVER_TENSOR and server.name in TENSORS:
        return all(TENSORS[server.name](key) for key in cause.tensors)
    entries = cause.answer.entries if isinstance(cause.answer, Field) else frozenset[str]()
    if cause.code is codes.SERVER_TARGETS and server.name == "sglang":
        return isinstance(cause.answer, Field) and cause.answer.name == "target_names"
    if cause.code is codes.SERVER_KEY:
        return entries != {"other end"}
    if cause.code is codes.SERVER_FACTOR:
        return not entries.isdisjoint(_HALVES)
    return cause.code in _DECIDED or (cause.code is codes.SERVER_OPTION and cause.keys == ("target_parameters",))
