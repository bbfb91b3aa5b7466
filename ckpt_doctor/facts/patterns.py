r"""Regular expressions that a config holds, matched as PEFT does, in bounded time.

What PEFT and this tool write is no more than names: words, `.*\.(a|b)`, `(.*\.)?(key)$`, lists of escaped names. Those
are looked up, as the keys of a table. Any other pattern is given to the package `regex`, as `re` has no timeout; and
only if both read it alike, and `re`, which PEFT has, would not take for ever. All else is not decided.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import factorial
from time import process_time
from typing import Any, NamedTuple, TypeVar

from ..adapter import AdapterError
from ..adapter.limits import (
    PATTERN_BUDGET,
    PATTERN_LENGTH,
    PATTERN_PAIRS,
    PATTERN_REPEATS,
    PATTERN_SECONDS,
    PATTERN_STEPS,
)

Match = Any
"""What re and regex give for a match: group(1) is all that is asked of it."""


class TooCostly(AdapterError):  # noqa: N818 - it becomes a finding, not an error of ours
    """Whether a pattern matches a name is not decided, as that could take for ever."""

    why, needs = "is too costly to match", "a pattern without nested repeats"

    def __init__(self, pattern: str) -> None:
        super().__init__(f"the pattern {pattern[:80]!r} {self.why}")
        self.pattern = pattern


class Broken(TooCostly):
    """A pattern is none that `re` takes: a release stops at it, if it comes to it."""

    why, needs = "is no regular expression", "a pattern that Python's re takes"


class _Spent:
    """What the patterns of the adapter at hand have cost."""

    seconds = 0.0
    pairs = 0
    characters = 0
    """Of the patterns of which something is remembered."""


_MOST_CHARACTERS = 1 << 20
"""Each takes up to 30 bytes of what is made of it."""


def new_adapter() -> None:
    """Begin a new budget, and forget what was made of the adapter before; what was made of patterns alone, too, where
    these were long: others have the same words, but not the same megabytes.
    """
    _Spent.seconds, _Spent.pairs = 0.0, 0
    _made.clear()
    if _Spent.characters > _MOST_CHARACTERS:
        _Spent.characters = 0
        for known in (_words, _pieces, _compiled, _plain, _table, _one, _single, whole):
            known.cache_clear()


_costly: set[tuple[str, str]] = set()
"""Patterns and the names that they were too costly for: another state of the same adapter asks again."""


def pay(pattern: str, pairs: int) -> None:
    """Count pairs of a pattern and a name that an adapter is about to ask for. Raises TooCostly past PATTERN_PAIRS."""
    _Spent.pairs += pairs
    if _Spent.pairs > PATTERN_PAIRS:
        raise TooCostly(pattern)


# Names

START, DOT, MAYBE, ANY = "", r".*\.", r"(.*\.)?", ".*"
"""What may stand before a word: nothing, something and a dot, that or nothing, anything."""
_SPECIAL = frozenset(".^$*+?{}[]\\|()")


class _Word(NamedTuple):
    """A word at the end of a name: its pieces, between which any one character stands, and what is before it."""

    head: str
    pieces: tuple[str, ...]


@lru_cache(4096)
def _words(pattern: str, before: str = START) -> tuple[_Word, ...] | None:
    """The words of which a pattern matches a name that ends with one; None where it is more than words. `before` is
    what may stand before a word where the pattern does not say.
    """
    _Spent.characters += len(pattern)
    bare = _unanchored(pattern)
    for text, head in _HEADS:
        if bare.startswith(f"{text}(") and bare.endswith(")"):
            head = head or ("" if pattern.startswith("^") else before)
            pieces = [_pieces(part) for part in bare[len(text) + 1 : -1].removeprefix("?:").split("|")]
            if None not in pieces:
                return tuple(_Word(head, piece) for piece in pieces if piece is not None)
    found = []
    for part in dict.fromkeys(pattern.split("|")):
        if part.isidentifier():
            found.append(_Word(before, (part,)))
            continue
        bare = _unanchored(part)
        text, head = next(pair for pair in _HEADS if bare.startswith(pair[0]))
        piece = _pieces(bare[len(text) :])
        if piece is None:
            return None
        found.append(_Word(head or ("" if part.startswith("^") else before), piece))
    return tuple(found)


def _unanchored(pattern: str) -> str:
    """Without the signs for the start and the end of a name."""
    pattern = pattern.removeprefix("^")
    return pattern[:-1] if pattern.endswith("$") and pattern[-2:] != "\\$" else pattern


_HEADS = ((MAYBE, MAYBE), (r"(?:.*\.)?", MAYBE), (DOT, DOT), (ANY, ANY), (START, START))


@lru_cache(4096)
def _pieces(word: str) -> tuple[str, ...] | None:
    """A word between its dots, which stand for any character; None where it is a pattern."""
    _Spent.characters += len(word)
    if word.isidentifier():
        return (word,)
    pieces, piece, at = [], "", 0
    while at < len(word):
        char = word[at]
        if char == "\\":
            at += 1
            char = word[at : at + 1]
            if not char or char.isalnum() or not char.isascii():
                return None
            piece += char
        elif char == ".":
            pieces.append(piece)
            piece = ""
        elif char in _SPECIAL:
            return None
        else:
            piece += char
        at += 1
    return (*pieces, piece)


class Words:
    """Words by their form, to be looked up in as many steps as there are forms; each with the place of its pattern."""

    def __init__(self, words: Iterable[tuple[_Word, int]]) -> None:
        self._forms: dict[tuple[str, tuple[int, ...]], dict[tuple[str, ...], list[int]]] = {}
        for word, place in words:
            form = self._forms.setdefault((word.head, tuple(map(len, word.pieces))), {})
            places = form.setdefault(word.pieces, [])
            if not places or places[-1] != place:  # a pattern may say a word twice
                places.append(place)

    def first(self, name: str) -> int | None:
        """The place of the first pattern of which the name ends with a word. Raises TooCostly."""
        return min((places[0] for places in self._found(name)), default=None)

    def all(self, name: str) -> set[int]:
        """The places of all patterns of which the name ends with a word. Raises TooCostly."""
        return {place for places in self._found(name) for place in places}

    def _found(self, name: str) -> list[list[int]]:
        """For each word that the name ends with the places of its patterns, in their order. Raises TooCostly."""
        found = []
        if len(self._forms) > 100:
            pay("|".join(next(iter(next(iter(self._forms.values()))))), len(self._forms))
        for (head, sizes), words in self._forms.items():
            start = len(name) - sum(sizes) - len(sizes) + 1
            if start < 0 or (start and not head) or (head in (DOT, MAYBE) and start and name[start - 1] != "."):
                continue
            if head == DOT and not start:
                continue
            pieces = []
            for size in sizes:
                pieces.append(name[start : start + size])
                start += size + 1
            places = words.get(tuple(pieces))
            if places:
                found.append(places)
        return found


# What is more than names


class _Compiled(NamedTuple):
    """A pattern, how many of its parts are repeated without end, and in how many ways its other parts can match."""

    pattern: Any
    endless: int
    choices: float

    def steps(self, length: int) -> float:
        """How many ways there may be to match a name of some characters: what `re` tries, one after the other."""
        ways: float = float(length + 1) ** min(self.endless, 100) / factorial(min(self.endless, 100))
        return ways * self.choices


@lru_cache(512)
def _compiled(pattern: str, of: str) -> _Compiled | None:
    """A pattern, compiled; None where `re` does not take it. Raises TooCostly."""
    if _Spent.seconds > PATTERN_BUDGET or len(pattern) > PATTERN_LENGTH or not pattern.isascii():
        raise TooCostly(of)
    start = process_time()
    try:
        return _made_of(pattern, of)
    finally:
        _Spent.seconds += process_time() - start


def _made_of(pattern: str, of: str) -> _Compiled | None:
    from warnings import catch_warnings, simplefilter

    try:
        with catch_warnings():
            simplefilter("ignore")
            re.compile(pattern)
    except (re.error, OverflowError):
        return None
    except RecursionError:
        raise TooCostly(of) from None
    counts = _repeats(pattern)
    if counts is None:
        raise TooCostly(of)
    import regex

    try:
        return _Compiled(regex.compile(pattern, regex.V0), *counts)
    except (regex.error, RecursionError):
        raise TooCostly(of) from None


_ESCAPES = frozenset("dDwWsSbBAZ0tnrfv")
_AROUND = ("?=", "?!", "?<=", "?<!")
_GROUPS = ("?:", "?P<", *_AROUND)
_REPEAT = r"(?:[*+?]|\{(\d{0,9})(,?)(\d{0,9})\})[?]?"
_MOST_CHOICES = 1e30


class _Group:
    """A group that is open: where it begins, whether it looks `around`, whether what it matches has no one length, and
    what its branches come to, the last of them as far as it was read.
    """

    def __init__(self, start: int, around: bool = False) -> None:
        self.start = start
        self.around = around
        self.varied = False
        self.branches: list[tuple[int, float]] = []
        self.endless, self.choices = 0, 1.0

    def branch(self) -> None:
        """Begin another branch."""
        self.branches.append((self.endless, self.choices))
        self.endless, self.choices = 0, 1.0

    def ended(self, text: str) -> tuple[int, float]:
        """Its parts that are repeated without end, and the ways of its others: of words of which none begins another
        only one can match at a place.
        """
        self.branch()
        words = [_pieces(word) for word in text.lower().split("|")] if "(" not in text else [None]
        ordered = sorted(word[0] if word is not None and len(word) == 1 else "" for word in words)
        if all(word and not after.startswith(word) for word, after in pairwise([*ordered, "|"])):
            return 0, 1.0
        return max(endless for endless, _ in self.branches), sum(choices for _, choices in self.branches)


def _repeats(pattern: str) -> tuple[int, float] | None:
    """How many parts of a pattern, which `re` takes, are repeated without end, and in how many ways the others match.

    None where it is not followed: regex has constructs of its own (fuzzy counts, sets within sets, classes by name) and
    writes counted repeats out, so both have to read it alike; and where a repeat lies in a repeat, or a choice does,
    `re` may take twice as long with each character. What looks ahead or behind has no length, and is not tried twice.
    """
    at, written = 4 if pattern.startswith("(?i)") else 0, 1
    groups = [_Group(at)]
    while at < len(pattern):
        char, inner = pattern[at], False
        if char == "(":
            head = next((text for text in _GROUPS if pattern.startswith(text, at + 1)), "")
            at = pattern.index(">", at) + 1 if head == "?P<" else at + 1 + len(head)
            if not head and pattern[at : at + 1] in ("?", "*"):
                return None
            groups.append(_Group(at, head in _AROUND))
            continue
        if char == "[":
            end = re.compile(r"\^?(?:\\.|[^\[\]\\])+\]").match(pattern, at + 1)
            if end is None or any(pair in end[0] for pair in ("--", "&&", "||", "~~")):
                return None
            at = end.end()
        elif char == "\\":
            if pattern[at + 1].isalnum() and pattern[at + 1] not in _ESCAPES:
                return None
            at += 2
        elif char == ")":
            group = groups.pop()
            endless, choices = group.ended(pattern[group.start : at])
            groups[-1].endless += endless
            groups[-1].choices = min(groups[-1].choices * choices, _MOST_CHOICES)
            inner = group.varied and not group.around
            at += 1
        else:
            if char == "|":
                groups[-1].branch()
            at += 1
        here = groups[-1]
        here.varied = here.varied or inner or char == "|"
        repeat = re.compile(_REPEAT).match(pattern, at)
        if repeat is None:
            if pattern[at : at + 1] == "{":
                return None
            continue
        at = repeat.end()
        low, comma, high = repeat[1], repeat[2], repeat[3]
        if repeat[0].startswith("?"):
            here.choices *= 2
        elif low is None or (comma and not high):
            here.endless += 1
        elif comma:
            here.choices *= int(high) - int(low or 0) + 1
        here.choices = min(here.choices, _MOST_CHOICES)
        written *= max(1, int(low or 0), int(high or 0))
        if pattern[at : at + 1] == "+" or written > PATTERN_REPEATS or (inner and not repeat[0].startswith("?")):
            return None
        here.varied = True
    return groups[0].ended(pattern[groups[0].start :])


def _run(pattern: str, name: str, of: str, whole: bool) -> Match | None:
    """A match from the start of a name, or of all of it. Raises TooCostly, and Broken."""
    compiled = _compiled(pattern, of)
    if compiled is None:
        raise Broken(of)
    if _Spent.seconds > PATTERN_BUDGET or (of, name) in _costly or compiled.steps(len(name)) > PATTERN_STEPS:
        raise TooCostly(of)
    if not name.isascii():  # the tables of characters differ
        raise TooCostly(of)
    start = process_time()
    try:
        return (compiled.pattern.fullmatch if whole else compiled.pattern.match)(name, timeout=PATTERN_SECONDS)
    except (TimeoutError, MemoryError):
        if len(_costly) > 1_000:
            _costly.clear()
        _costly.add((of, name))
        raise TooCostly(of) from None
    finally:
        _Spent.seconds += process_time() - start


@lru_cache(16384)
def whole(pattern: str, name: str) -> bool:
    """Whether a pattern matches all of a name: `re.fullmatch`. Raises TooCostly, and Broken."""
    words = _table(pattern) if "\n" not in name else None
    if words is not None:
        return words.first(name) is not None
    return _run(pattern, name, pattern, True) is not None


def reaches(pattern: str, name: str) -> bool:
    """As `whole`, of what has to match a module of the model: one that is broken matches none, and no release loads."""
    try:
        return whole(pattern, name)
    except Broken:
        return False


def is_pattern(text: str) -> bool:
    """Whether a text is a regular expression. Raises TooCostly where it is too large a one to tell."""
    return _table(text) is not None or _compiled(text, text) is not None


@lru_cache(64)
def _table(pattern: str) -> Words | None:
    words = _words(pattern)
    return None if words is None else Words((word, 0) for word in words)


NEW, OLD = r"(.*\.)?({})$", r".*\.{}$"
"""How keys name modules: in PEFT 0.15 and newer (utils/other.py: get_pattern_key), and before."""


class Keys:
    """Patterns for the end of a name, in their order, each in the place of `{}` in a form."""

    def __init__(self, keys: Iterable[str], form: str = NEW) -> None:
        self._keys = list(keys)
        self._form = form
        self._others: list[int] = []
        self._words = Words(self._each())

    def _each(self) -> Iterator[tuple[_Word, int]]:
        """The words, each with the place of its key; the places of keys that are more than words are noted."""
        for place, key in enumerate(self._keys):
            if self._form == NEW:
                own = _words(key, MAYBE)
            else:  # no group is around it
                pieces = _pieces(key)
                own = None if pieces is None else (_Word(DOT if self._form == OLD else MAYBE, pieces),)
            if own is None:
                self._others.append(place)
            else:
                yield from ((word, place) for word in own)

    def first(self, name: str) -> str | None:
        """The first that matches a name; None where none does. Raises TooCostly."""
        found: int | None = None
        places: Sequence[int] = range(len(self._keys))
        if "\n" not in name:
            found, places = self._words.first(name), self._others
        if places:
            pay(self._keys[places[0]], len(places))
        for place in places:
            if found is not None and place > found:
                break
            if self._matches(place, name):
                return self._keys[place]
        return None if found is None else self._keys[found]

    def all(self, name: str) -> list[str]:
        """All that match a name. Raises TooCostly."""
        found: set[int] = set()
        places: Sequence[int] = range(len(self._keys))
        if "\n" not in name:
            found, places = self._words.all(name), self._others
        every = (*places, *found)
        if len(every) > 1:  # also words alone: there are many ways to write one
            pay(self._keys[every[0]], len(every))
        found.update(place for place in places if self._matches(place, name))
        return [self._keys[place] for place in sorted(found)]

    def _matches(self, place: int, name: str) -> bool:
        key = self._keys[place]
        return _run(self._form.replace("{}", key), name, key, False) is not None


def ends(key: str, name: str) -> bool:
    """Whether a key of rank_pattern names a module, as PEFT 0.15 and newer match it. Raises TooCostly."""
    return _one(key).first(name) is not None


@lru_cache(1024)
def _one(key: str) -> Keys:
    return Keys([key])


def matched(form: str, pattern: str, name: str) -> Match | None:
    """The match of a form around a pattern (`{}`) from the start of a name. Raises TooCostly."""
    pieces = _pieces(pattern)
    if pieces is not None:  # no repeat but those of the form, which ours are
        fits = len(".".join(pieces)) <= len(name)  # one of megabytes would be compiled for seconds
        return _plain(form.replace("{}", pattern), pattern).match(name) if fits else None
    return _run(form.replace("{}", pattern), name, pattern, False)


def is_plain(pattern: str) -> bool:
    """Whether a pattern is a word, in which a dot stands for any character."""
    return _pieces(pattern) is not None


_COMPILED = 1_000
"""How many names one looks at in the time that it takes to compile a word."""


@lru_cache(512)
def _plain(pattern: str, of: str) -> re.Pattern[str]:
    pay(of, _COMPILED)
    return re.compile(pattern)


# What is made of a list or an object of the config, or of the tensors, once

Made = TypeVar("Made")
_made: dict[tuple[int, str], tuple[Collection[Any], int, Any]] = {}
_MOST_MADE = 500_000
"""Of how many members in all something is remembered."""


def once(of: Collection[Any], what: str, make: Callable[[], Made]) -> Made:
    """What is made of an object of a config, or of a table of tensors, remembered while that is the same: nobody
    changes one in its place.
    """
    key = (id(of), what)
    known = _made.get(key)
    size = 1 if isinstance(of, str) else len(of)  # nobody changes a text, and its characters are no members
    if known is not None and known[0] is of and known[1] == size:
        value: Made = known[2]
        return value
    made = make()
    while _made and (len(_made) >= 64 or sum(size for _, size, _ in _made.values()) > _MOST_MADE):
        _made.pop(next(iter(_made)))
    _made[key] = (of, size, made)
    return made


def of_keys(keys: Collection[str], form: str = NEW) -> Keys:
    """The keys of a pattern, or a list of them."""
    if len(keys) == 1:
        return _single(next(iter(keys)), form)
    return once(keys, form, lambda: Keys(keys, form))


@lru_cache(4096)
def _single(key: str, form: str) -> Keys:
    return Keys([key], form)
