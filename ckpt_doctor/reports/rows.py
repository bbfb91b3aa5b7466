"""Many adapters as rows of a table, each as it comes: its columns are as wide as the terminal makes them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..adapter.findings import accepted, verdict
from ..adapter.runtimes import bounds, order
from ..verbs.report import Report
from ..verbs.ways import BASE, FIX, NOTHING
from . import Style
from .text import clean, columns, command_lines, lines, shortened
from .wording import cut, of_question

WIDTH = 100
"""Columns where no terminal says how many there are; nothing is cut there."""
LOADS, VERDICT, CAUSE, STEP, GAP = 14, 19, 24, 8, 2
WIDE = 110
"""Columns from which on a cause has its sentence."""
MOST_COMMANDS = 5
"""Under the table."""
COLOURS = {"accepted": "green", "undecided": "yellow", "": "red", "rejected": "red", "misloaded": "red"}
STEPS = {
    NOTHING: "–", "load": "load", "start": "option", FIX: "repair", "drop": "drop", "convert": "convert",
    "merge": "merge", BASE: "--base", "try": "try it", "by-hand": "by hand", "refused": "–",
}  # fmt: skip
"""A kind of way out, as a word."""


class Rows:
    """The rows of a table, and what is said under it."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.bare = True
        self.asked = False
        self.commands: dict[str, list[str]] = {}
        self.errors: list[str] = []
        self.more = self.unnamed = 0

    def row(self, report: Report) -> Iterator[str]:
        """The row of one adapter, after the head if it is the first; nothing of what is in order, if quiet."""
        ways = report.next
        first = ways[0]
        repair = next((way for way in ways if way.kind == FIX), None)
        if repair and repair.command and first.kind != NOTHING:
            if sum(map(len, self.commands.values())) < MOST_COMMANDS:
                self.commands.setdefault(repair.text, []).append(repair.command)
            else:
                self.more += 1
        self.unnamed += any(way.kind == BASE for way in ways)
        if report.error and len(self.errors) < MOST_COMMANDS:
            self.errors.append(report.error)
        if self.style.level < 0 and not report.failing and not report.error:
            return
        if self.bare:
            self.bare, self.asked = False, report.asked is not None
            yield self._line(("adapter", "verdict" if self.asked else "loads in PEFT", "cause", "next"))
        step = FIX if repair and first.kind not in (NOTHING, "start") else first.kind
        colour = COLOURS["rejected" if report.failing else report.outcome]
        path = clean(report.path).removeprefix(self.style.root) or clean(report.path)
        yield self._line((path, _verdict(report), self._cause(report), STEPS[step]), colour)

    def steps(self) -> Iterator[str]:
        """Why adapters could not be examined, the commands that repair what was found, what would decide the rest."""
        for error in self.errors:
            yield from lines(error, 0, self.style)
        if self.style.level < 0:
            return
        for text, commands in self.commands.items():
            yield from lines(f"{text}:", 0, self.style)
            for command in commands:
                yield from command_lines(command, 2, self.style)
        if self.more:
            yield from lines(f"and {self.more} more repairs: -v prints each", 0, self.style)
        if self.unnamed:
            text = f"{self.unnamed} hang on the base model: --base names it"
            yield from lines(text, 0, self.style)

    def _line(self, cells: tuple[str, ...], colour: str | None = None) -> str:
        width = self.style.width
        verdicts = VERDICT if self.asked else LOADS
        free = max((width or WIDTH) - verdicts - STEP - 3 * GAP, 8)
        cause = free * 3 // 5 if (width or 0) >= WIDE else min(CAUSE, free // 2)
        name = free - cause
        path, said, why, step = cells
        if width:
            path, said, why = shortened(path, name), cut(said, verdicts), cut(why, cause)
        sized = ((path, name), (said, verdicts), (why, cause))
        padded = [cell + " " * (size - columns(cell)) for cell, size in sized]
        if colour:
            padded[1] = click.style(padded[1], fg=colour)
        return (" " * GAP).join((*padded, step)).rstrip()

    def _cause(self, report: Report) -> str:
        if report.error:
            return clean(report.error) if (self.style.width or 0) >= WIDE else "–"
        found = next(iter(of_question(report)), None)
        if found is None:
            return "–"
        named = f"{found.code} {found.name}"
        return clean(f"{named}: {found.message}") if (self.style.width or 0) >= WIDE else named


def _verdict(report: Report) -> str:
    """What was asked for makes of it, the gravest; else where it loads."""
    if report.error:
        return "not examined"
    if report.asked is None:
        taken = bounds(accepted(report.findings))
        return taken or "no release"
    words = {id_: verdict(id_, report.findings) for id_ in order(report.asked)}
    worst = next(word for word in ("rejects", "misloads", "unknown", "accepts") if word in words.values())
    names = dict.fromkeys(id_.partition("==")[0] for id_, word in words.items() if word == worst)
    return worst if len(words) == 1 or worst == "accepts" else f"{worst}: {', '.join(names)}"
