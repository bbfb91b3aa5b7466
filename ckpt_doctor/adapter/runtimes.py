"""The programs that take adapters, in which releases."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache, lru_cache
from itertools import pairwise

Ids = frozenset[str]
"""Of runtimes, as `peft==0.9.0`."""

NONE = Ids()

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
OLDER = {"vllm": ("vllm==0.32.0", "vllm==0.11.0", "vllm==0.8.5")}
"""Older releases of a server that were reviewed, newest first: their source was read, not run."""
SAME = {"vllm==0.8.5.post1": "vllm==0.8.5"}
"""Releases that are another in all that the facts are about (vllm/lora and vllm/model_executor/models are equal)."""
NAMED = {**RAN, **READ}
"""A server's name alone → its newest release that was reviewed."""
CURRENT = frozenset(NAMED.values())
_SERVERS = tuple(id_ for name, newest in NAMED.items() for id_ in (newest, *OLDER.get(name, ())))
SERVERS = frozenset(_SERVERS)
"""Every release of a server that was reviewed."""

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
    """A specifier is misspelt, or names what never was; the message says what would do."""


def parse(spec: str) -> frozenset[str]:
    """The ids that a specifier names.

    A server is named as `vllm`, the newest release reviewed, `vllm==0.11.0`, or `vllm>=0.8,<0.12`, those reviewed among
    them; `servers` are the four that were run. `peft` is the newest release known, `peft==*` every one,
    `peft>=0.6,<0.10` every final release in it, `installed` the PEFT that can be imported here.

    A release that nobody reviewed is an id all the same (`unreviewed` says which), of which every verdict is unknown.
    Raises UnknownRuntimeError for what is misspelt, and for a PEFT that never was or is older than the facts.
    """
    text = spec.strip().lower().replace(" ", "")
    if text == "installed":
        return _installed()
    text = SAME.get(text, text)
    if text == "servers":
        return frozenset(RAN.values())
    if text == "peft":
        return frozenset((NEWEST,))
    if text in PEFT or text in SERVERS:
        return frozenset((text,))
    if text in NAMED:
        return frozenset((NAMED[text],))
    name = re.split("[=<>!~]", text, maxsplit=1)[0]
    if name != "peft" and name not in NAMED:
        raise UnknownRuntimeError(_misspelt(spec, text))
    known = _IDS if name == "peft" else (NAMED[name], *OLDER.get(name, ()))
    if text == f"{name}==*":
        return frozenset(known)
    if name in NAMED and re.fullmatch(r"==b?[0-9a-f]{4,40}", text.removeprefix(name)):  # a build or a commit
        return frozenset((text,))
    return _among(spec, name, text.removeprefix(name), known)


_KNOWN = (
    f"known are PEFT {PEFT_RELEASES[0]} to {PEFT_RELEASES[-1]}, as peft==0.9.0 or peft>=0.6,<0.10, and "
    + ", ".join(id_.replace("==", " ") for id_ in _SERVERS)
)


