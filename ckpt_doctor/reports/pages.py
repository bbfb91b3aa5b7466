"""The pages of the codes: for a terminal, and as Markdown. `python -m ckpt_doctor.reports.pages > docs/rules.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from ..adapter.codes import CODES
from ..adapter.findings import Code
from ..facts.messages import quoted
from . import Style
from .text import columns, lines

HEADINGS = ("Why", "Who stops", "What to do", "References")
"""What a page has after its first paragraph, which says what is wrong; in this order. The messages of runtimes that it
can be behind come last, as those who meet it would look for it."""


def paragraphs(code: Code) -> list[str]:
    """What is wrong; then why, who stops, what to do, and what shows it, each with its heading."""
    parts = re.split(rf"\n(?=(?:{'|'.join(HEADINGS)}): )", code.page.strip())
    return [" ".join(part.split()) for part in parts]


def index(style: Style) -> Iterator[str]:
    """A line a code: its number, its name, and what is wrong, as far as the terminal is wide."""
    widest = max(len(code.name) for code in CODES.values())
    for code in CODES.values():
        line = f"{code.number} {code.name:{widest}} {paragraphs(code)[0]}"
        if style.width and columns(line) > style.width:
            line = line[: style.width - 1] + "…"
        yield line.replace(code.number, click.style(code.number, bold=True), 1)


def page(code: Code, style: Style) -> Iterator[str]:
    """The page of a code, part by part."""
    what, *rest = paragraphs(code)
    yield click.style(f"{code.number} {code.name}", bold=True)
    for part in (f"What: {what}", *rest):
        heading = part.partition(":")[0] + ":"
        yield from lines(part, 2, style, {heading: "cyan"})
    if messages := quoted(code):
        yield from lines("Messages:", 2, style, {"Messages:": "cyan"})
    for message in messages:
        yield from lines(f"{message.quote} ({message.runtime})", 4, style)


def markdown(code: Code) -> str:
    """The page of a code."""
    first, *rest = paragraphs(code)
    messages = [f"  - {_verbatim(message.quote)} ({message.runtime})" for message in quoted(code)]
    listed = ("- Messages:", *messages) if messages else ()
    return "\n".join((first, "", *(f"- {paragraph}" for paragraph in rest), *listed))


def _verbatim(text: str) -> str:
    """A text as it stands, in Markdown."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def document() -> Iterator[str]:
    """The lines of docs/rules.md: an index, and the page of each code."""
    yield (
        "# Rules\n\nWhat each finding means. `ckpt-doctor rules` lists them, `ckpt-doctor explain CD101` says the same "
        "at a terminal.\nMade from `ckpt_doctor/adapter/codes.py`.\n"
    )
    for code in CODES.values():
        yield f"- [{code.number} {code.name}](#{code.number.lower()}-{code.name})"
    for code in CODES.values():
        yield f"\n## {code.number} {code.name}\n\n{markdown(code)}"


if __name__ == "__main__":
    print("\n".join(document()))
