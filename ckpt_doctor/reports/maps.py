"""Ranks for a person at a terminal: maps of blocks by modules, bars, runs over their steps, adapters side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from string import ascii_letters

import click

from ..adapter.findings import counted
from ..facts.places import short
from ..verbs.ranks import Kind, Ranked, Ranks, Run
from . import Style
from .text import clean, columns, lines, shortened

WIDTH = 80
"""Columns that are used where no terminal says how many there are."""
SHADES = "·▁▂▃▄▅▆▇█"
"""Nothing, then eighths of the largest."""
_BAR = 24
"""Columns of the longest bar."""
_NARROWEST = 8
"""Columns that a name has at the least."""
_MOST_BARS = 16
"""Bars of a histogram; more ranks are told in so many spans."""
_MOST_STEPS = 24
"""Checkpoints of a run that are told; of more, so many are picked, the first and the last among them."""
Cell = tuple[str, float]
"""What a place of a map says, and how full it is, from 0 to 1."""


def ranks(found: Ranks, style: Style) -> Iterator[str]:
    """The lines of one adapter: what is to be seen, the map, how many layers have which rank, what each module has."""
    step = f" · step {found.step:,}" if found.step is not None else ""
    yield f"{click.style(clean(found.path), bold=True)} · {clean(found.method)}{step}"
    yield from lines(found.verdict, 2, style)
    yield from _values(found, style)
    if style.level < 0:
        return
    if found.known:
        yield from _maps(found, style)
        yield from _histogram(found)
        yield from _kinds(found, style)
    for text in found.advice:
        yield from lines(text, 2, style)


def _values(found: Ranks, style: Style) -> Iterator[str]:
    """What the values say of all layers together."""
    if found.broken:
        text = f"{len(found.broken)} layers hold NaN or infinity: {clean(found.broken[0])}"
        yield from lines(text, 2, style, {f"{len(found.broken)} layers": "red"})
    for why in [*found.unseen.values()][:1]:
        yield from lines(f"no numbers of {counted(len(found.unseen), 'layer')}: {clean(why)}", 2, style)
    if not found.spectra or found.energy is None:
        return
    effective = [one.effective for one in found.spectra.values()]
    text = f"effective rank {sum(effective) / len(effective):.1f} on average"
    if found.smallest is not None:
        text += f" · rank {found.smallest} in all layers keeps 99 % of the energy"
    elif not found.energy:
        text += " · every delta is zero" + ("" if found.has_more else ": it does nothing")
    dead = sum(one.dead for one in found.spectra.values())
    if dead:
        text += f" · {dead} of {found.sum} triplets or rows are zero"
    yield from lines(text, 2, style)


def _maps(found: Ranks, style: Style) -> Iterator[str]:
    """The map of ranks where they differ, and that of effective ranks where values were read."""
    most = found.most or 1

    def rank(layers: list[Ranked]) -> Cell:
        told = [layer.rank for layer in layers if layer.rank is not None]
        return _span(told, str), sum(told) / len(told) / most if told else 0.0

    def effective(layers: list[Ranked]) -> Cell:
        told = [layer.spectrum.effective for layer in layers if layer.spectrum and not isinstance(layer.spectrum, str)]
        return _span(told, lambda value: f"{value:.1f}"), sum(told) / len(told) / most if told else 0.0

    if len(found.histogram) > 1 or not found.spectra:
        yield from _map(found, "rank", rank, style)
    if found.spectra:
        yield from _map(found, "effective rank", effective, style)


def _span(values: Sequence[float], said: Callable[[float], str]) -> str:
    """A value, or the least and the largest where a place has several layers."""
    if not values:
        return "?"
    least, most = said(min(values)), said(max(values))
    return least if least == most else f"{least}–{most}"


def _map(found: Ranks, title: str, cell: Callable[[list[Ranked]], Cell], style: Style) -> Iterator[str]:
    """Blocks by modules; blocks that are alike and follow one another are one line."""
    kinds = [kind.name for kind in found.kinds]
    grid: dict[str, dict[str, list[Ranked]]] = {}
    for layer in found.layers.values():
        grid.setdefault(layer.place.block, {}).setdefault(layer.place.kind, []).append(layer)
    rows = [(block, [cell(row[kind]) if kind in row else None for kind in kinds]) for block, row in grid.items()]
    merged = list(_alike(rows))
    names = [clean(name) for name in short(kinds).values()]
    labels = _labels([blocks for blocks, _ in merged])
    first = max(columns(title), *map(columns, labels))
    width = style.width or WIDTH
    said = [[one[0] for _, cells in merged if (one := cells[at])] for at in range(len(kinds))]
    sizes = [max(map(len, texts), default=1) + 1 for texts in said]
    wide = [max(size, columns(name)) for size, name in zip(sizes, names, strict=True)]
    heads, legend = names, ""
    if 2 + first + sum(wide) + 2 * len(wide) > width:
        if len(kinds) > len(ascii_letters) or 2 + first + sum(sizes) + 2 * len(sizes) > width:
            yield from lines(f"a map of {len(kinds)} modules is wider than {width} columns: see --format csv", 2, style)
            return
        heads, wide = list(ascii_letters[: len(kinds)]), sizes
        legend = ", ".join(f"{letter} {clean(kind)}" for letter, kind in zip(heads, kinds, strict=True))
    yield (
        "  "
        + title.ljust(first)
        + "".join(f"  {' ' * (size - columns(h))}{h}" for h, size in zip(heads, wide, strict=True))
    )
    for label, (_, cells) in zip(labels, merged, strict=True):
        text = "".join(f"  {_shaded(cell, size)}" for cell, size in zip(cells, wide, strict=True))
        yield f"  {label}{' ' * (first - columns(label))}{text}".rstrip()
    if legend:
        yield from lines(legend, 2, style)


def _alike(rows: list[tuple[str, list[Cell | None]]]) -> Iterator[tuple[list[str], list[Cell | None]]]:
    blocks: list[str] = []
    cells: list[Cell | None] = []
    for block, row in rows:
        if blocks and row == cells and block.rpartition(".")[0] == blocks[0].rpartition(".")[0]:
            blocks.append(block)
            continue
        if blocks:
            yield blocks, cells
        blocks, cells = [block], row
    if blocks:
        yield blocks, cells


def _labels(groups: list[list[str]]) -> list[str]:
    """Blocks by their numbers where all are of one stack, else by their names."""
    stacks = {block.rpartition(".")[0] for blocks in groups for block in blocks if block}
    one = len(stacks) == 1

    def named(block: str) -> str:
        return clean(block.rpartition(".")[2] if one else block) or "–"

    return [
        named(blocks[0]) + (f" – {clean(blocks[-1].rpartition('.')[2])}" if len(blocks) > 1 else "")
        for blocks in groups
    ]


def shade(full: float) -> str:
    """A glyph for how full a place is, from 0 to 1: anything above 0 is to be seen."""
    return SHADES[min(math.ceil(full * 8), 8)] if full > 0 else SHADES[0]


def _shaded(cell: Cell | None, size: int) -> str:
    if cell is None:
        return " " * size
    text, full = cell
    colour = "red" if not full else "green" if full >= 1 else None
    shown = f"{text}{shade(full)}"
    return " " * (size - columns(shown)) + (click.style(shown, fg=colour) if colour else shown)


def _bar(share: float, longest: int = _BAR) -> str:
    return "█" * round(share * longest) or ("▏" if share > 0 else "")


def _histogram(found: Ranks) -> Iterator[str]:
    counts = found.histogram
    if len(counts) < 2:
        return
    spans = [(str(rank), count) for rank, count in counts.items()]
    if len(spans) > _MOST_BARS:
        step = -(-(max(counts) + 1) // _MOST_BARS)
        spans = []
        for start in range(0, max(counts) + 1, step):
            count = sum(counts.get(rank, 0) for rank in range(start, start + step)) if step < 1 << 16 else 0
            spans.append((f"{start}–{start + step - 1}" if step > 1 else str(start), count))
    size = max(len("rank"), *(len(name) for name, _ in spans))
    most = max(count for _, count in spans)
    yield f"  {'rank'.rjust(size)}  layers"
    for name, count in spans:
        yield f"  {name.rjust(size)}  {_bar(count / most)} {count}"


def _kinds(found: Ranks, style: Style) -> Iterator[str]:
    """What each module has of the whole."""
    kinds = found.kinds
    named = short(kind.name for kind in kinds)
    heads = ["module", "layers", "ranks", "of all", "at 0", f"at {found.most}"]
    rows = [
        [named[kind.name], str(kind.layers), str(kind.ranks), f"{kind.share:.0%}", str(kind.at_zero), str(kind.at_most)]
        for kind in kinds
    ]
    if found.energy is not None:
        heads += ["effective", "energy"]
        for row, kind in zip(rows, kinds, strict=True):
            row += [_number(kind.effective, ".1f"), _number(kind.energy_share, ".0%")]
    shares = [kind.share if found.energy is None else kind.energy_share or 0.0 for kind in kinds]
    yield from _with_bars([heads, *rows], shares, 12, style)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def aligned(rows: list[list[str]], style: Style) -> Iterator[str]:
    """Rows in columns, the first to the left: in a narrow terminal it is cut at its beginning, and the last ones go."""
    width = style.width or WIDTH
    widths = [max(columns(row[at]) for row in rows) for at in range(1, len(rows[0]))]
    while len(widths) > 1 and width - sum(widths) - 2 * len(widths) - 2 < _NARROWEST:
        widths.pop()
    widest = max(width - sum(widths) - 2 * len(widths) - 2, _NARROWEST)
    names = [shortened(clean(row[0]), widest) for row in rows]
    size = max(map(columns, names))
    for name, (_, *rest) in zip(names, rows, strict=True):
        line = name + " " * (size - columns(name))
        line += "".join("  " + " " * (room - columns(cell)) + cell for cell, room in zip(rest, widths, strict=False))
        yield f"  {line}".rstrip()


def _with_bars(rows: list[list[str]], shares: list[float], longest: int, style: Style) -> Iterator[str]:
    """Rows below their heads, each with a bar where there is room for it."""
    head, *table = aligned(rows, style)
    yield head
    room = min((style.width or WIDTH) - max(map(columns, table), default=0) - 2, longest)
    for line, share in zip(table, shares, strict=True):
        yield f"{line}  {_bar(share, room)}".rstrip() if room > 3 else line


def run(found: Run, style: Style) -> Iterator[str]:
    """The lines of a run: its ranks over its steps, when each module's layers settled, what to change; then its end."""
    yield click.style(clean(found.path), bold=True)
    yield from lines(found.verdict, 2, style)
    if style.level < 0:
        return
    yield from _over_steps(found, style)
    yield from _trajectories(found, style)
    died = found.died
    if died:
        when = sorted({step for step in died.values() if step is not None})
        seen = f", first seen at step {when[0]:,}" + (f" to {when[-1]:,}" if len(when) > 1 else "") if when else ""
        yield from lines(f"{len(died)} of {len(found.modules)} layers ended at 0{seen}", 2, style)
    for text in found.advice:
        yield from lines(f"→ {text}", 2, style)
    yield from ranks(_without_advice(found.last), style)


