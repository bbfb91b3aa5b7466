"""Ranks as a picture, for a paper or a chat: the map of an adapter, or a run over its steps. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from ..adapter import AdapterError
from ..facts.places import short
from ..verbs.ranks import Ranks, Run
from .text import clean, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 6
"""Adapters and runs of one picture."""
MOST_KINDS = 64
"""Kinds of modules of one of them."""
WIDTH = 6.4
"""Inches."""
DOTS = 200
"""To the inch."""
LONGEST = 60
"""Characters of a name."""


def ranks(found: Sequence[Ranks | Run]) -> bytes:
    """A PNG of what was looked at, one below the other. Raises AdapterError where matplotlib is missing, where there is
    nothing to draw, and where it is more than a picture holds.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise AdapterError("--png needs matplotlib: pip install 'ckpt-doctor[plot]'") from None
    if len(found) > MOST:
        raise AdapterError(f"a picture holds {MOST} adapters or runs, and these are {len(found)}: name fewer")
    drawn = [one for one in found if (one.last if isinstance(one, Run) else one).known]
    if not drawn:
        raise AdapterError("there is no rank to draw a picture of")
    kinds = max(len((one.last if isinstance(one, Run) else one).kinds) for one in drawn)
    if kinds > MOST_KINDS:
        raise AdapterError(f"a picture holds {MOST_KINDS} kinds of modules, and these are {kinds}: see --html")
    heights = [3.2 if isinstance(one, Run) else _height(one) for one in drawn]
    figure = Figure((WIDTH, sum(heights)), dpi=DOTS, layout="constrained")
    every = figure.subplots(len(drawn), squeeze=False, height_ratios=heights)[:, 0]
    for one, axes in zip(drawn, every, strict=True):
        axes.set_title(_plain(one.path), fontsize=9, loc="left")
        if isinstance(one, Run):
            _trajectory(one, axes)
        else:
            _map(one, axes)
    content = BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _plain(text: str) -> str:
    """A name as it stands: in matplotlib dollars are mathematics."""
    return shortened(clean(text), LONGEST).replace("$", r"\$")


def _height(found: Ranks) -> float:
    """Inches of a map: modules are its rows, as blocks are many."""
    return 1.5 + 0.24 * len(found.kinds)


def _map(found: Ranks, axes: Axes) -> None:
    """Modules by blocks, as papers have it; of several layers in a place the mean."""
    from matplotlib.ticker import MaxNLocator

    blocks = list(dict.fromkeys(layer.place.block for layer in found.layers.values()))
    kinds = [kind.name for kind in found.kinds]
    places: dict[tuple[str, str], list[int]] = {}
    for layer in found.layers.values():
        if layer.rank is not None:
            places.setdefault((layer.place.kind, layer.place.block), []).append(layer.rank)
    nothing = float("nan")
    cells = [[sum(told) / len(told) if (told := places.get((k, b))) else nothing for b in blocks] for k in kinds]
    image = axes.imshow(cells, cmap="viridis", vmin=0, vmax=found.most or 1, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(kinds)), [_plain(name) for name in short(kinds).values()], fontsize=7)
    one_stack = len({block.rpartition(".")[0] for block in blocks if block}) == 1
    names = [_plain(block.rpartition(".")[2] if one_stack else block) or "–" for block in blocks]
    every = -(-len(blocks) // 16)
    axes.set_xticks(range(0, len(blocks), every), names[::every], fontsize=7, rotation=0 if one_stack else 30)
    axes.set_xlabel("block", fontsize=8)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, ticks=MaxNLocator(integer=True))
    bar.set_label("rank", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _trajectory(found: Run, axes: Axes) -> None:
    """The mean rank of each module over the steps, and what the schedule plans of all."""
    steps = [one for one in found.steps if one.step is not None] or list(found.steps)
    at = [one.step if one.step is not None else number for number, one in enumerate(steps)]
    alike: dict[str, list[str]] = {}
    for module, layer in found.last.layers.items():
        alike.setdefault(layer.place.kind, []).append(module)
    names = short(alike)
    for kind, modules in alike.items():
        told = [[step.known[module] for module in modules if module in step.known] for step in steps]
        means = [sum(ranks) / len(ranks) if ranks else float("nan") for ranks in told]
        axes.plot(at, means, marker=".", markersize=3, linewidth=1.2, label=_plain(names[kind]))
    planned = [found.planned(step) for step in steps]
    if any(plan is not None for plan in planned):
        shares = [
            float("nan") if plan is None else plan / max(len(step.layers), 1)
            for plan, step in zip(planned, steps, strict=True)
        ]
        axes.plot(at, shares, color="gray", linestyle="--", linewidth=1, label="planned, mean of all")
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("mean rank", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6.5, ncols=2, frameon=False)
