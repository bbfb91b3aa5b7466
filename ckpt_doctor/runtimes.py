"""The programs that take adapters, in which releases."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

PEFT_RELEASES = (
    "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.6.1", "0.6.2", "0.7.0", "0.7.1", "0.8.0", "0.8.1", "0.8.2",
    "0.9.0", "0.10.0", "0.11.0", "0.11.1", "0.12.0", "0.13.0", "0.13.1", "0.13.2", "0.14.0", "0.15.0", "0.15.1",
    "0.15.2", "0.16.0", "0.17.0", "0.17.1", "0.18.0", "0.18.1", "0.19.0", "0.19.1", "0.20.0", "0.21.0", "0.21.1",
    "0.21.2",
)  # fmt: skip
"""Every final PEFT release from 0.2.0 to 0.21.2, oldest first."""

_IDS = tuple(f"peft=={release}" for release in PEFT_RELEASES)
PEFT = frozenset(_IDS)


def minor(release: str) -> tuple[int, ...]:
    """`0.13.2` → (0, 13): outcomes differ between minor series only."""
    return tuple(int(part) for part in release.split(".")[:2])


@cache
def peft(first: str = "0.2", last: str = "99.0") -> frozenset[str]:
    """The ids of all releases of the minor series from `first` to `last`, both included."""
    return frozenset(f"peft=={r}" for r in PEFT_RELEASES if minor(first) <= minor(r) <= minor(last))


def ranges(ids: Iterable[str]) -> str:
    """For people: `PEFT 0.5.0 – 0.7.1, 0.10.0 – 0.21.2`; "no PEFT release" for none."""
    wanted = set(ids)
    spans: list[list[str]] = []
    previous = -2
    for index, id_ in enumerate(_IDS):
        if id_ in wanted:
            release = PEFT_RELEASES[index]
            if index == previous + 1:
                spans[-1][1:] = [release]
            else:
                spans.append([release])
            previous = index
    return "PEFT " + ", ".join(" – ".join(span) for span in spans) if spans else "no PEFT release"


def since(ids: frozenset[str]) -> str | None:
    """The release from which on every later one is among `ids`, or None."""
    first = None
    for id_, release in zip(reversed(_IDS), reversed(PEFT_RELEASES), strict=True):
        if id_ not in ids:
            break
        first = release
    return first
