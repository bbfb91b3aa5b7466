"""By what adapters are judged, and what a project says of that in its `pyproject.toml` or `ckpt-doctor.toml`."""

import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

from ..adapter import AdapterError, Base, Question, question_of
from ..adapter.findings import ERROR, NEVER, SEVERITIES, Finding
from ..files import pins
from ..files.loader import is_remote
from ..verbs.report import Report

OWN_FILE, SHARED_FILE = "ckpt-doctor.toml", "pyproject.toml"
SECTION = "ckpt-doctor"
FAIL_ON = (*reversed(SEVERITIES), NEVER)


class Settings(NamedTuple):
    """By what one adapter is judged (see `Question`), and which of its findings are told and fail."""

    asked: frozenset[str] | None = None
    adapter_name: str = "default"
    base: Base | None = None
    max_rank: int | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: str = ERROR
    values: bool = False

    @property
    def question(self) -> Question:
        """What is asked of the adapter."""
        return question_of(self.asked, self.adapter_name, self.base, self.max_rank, values=self.values)

    def settle(self, report: Report, known: frozenset[Finding] = frozenset()) -> Report:
        """The report with what is not selected, or ignored, or known to a baseline, let pass."""
        passed = {finding for finding in report.findings if not self._counts(finding)}
        return report._replace(passed=known | passed, fail_on=self.fail_on)

    def _counts(self, finding: Finding) -> bool:
        return (not self.select or _matches(finding, self.select)) and not _matches(finding, self.ignore)


def _matches(finding: Finding, selectors: Iterable[str]) -> bool:
    return any(finding.code.startswith(selector) for selector in selectors)


class Config(NamedTuple):
    """What a project's file says: the values of options by their names there, and those of some paths.

    `path` is the file, or None where there is none. Each of `overrides` has patterns of paths, relative to the file's
    folder, and the fields of `Settings` that hold for them.
    """

    path: str | None = None
    values: dict[str, object] = {}  # noqa: RUF012 - never changed
    overrides: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = ()

    def settings_of(self, folder: str, settings: Settings, given: frozenset[str]) -> Settings:
        """The settings for one adapter: later overrides win over earlier ones, and the fields in `given` over all."""
        if self.path is None or not self.overrides:
            return settings
        from fnmatch import fnmatchcase

        root = os.path.dirname(os.path.realpath(self.path))
        place = folder if is_remote(folder) else os.path.relpath(os.path.realpath(folder), root).replace(os.sep, "/")
        for patterns, values in self.overrides:
            if any(fnmatchcase(place, p) or fnmatchcase(place, f"{p.rstrip('/')}/*") for p in patterns):
                settings = settings._replace(**{key: values[key] for key in values.keys() - given})
        return settings


class Choice(NamedTuple):
    """By what all adapters of a run are judged: `settings` hold where the file has no override, those in `given` over
    all.
    """

    config: Config
    settings: Settings
    given: frozenset[str]

    def of(self, folder: str) -> Settings:
        """The settings for one adapter. Raises AdapterError."""
        return self.config.settings_of(folder, self.settings, self.given)


def find_config(start: str = ".") -> Config:
    """The nearest file at or above `start` that speaks of ckpt-doctor, read. Raises AdapterError where it is wrong."""
    folder = os.path.abspath(start)
    while True:
        own, shared = os.path.join(folder, OWN_FILE), os.path.join(folder, SHARED_FILE)
        if os.path.isfile(own):
            return read_config(own)
        if os.path.isfile(shared) and SECTION.encode() in _content(shared):  # most have none, and need no parser
            config = read_config(shared)
            if config.path:
                return config
        parent = os.path.dirname(folder)
        if parent == folder:
            return Config()
        folder = parent


