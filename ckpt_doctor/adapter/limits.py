"""How much of a file is followed at most. What has more could not be examined, which is said, and holds up no other.

Each limit is far above what training writes, and so low that what it lets through takes about a second and 200 MB.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from math import prod
from operator import methodcaller
from typing import NamedTuple

from . import AdapterError, Form, numbered_alike


class Limit(NamedTuple):
    """The most that there may be of something."""

    most: int
    what: str

    def check(self, count: int, where: str) -> None:
        """Raises AdapterError where there is more."""
        if count > self.most:
            raise AdapterError(f"{where} has more than {self.most:,} {self.what}, which is more than is followed here")


JSON = Limit(64 << 20, "bytes")
"""Of a config, an index, a record."""
VALUES = Limit(2_000_000, "values")
"""Of any JSON: one of three bytes takes 64 in memory. The header of 138,240 tensors has 1,250,000."""
LONG = Limit(1_000, "whole numbers of 19 digits or more")
"""Whole numbers from 2 ** 61 - 1 on can all have one hash, so that looking them up takes as long as comparing all."""
_LONG = re.compile(rb"[\s:,\[-][0-9]{19,}(?=[\s,\]}])")
DEPTH = Limit(100, "levels of lists and objects in each other")
HEADER = Limit(40_000_000, "bytes in its header")
"""Of safetensors, which allows 100 MB; 138,240 tensors take 20."""
TENSORS = Limit(200_000, "tensors")
KINDS = Limit(20_000, "tensors whose names differ in more than the numbers between dots")
"""Most of what is asked of layers is asked of one of each kind: the 138,240 tensors are of 6. The names of kohya's
sd-scripts have no dots, so that each is of its own: 3,000 for SDXL."""
NAME = Limit(500, "characters in the name of a tensor")
PARTS = Limit(64, "parts in the name of a tensor")
"""Between dots: what is asked of each beginning or end of a name is quadratic in them."""
DIMENSIONS = Limit(32, "dimensions in a tensor")
"""numpy 1 has no more (NPY_MAXDIMS)."""
EMPTY = Limit(1 << 24, "numbers in a tensor of rank 1 that has the sizes of one without any")
"""A layer of rank 0 is padded with as many zeros, of which nothing but these sizes is in the file: a vocabulary has
less than 2 ** 20."""
ZEROS = Limit(1 << 30, "numbers in tensors of rank 1 that have the sizes of those without any")
SHARED = Limit(64, "times its size in tensors that share numbers")
"""A .bin can name a storage as often as it likes, and what is written of it has each by itself."""
PICKLE = Limit(64 << 20, "bytes in its pickle")
STEPS = Limit(2_000_000, "steps in its pickle")
"""Opcodes. A tensor takes forty."""
MEMO = Limit(750_000, "values that its pickle remembers")
"""A tensor takes eleven."""
STACK = Limit(200_000, "values on the stack of its pickle")
"""A dict and a list are filled with a thousand at a time (pickle.py: _BATCHSIZE); an empty one takes 64 bytes."""
SAVED = Limit(2_000_000, "pairs of a name in modules_to_save and a tensor that is not LoRA's")
"""Each name may be that of a module of each such tensor. A model has some, of a handful of names."""
KEYS = Limit(1_000, "keys in its config")
"""The longest of a release has 60."""
LISTED = Limit(250_000, "names in lists and objects of its config")
"""What is made of them to be looked up is remembered at once (facts/patterns.py: once). 69,120 layers that targets and
two patterns name in full are 207,360.
"""
PATTERN_LENGTH = 1 << 14
"""Characters of a pattern that is given to an engine for regular expressions."""
PATTERN_REPEATS = 1_000
"""What the counts of repeats in such a pattern come to, multiplied: the engine writes them out."""
PATTERN_STEPS = 1e8
"""Ways to match a name that `re` would have to try: some seconds of it."""
PATTERN_SECONDS = 0.1
"""Of processor time, for one pattern and one name."""
PATTERN_BUDGET = 0.5
"""Seconds for all patterns of an adapter."""
PATTERN_PAIRS = 4_000_000
"""Names by patterns, of an adapter, where each pattern has to be looked at."""


def check_names(names: Collection[str], where: str) -> None:
    """Raises AdapterError where the names of tensors are more, or longer, than are followed."""
    TENSORS.check(len(names), where)
    if len(names) > KINDS.most:
        KINDS.check(len({*numbered_alike(names)}), where)
    longest = max(map(len, names), default=0)
    NAME.check(longest, where)
    if longest > PARTS.most:
        PARTS.check(max(map(methodcaller("count", "."), names)) + 1, where)


def check_forms(forms: Iterable[Form], where: str) -> None:
    """Raises AdapterError where tensors have more dimensions than are followed, or stand for more zeros."""
    shapes, zeros = [shape for _, shape in forms], 0
    for shape in [shape for shape in shapes if 0 in shape]:
        size = prod(filter(None, shape))
        EMPTY.check(size, where)
        zeros += size
    DIMENSIONS.check(max(map(len, shapes), default=0), where)
    ZEROS.check(zeros, where)


def check_config(config: Mapping[str, object], names: Collection[str], where: str) -> None:
    """Raises AdapterError where a config has more keys or names than are looked up, or modules_to_save more than are
    held against the tensors.
    """
    KEYS.check(len(config), where)
    listed = [value for value in config.values() if isinstance(value, (list, dict))]
    if sum(map(len, listed)) > LISTED.most:
        LISTED.check(sum(isinstance(name, str) for value in listed for name in value), where)
    saved = config.get("modules_to_save")
    if isinstance(saved, list) and len(saved) * len(names) > SAVED.most:
        SAVED.check(len(saved) * sum(".lora_" not in name for name in names), where)


def check_values(raw: bytes, where: str) -> None:
    """Raises AdapterError where JSON has more values than are followed."""
    if len(raw) > VALUES.most:
        VALUES.check(raw.count(b",") + raw.count(b"[") + raw.count(b"{") + raw.count(b'"') // 4, where)


def check_numbers(raw: bytes, where: str) -> None:
    """Raises AdapterError where JSON has more long numbers than are followed."""
    if len(raw) > LONG.most:
        LONG.check(sum(1 for _ in _LONG.finditer(raw)), where)


def check_depth(value: object, raw: bytes, where: str) -> None:
    """Raises AdapterError where a value, read from JSON, is nested deeper than is followed."""
    if raw.count(b"[") + raw.count(b"{") <= DEPTH.most:
        return
    level, depth = [value], 0
    while level:
        depth += 1
        DEPTH.check(depth - 1, where)
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [each for values in inner for each in values]
