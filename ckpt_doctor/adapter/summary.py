"""How a notebook shows what the functions give: a few lines, or a small table, never all that is in it."""

from __future__ import annotations

from . import clean

WIDEST = 160
"""Characters of a row; names and sentences with names from a file may be of any length."""
FIRST = 3
"""Rows of one sort."""

Rows = list[tuple[str, str]]
"""Each what it says, and of what: `("method", "LORA")`."""


def first(rows: Rows) -> Rows:
    """The first rows of one sort, and how many there are beside."""
    more = len(rows) - FIRST
    return [*rows[:FIRST], *([("", f"and {more} more")] if more > 0 else [])]


def text(title: str, rows: Rows) -> str:
    """Lines, a row each, under a title."""
    widest = max(len(label) for label, _ in rows)
    return "\n".join([title, *(f"  {label:{widest}}  {_cut(value)}" for label, value in rows)])


def html(title: str, rows: Rows) -> str:
    """A table of HTML, in which nothing that a file says is more than text."""
    from html import escape

    cells = "".join(f"<tr><th>{escape(label)}</th><td>{escape(_cut(value))}</td></tr>" for label, value in rows)
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"


def _cut(value: str) -> str:
    """A value in one line, of at most so many characters."""
    short = value if len(value) <= WIDEST else value[: WIDEST - 1] + "…"
    return clean(short)
