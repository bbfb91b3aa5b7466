"""Where the layers of an adapter are in the model: the block that each lies in, and which module of a block it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_NUMBER = re.compile(r"([0-9]+)")


class Place(NamedTuple):
    """`model.layers.3.self_attn.q_proj` is the module `self_attn.q_proj` of the block `model.layers.3`; a layer that
    lies in no numbered block has the block "".
    """

    block: str
    kind: str


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them: `h.2` before `h.10`."""
    parts = _NUMBER.split(name)
    return [(len(part.lstrip("0")), part.lstrip("0")) if at % 2 else (0, part) for at, part in enumerate(parts)]


def places(modules: Iterable[str]) -> dict[str, Place]:
    """The place of each module, in the order of the numbers in their names.

    Where names have several numbers a block ends at the first or at the last of them, whichever leaves fewer places
    empty: the sublayers of T5 are modules of a block, the transformer blocks of a U-Net are blocks. Experts are modules
    of one kind, as a block has any number of them.
    """
    names = sorted(modules, key=natural)
    first, last = ({name: _place(name, end) for name in names} for end in (False, True))
    return first if _size(first) < _size(last) else last


def _size(found: dict[str, Place]) -> int:
    """How many places a table of blocks and kinds has."""
    return len({place.block for place in found.values()}) * len({place.kind for place in found.values()})


def _place(name: str, last: bool) -> Place:
    parts = name.split(".")
    experts = parts.index("experts") if "experts" in parts else len(parts)
    numbers = [at for at, part in enumerate(parts[:experts]) if part.isdecimal()]
    end = 0 if not numbers else (numbers[-1] if last else numbers[0]) + 1
    rest = ["#" if at > experts and part.isdecimal() else part for at, part in enumerate(parts)]
    return Place(".".join(parts[:end]), ".".join(rest[end:]))


def short(kinds: Iterable[str]) -> dict[str, str]:
    """Kinds by their last names, where those differ."""
    every = list(kinds)
    names = {kind: kind.rpartition(".")[2] for kind in every}
    return names if len(set(names.values())) == len(every) else {kind: kind for kind in every}
