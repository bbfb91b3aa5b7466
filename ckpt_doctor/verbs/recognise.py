"""Which messages of runtimes stand in a text: what was pasted from a terminal, wrapped, quoted, within a traceback.

The text is whatever a user has, so all is bounded: its length, the tries for a message, the length of a free place. It
is searched by plain comparison; the one pattern takes colours out, and has no more than 20 characters.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from ..adapter.findings import Code
from ..facts.messages import PLACES, Message, messages

LONGEST = 1 << 20
"""How many characters of a text are looked at, from its end: a traceback has what matters there."""
MOST = 3
"""How many codes are named."""
_TRIES = 100
"""How often a message that begins in a text, but goes on otherwise, is looked for further on."""
_SHORTEST = 12
"""How many characters a message has to have beside the words in backticks for a shell to have taken those."""

_COLOUR = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")
_QUOTES = '"`´‘’‚‛“”„‟′″‹›'
# what nobody types the same: spaces, escapes, and the frames that some programs draw around a traceback
_DROPPED = [*range(0x20), 0x20, *range(0x7F, 0xA1), 0x1680, *range(0x2000, 0x2010), *range(0x2028, 0x2030), 0x205F,
            *range(0x2060, 0x2070), 0x3000, 0xFEFF, *range(0x2500, 0x2580), ord("\\")]  # fmt: skip
_FOLD: dict[int, str | None] = {**dict.fromkeys(_DROPPED), **{ord(quote): "'" for quote in _QUOTES}, ord("\n"): "\n"}


class Recognised(NamedTuple):
    """A message that stands in a text, and the tensor, key, method … that it names, if any."""

    message: Message
    name: str | None


class _Match(NamedTuple):
    start: int
    end: int
    captures: list[str]


def _folded(text: str) -> str:
    """A text without spaces, escapes and control characters, and with one kind of quote; its lines stay."""
    return _COLOUR.sub("", text[-LONGEST:]).replace("\\n", "\n").replace("\r", "\n").translate(_FOLD)


@cache
def _texts(message: Message, eaten: bool) -> tuple[str, ...]:
    """The folded texts of a message; `eaten`: without what is in backticks, which a shell runs and takes out."""
    return tuple(_folded(re.sub("`[^`]{0,60}`", "", text) if eaten else text) for text in message.texts)


def _weight(message: Message, eaten: bool) -> int:
    return sum(map(len, _texts(message, eaten)))


def recognised(text: str) -> list[Recognised]:
    """The messages that stand in a text, the one with the most words of its own first; none within another."""
    by_line = _folded(text)
    whole = by_line.replace("\n", "")
    telling = [message for message in messages() if not message.alone]
    found = _found(telling, whole, eaten=False)
    if not found:
        found = _found([message for message in telling if "`" in message.quote], whole, eaten=True)
    if not found:
        found = _found([message for message in messages() if message.alone], by_line, eaten=False)
    return [Recognised(message, _name(message, match)) for message, match in found]


def likely(matches: list[Recognised]) -> list[Code]:
    """The codes that messages can come from: the first of each message, then the second of each …"""
    ranked = [match.message.codes[at] for at in range(MOST) for match in matches if at < len(match.message.codes)]
    return list(dict.fromkeys(ranked))[:MOST]


def _found(candidates: list[Message], text: str, *, eaten: bool) -> list[tuple[Message, _Match]]:
    found: list[tuple[Message, _Match]] = []
    for message in sorted(candidates, key=lambda message: -_weight(message, eaten)):
        if eaten and _weight(message, eaten) < _SHORTEST:
            continue
        match = _match(message, _texts(message, eaten), text)
        if match and all(match.end <= other.start or match.start >= other.end for _, other in found):
            found.append((message, match))
    return found


def _match(message: Message, texts: tuple[str, ...], text: str) -> _Match | None:
    """Where a message stands in a folded text."""
    if any(part not in text for part in texts):
        return None
    first = 0 if texts[0] else 1  # one that begins with a free place is looked for by what comes after it
    at = text.find(texts[first])
    for _ in range(_TRIES):
        if at < 0:
            return None
        match = _match_at(message, texts, text, at, first)
        if match and (not message.alone or _is_alone(text, match)):
            return match
        at = text.find(texts[first], at + 1)
    return None


def _match_at(message: Message, texts: tuple[str, ...], text: str, at: int, first: int) -> _Match | None:
    start, end = at, at + len(texts[first])
    captures: list[str] = []
    if first:
        allowed, longest = PLACES[str(message.places[0])]
        while start > 0 and at - start < longest and allowed and text[start - 1] in allowed:
            start -= 1
        if start == at:
            return None
        captures.append(text[start:at])
    for place, after in zip(message.places[first:], texts[first + 1 :], strict=True):
        if isinstance(place, int):
            content, stop = captures[place], end + len(captures[place])
            if not text.startswith(content + after, end):
                return None
        else:
            allowed, longest = PLACES[place]
            stop = text.find(after, end, end + longest + len(after)) if after else _run(text, end, allowed, longest)
            content = text[end : max(stop, end)]
            if stop < 0 or (allowed is not None and (not content or not allowed.issuperset(content))):
                return None
        captures.append(content)
        end = stop + len(after)
    return _Match(start, end, captures)


def _run(text: str, at: int, allowed: frozenset[str] | None, longest: int) -> int:
    """Where what can stand in a place ends."""
    end = at
    while allowed and end < len(text) and end - at < longest and text[end] in allowed:
        end += 1
    return end


def _is_alone(text: str, match: _Match) -> bool:
    """Whether a message ends its line, and begins it or follows what a program put before it."""
    ends = match.end == len(text) or text[match.end] == "\n"
    return ends and (match.start == 0 or text[match.start - 1] in "\n:|])'")


def _name(message: Message, match: _Match) -> str | None:
    """What stands in the first place for a name or a word in capitals."""
    named = zip(message.places, match.captures, strict=True)
    return next((content for place, content in named if place in {"name", "type"}), None)
