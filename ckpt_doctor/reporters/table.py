"""For a person at a terminal: one block an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from ..adapter import Adapter
from ..doctor import Report, saved_by
from ..findings import NOTE, Finding, accepted, undecided, verdict
from ..runtimes import RAN, ranges
from . import Style
from .text import clean, lines, shortened
from .wording import Tally, cannot_be_fixed, fix_command, load_with, outcomes

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def scan(reports: Iterable[Report], style: Style) -> Iterator[str]:
    """A block an adapter, and what they amount to where there are several."""
    tally = Tally()
    shown = False
    for report in reports:
        tally.add(report)
        if style.level >= 0 or report.failing or report.error:
            yield "\n".join([*([""] if shown else []), *block(report, style)])
            shown = True
    if tally.adapters > 1 and style.level >= 0:
        yield f"\n{tally}"


def block(report: Report, style: Style) -> Iterator[str]:
    """The lines of one adapter."""
    yield click.style(clean(report.path), bold=True)
    if report.error or report.adapter is None:
        yield from lines(f"could not be examined: {report.error}", 2, style, {"could not be examined": "red"})
        return
    if style.level >= 0:
        yield from _summary(report, report.adapter, style)
    for finding in report.shown if style.level >= 0 else report.failing:
        yield from finding_lines(finding, style)
    if style.layers and report.layers:
        from tabulate import tabulate

        widest = max((style.width or 1000) - 30, 10)
        rows = [
            (shortened(clean(layer.module), widest), layer.rank, layer.alpha, layer.scaling)
            for layer in report.layers.values()
        ]
        yield tabulate(rows, headers=("module", "rank", "alpha", "scaling"), missingval="–", floatfmt=".4g")
    if any(finding.severity != NOTE for finding in report.shown):
        yield from _ways_out(report, style)


def _summary(report: Report, adapter: Adapter, style: Style) -> Iterator[str]:
    version = saved_by(adapter)
    parts = [
        adapter.peft_type or "unknown method",
        f"saved by PEFT {version}" if version else "saved by an unnamed PEFT",
    ]
    ranks = sorted(layer.rank for layer in report.layers.values() if layer.rank is not None)
    parts.append(f"{len(report.layers)} layers")
    if ranks:
        parts.append(f"rank min {ranks[0]}, median {ranks[len(ranks) // 2]}, max {ranks[-1]}, {ranks.count(0)} at 0")
    yield from lines(" · ".join(parts), 2, style)
    yield from lines(f"accepted by {ranges(accepted(report.findings))}", 2, style)
    unknown = undecided(report.findings)
    if unknown:
        yield from lines(f"unknown for {ranges(unknown)}", 2, style)
    if report.subject and RAN["vllm"] in report.servers and report.layers:
        from ..rules.servers.ranks import largest_rank, needed_flag

        flag = needed_flag(largest_rank(report.subject))
        yield f"  serve with --max-lora-rank {flag}" if flag else "  no --max-lora-rank of vLLM is large enough"
    served = {id_ for id_ in report.servers if verdict(id_, report.findings) == "accepts"}
    if report.servers:
        yield from lines(f"served by {ranges(served) if served else 'none of those asked for'}", 2, style)
    if report.passed:
        yield f"  {len(report.passed)} findings are not shown: ignored, not selected, or known to the baseline"


def finding_lines(finding: Finding, style: Style) -> Iterator[str]:
    """One finding: what is wrong, and which runtimes it stops."""
    text = f"{finding.severity} {finding.code} {finding.name}: {finding.message}"
    yield from lines(text, 2, style, {finding.severity: COLOURS[finding.severity]})
    for outcome in outcomes(finding):
        yield from lines(outcome, 6, style)
    if style.level > 0:
        for what, names in (("config keys", finding.config_keys), ("tensors", finding.tensors)):
            if names:
                yield from lines(f"{what}: {', '.join(names)}", 6, style)


def _ways_out(report: Report, style: Style) -> Iterator[str]:
    yield f"  {load_with(report)}"
    command = fix_command(report)
    if command:
        yield f"  or repair it: {command}"
    elif cannot_be_fixed(report):
        yield from lines("ckpt-doctor cannot repair it without changing what it computes", 2, style)
