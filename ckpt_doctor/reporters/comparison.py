"""A comparison, for a person and as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from ..comparison import Comparison, Row
from . import Style
from .json import dump
from .text import clean, lines, shortened

SHOWN = 10
COLOURS = {"same": "green", "different": "red", "cannot tell": "yellow"}


def table(result: Comparison, width: int | None) -> Iterator[str]:
    """The verdict, and the layers and tensors that differ most."""
    from tabulate import tabulate

    rows = _worst(result)
    largest = max((row.relative for row in rows), default=0.0)
    style = Style(width)
    counts = f"{len(result.layers)} layers and {len(result.others)} other tensors"
    said = f"{result.verdict}: {counts}, largest relative difference {largest:.2g} (tolerance {result.tolerance:g})"
    yield from lines(said, 0, style, COLOURS)
    for reason in result.reasons:
        yield from lines(reason, 2, style)
    widest = max((width or 1000) - 34, 10)
    differing = [
        (shortened(clean(row.name), widest), row.norm, row.difference, row.relative)
        for row in rows[:SHOWN]
        if row.difference
    ]
    if differing:
        yield tabulate(differing, headers=("layer or tensor", "norm", "difference", "relative"), floatfmt=".3g")


def json(result: Comparison) -> Iterator[str]:
    """One object: verdict, reasons, and every row."""
    yield dump(
        {
            "verdict": result.verdict,
            "tolerance": result.tolerance,
            "reasons": list(result.reasons),
            "layers": [_object(row) for row in result.layers],
            "others": [_object(row) for row in result.others],
        }
    )


def _worst(result: Comparison) -> list[Row]:
    return sorted((*result.layers, *result.others), key=lambda row: -row.relative)


def _object(row: Row) -> dict[str, object]:
    finite = row.difference != float("inf")
    return {
        "name": row.name,
        "norm": row.norm,
        "difference": row.difference if finite else None,
        "relative": row.relative if finite else None,
    }