def _without_advice(found: Ranks) -> Ranks:
    return Ranks(
        found.path, found.method, found.layers, step=found.step, most=found.most, budget=found.budget, plan=found.plan,
        parameters=found.parameters,
    )  # fmt: skip


def picked(found: Run, most: int = _MOST_STEPS) -> list[Ranks]:
    """The steps of a run that are told: all, or so many (two at the least), evenly, with the first and the last."""
    steps, count = found.steps, len(found.steps)
    if count <= most:
        return list(steps)
    return [steps[round(at * (count - 1) / (most - 1))] for at in range(most)]


def _over_steps(found: Run, style: Style) -> Iterator[str]:
    heads = [
        "step",
        "triplets" if found.last.method == "ADALORA" else "ranks",
        "planned",
        "at 0",
        "least",
        "mean",
        "most",
    ]
    rows, shares = [], []
    whole = max((ranks.sum for ranks in found.steps), default=0) or 1
    for step in picked(found):
        told = list(step.known.values()) or [0]
        planned = found.planned(step)
        mean = f"{sum(told) / len(told):.1f}"
        name = "end" if step.step is None else f"{step.step:,}"
        plan = "–" if planned is None else str(planned)
        rows.append([name, str(step.sum), plan, str(step.at_zero), str(min(told)), mean, str(max(told))])
        shares.append(step.sum / whole)
    yield from _with_bars([heads, *rows], shares, 16, style)


