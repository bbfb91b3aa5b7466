"""The names of modules of image and video models: diffusers', and what others call the same (image_modules.json).

`scripts/image_tables.py` makes the table from the models themselves. A name there has `#` for the number of a block.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

Shares = tuple[tuple[int, int], ...]
"""Rows of a weight, as ranges of parts of a common size, in the order in which the other weight has them."""
WHOLE: Shares = ((0, 1),)
Pieces = dict[str, Shares]
"""Module of diffusers → which rows of another's weight it has."""
ANY = Fraction(0)
Ways = dict[Fraction, Pieces]
"""Rows per column of a weight → what it is."""


class Model(NamedTuple):
    """A class of diffusers or transformers: which component of a pipeline it is, where it is, its modules' names."""

    part: str
    library: str
    modules: tuple[str, ...]


class Layout(NamedTuple):
    """What another code calls the modules of a class: its name for each, and what that is, by the rows that its weight
    has per column, or ANY.
    """

    model: str
    modules: dict[str, Ways]


@cache
def _tables() -> tuple[dict[str, Model], dict[str, Layout]]:
    raw = json.loads(Path(__file__).with_name("image_modules.json").read_text())
    models = {name: Model(it["part"], it["library"], tuple(it["modules"])) for name, it in raw["models"].items()}
    layouts = {}
    for name, it in raw["layouts"].items():
        modules = {}
        for module, entry in it["modules"].items():
            ways = entry["by_ratio"] if isinstance(entry, dict) and "by_ratio" in entry else {ANY: entry}
            modules[module] = {Fraction(ratio): _pieces(way) for ratio, way in ways.items()}
        layouts[name] = Layout(it["model"], modules)
    return models, layouts


def _pieces(entry: str | dict[str, list[list[int]]]) -> Pieces:
    if isinstance(entry, str):
        return {entry: WHOLE}
    return {name: tuple((first, last) for first, last in ranges) for name, ranges in entry.items()}


def models() -> dict[str, Model]:
    """The classes, by name."""
    return _tables()[0]


def layouts() -> dict[str, Layout]:
    """The layouts that are not diffusers', by name."""
    return _tables()[1]


class Names:
    """Names of modules, to be found by ones whose parts are put together by `separator`, with numbers for each `#`."""

    def __init__(self, templates: Iterable[str], separator: str) -> None:
        self._separator = separator
        self._found: dict[str, list[tuple[str, list[str]]]] = {}
        for template in templates:
            parts = template.replace(".", separator).split(separator)
            self._found.setdefault(self._kind(parts), []).append((template, parts))

    def _kind(self, parts: list[str]) -> str:
        return self._separator.join("#" if part == "#" or _is_number(part) else part for part in parts)

    def of(self, name: str) -> tuple[str, list[str]] | None:
        """The name with `#`, and the numbers for these; None where there is none such."""
        parts = name.split(self._separator)
        for template, wanted in self._found.get(self._kind(parts), ()):
            pairs = list(zip(wanted, parts, strict=True))
            if all(want == "#" or want == part for want, part in pairs) and "#" not in parts:
                return template, [part for want, part in pairs if want == "#"]
        return None


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= 4 and str(int(part)) == part


def filled(template: str, numbers: list[str]) -> str:
    """A name with numbers for its `#`."""
    first, *others = template.split("#")
    return first + "".join(number + text for number, text in zip(numbers, others, strict=True))


@cache
def names_of(model: str, separator: str = ".") -> Names:
    """The names of a class."""
    return Names(models()[model].modules, separator)


def classes_with(modules: Iterable[str]) -> list[str]:
    """The classes that have all these modules."""
    listed = list(modules)
    return [name for name in models() if all(names_of(name).of(module) for module in listed)]
