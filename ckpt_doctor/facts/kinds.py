"""Kinds of layers: those that differ in nothing but the numbers of the blocks they lie in are judged by one of them.

`layers.0.q` and `layers.31.q`, with factors of the same shapes and dtypes under the same names, are of one kind. It is
one of them that is asked, unless a release might read the number: where a config names layers in full, by a pattern or
by their numbers, each layer is a kind of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..adapter import numbered_alike
from .names import is_all_linear

Kinds = list[list[str]]
"""The modules of the layers of each kind."""

_NAMING = ("target_modules", "exclude_modules", "modules_to_save", "rank_pattern", "alpha_pattern")
"""Config keys that name modules."""


def reads_numbers(config: Mapping[str, object]) -> bool:
    """Whether releases may read the number of a layer, as a config says which are adapted and how."""
    counted = any(config.get(key) not in (None, []) for key in ("layers_to_transform", "target_parameters"))
    return counted or not all(_are_plain(config.get(key)) for key in _NAMING)


def _are_plain(names: object) -> bool:
    """Whether each of some names is one part of a module's name: no number, no pattern, and no dot in it."""
    if isinstance(names, (list, dict)):
        return all(isinstance(name, str) and name.isidentifier() for name in names)
    return names is None or is_all_linear(names)


class Stacks:
    """Names of which those in a numbered block are in every block of a stack: `first` are those in the blocks 0 and in
    none, `counts` the blocks by the name in the block 0.
    """

    def __init__(self, first: list[str], counts: dict[str, int]) -> None:
        self.first = first
        self.counts = counts


def stacks(forms: Mapping[str, object]) -> Stacks | None:
    """The stacks that names make; None where a block lacks a name, or has one of another form, or lies in another."""
    names: dict[str, object] = {}
    counts: dict[str, int] = {}
    for form, alike in zip(forms.values(), numbered_alike(forms), strict=True):
        if names.setdefault(alike, form) != form:
            return None
        counts[alike] = counts.get(alike, 0) + 1
    heights: dict[str, int] = {}
    found: dict[str, int] = {}
    for alike, count in counts.items():
        before, number, after = alike.partition(".0.")
        if not number and count == 1:
            continue
        if ".0." in after or heights.setdefault(before, count) != count:
            return None
        if any(f"{before}.{at}.{after}" not in forms for at in range(count)):
            return None
        found[alike] = count
    return Stacks(list(counts), found)