def _trajectories(found: Run, style: Style) -> Iterator[str]:
    """The mean rank of each module over the steps, as a line of glyphs, and when the last of its layers settled."""
    alike: dict[str, list[str]] = {}
    for module, layer in found.last.layers.items():
        alike.setdefault(layer.place.kind, []).append(module)
    named, settled = short(alike), found.settled
    most = max((ranks.most for ranks in found.steps), default=0) or 1
    rows = [["module", "over the steps", "mean", "settled"]]
    for kind, modules in alike.items():
        line, mean = "", 0.0
        for step in picked(found):
            told = [step.known[module] for module in modules if module in step.known]
            mean = sum(told) / len(told) if told else 0.0
            line += shade(mean / most) if told else " "
        last = max((settled.get(module) or 0 for module in modules), default=0)
        rows.append([named[kind], line, f"{mean:.1f}", f"{last:,}" if last else "–"])
    yield from aligned(rows, style)


def beside(every: list[Ranks], style: Style) -> Iterator[str]:
    """Several adapters side by side: where each put its ranks, and with values its energy."""
    yield click.style("side by side", bold=True)
    marks = list(ascii_letters[: len(every)])
    named_paths = [f"{mark} {clean(one.path)}" for mark, one in zip(marks, every, strict=True)]
    yield from lines(", ".join(named_paths), 2, style)
    energy = all(one.energy for one in every)
    heads = ["module", *(f"{mark} ranks" for mark in marks), *(f"{mark} energy" for mark in marks if energy)]
    by_kind = [{kind.name: kind for kind in one.kinds} for one in every]
    names = list(dict.fromkeys(name for kinds in by_kind for name in kinds))
    named = short(names)
    rows = [[named[name], *_beside(name, by_kind, energy)] for name in names]
    yield from aligned([heads, *rows, *_totals(every, energy)], style)
    yield from _blocks(every, marks, energy, style)


