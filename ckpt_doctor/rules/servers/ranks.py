"""Stages of a load that go by ranks: the scale, and the limit that a server was started with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...adapter import Layer, codes
from ...adapter.findings import counted, several
from ...adapter.runtimes import RAN
from ...facts.names import pattern_value
from ...facts.servers import SERVERS
from ...facts.servers.record import MISLOADS, TAKES, UNKNOWN, Outcome, Scale, Server
from ...facts.subject import Subject
from .cause import Cause, Field, alike, worst


class _Row(NamedTuple):
    """What the scale of a layer hangs on: the rank of its tensors, the config's for all and for it, alpha for all and
    for it; and the scale that is meant.
    """

    rank: int
    r: int
    declared: int
    alpha: float
    own_alpha: float
    scaling: float


def scale(subject: Subject) -> Iterator[Cause]:
    """The scale that a server takes against the true one, and the ranks, which should be the config's."""
    values = subject.config
    r, alpha = values.get("r", 8), values.get("lora_alpha", 8)
    if subject.method != "LORA" or type(r) is not int or not isinstance(alpha, (int, float)):
        return
    if not 0 < r < 1e300 or not abs(alpha) < 1e300:  # CD102 and CD306 say so
        return
    declared = {module: pattern_value(values.get("rank_pattern"), module, r) for module in subject.layers}
    ranked = {module: layer for module, layer in _modules(subject).items() if layer.rank}
    rows = {
        _Row(rank, r, declared[module], alpha, pattern_value(values.get("alpha_pattern"), module, alpha), true)
        for module, layer in _modules(subject).items()
        if (rank := layer.rank) and rank == declared[module] and (true := layer.scaling) is not None
    }  # fmt: skip
    root = values.get("use_rslora") is True

    def of_scale(server: Server) -> Outcome:
        formula = server.scale
        if formula is None:
            return UNKNOWN
        mismatch = any(abs(_taken(formula, row, root) - row.scaling) > 1e-6 * abs(row.scaling) for row in rows)
        return MISLOADS if mismatch else TAKES

    if rows:
        options = tuple(key for key in ("use_rslora", "alpha_pattern", "rank_pattern") if values.get(key))
        scales = several([f"{value:g}" for value in sorted({row.scaling for row in rows})])
        message = f"the scale is {scales}" + (f", by {' and '.join(options)}" if options else "")
        yield Cause(codes.SERVER_SCALE, message, of_scale, keys=options)
    for group in alike("ranks", (str(layer.rank) for layer in ranked.values())):
        message = f"the rank is {several(group)}"
        yield Cause(
            codes.SERVER_SCALE, message, Field("ranks", *group), keys=("r",), needs="a load, where it is padded"
        )
    uneven = [module for module, layer in ranked.items() if layer.rank != r]
    undeclared = [module for module, layer in ranked.items() if layer.rank != declared[module]]
    if uneven or undeclared:
        where = uneven or undeclared
        said = "the config has no r (PEFT takes 8), and" if "r" not in values else f"r is {r}, and"
        have = "has" if len(where) == 1 else "have"
        count = f"{counted(len(where), 'layer')} of {len(subject.layers)}"
        message = f"{said} {count} {have} another rank: {several(where)}"

        def of_ranks(server: Server) -> Outcome:
            even: Outcome = UNKNOWN if undeclared else TAKES
            return worst((even, server.uneven_ranks)) if uneven else even

        tensors = subject.keys_of(uneven or undeclared)
        needs = "what scale was meant" if undeclared else "a load in that runtime"
        yield Cause(codes.SERVER_UNEVEN_RANK, message, of_ranks, tensors, ("r", "rank_pattern"), needs)


def _modules(subject: Subject) -> Mapping[str, Layer]:
    """The layers without the parameters of experts, whose factors have the ranks of all of them in a row."""
    if not subject.config.get("target_parameters"):
        return subject.layers
    ends = (".experts", ".base_layer")
    return {module: layer for module, layer in subject.layers.items() if not module.endswith(ends)}


def _taken(formula: Scale, row: _Row, root: bool) -> float:
    """The scale of a layer by a server's formula; with `root`, use_rslora is set."""
    alpha = row.own_alpha if "alpha_pattern" in formula.reads else row.alpha
    rank = row.rank
    if formula.rank == "config":
        rank = row.declared if "rank_pattern" in formula.reads else row.r
    return float(alpha / (rank**0.5 if root and "use_rslora" in formula.reads else rank) or formula.of_zero)


def largest_rank(subject: Subject) -> int:
    """The rank that a server has to make room for: the tensors' and the config's."""
    pattern = subject.config.get("rank_pattern")
    declared = [subject.config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [])]
    return max(
        [
            0,
            *(layer.rank or 0 for layer in _modules(subject).values()),
            *(value for value in declared if type(value) is int),
        ]
    )


VLLM_DEFAULT = 16
"""The --max-lora-rank of a vLLM that is told none (config/lora.py: LoRAConfig.max_lora_rank)."""


def flags(id_: str) -> tuple[int, ...]:
    """What --max-lora-rank of a release of vLLM may be; SGLang takes any number."""
    return next(server.rank_flags for server in SERVERS if server.id == id_)


def needed_flag(rank: int, id_: str) -> int | None:
    """The smallest --max-lora-rank of a release of vLLM that takes a rank; None where none does."""
    return next((value for value in flags(id_) if value >= rank), None)


def limits(subject: Subject) -> Iterator[Cause]:
    """LoRA rank 32 is greater than max_lora_rank 16; without a limit none is assumed."""
    rank = largest_rank(subject)
    if subject.question.max_rank is not None and rank > subject.question.max_rank:
        flag = needed_flag(rank, RAN["vllm"])  # above a limit, all releases have the same
        message = f"LoRA rank {rank} is greater than max_lora_rank {subject.question.max_rank}"
        option = f"--max-lora-rank {flag}" if flag else ""
        most = flags(RAN["vllm"])[-1]
        message += f": serve with {option}" if flag else (
            f": vLLM has no --max-lora-rank above {most}, SGLang is served with --max-lora-rank {rank}"
        )  # fmt: skip
        yield Cause(codes.SERVER_RANK_LIMIT, message, Field("over_limit"), keys=("r",), option=option)
