"""For a spreadsheet or a data frame: a row a layer."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from ..verbs.ranks import Ranks, Run
from .json import layer_of

HEADS = (
    "path", "step", "module", "block", "kind", "rank", "parameters", "norm", "energy", "effective_rank", "used", "dead",
)  # fmt: skip


def ranks(found: Iterable[Ranks | Run]) -> Iterator[str]:
    """The ranks of adapters, and of each step of runs; what is not known is empty."""
    yield ",".join(HEADS)
    for one in found:
        for step in one.steps if isinstance(one, Run) else (one,):
            for module in step.layers:
                entry = {"path": step.path, "step": step.step, **layer_of(step, module)}
                yield _row([entry.get(name) for name in HEADS])


def _row(cells: list[Any]) -> str:
    """A line of a table. A text that a spreadsheet would take for a formula begins with a quote."""
    line = io.StringIO()
    safe = [f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell for cell in cells]
    csv.writer(line, lineterminator="").writerow(safe)
    return line.getvalue()
