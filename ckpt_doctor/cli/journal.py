"""What an earlier run found, in a file of its own, as long as nothing that it hangs on has changed."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256

from ..adapter import AdapterError, Base
from ..files.hub import cached_base
from ..files.loader import settled
from ..reports.wording import Mark
from ..verbs.batches import ourselves
from ..verbs.ways import free
from .fleet import Told
from .settings import Settings

APPLICATION = 0x636B7074
"""What says in an SQLite file that it is a journal (sqlite.org/pragma.html: application_id)."""
VERSION = 1
LONGEST = 1 << 28
"""Characters of one line."""
RACY = 2_000_000_000
"""Nanoseconds in which a file may be written to twice and have one time: the step of FAT, the longest that is usual."""
PAUSE = 1.0
"""Seconds between two moments at which all so far is on the disk."""


class Journal:
    """The lines of adapters by their paths, each with what it hangs on, in an SQLite file: whole up to some moment,
    whenever the run is killed.
    """

    def __init__(self, path: str) -> None:
        """Open the file, or make it. Raises AdapterError."""
        self.path = os.path.abspath(path)  # "" and ":memory:" are in no file for SQLite
        self.again = 0
        with self._errors():
            self._file = sqlite3.connect(self.path, timeout=0)
        try:
            with self._errors():
                self._begin()
        except AdapterError:
            self._file.close()
            raise
        self._saved = time.monotonic()

    def _begin(self) -> None:
        """Keep others from it, and see that it is a journal. Raises AdapterError."""
        self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._file.execute("BEGIN IMMEDIATE")
        (application,) = self._file.execute("PRAGMA application_id").fetchone()
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        if (application, version) != (APPLICATION, VERSION):
            if application or self._file.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise AdapterError(f"{self.path} is not a journal that this ckpt-doctor wrote: name another file")
            self._file.execute(f"PRAGMA application_id = {APPLICATION}")
            self._file.execute(f"PRAGMA user_version = {VERSION}")
            self._file.execute(
                "CREATE TABLE adapters (path BLOB PRIMARY KEY, state BLOB, model TEXT, mark TEXT, line BLOB)"
            )
        self._file.commit()
        self._file.execute("BEGIN IMMEDIATE")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise AdapterError(f"{self.path} is in use by another run: each needs a journal of its own") from None
            if "not a database" in str(error):
                raise AdapterError(f"{self.path} is not a journal that ckpt-doctor wrote: name another file") from None
            raise AdapterError(f"{self.path} cannot be used: {error}") from None
        except UnicodeDecodeError:  # SQLite's own message on a damaged schema, which quotes it
            raise AdapterError(f"{self.path} cannot be used: it is damaged") from None

    def known(self, folder: str, state: bytes) -> Told | None:
        """What was told of the adapter in a folder, where nothing has changed; else None."""
        with self._errors():
            row = self._file.execute(
                "SELECT model, mark, line FROM adapters WHERE path = ? AND state = ?", (os.fsencode(folder), state)
            ).fetchone()
        if row is None:
            return None
        try:
            model: object = json.loads(row[0])
            mark: object = json.loads(row[1])
            packed = zlib.decompressobj()
            line = packed.decompress(row[2], LONGEST).decode()
        except (ValueError, TypeError, RecursionError, zlib.error):
            return None
        kept = _mark(mark)
        if not packed.eof or kept is None or not _is_there(model):
            return None
        self.again += 1
        return Told(line, kept, True, None)

    def note(self, folder: str, state: bytes, told: Told) -> None:
        """Keep what was told, if it hangs on what `state` is made of."""
        if not told.lasts:
            return
        model = None
        if told.model:
            model = {"name": told.model[0], "revision": told.model[1], "found": _cached(*told.model)}
        row = (
            os.fsencode(folder), state, json.dumps(model), json.dumps(told.mark),
            zlib.compress(told.line.encode(errors="backslashreplace"), 1),
        )  # fmt: skip
        with self._errors():
            self._file.execute("INSERT OR REPLACE INTO adapters VALUES (?, ?, ?, ?, ?)", row)
            if time.monotonic() - self._saved > PAUSE:
                self._file.commit()
                self._file.execute("BEGIN IMMEDIATE")
                self._saved = time.monotonic()

    def close(self) -> None:
        """Save all, and let others have the file."""
        with self._errors():
            self._file.commit()
            self._file.close()


def _mark(value: object) -> Mark | None:
    """What a row adds to a tally; None for what no run wrote."""
    match value:
        case [str(outcome), bool(failing), bool(repairable), list(causes)]:
            kept = [(a, b, c) for cause in causes for a, b, c in _cause(cause)]
            return Mark(outcome, failing, repairable, tuple(kept)) if len(kept) == len(causes) else None
    return None


def _cause(value: object) -> list[tuple[str, str, str]]:
    match value:
        case [str(code), str(name), str(how)]:
            return [(code, name, how)]
    return []


def _is_there(model: object) -> bool:
    """Whether the local cache of the Hub has of a model what it had, or there was none."""
    match model:
        case None:
            return True
        case {"name": str(name), "revision": str(revision), "found": str(found)}:
            return _cached(name, revision) == found
    return False


def state(folder: str, by: Settings, format_: str) -> bytes | None:
    """What a line hangs on: its format, the question, this version, each file of the folder by name, number, size and
    time (a remote one by name, size and tag), and where a fix would be written. None where it cannot be told, as where
    a server lists no files or gives one no tag, or a file was only just written to.
    """
    try:
        stamps = settled(folder)
    except (AdapterError, OSError):
        return None
    if stamps is None:
        return None
    newest = max((stamp[3] for stamp in stamps), default=0)
    if newest > time.time_ns() - RACY:
        return None
    return sha256(repr((format_, _question(by), stamps, free(folder))).encode(errors="backslashreplace")).digest()


@lru_cache(16)
def _question_of(asked: frozenset[str] | None, base: str, rest: tuple[object, ...]) -> str:
    return sha256(
        repr((ourselves(), asked and sorted(asked), base, rest)).encode(errors="backslashreplace")
    ).hexdigest()


def _question(by: Settings) -> str:
    rest = (by.adapter_name, by.max_rank, by.select, by.ignore, by.fail_on, by.values)
    return _question_of(by.asked, _model(by.base), rest)


@lru_cache(16)
def _model(base: Base | None) -> str:
    """A model, by all that is known of it."""
    if base is None:
        return ""
    known = base.name, base.revision, base.path, sorted(base.config.items()), sorted(base.parameters.items())
    return sha256(repr(known).encode(errors="backslashreplace")).hexdigest()


@lru_cache(256)
def _cached(name: str, revision: str) -> str:
    """What the local cache of the Hub has of a model."""
    return _model(cached_base(name, revision))
