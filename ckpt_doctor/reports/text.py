"""Lines for a person at a terminal, broken to its width, with nothing in them that commands it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

import click

from ..adapter import clean
from . import Style

__all__ = ["clean", "columns", "command_lines", "cut_lines", "lines", "shortened"]

BOLD = "bold"
"""Stands for a colour."""


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
            styled = click.style(start, bold=True) if colour == BOLD else click.style(start, fg=colour)
            wrapped[0] = wrapped[0].replace(start, styled, 1)
    yield from wrapped


def cut_lines(wrapped: Iterable[str], most: int, style: Style) -> list[str]:
    """No more than so many lines; where there are more, the last ends in an ellipsis."""
    kept = list(wrapped)
    if len(kept) <= most:
        return kept
    last = kept[most - 1]
    while style.width and columns(click.unstyle(last)) + 2 > style.width and " " in last.strip():
        last = last.rpartition(" ")[0]
    return [*kept[: most - 1], f"{last} …"]


def command_lines(command: str, indent: int, style: Style) -> Iterator[str]:
    """A command, broken between words as a shell takes it, where it is wider than the terminal."""
    line = ""
    for word in map(shlex.quote, shlex.split(command)):
        if line and style.width and indent + columns(line) + columns(word) + 3 > style.width:
            yield f"{' ' * indent}{line} \\"
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    yield " " * indent + line


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
