"""A remote folder, made into what the loader reads: names of files, and files that can be read.

Of each only what a scan looks into is asked for, its config and the header of its weights; many are on the way at once.
What is not there yet is asked for where somebody reads it, and of the same version of the file, or nothing is read: no
byte is made up. What reads all numbers has the files downloaded first.
"""

import asyncio
import atexit
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from hashlib import sha256
from typing import Any, BinaryIO, NamedTuple, cast

from ..adapter import AdapterError, NotRead
from ..adapter.limits import HEADER
from . import loader
from .formats.torch_zip import UNREAD
from .loader import (
    BIN,
    CONFIG,
    DOWNLOAD,
    INDEX,
    MAX_GLANCE,
    RECORD,
    SAFETENSORS,
    SMALL,
    STATE,
    Glance,
    Stamp,
)  # fmt: skip
from .stores.store import Absent, Entry, Piece, Store, Unread, begin, run, why

HEAD = 128 << 10
"""Bytes of weights that the first request asks for: more headers than not are in them."""
BLOCK, MOST_BLOCK = 64 << 10, 8 << 20
"""Bytes that are asked for at once where somebody reads on: the first time, and at the most."""
MOST_READ = 192 << 20
"""Bytes that are read of a file at once."""
PATIENCE = 300.0
"""Seconds that one adapter has for what is asked for one after the other, as shards that an index names."""
MARGIN = 1 << 28
"""Bytes of a disk that a download leaves free."""

TEMPORARY: set[str] = set()
"""Folders that downloads are in, which are gone in the end."""


@atexit.register
def _remove_all() -> None:
    for folder in TEMPORARY:
        shutil.rmtree(folder, ignore_errors=True)


class Name(NamedTuple):
    """A file or folder in a folder, as os.scandir has them."""

    name: str
    folder: bool

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 - as of os.DirEntry
        """Whether it is a folder."""
        return self.folder


class _Held:
    """What was read of a file: pieces by where they begin, and its size and tag; or why nothing was."""

    def __init__(self, entry: Entry | None) -> None:
        self.entry = entry
        self.pieces: list[tuple[int, bytes]] = []
        self.failure: Unread | None = None

    def keep(self, start: int, piece: Piece) -> None:
        self.entry = piece.entry
        self.pieces.append((start, piece.data))

    def part(self, at: int) -> memoryview | None:
        """What is held from a byte on; None where that is not."""
        for start, data in reversed(self.pieces):
            if start <= at < start + len(data):
                return memoryview(data)[at - start :]
        return None


