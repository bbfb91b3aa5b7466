"""What a message of a runtime can come from, for a person."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..adapter.runtimes import RAN
from ..verbs.recognise import Recognised, likely
from . import Style
from .pages import paragraphs
from .text import lines, shortened

_PEFT = "peft"


def explain(matches: list[Recognised], style: Style) -> Iterator[str]:
    """The messages that were recognised, the codes that they can come from, and what to run; or that there is none."""
    if not matches:
        unknown = "No message in it is known. It may come from the adapter all the same; this says whether it does:"
        yield from lines(unknown, 0, style)
        yield f"  {_scan('')}"
        return
    for message, name in matches:
        source = f" ({message.runtime}, {message.source})"
        yield from lines(f"“{message.open}”{source}", 0, style)
        if name:
            yield f"  It names {shortened(name, (style.width or 120) - 12)}."
    codes = likely(matches)
    yield "It can come from:" if len(codes) > 1 else "It comes from:"
    for code in codes:
        called = f"{code.number} {code.name}"
        yield from lines(f"{called}: {paragraphs(code)[0]}", 2, style, {called: "cyan"})
    yield "To see whether it does, and what helps:"
    yield f"  {_scan(matches[0].message.runtime, values=any(SEEN in paragraphs(code)[0] for code in codes))}"
    yield f"  {click.style(f'ckpt-doctor explain {codes[0].number}', bold=True)}"


SEEN = "Seen with `--values`"
"""How the page of a code says that the numbers of the weights have to be read."""


def _scan(runtime: str, *, values: bool = False) -> str:
    """The command that decides it; what the user has to put in stands in capitals."""
    name = runtime.lower()
    named = name if name == _PEFT or name in RAN else "RUNTIME"
    command = f"ckpt-doctor scan DIR --for {named}==RELEASE" + (" --values" if values else "")
    return click.style(command, bold=True) + " (with --base MODEL, if you have it)"