def _beside(name: str, by_kind: list[dict[str, Kind]], energy: bool) -> Iterator[str]:
    for kinds in by_kind:
        kind = kinds.get(name)
        yield "–" if kind is None else f"{kind.ranks} ({kind.share:.0%})"
    for kinds in by_kind if energy else ():
        yield _number(kinds[name].energy_share, ".0%") if name in kinds else "–"


def _totals(every: list[Ranks], energy: bool) -> Iterator[list[str]]:
    blank = ["" for _ in every] if energy else []
    yield ["all", *(str(found.sum) for found in every), *blank]
    yield ["parameters", *(f"{sum(found.parameters.values()):,}" for found in every), *blank]


def _blocks(every: list[Ranks], marks: list[str], energy: bool, style: Style) -> Iterator[str]:
    """Each adapter's share of its ranks, or of its energy, by block: one glyph a block, the fullest of it full."""
    what = "energy" if energy else "ranks"
    rows = [[f"{what} by block", ""]]
    for mark, found in zip(marks, every, strict=True):
        sums: dict[str, float] = {}
        for module, layer in found.layers.items():
            one = found.spectra.get(module)
            value = (one.energy if one else 0.0) if energy else layer.rank or 0
            sums[layer.place.block] = sums.get(layer.place.block, 0.0) + value
        most = max(sums.values(), default=0.0) or 1.0
        room = (style.width or WIDTH) - 20
        shades = [shade(value / most) for value in sums.values()]
        rows.append([mark, "".join(shades[:room]) + ("…" if len(shades) > room else "")])
    for name, line in rows:
        yield f"  {name:14}  {line}".rstrip()


def seen(found: Iterable[Ranks | Run], style: Style) -> Iterator[str]:
    """Everything that was looked at, and side by side where it is a few."""
    every = list(found)
    for at, one in enumerate(every):
        if at:
            yield ""
        yield from run(one, style) if isinstance(one, Run) else ranks(one, style)
    ends = [one.last if isinstance(one, Run) else one for one in every]
    if 1 < len(ends) <= 4 and style.level >= 0:
        yield ""
        yield from beside(ends, style)
