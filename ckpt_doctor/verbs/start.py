"""How a server has to be started for several adapters at once: its options, and which adapter forces each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..adapter import codes
from ..adapter.runtimes import order
from ..facts.methods import LORAS
from ..facts.servers import SERVERS
from ..facts.servers.loads import Load, follow
from ..facts.subject import Subject
from ..rules.servers import largest_rank, needed_flag
from .report import Report

STARTED = ("vllm", "sglang")
"""The servers that have to be told at their start what adapters there will be."""


class Option(NamedTuple):
    """An option of a server with its value, "" for a flag, and the adapter that forces it."""

    name: str
    value: str
    forced_by: str


class Starts:
    """What the adapters of a run need, server by server (by its id). One that no option makes a server take is left
    out.
    """

    def __init__(self) -> None:
        self.ranks: dict[str, tuple[int, str]] = {}
        self.flags: dict[str, dict[str, str]] = {}
        self.targets: dict[str, dict[str, str]] = {}
        self.adapters: dict[str, int] = {}

    def add(self, report: Report) -> None:
        """Heed one more adapter."""
        subject = report.subject
        if subject is None or subject.method not in LORAS:
            return
        for id_ in order(report.servers):
            if id_.partition("==")[0] in STARTED:
                self._add(id_, report, subject)

    def _add(self, id_: str, report: Report, subject: Subject) -> None:
        server = next(server for server in SERVERS if server.id == id_)
        needed: dict[str, str] = {}
        base = subject.question.base
        if base is not None:
            load = Load(subject.config, subject.tensor_shapes, base)
            needed = {fate.message: fate.option for fate in follow(server, load) if fate.option}
        for finding in report.findings:
            stops = id_ in finding.rejected_by | finding.misloaded_by
            if stops and finding.message not in needed and finding.code != codes.SERVER_RANK_LIMIT.number:
                return
        self.adapters[id_] = self.adapters.get(id_, 0) + 1
        rank = largest_rank(subject)
        if rank > self.ranks.get(id_, (0, ""))[0]:
            self.ranks[id_] = rank, report.path
        for option in needed.values():
            self.flags.setdefault(id_, {}).setdefault(option, report.path)
        if server.name == "sglang":
            targets = subject.config.get("target_modules")
            for target in targets if isinstance(targets, list) else ["all"]:
                self.targets.setdefault(id_, {}).setdefault(str(target).rpartition(".")[2], report.path)

    def options(self, id_: str) -> Iterator[Option]:
        """The options of a server beside the one that turns LoRA on."""
        rank, path = self.ranks.get(id_, (0, ""))
        value = needed_flag(rank, id_) if id_.startswith("vllm") else rank
        if rank and value:
            yield Option("--max-lora-rank", str(value), path)
        for option, path in self.flags.get(id_, {}).items():
            yield Option(option, "", path)
        targets = self.targets.get(id_, {})
        for target, path in sorted(targets.items()):
            if target == "all" or "all" not in targets:
                yield Option("--lora-target-modules", target, path)

    def line(self, id_: str) -> str:
        """The options as they are typed; those of one name together."""
        words = ["--enable-lora"]
        last = ""
        for option in self.options(id_):
            words += [] if option.name == last else [option.name]
            words += [option.value] if option.value else []
            last = option.name
        return " ".join(words)
