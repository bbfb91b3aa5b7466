"""The programs that take adapters, in which releases."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise

PEFT_RELEASES = (
    "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.6.1", "0.6.2", "0.7.0", "0.7.1", "0.8.0", "0.8.1", "0.8.2",
    "0.9.0", "0.10.0", "0.11.0", "0.11.1", "0.12.0", "0.13.0", "0.13.1", "0.13.2", "0.14.0", "0.15.0", "0.15.1",
    "0.15.2", "0.16.0", "0.17.0", "0.17.1", "0.18.0", "0.18.1", "0.19.0", "0.19.1", "0.20.0", "0.21.0", "0.21.1",
    "0.21.2",
)  # fmt: skip
"""Every final PEFT release since 0.2.0, oldest first."""

RAN = {
    "vllm": "vllm==0.33.0",
    "sglang": "sglang==0.5.23",
    "llama.cpp": "llama.cpp==0.3.36",
    "transformers": "transformers==5.16.1",
}
"""Servers whose own loading code was run (llama.cpp: the tree in llama-cpp-python 0.3.36; transformers with PEFT
0.21.2)."""
READ = {
    "tgi": "tgi==a7394ba",
    "lorax": "lorax==a7394ba",
    "tensorrt-llm": "tensorrt-llm==007e181b",
    "ollama": "ollama==01cf7445",
}
"""Servers whose source was read at a commit, and not run."""
SERVERS = frozenset((*RAN.values(), *READ.values()))

_IDS = tuple(f"peft=={release}" for release in PEFT_RELEASES)
PEFT = frozenset(_IDS)
NEWEST = _IDS[-1]
"""The newest release that the facts cover."""


def minor(release: str) -> tuple[int, ...]:
    """`0.13.2` → (0, 13): outcomes differ between minor series only."""
    return tuple(int(part) for part in release.split(".")[:2])


NEWEST_SERIES = minor(PEFT_RELEASES[-1])
"""The minor series of the newest release, as `minor` gives it."""

_MINORS = {f"peft=={release}": minor(release) for release in PEFT_RELEASES}


@cache
def peft(first: str = "0.2", last: str = "99.0") -> frozenset[str]:
    """The ids of all releases of the minor series from `first` to `last`, both included."""
    low, high = minor(first), minor(last)
    return frozenset(id_ for id_, at in _MINORS.items() if low <= at <= high)


def since(first: str) -> frozenset[str]:
    """The ids of all releases from the minor series `first` on."""
    return peft(first)


def upto(last: str) -> frozenset[str]:
    """The ids of all releases up to the minor series `last`."""
    return peft("0.2", last)


def between(first: str, last: str) -> frozenset[str]:
    """The ids of all releases of the minor series from `first` to `last`, both included."""
    return peft(first, last)


def turns(ids: frozenset[str]) -> list[str]:
    """The minor series with which PEFT's releases come to be among some ids, or cease to be."""
    return [
        ".".join(map(str, _MINORS[id_]))
        for before, id_ in pairwise(_IDS) if (before in ids) is not (id_ in ids)
    ]  # fmt: skip


class UnknownRuntimeError(ValueError):
    """A specifier names what no fact covers; the message says what would do."""


def parse(spec: str) -> frozenset[str]:
    """The ids that a specifier names.

    A server is named as `vllm` or `vllm==0.33.0`; `servers` are the four that were run. `peft` is the newest release
    known, `peft==*` every one, `peft>=0.6,<0.10` every final release in it, `installed` the PEFT that can be imported
    here. Raises UnknownRuntimeError, also for a release that is not known.
    """
    text = spec.strip().lower().replace(" ", "")
    if text == "installed":
        text = f"peft=={installed()}"
    if text == "servers":
        return frozenset(RAN.values())
    if text in (*RAN, *READ):
        return frozenset(({**RAN, **READ}[text],))
    if text in SERVERS:
        return frozenset((text,))
    if text == "peft":
        return frozenset(_IDS[-1:])
    if text == "peft==*":
        return PEFT
    if text in PEFT:
        return frozenset((text,))
    if not text.startswith("peft"):
        known = ", ".join(sorted((*RAN.values(), *READ.values())))
        raise UnknownRuntimeError(f"{spec} is no known runtime: name peft==0.9.0, peft>=0.6,<0.10, or {known}")
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        wanted = SpecifierSet(text.removeprefix("peft"))
    except InvalidSpecifier:
        raise UnknownRuntimeError(f"{spec} is no specifier: name releases as peft==0.9.0 or peft>=0.6,<0.10") from None
    ids = frozenset(f"peft=={release}" for release in PEFT_RELEASES if release in wanted)
    if not ids:
        raise UnknownRuntimeError(f"{spec} names no PEFT release that is known; those are {_IDS[0]} to {_IDS[-1]}")
    return ids


def installed() -> str:
    """The release of the PEFT that a program here would import, known or not. Raises UnknownRuntimeError for none."""
    import sys
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    imported = getattr(sys.modules.get("peft"), "__version__", None)
    if imported:
        return str(imported)
    try:
        if find_spec("peft"):
            return version("peft")
    except PackageNotFoundError:
        pass
    raise UnknownRuntimeError("no PEFT is installed here: name a release, as peft==0.9.0")


def ids(specs: str | Iterable[str]) -> frozenset[str]:
    """The ids that one or several specifiers name together. Raises UnknownRuntimeError."""
    return frozenset().union(*(parse(spec) for spec in ([specs] if isinstance(specs, str) else specs)))


def _spans(ids: Iterable[str]) -> list[list[str]]:
    """The runs of PEFT's releases among ids, each as its first and last release, or the only one."""
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
    return spans


def specs(ids: Iterable[str]) -> list[str]:
    """Specifiers that name just these ids: `peft>=0.6.0,<=0.9.0`, `peft==0.21.2`, `vllm`."""
    wanted = set(ids)
    if wanted >= PEFT:
        specifiers = ["peft==*"]
    else:
        specifiers = [f"peft>={s[0]},<={s[1]}" if len(s) > 1 else f"peft=={s[0]}" for s in _spans(wanted)]
    return specifiers + [name for name, id_ in {**RAN, **READ}.items() if id_ in wanted]


def ranges(ids: Iterable[str]) -> str:
    """For people: `PEFT 0.5.0 – 0.7.1, 0.10.0 – 0.21.2, vllm 0.33.0`; "no PEFT release" for none."""
    wanted = set(ids)
    spans = _spans(wanted)
    parts = ["PEFT " + ", ".join(" – ".join(span) for span in spans)] if spans else []
    for id_ in (*RAN.values(), *READ.values()):
        if id_ in wanted:
            parts.append(id_.replace("==", " ") + (" (by its source, not run)" if id_ in READ.values() else ""))
    return ", ".join(parts) or "no PEFT release"


_PLACES = {id_: at for at, id_ in enumerate((*_IDS, *RAN.values(), *READ.values()))}


def order(ids: Iterable[str]) -> list[str]:
    """PEFT's releases oldest first, then servers."""
    return sorted(ids, key=_PLACES.__getitem__)


def accepted_since(ids: frozenset[str]) -> str | None:
    """The release from which on every later one is among `ids`, or None."""
    first = None
    for id_, release in zip(reversed(_IDS), reversed(PEFT_RELEASES), strict=True):
        if id_ not in ids:
            break
        first = release
    return first
