"""The grammar of a method's tensors: which a layer has, in which ways, and of which shape.

A layer has the tensors of every line whose condition on the config holds (`key=value,value:`), in one of the ways that
`|` divides; `?` marks one that may be left out. In brackets is the shape: a size is a number, a config key (`r` and
others with a pattern for single layers), an expression of these, or, where the config has no such key, a letter that
must agree within the layer; `~` says that 0 in the config means "whatever fits", `*` and `...` are any size and any
sizes. `#key` stands for each of 0, 1 … key - 1 in a name and for the length of a list in a shape.
"""

import re
from collections.abc import Callable, Container, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from .names import pattern_value

Form = dict[str, tuple[tuple[str, ...], bool]]
"""Factor → (its shape, whether it may be left out)."""

Config = Mapping[str, object]


class Group(NamedTuple):
    """Tensors that a layer has in one of several ways, if the config value of `key` is, or is not, among `values`."""

    key: str
    is_among: bool
    values: tuple[str, ...]
    ways: tuple[Form, ...]


RANKS: dict[str, Callable[[int], int | None]] = {
    "r": lambda size: size,
    "2*r": lambda size: size // 2,
    "tri(r)": lambda size: round((1 + (1 + 8 * size) ** 0.5) / 2),
}
"""The sizes that tell the rank, and how: a triangle of `r` has r * (r - 1) / 2 elements."""


_FACTOR = r"(\S+?)\[([^\]]*)\](\??)"


@cache
def parse(lines: tuple[str, ...]) -> tuple[Group, ...]:
    """The groups that lines of the grammar say."""
    parsed = []
    for line in lines:
        condition, colon, rest = line.rpartition(": ")
        key, _, values = condition.partition("=")
        ways = tuple(
            {name: (tuple(shape.split()), bool(optional)) for name, shape, optional in re.findall(_FACTOR, way)}
            for way in rest.split(" | ")
        )
        among = not key.endswith("!")
        parsed.append(Group(key.rstrip("!"), among, tuple(values.split(",")) if colon else (), ways))
    return tuple(parsed)


def nearest(group: Group, present: Container[str]) -> Form:
    """The way of a group that a layer's tensors are, or are nearest to."""
    return max(group.ways, key=lambda way: (sum(1 if name in present else -1 for name in way), len(way)))


def fits(sizes: tuple[str, ...], shape: tuple[int, ...]) -> bool:
    """Whether a shape has as many dimensions as the grammar says."""
    return len(shape) >= len(sizes) - 1 if sizes[-1] == "..." else len(shape) == len(sizes)


def words(lines: tuple[str, ...]) -> Iterator[str]:
    """All words of lines that may be config keys: in conditions, in shapes and behind `#`."""
    for group in parse(lines):
        yield group.key
        for way in group.ways:
            for factor, (sizes, _) in way.items():
                yield from re.findall(r"#(\w+)", factor)
                for size in sizes:
                    yield from re.findall(r"[A-Za-z]\w*", size)


class UnknownSize(Exception):  # noqa: N818 - a rule makes a finding of it
    """A config value is not one that tells a size."""


FROM_BASE = ("num_layers", "token_dim", "num_transformer_submodules")
"""What PEFT takes from the base model where the config has null (utils/other.py: _prepare_prompt_learning_config)."""


class Sizes(NamedTuple):
    """A config as the grammar reads it: `keys` are those of the method, each with its default, `patterns` the keys that
    give single layers another value of a key.
    """

    config: Config
    keys: Config
    patterns: Mapping[str, str]

    def value(self, key: str) -> object:
        """A config value as the newest release that knows the key reads it."""
        return self.config[key] if key in self.config else self.keys.get(key)

    def active(self, group: Group) -> bool:
        """Whether the config says that a layer has the tensors of a group."""
        if not group.values:
            return True
        value = self.value(group.key)
        if value is None and isinstance(self.keys.get(group.key), bool):
            value = False
        return (str(value).lower() in group.values) is group.is_among

    def of(self, word: str, module: str) -> int | str | None:
        """A size: a number, None for any size, or a letter to be bound. Raises UnknownSize."""
        if word.isdecimal():
            return int(word)
        if word == "*":
            return None
        if word.startswith("#"):
            listed = self.value(word[1:])
            if not isinstance(listed, list):
                raise UnknownSize(word)
            return len(listed)
        triangle = re.fullmatch(r"tri\((\w+)\)(~?)", word)
        if triangle:
            side = self.of(triangle[1] + triangle[2], module)
            return side * (side - 1) // 2 if isinstance(side, int) else side
        if "*" in word:
            product = 1
            for part in word.split("*"):
                size = self.of(part, module)
                if not isinstance(size, int):
                    return None
                product *= size
            return product
        key, minus, less = word.rstrip("~").partition("-")
        if key not in self.keys:
            return word
        value = self.value(key)
        if key in self.patterns:
            value = pattern_value(self.config.get(self.patterns[key]), module, value)
        if value is None and key in FROM_BASE:
            return None
        if type(value) is not int:
            raise UnknownSize(key)
        if word.endswith("~") and value == 0:
            return None
        return value - int(less) if minus else value

    def mismatch(
        self, way: Form, shapes: Mapping[str, tuple[int, ...]], module: str, bound: dict[str, int]
    ) -> list[str]:
        """The factors whose shape is not what PEFT builds from the config; letters are bound. Raises UnknownSize."""
        misfits = []
        for factor, (sizes, _) in way.items():
            shape = shapes.get(factor)
            if shape is None:
                continue
            right = fits(sizes, shape)
            for word, size in zip(sizes, shape, strict=False):
                if word != "..." and right:
                    wanted = self.of(word, module)
                    # unless the config itself says so, or it is a triangle of a side that agrees with none: of 1
                    nothing = size == 0 and wanted != 0 and not (isinstance(wanted, str) and word.startswith("tri("))
                    if isinstance(wanted, str):
                        wanted = bound.setdefault(wanted, size)
                    right = not nothing and (wanted is None or wanted == size)
            if not right or (0 in shape and "..." in sizes):
                misfits.append(factor)
        return misfits

    def spread(self, way: Form, present: int) -> Form:
        """A way with a factor for each number that `#key` in its name stands for, for no more than one beyond the
        factors that are there: a config may say any number.
        """
        if not any("#" in factor for factor in way):
            return way
        whole: Form = {}
        for factor, form in way.items():
            counted = re.search(r"#(\w+)", factor)
            count = self.value(counted[1]) if counted else 1
            for number in range(min(count, present + 1) if type(count) is int else 0):
                whole[re.sub(r"#\w+", str(number), factor)] = form
        return whole