class Place:
    """A remote folder. `files` are those that are listed or were found, None before anybody asked a server that lists
    none; `here` is the folder that its files were downloaded to.
    """

    def __init__(
        self, address: str, store: Store, files: dict[str, Entry] | None, folders: Iterable[str] = (),
        here: str | None = None,
    ) -> None:  # fmt: skip
        self.address = address
        self.store = store
        self.files = files
        self.folders = tuple(folders)
        self.listed = files is not None or here is not None
        self.here = here
        self._failure: AdapterError | None = None
        self._inner = address[len(store.root) :].lstrip("/")
        self._held: dict[str, _Held] = {}
        self.future: Future[None] | None = None
        self._temporary: str | None = None
        self._waited = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: what was listed of it."""
        return Place, (self.address, self.store, self.files if self.listed else None, self.folders, self.here)

    def _path(self, name: str) -> str:
        return f"{self._inner}/{name}" if self._inner else name

    def wait(self) -> None:
        """Have what a scan reads. Raises AdapterError where there is no such adapter."""
        start([self])
        if self.future is not None:
            with suppress(CancelledError):
                self.future.result()
        if self._failure:
            raise self._failure

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for what somebody reads on. Raises AdapterError where that was too long, and what the work does."""
        if self._waited > PATIENCE:
            work.close()
            raise self._sentence("", Unread(f"was given up, as it was waited for longer than {PATIENCE:.0f} s"))
        begun = time.monotonic()
        try:
            run(work)
        finally:
            self._waited += time.monotonic() - begun

    def is_begun(self) -> bool:
        """Whether what a scan reads was asked for, or is here."""
        return self.future is not None or self.here is not None or self._failure is not None

    async def begin(self) -> None:
        """Ask for what a scan reads."""
        try:
            await self._starts()
        except Unread as error:
            self._failure = self._sentence("", error)

    def _sentence(self, name: str, error: BaseException) -> AdapterError:
        place = f"{self.address}/{name}" if name else self.address
        return AdapterError(f"{place} {error if isinstance(error, Unread) else 'was given up'}")

    async def _starts(self) -> None:
        if self.files is None:
            await self._begin(CONFIG, SAFETENSORS)
            if self._is_absent(SAFETENSORS):
                await self._begin(BIN, INDEX)
            self.files = {name: held.entry or Entry(0, "") for name, held in self._held.items() if not held.failure}
            for name, held in self._held.items():
                if held.failure and not isinstance(held.failure, Absent):
                    self.files[name] = Entry(0, "")  # it may be there, which reading it says
            if not self.files:
                raise Unread("has no adapter: name its folder; a server is asked for adapter_config.json in it")
            return
        wanted = {CONFIG, RECORD, BIN, next((name for name in (SAFETENSORS, BIN, INDEX) if name in self.files), CONFIG)}
        await self._begin(*(name for name in wanted if name in self.files))

    def _is_absent(self, name: str) -> bool:
        return name in self._held and isinstance(self._held[name].failure, Absent)

    async def _begin(self, *names: str) -> None:
        new = [name for name in names if name not in self._held]
        for name in new:
            self._held[name] = _Held((self.files or {}).get(name))
        for name, error in zip(new, await asyncio.gather(*map(self._first, new), return_exceptions=True), strict=True):
            if isinstance(error, BaseException):
                known = isinstance(error, Unread)
                self._held[name].failure = cast(Unread, error) if known else Unread(f"cannot be read: {why(error)}")

    async def _first(self, name: str) -> None:
        """The beginning of a file: of a config all, of safetensors the header, of a .bin its end as well."""
        held = self._held[name]
        length = MAX_GLANCE if name.endswith(".json") else HEAD
        if name.endswith(".bin") and held.entry and held.entry.size <= SMALL:
            length = SMALL
        await self._fetch(name, 0, length)
        assert held.entry is not None  # noqa: S101 - a piece has one
        size = held.entry.size
        if name.endswith(".safetensors"):
            needed = 8 + int.from_bytes(held.pieces[0][1][:8], "little")
            if length < needed <= min(size, HEADER.most + 8):
                await self._fetch(name, length, needed - length)
        elif name.endswith(".bin") and size > length:
            last = max(length, size - HEAD)
            await self._fetch(name, last, size - last)

    async def _fetch(self, name: str, start: int, length: int) -> None:
        held = self._held[name]
        held.keep(start, await self.store.piece(self._path(name), start, length, held.entry))

    def names(self) -> list[str]:
        """The names of all that is in the folder. Raises AdapterError and OSError."""
        if self.here is not None:
            return loader.listed(self.here)
        if self.files is None:
            self.wait()
        return sorted({*(self.files or ()), *self.folders})

    def has(self, name: str) -> bool:
        """Whether there is a file of a name; a server that lists none is asked."""
        if not self.listed and self.future is not None and name not in self._held:
            self._run(self._begin(name))
            if not self._is_absent(name):
                assert self.files is not None  # noqa: S101 - it was begun
                self.files[name] = self._held[name].entry or Entry(0, "")
        return name in (self.files or ()) or name in self.folders

    def stamps(self, names: Iterable[str]) -> tuple[Stamp, ...]:
        """Of each file whose tag is known its name, a number of its tag, its size, and no time: the tag is enough."""
        if self.here is not None:
            return loader.stamped(self.here, names)
        entries = [(name, self._entry(name)) for name in names]
        return tuple(
            (name, int.from_bytes(sha256(entry.tag.encode()).digest()[:8], "big"), entry.size, 0)
            for name, entry in entries
            if entry is not None and entry.tag
        )

    def settled(self) -> tuple[Stamp, ...] | None:
        """As of the loader, before anything but a list of the files was asked for."""
        if self.here is None and not (self.listed and all(entry.tag for entry in (self.files or {}).values())):
            return None
        return self.stamps(self.names())

    def _entry(self, name: str) -> Entry | None:
        held = self._held.get(name)
        if held and (held.entry or held.failure):  # of what failed from the start nothing is known
            return held.entry
        return (self.files or {}).get(name)

    def glance(self) -> Glance | None:
        """As of the loader."""
        try:
            self.wait()
        except AdapterError:
            return None  # loading it says why
        names = self.names()
        if self.here or not {CONFIG, SAFETENSORS} <= {*names} or BIN in names or RECORD in names:
            return None
        (config, of_config), (weights, of_weights) = (self._beginning(name) for name in (CONFIG, SAFETENSORS))
        if config is None or weights is None or of_config is None or of_weights is None:
            return None
        length = int.from_bytes(weights[:8], "little")
        if len(config) != of_config.size or len(weights) < 8 + length or length > MAX_GLANCE:
            return None
        if STATE in names and b"ADALORA" in config:
            return None
        stamps = self.stamps((CONFIG, SAFETENSORS))
        return Glance(tuple(names), config, weights[8 : 8 + length], of_weights.size, stamps)

    def _beginning(self, name: str) -> tuple[bytes | None, Entry | None]:
        """What is held of a file from its first byte on, without a gap."""
        held = self._held.get(name)
        if held is None or held.failure or not held.pieces:
            return None, None
        pieces = [data for _, data in held.pieces]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), held.entry

    def file(self, name: str) -> tuple[BinaryIO, int]:
        """A file that can be read, and its size. Raises AdapterError."""
        if name not in self._held:
            self._run(self._begin(name))
        held = self._held[name]
        if held.failure:
            raise self._sentence(name, held.failure)
        assert held.entry is not None  # noqa: S101 - it did not fail
        return cast(BinaryIO, _File(self, name, held, held.entry.size)), held.entry.size

    def more(self, name: str, start: int, length: int) -> None:
        """Have so many bytes more. Raises AdapterError."""
        held = self._held[name]
        del held.pieces[3:]  # but the beginning, the end and what was read last
        try:
            self._run(self._fetch(name, start, length))
        except (Unread, CancelledError) as error:
            raise self._sentence(name, error) from None

    def download(self, wanted: Callable[[str, int], bool]) -> None:
        """Have those files here whose name and size are `wanted`; what fails is told whoever loads the adapter."""
        if self.here is not None:
            return
        above = tempfile.mkdtemp(prefix="ckpt-doctor-")
        self._temporary = above
        TEMPORARY.add(above)
        name = self.address.rpartition("/")[2].partition("@")[0]
        here = os.path.join(above, name if _is_plain(name) else "adapter")
        os.mkdir(here)
        try:
            if not self.listed:
                self.wait()
            self.save(here, wanted)
            self.here = here
        except AdapterError as error:
            self._failure = error

    def save(self, here: str, wanted: Callable[[str, int], bool]) -> None:
        """Have the files whose name and size are `wanted` in a folder here. Raises AdapterError."""
        run(self._download(here, wanted))

    async def _download(self, here: str, wanted: Callable[[str, int], bool]) -> None:
        names = {name: entry.size for name, entry in (self.files or {}).items() if _is_plain(name)}
        tried = () if self.listed else (RECORD, STATE)
        for name in (*(name for name, size in names.items() if wanted(name, size)), *tried):
            await self._save(here, name, optional=name in tried)
        if not self.listed and INDEX in names:
            for name in _shards(os.path.join(here, INDEX)):
                await self._save(here, name, optional=True)

    async def _save(self, here: str, name: str, *, optional: bool) -> None:
        path = os.path.join(here, name)
        try:
            with open(path, "xb") as file:
                room = shutil.disk_usage(here).free - MARGIN
                entry = await self.store.copy(self._path(name), self._entry(name), file, room)
        except Absent:
            if not optional:
                raise AdapterError(f"{self.address}/{name} does not exist any more") from None
            os.remove(path)
        except Unread as error:
            raise self._sentence(name, error) from None
        except OSError as error:
            raise AdapterError(f"{self.address}/{name} cannot be downloaded: {error.strerror}") from None
        else:
            if self.files is not None:
                self.files[name] = entry

    def drop(self) -> None:
        """Forget what was read, and remove what was downloaded."""
        self.future, self._failure, self._waited = None, None, 0.0
        self._held = {}
        if not self.listed:
            self.files = None
        if self._temporary:
            self.here = None
            shutil.rmtree(self._temporary, ignore_errors=True)
            TEMPORARY.discard(self._temporary)
            self._temporary = None


