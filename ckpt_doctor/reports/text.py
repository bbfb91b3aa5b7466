"""Lines for a person at a terminal, broken to its width, with nothing in them that commands it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..adapter import clean
from . import Style

__all__ = ["clean", "columns", "lines", "shortened"]


def lines(text: str, indent: int, style: Style, colours: dict[str, str] | None = None) -> Iterator[str]:
    """A text, broken between words to the width of the terminal; further lines are indented by two more.

    `colours` maps a beginning of the text to its colour. A word that is longer than a line stays whole.
    """
    wrapped = [" " * indent]
    for at, word in enumerate(clean(text).split(" ")):
        if style.width and at and columns(wrapped[-1]) + columns(word) + 1 > style.width:
            wrapped.append(" " * (indent + 2) + word)
        else:
            wrapped[-1] += f" {word}" if at else word
    for start, colour in (colours or {}).items():
        if wrapped[0].startswith(" " * indent + start):
            wrapped[0] = wrapped[0].replace(start, click.style(start, fg=colour), 1)
    yield from wrapped


def columns(text: str) -> int:
    """How wide a text is in a terminal: two columns for each wide character."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    cells = wcswidth(text)
    return cells if cells >= 0 else len(text)


def shortened(text: str, widest: int) -> str:
    """A name cut at its beginning, where its end says more, to so many columns."""
    if columns(text) <= widest:
        return text
    while columns(text) > widest - 1:
        text = text[1:]
    return "…" + text