def _among(spec: str, name: str, wanted: str, known: tuple[str, ...]) -> frozenset[str]:
    """The releases known that a specifier takes; where there is none, the one that it names, if that may be one."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        specifiers = SpecifierSet(wanted, prereleases=True)
    except InvalidSpecifier:
        raise UnknownRuntimeError(_misspelt(spec, name + wanted)) from None
    releases: dict[Version, str] = {}
    for id_ in known:
        with suppress(InvalidVersion):
            releases[Version(id_.partition("==")[2])] = id_
    ids = frozenset(id_ for release, id_ in releases.items() if release in specifiers)
    if ids:
        return ids
    named = [Version(one.version) for one in specifiers if one.operator in ("==", "===", ">=", "~=") and "*" not in
             one.version]  # fmt: skip
    named = [release for release in named if release in specifiers]
    if not named or (name == "peft" and named[0] < max(releases)):
        older = f", and none older than {PEFT_RELEASES[0]} is known" if name == "peft" else ""
        raise UnknownRuntimeError(f"{spec} names no release that there is{older}; {_KNOWN}")
    return frozenset((f"{name}=={named[0]}",))


def _misspelt(spec: str, text: str) -> str:
    """That a specifier names nothing, and what was likely meant."""
    from difflib import get_close_matches

    close = get_close_matches(text, ("peft", "installed", "servers", *NAMED, *_IDS, *_SERVERS), 1, 0.7)
    meant = f", did you mean {close[0]}?" if close else ""
    return f"{spec} is no runtime{meant or f'; {_KNOWN}'}"


def unreviewed(ids: Iterable[str]) -> dict[str, str]:
    """The ids of releases that no fact covers → a sentence that names the nearest that was reviewed."""
    strange = sorted({id_ for id_ in ids if id_ not in PEFT and id_ not in SERVERS})
    return {id_: _unreviewed(*id_.split("==")) for id_ in strange}


def _unreviewed(name: str, release: str) -> str:
    if name == "peft":
        return f"what PEFT {release} makes of an adapter is not known; the newest that is known is {PEFT_RELEASES[-1]}"
    reviewed = [id_.partition("==")[2] for id_ in (NAMED[name], *OLDER.get(name, ()))]

    def distance(other: str) -> list[int]:
        numbers = ([int(part) for part in re.findall(r"\d+", text)[:3]] for text in (release, other))
        return [abs(one - two) for one, two in zip(*numbers, strict=False)]

    nearest = min(reviewed, key=distance)
    return f"what {name} {release} makes of an adapter is not known; the nearest release that was reviewed is {nearest}"


def _installed() -> frozenset[str]:
    release = installed()
    if re.match(r"0\.[01](?!\d)", release):
        raise UnknownRuntimeError(f"PEFT {release} is installed here, and none older than {PEFT_RELEASES[0]} is known")
    return frozenset((f"peft=={release}",))


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


@lru_cache(256)
def _spans(ids: Ids) -> list[list[str]]:
    """The runs of PEFT's releases among ids, each as its first and last release, or the only one."""
    spans: list[list[str]] = []
    previous = -2
    for index, id_ in enumerate(_IDS):
        if id_ in ids:
            release = PEFT_RELEASES[index]
            if index == previous + 1:
                spans[-1][1:] = [release]
            else:
                spans.append([release])
            previous = index
    return spans


def specs(ids: Iterable[str]) -> list[str]:
    """Specifiers that name just these ids: `peft>=0.6.0,<=0.9.0`, `peft==0.21.2`, `vllm`, `vllm==0.11.0`."""
    wanted = set(ids)
    if not wanted:
        return []
    if wanted >= PEFT:
        specifiers = ["peft==*"]
    else:
        specifiers = [f"peft>={s[0]},<={s[1]}" if len(s) > 1 else f"peft=={s[0]}" for s in _spans(frozenset(wanted))]
    names = {id_: name for name, id_ in NAMED.items()}
    return specifiers + [names.get(id_, id_) for id_ in order(wanted - PEFT)]


def ranges(ids: Iterable[str]) -> str:
    """For people: `PEFT 0.5.0 – 0.7.1, 0.10.0 – 0.21.2, vllm 0.33.0`; "no PEFT release" for none."""
    wanted = set(ids)
    spans = _spans(frozenset(wanted))
    parts = ["PEFT " + ", ".join(" – ".join(span) for span in spans)] if spans else []
    for id_ in order(wanted - PEFT):
        how = " (by its source, not run)" if id_ in SERVERS and not ran(id_) else ""
        parts.append(id_.replace("==", " ").replace("peft", "PEFT") + how)
    return ", ".join(parts) or "no PEFT release"


def bounds(ids: Iterable[str]) -> str:
    """The newest run of PEFT's releases among ids: `≥ 0.14.0`, `≤ 0.13.2`, `0.9.0 – 0.13.2`; "" for none."""
    spans = _spans(frozenset(ids))
    if not spans:
        return ""
    first, last = spans[-1][0], spans[-1][-1]
    if last == PEFT_RELEASES[-1]:
        return f"≥ {first}"
    return f"≤ {last}" if first == PEFT_RELEASES[0] else " – ".join(dict.fromkeys((first, last)))


_PLACES = {id_: at for at, id_ in enumerate((*_IDS, *_SERVERS))}


def order(ids: Iterable[str]) -> list[str]:
    """PEFT's releases oldest first, then servers, then releases that nobody reviewed."""
    return [*_ordered(frozenset(ids))]


@lru_cache(256)
def _ordered(ids: Ids) -> tuple[str, ...]:
    return tuple(sorted(ids, key=lambda id_: (_PLACES.get(id_, len(_PLACES)), id_)))


def ran(id_: str) -> bool:
    """Whether a server's own loading code was run; else its source was read."""
    return id_ in RAN.values()


def accepted_since(ids: frozenset[str]) -> str | None:
    """The release from which on every later one is among `ids`, or None."""
    first = None
    for id_, release in zip(reversed(_IDS), reversed(PEFT_RELEASES), strict=True):
        if id_ not in ids:
            break
        first = release
    return first