def start(places: Iterable[Place]) -> None:
    """Have what a scan reads of places asked for: all by one message to the loop, as each costs both threads a turn."""
    new = [place for place in places if not place.is_begun()]
    if not new:
        return

    async def all_() -> None:
        await asyncio.gather(*(place.begin() for place in new))

    future: Future[None] = begin(all_())
    for place in new:
        place.future = future


def _is_plain(name: str) -> bool:
    """Whether a name is one of a file in a folder here, and leads nowhere else."""
    return name not in ("", os.curdir, os.pardir) and not any(mark in name for mark in ("/", "\\", "\0", ":"))


def _shards(index: str) -> list[str]:
    """The files that an index names in its folder; none where it is none, which loading it says."""
    try:
        with open(index, "rb") as file:
            document: object = json.load(file)
    except (OSError, ValueError, RecursionError):
        return []
    files = document.get("weight_map") if isinstance(document, dict) else None
    names = files.values() if isinstance(files, dict) else ()
    return sorted({name for name in names if isinstance(name, str) and _is_plain(name)})[:1000]


class _File(io.RawIOBase):
    """A remote file that is read as any other; what was not asked for yet is asked for."""

    def __init__(self, place: Place, name: str, held: _Held, size: int) -> None:
        self._place = place
        self._name = name
        self._held = held
        self._size = size
        self._at = 0
        self._block = BLOCK

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """As of a file."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file. Raises AdapterError for bytes of which nobody read where they are."""
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise OSError(22, "Invalid argument")
        if at >= UNREAD:
            raise NotRead(f"{self._place.address}/{self._name}: where its numbers are was not read: {DOWNLOAD}")
        self._at = at
        return at

    def read(self, size: int | None = -1) -> bytes:
        """As of a file. Raises AdapterError."""
        left = max(self._size - self._at, 0)
        left = left if size is None or size < 0 else min(size, left)
        parts = []
        if left > MOST_READ:
            raise NotRead(f"{left} bytes of {self._place.address}/{self._name} were not read: {DOWNLOAD}")
        while left:
            part = self._held.part(self._at)
            if part is None:
                length = min(max(left, self._block), MOST_BLOCK)
                self._place.more(self._name, self._at, length)
                self._block = min(2 * self._block, MOST_BLOCK)
                continue
            parts.append(bytes(part[:left]))
            self._at += len(parts[-1])
            left -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: object) -> int:
        """As of a file. Raises AdapterError."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
