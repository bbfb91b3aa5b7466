"""The ranks of the layers of one adapter, and how far AdaLoRA pruned them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from ..adapter import Layer
from ..facts.budget import Budget
from . import Style
from .text import clean, columns, lines, shortened

WIDTH = 80
"""Columns that a matrix may take where no terminal says how many there are."""
COLUMNS = ("rank", "alpha", "scaling")
_GAP = 2
_NUMBER = re.compile(r"([0-9]+)")


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
    modules = sorted(layers, key=natural)
    varying = [name for name in COLUMNS if len({getattr(layer, name) for layer in layers.values()}) > 1]
    any_layer = layers[modules[0]]
    shared = [f"{name} {_shown(getattr(any_layer, name))}" for name in COLUMNS if name not in varying]
    if shared:
        yield from lines(f"all: {', '.join(shared)}", 2, style)
    places = {module: _place(module) for module in modules}
    kinds = Counter(kind for _, kind in places.values())
    if not varying:
        named = _named(list(kinds))
        yield from lines("layers: " + ", ".join(f"{count} {named[kind]}" for kind, count in kinds.items()), 2, style)
        return
    cells = {module: [_shown(getattr(layers[module], name)) for name in varying] for module in modules}
    blocks = dict.fromkeys(block for block, _ in places.values())
    width = style.width or WIDTH
    if len(blocks) < len(modules) and len(kinds) * (_GAP + 1) < width:
        named = _named(list(kinds))
        grid = {block: dict.fromkeys(kinds, "") for block in blocks}
        for module, (block, kind) in places.items():
            grid[block][kind] = "/".join(cells[module])
        head = ["/".join(varying), *(named[kind] for kind in kinds)]
        matrix = list(_aligned([head, *([clean(block) or "–", *row.values()] for block, row in grid.items())]))
        if max(map(columns, matrix)) <= width:
            yield from matrix
            return
    widest = max((style.width or 1000) - 30, 10)
    yield from _aligned([["module", *varying], *([shortened(clean(m), widest), *cells[m]] for m in modules)])


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them: `h.2` before `h.10`."""
    parts = _NUMBER.split(name)
    return [(len(part.lstrip("0")), part.lstrip("0")) if at % 2 else (0, part) for at, part in enumerate(parts)]


def _place(module: str) -> tuple[str, str]:
    """`model.layers.3.self_attn.q_proj` → (model.layers.3, self_attn.q_proj)."""
    parts = module.split(".")
    last = max((at for at, part in enumerate(parts) if part.isdecimal()), default=-1)
    return ".".join(parts[: last + 1]), ".".join(parts[last + 1 :])


def _named(kinds: list[str]) -> dict[str, str]:
    """Modules of a block by their last names, where those differ."""
    short = {kind: clean(kind.rpartition(".")[2]) for kind in kinds}
    return short if len(set(short.values())) == len(kinds) else {kind: clean(kind) for kind in kinds}


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
