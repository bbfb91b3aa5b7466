"""What runtimes print where they reject an adapter, or warn of it: messages.txt, whose head says how it is written."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import NamedTuple

from ..adapter.codes import CODES
from ..adapter.findings import Code

_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
PLACES: dict[str, tuple[frozenset[str] | None, int]] = {
    "text": (None, 1000),
    "name": (_WORD | frozenset("./<>"), 300),
    "part": (_WORD, 100),
    "type": (frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"), 40),
    "number": (frozenset("0123456789.+-e"), 30),
}
"""What can stand in a free place, and how many characters of it: any text, or none; the name of a tensor, a module, a
class or a file; one part of such a name; a word in capitals; a number."""

_PLACE = re.compile("«([^»]*)»")


class Message(NamedTuple):
    """A message, the codes that it can come from, and where it stands: a file and a symbol of a runtime.

    `texts` are what is always the same, one more than there are `places`: each a kind of `PLACES`, or the number of the
    place, from 0, that says the same. `alone` says that it counts as the end of a line, where no other fits.
    """

    texts: tuple[str, ...]
    places: tuple[str | int, ...]
    quote: str
    codes: tuple[Code, ...]
    runtime: str
    source: str
    alone: bool

    @property
    def open(self) -> str:
        """The message with an ellipsis for each free place."""
        return "…".join(self.texts)


def _parsed(template: str, codes: tuple[Code, ...], runtime: str, source: str, alone: bool) -> Message:
    texts = tuple(_PLACE.split(template)[::2])
    places: list[str | int] = []
    examples: list[str] = []
    for content in _PLACE.findall(template):
        kind, _, example = content.partition(":")
        places.append(int(kind) - 1 if kind.isdigit() else kind)
        examples.append(examples[int(kind) - 1] if kind.isdigit() else example)
    quote = texts[0] + "".join(example + text for example, text in zip(examples, texts[1:], strict=True))
    return Message(texts, tuple(places), quote, codes, runtime, source, alone)


@cache
def messages() -> tuple[Message, ...]:
    """Every message that is known."""
    found = []
    runtime = source = ""
    with open(os.path.join(os.path.dirname(__file__), "messages.txt"), encoding="utf-8") as file:
        for line in file:
            if line.startswith("    "):
                alone = " | " not in line or " ! " in line.partition(" | ")[0]
                codes, _, template = line.strip().partition(" ! " if alone else " | ")
                found.append(_parsed(template, tuple(CODES[code] for code in codes.split()), runtime, source, alone))
            elif line.strip() and not line.startswith("#"):
                runtime, _, source = line.strip().partition(": ")
    return tuple(found)


def quoted(code: Code) -> list[Message]:
    """The messages that the page of a code quotes: those that it is likeliest to be behind, or else those that it can
    be. One that says little is not quoted, unless it names its exception, nor one that is a part of another.
    """
    telling = [message for message in messages() if not message.alone or ": " in message.quote]
    first = [message for message in telling if message.codes[0] == code]
    shown = first or [message for message in telling if code in message.codes]
    return [each for each in shown if not any(each.quote in other.quote and each != other for other in shown)]
