"""How a server has to be started for several adapters at once: its options, which adapter forces each, and what the
adapters do to each other there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..adapter import Base, codes
from ..adapter.runtimes import order, specs
from ..facts.servers.loads import Load
from ..facts.servers.loads.sglang import MODULES, modules
from ..facts.servers.loads.vllm_experts import MIXED
from ..facts.subject import Subject
from ..rules.servers import largest_rank, needed_flag
from .report import Report

STARTED = ("vllm", "sglang")
"""The servers that have to be told at their start what adapters there will be."""
RANK = "--max-lora-rank"
EMBEDDINGS = ("embed_tokens", "lm_head")


class Option(NamedTuple):
    """An option of a server with its value, "" for a flag, and the adapter that forces it."""

    name: str
    value: str
    forced_by: str


class Start:
    """The start of a server for the adapters of one model that it then takes: how many, and what each needs."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.server = id_.partition("==")[0]
        self.adapters = 0
        self.rank = 0, ""
        self.flags: dict[str, str] = {}
        self.targets: dict[str, str] = {}
        self.embeddings: dict[str, frozenset[str]] = {}
        self.parameters: list[str] = []

    def add(self, path: str, subject: Subject, base: Base, flags: list[str]) -> None:
        """Heed one more adapter, which the server takes with some flags."""
        self.adapters += 1
        self.rank = max(self.rank, (largest_rank(subject), path), key=lambda pair: pair[0])
        for flag in flags:
            self.flags.setdefault(flag, path)
        if MIXED in flags:
            self.parameters.append(path)
        if self.server == "sglang":
            load = Load(subject.config, subject.tensor_shapes, base)
            for target in modules(load):
                self.targets.setdefault(target, path)
            self.embeddings[path] = frozenset(
                name for name in EMBEDDINGS if any(f".{module}".endswith(f".{name}") for module in load.pairs)
            )

    def options(self) -> Iterator[Option]:
        """The options beside the one that turns LoRA on."""
        rank, path = self.rank
        if rank:
            yield Option(RANK, str(needed_flag(rank, self.id) if self.server == "vllm" else rank), path)
        for flag, path in self.flags.items():
            yield Option(flag, "", path)
        for target, path in sorted(self.targets.items()):
            if target == "all" or "all" not in self.targets:
                yield Option(MODULES, target, path)

    @property
    def line(self) -> str:
        """The options as they are typed; those of one name together."""
        words = ["--enable-lora"]
        last = ""
        for option in self.options():
            words += [] if option.name == last else [option.name]
            words += [option.value] if option.value else []
            last = option.name
        return " ".join(words)

    def together(self) -> Iterator[str]:
        """What matters where one server has all of these adapters, beside its options.

        SGLang zeroes what a slot has of the embedding and the head only for an adapter with neither (mem_pool.py:
        load_lora_weight_to_buffer); unloading clears a slot, eviction does not.
        """
        for path in self.parameters:
            yield f"{path} has its experts as parameters: name it in JSON, with is_3d_lora_weight, in --lora-modules"
        every = frozenset[str]().union(*self.embeddings.values())
        for path, names in self.embeddings.items():
            if names and names != every:
                (mine,), (other,) = names, every - names
                yield (
                    f"{path} has LoRA on {mine} and not on {other}: in the slot of an adapter that was evicted it "
                    f"keeps what that one had on {other}; with --max-loras-per-batch {self.adapters + 1} or more none "
                    "is evicted"
                )


class Starts:
    """The starts of a run, by the id of a server, and by model where there are several."""

    def __init__(self) -> None:
        self._starts: dict[tuple[str, str], Start] = {}

    def add(self, report: Report) -> None:
        """Heed one more adapter, for each server that was asked for and that options make take it."""
        subject = report.subject
        base = subject.question.base if subject else None
        if subject is None or base is None:
            return
        for id_ in order(report.servers):
            flags = needed_flags(report, id_) if id_.partition("==")[0] in STARTED else None
            if flags is not None:
                start = self._starts.setdefault((id_, base.name or base.path), Start(id_))
                start.add(report.path, subject, base, flags)

    def named(self) -> dict[str, Start]:
        """`vllm` → its start; `vllm of owner/model` where a server's adapters are of several models."""
        servers = [id_ for id_, _ in self._starts]
        names = {id_: specs((id_,))[0] for id_ in servers}
        return {
            names[id_] if servers.count(id_) == 1 else f"{names[id_]} of {base}": start
            for (id_, base), start in self._starts.items()
        }


def needed_flags(report: Report, id_: str) -> list[str] | None:
    """The flags with which a server takes an adapter; None where none do, or nothing tells."""
    flags = list[str]()
    for finding in report.findings:
        if id_ not in finding.rejected_by | finding.misloaded_by | finding.undecided_for:
            continue
        if finding.code == codes.SERVER_RANK_LIMIT.number or finding.option.startswith(MODULES):
            continue
        if not finding.option:
            return None
        flags.append(finding.option)
    subject = report.subject
    vllm = id_.startswith("vllm==")
    if vllm and subject is not None and needed_flag(largest_rank(subject), id_) is None:
        return None
    return flags
