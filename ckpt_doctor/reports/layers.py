"""The ranks of the layers of one adapter, and how far AdaLoRA pruned them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from ..adapter import Layer
from ..facts.budget import Budget
from ..facts.places import places, short
from . import Style
from .text import clean, columns, lines, shortened

WIDTH = 80
"""Columns that a matrix may take where no terminal says how many there are."""
COLUMNS = ("rank", "alpha", "scaling")
_GAP = 2


def budget_line(budget: Budget) -> str:
    """What AdaLoRA was to leave, and what it left."""
    first, target, left, goal = ("unknown" if value is None else value for value in budget[:4])
    state = budget.state
    if state == "unknown":
        state = "pruning unknown"
    if budget.step is not None:
        state += f", as after step {budget.step} of {budget.total_step}"
    return f"init_r {first}, target_r {target} · ranks sum to {left}, budget {goal} · {state}"


def layer_lines(layers: Mapping[str, Layer], style: Style) -> Iterator[str]:
    """Rank, alpha and scaling of every layer: what all share once, the rest as a matrix of blocks by modules where that
    is narrow enough, else as a list; blocks in the order of their numbers.
    """
    placed = places(layers)
    varying = [name for name in COLUMNS if len({getattr(layer, name) for layer in layers.values()}) > 1]
    any_layer = layers[next(iter(placed))]
    shared = [f"{name} {_shown(getattr(any_layer, name))}" for name in COLUMNS if name not in varying]
    if shared:
        yield from lines(f"all: {', '.join(shared)}", 2, style)
    kinds = Counter(place.kind for place in placed.values())
    named = {kind: clean(name) for kind, name in short(kinds).items()}
    if not varying:
        yield from lines("layers: " + ", ".join(f"{count} {named[kind]}" for kind, count in kinds.items()), 2, style)
        return
    cells = {module: [_shown(getattr(layers[module], name)) for name in varying] for module in placed}
    blocks = dict.fromkeys(place.block for place in placed.values())
    width = style.width or WIDTH
    if len(blocks) < len(placed) and len(kinds) * (_GAP + 1) < width:
        grid = {block: {kind: dict[str, None]() for kind in kinds} for block in blocks}
        for module, (block, kind) in placed.items():
            grid[block][kind]["/".join(cells[module])] = None  # experts are of one kind, and may have several
        rows = ([clean(block) or "–", *map(", ".join, row.values())] for block, row in grid.items())
        matrix = list(_aligned([["/".join(varying), *named.values()], *rows]))
        if max(map(columns, matrix)) <= width:
            yield from matrix
            return
    widest = max((style.width or 1000) - 30, 10)
    yield from _aligned([["module", *varying], *([shortened(clean(m), widest), *cells[m]] for m in placed)])


def _shown(value: float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    """Rows in columns, the first to the left, the others to the right."""
    widths = [max(columns(row[at]) for row in rows) for at in range(len(rows[0]))]
    for first, *rest in rows:
        line = first + " " * (widths[0] - columns(first))
        for cell, width in zip(rest, widths[1:], strict=True):
            line += " " * (_GAP + width - columns(cell)) + cell
        yield f"  {line}".rstrip()