def read_config(path: str) -> Config:
    """Read a file: `[tool.ckpt-doctor]` of a pyproject.toml, the whole of any other. Raises AdapterError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        section: object = tomllib.loads(_content(path).decode())
    except (ValueError, RecursionError) as error:  # also of a number of too many digits
        raise AdapterError(f"{path} is not valid TOML: {error}") from None
    if os.path.basename(path) == SHARED_FILE:
        tools = section.get("tool") if isinstance(section, dict) else None
        if not isinstance(tools, dict) or SECTION not in tools:
            return Config()
        section = tools[SECTION]
    if not isinstance(section, dict):
        raise AdapterError(f"{path}: tool.{SECTION} is not a table")
    try:
        overrides = section.pop("overrides", [])
        if not isinstance(overrides, list) or not all(isinstance(entry, dict) for entry in overrides):
            raise ValueError(f"overrides are tables, as [[tool.{SECTION}.overrides]]")
        values = _checked(section, _KEYS, path)
        return Config(path, values, tuple(_override(entry, path) for entry in overrides))
    except ValueError as error:
        raise AdapterError(f"{path}: {error}") from None


def _content(path: str) -> bytes:
    from ..files.loader import content

    return content(path)


def _checked(section: dict[str, object], known: Iterable[str], path: str) -> dict[str, object]:
    """The values of a table, each of its type. Raises ValueError, with the key."""
    values = {}
    for key, value in section.items():
        if key not in known:
            raise ValueError(f"there is no key {key!r} here; known are {', '.join(known)}")
        try:
            values[key] = _KEYS[key](value, path)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return values


def _override(entry: dict[str, object], path: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    patterns = _strings(entry.pop("paths", []), path)
    if not patterns:
        raise ValueError("an override needs paths, as paths = ['legacy/*']")
    values = _checked(entry, _OF_PATHS, path)
    return tuple(patterns), {_OF_PATHS[key][0]: _OF_PATHS[key][1](value) for key, value in values.items()}


def _strings(value: object, _: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
        raise ValueError(f"{value!r} is neither a text nor a list of texts")
    return texts


def _runtimes(value: object, path: str) -> list[str]:
    """Specifiers; a file that pins runtimes lies beside the project's."""
    folder = os.path.dirname(path)
    return [os.path.join(folder, spec) if pins.is_file(spec) else spec for spec in _strings(value, path)]


def _string(value: object, _: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{value!r} is not a text")
    return value


def _path(value: object, path: str) -> str:
    return os.path.join(os.path.dirname(path), _string(value, path))


def _model(value: object, path: str) -> str:
    return "none" if value == "none" else _path(value, path)


def _severity(value: object, _: str) -> str:
    if value not in FAIL_ON:
        raise ValueError(f"{value!r} is none of {', '.join(FAIL_ON)}")
    return str(value)


def _rank(value: object, _: str) -> int:
    if type(value) is not int or not 1 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no whole number above 0")
    return value


def _jobs(value: object, _: str) -> str:
    if value != "auto" and type(value) is not int:
        raise ValueError(f"{value!r} is neither 'auto' nor a whole number")
    return str(value)  # which the option checks


def _flag(value: object, _: str) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def selectors(texts: Iterable[str]) -> tuple[str, ...]:
    """Codes, or the beginnings of codes, from `CD1,CD201` and names of findings, also those that they had before.

    Raises ValueError for what is none.
    """
    wanted = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not wanted:
        return ()
    from ..adapter.codes import CODES, OLD_NAMES

    chosen: list[str] = []
    for part in wanted:
        named = [code.number for code in CODES.values() if code.name == part.lower()]
        named += [OLD_NAMES[part.lower()].number] if part.lower() in OLD_NAMES else []
        if not named and not any(number.startswith(part.upper()) for number in CODES):
            raise ValueError(f"{part!r} is no code, beginning or name of a finding; `ckpt-doctor rules` lists them")
        chosen += named or [part.upper()]
    return tuple(chosen)


def _asked(specs: list[str]) -> frozenset[str] | None:
    """The runtimes of specifiers; None, as where nothing is asked for, of none."""
    return pins.ids(specs) or None


@cache
def _base(path: str) -> Base:
    from ..files.base import named_base

    return named_base(path)


_KEYS: dict[str, Callable[[object, str], object]] = {
    "for": _runtimes, "select": _strings, "ignore": _strings, "fail-on": _severity, "adapter-name": _string,
    "base": _model, "max-rank": _rank, "baseline": _path, "format": _strings, "exit-zero": _flag,
    "values": _flag, "jobs": _jobs, "resume": _path,
}  # fmt: skip
"""The keys of the file, and how each is checked."""

_OF_PATHS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "for": ("asked", _asked), "select": ("select", selectors), "ignore": ("ignore", selectors),
    "fail-on": ("fail_on", str), "adapter-name": ("adapter_name", str), "base": ("base", _base),
    "max-rank": ("max_rank", int),
}  # fmt: skip
"""Those that can be said for some paths only: the field of `Settings`, and how the value becomes it."""
