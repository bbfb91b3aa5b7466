"""The runtimes that a lock file or a file of requirements pins: as data, nothing of it is resolved or run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator

from ..adapter import AdapterError
from ..adapter.runtimes import UnknownRuntimeError
from ..adapter.runtimes import ids as named

PACKAGES = {
    "peft": "peft", "transformers": "transformers", "vllm": "vllm", "sglang": "sglang",
    "llama-cpp-python": "llama.cpp",
}  # fmt: skip
"""Distribution → what its releases are called in a specifier."""
LOCKS, REQUIREMENTS = (".lock", ".toml"), ".txt"
MOST_BYTES = 64 << 20
MOST_FILES = 50
"""Of requirements that include each other."""


def is_file(spec: str) -> bool:
    """Whether a specifier is the name of a file that pins runtimes."""
    return spec.endswith((*LOCKS, REQUIREMENTS))


def ids(specs: str | Iterable[str]) -> frozenset[str]:
    """The ids that specifiers name, or files with pins. Raises UnknownRuntimeError, with the file if it is one's."""
    every = [specs] if isinstance(specs, str) else list(specs)
    return frozenset().union(*(_of_file(spec) if is_file(spec) else named(spec) for spec in every))


def _of_file(path: str) -> frozenset[str]:
    try:
        pins = list(_required(path, set()) if _is_of_requirements(path) else _locked(path))
    except AdapterError as error:
        raise UnknownRuntimeError(str(error)) from None
    found = frozenset[str]()
    for pin in pins:
        try:
            found |= named(pin)
        except UnknownRuntimeError as error:
            if not _is_between(pin):
                raise UnknownRuntimeError(f"{path}: {error}") from None
            found |= {pin}
    if not found:
        raise UnknownRuntimeError(f"{path} pins none of {', '.join(PACKAGES)}")
    return found


def _is_of_requirements(path: str) -> bool:
    """Whether a file has a requirement a line; rye calls them requirements.lock."""
    return path.endswith(REQUIREMENTS) or os.path.basename(path).startswith("requirements")


def _is_between(pin: str) -> bool:
    """Whether a file pins a PEFT that was built between releases (0.14.1.dev0): it may well be installed, and what it
    does nobody looked at.
    """
    from packaging.version import InvalidVersion, Version

    name, _, release = pin.partition("==")
    try:
        version = Version(release)
    except InvalidVersion:
        return False
    return name == "peft" and version >= Version("0.2") and (version.is_prerelease or version.is_postrelease)


def _content(path: str) -> str:
    try:
        if not os.path.isfile(path):
            raise AdapterError(f"{path} is {'no file' if os.path.lexists(path) else 'not there'}")
        if os.path.getsize(path) > MOST_BYTES:
            raise AdapterError(f"{path} has more than {MOST_BYTES >> 20} MiB")
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AdapterError(f"{path} is no text") from None


def _locked(path: str) -> Iterator[str]:
    """What uv.lock, poetry.lock, pdm.lock (package) and pylock.toml (packages, as PEP 751 has it) pin."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        document: dict[str, object] = tomllib.loads(_content(path))
    except (ValueError, RecursionError) as error:  # also of a number of too many digits
        raise AdapterError(f"{path} is not valid TOML: {error}") from None
    packages = document.get("packages", document.get("package", []))
    for package in packages if isinstance(packages, list) else []:
        name, version = (package.get(key) for key in ("name", "version")) if isinstance(package, dict) else (None, None)
        if isinstance(name, str) and isinstance(version, str) and _canonical(name) in PACKAGES:
            yield f"{PACKAGES[_canonical(name)]}=={version.partition('+')[0]}"  # behind it: for which machine


def _required(path: str, seen: set[str]) -> Iterator[str]:
    """What a file of requirements asks for, with the files that it includes (-r)."""
    from packaging.requirements import InvalidRequirement, Requirement

    if os.path.realpath(path) in seen:
        return
    seen.add(os.path.realpath(path))
    if len(seen) > MOST_FILES:
        raise AdapterError(f"{path}: more than {MOST_FILES} files include each other")
    for line in _content(path).replace("\\\n", " ").splitlines():
        text = re.split(r"\s#", line, maxsplit=1)[0].strip()
        included = re.match(r"(?:-r|--requirement[= \t])(.*)", text)
        if included:
            yield from _required(os.path.join(os.path.dirname(path), included[1].strip()), seen)
        if not text or text.startswith(("#", "-")):
            continue
        try:
            requirement = Requirement(re.split(r"\s--", text, maxsplit=1)[0])
        except InvalidRequirement:
            continue  # of another package, or an address: none that is looked for has such a name
        name = _canonical(requirement.name)
        if name in PACKAGES and requirement.url is None and (not requirement.marker or requirement.marker.evaluate()):
            yield re.sub(r"\+[\w.]*", "", f"{PACKAGES[name]}{requirement.specifier}")


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
