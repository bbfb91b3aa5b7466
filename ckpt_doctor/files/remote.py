"""Adapters in a store or on a server, made into what the loader reads: names of files, and files that can be read.

Of each only what a scan looks into is asked for, its config and the header of its weights; many are on the way at once.
What is not there yet is asked for where somebody reads it, and of the same version of the file, or nothing is read: no
byte is made up. What reads all numbers has the files downloaded first.
"""

from __future__ import annotations

import asyncio
import atexit
import io
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import islice
from typing import BinaryIO, NamedTuple, TypeVar, cast

from ..adapter import Adapter, AdapterError
from ..adapter.limits import HEADER
from . import loader
from .formats.torch_zip import UNREAD
from .loader import (
    BIN,
    CONFIG,
    DOWNLOAD,
    INDEX,
    MAX_GLANCE,
    NAMES,
    RECORD,
    SAFETENSORS,
    SKIPPED_FOLDERS,
    SMALL,
    STATE,
    WEIGHTS,
    Glance,
    Named,
    Stamp,
)  # fmt: skip
from .stores import Absent, Entry, Hub, Piece, Store, Taken, Unread, begin, named, offline, run, store

HEAD = 128 << 10
"""Bytes of weights that the first request asks for: more headers than not are in them."""
BLOCK, MOST_BLOCK = 64 << 10, 8 << 20
"""Bytes that are asked for at once where somebody reads on: the first time, and at the most."""
AHEAD = 48
"""Adapters that are on the way before the first of them is looked at."""
LISTINGS = 16
"""Addresses whose files are listed at once."""
MOST_READ = 192 << 20
"""Bytes that are read of a file beside its beginning and its end, where it is a scan that reads."""
MARGIN = 1 << 28
"""Bytes of a disk that a download leaves free."""

Item = TypeVar("Item")


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
        self._future: Future[None] | None = None
        self._temporary: str | None = None

    def _path(self, name: str) -> str:
        return f"{self._inner}/{name}" if self._inner else name

    def start(self) -> None:
        """Have what a scan reads asked for."""
        if self._future is None and self.here is None:
            self._future = begin(self._starts())

    def wait(self) -> None:
        """Have what a scan reads. Raises AdapterError where there is no such adapter."""
        if self._failure:
            raise self._failure
        self.start()
        if self._future is not None:
            try:
                self._future.result()
            except (Unread, CancelledError) as error:
                raise self._sentence("", error) from None

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
                self._held[name].failure = cast(Unread, error) if known else Unread(f"cannot be read: {error!r}")

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
        if not self.listed and self._future is not None and name not in self._held:
            run(self._begin(name))
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

    def _entry(self, name: str) -> Entry | None:
        held = self._held.get(name)
        return held.entry if held and held.entry else (self.files or {}).get(name)

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
            run(self._begin(name))
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
            run(self._fetch(name, start, length))
        except (Unread, CancelledError) as error:
            raise self._sentence(name, error) from None

    def download(self, wanted: Callable[[str, int], bool]) -> None:
        """Have those files here whose name and size are `wanted`; what fails is told whoever loads the adapter."""
        if self.here is not None:
            return
        above = tempfile.mkdtemp(prefix="ckpt-doctor-")
        self._temporary = above
        _temporary.add(above)
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
        if self._future is not None:
            self._future.cancel()
        self._future, self._failure = None, None
        self._held = {}
        if not self.listed:
            self.files = None
        if self._temporary:
            self.here = None
            shutil.rmtree(self._temporary, ignore_errors=True)
            _temporary.discard(self._temporary)
            self._temporary = None


def _is_plain(name: str) -> bool:
    """Whether a name is one of a file in a folder here, and leads nowhere else."""
    return name not in ("", os.curdir, os.pardir) and not any(mark in name for mark in ("/", "\\", "\0", ":"))


def _shards(index: str) -> list[str]:
    """The files that an index names in its folder; none where it is none, which loading it says."""
    try:
        with open(index, "rb") as file:
            names = json.load(file)["weight_map"].values()
        return sorted({name for name in names if isinstance(name, str) and _is_plain(name)})[:1000]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return []


class _File(io.RawIOBase):
    """A remote file that is read as any other; what was not asked for yet is asked for."""

    def __init__(self, place: Place, name: str, held: _Held, size: int) -> None:
        self._most = MOST_READ
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
            raise AdapterError(f"{self._place.address}/{self._name}: where its numbers are was not read: {DOWNLOAD}")
        self._at = at
        return at

    def read(self, size: int | None = -1) -> bytes:
        """As of a file. Raises AdapterError."""
        left = max(self._size - self._at, 0)
        left = left if size is None or size < 0 else min(size, left)
        parts = []
        while left:
            part = self._held.part(self._at)
            if part is None:
                length = min(max(left, self._block), MOST_BLOCK)
                self._most -= length
                if self._most < 0:
                    raise AdapterError(f"{self._place.address}/{self._name} is not read further: {DOWNLOAD}")
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


_stores: dict[str, Store] = {}
"""By what is told of their address, which may have had a password or a signature."""
_places: dict[str, Place] = {}
_fresh: set[str] = set()
"""Addresses that were listed for whoever asks next."""
_temporary: set[str] = set()


@atexit.register
def _remove_all() -> None:
    for folder in _temporary:
        shutil.rmtree(folder, ignore_errors=True)


def known(address: str) -> str:
    """An address as it is told, whose password or signature is remembered, and in no message. Raises AdapterError."""
    plain = named(address)
    if plain != address.rstrip("/") or plain not in _stores:
        _stores[plain] = store(address)
    return plain


def _place(address: str) -> Place:
    """A folder. Raises AdapterError."""
    place = _places.get(address)
    if place is None:
        address = named(address)
        roots = [root for root in _stores if address == root or address.startswith(f"{root}/")]
        root = max(roots, key=len) if roots else known(address)
        if _stores[root].lists:
            _list(root)
        place = _places.get(address) or Place(address, _stores[root], {} if _stores[root].lists else None)
        _places[address] = place
    return place


def _list(root: str) -> None:
    """Note the folders at and below a root as they are now. Raises AdapterError."""
    of = _stores[root]
    for address in [each for each in _places if each == root or each.startswith(f"{root}/")]:
        _places.pop(address).drop()
    if isinstance(of, Hub) and offline():
        here = _from_cache(of)
        for folder, _ in loader.walk(here):
            inner = os.path.relpath(folder, here).replace(os.sep, "/")
            address = root if inner == "." else f"{root}/{inner}"
            _places[address] = Place(address, of, None, here=folder)
        return
    try:
        files = run(of.listing())
    except (Unread, CancelledError) as error:
        raise AdapterError(f"{root} {error}") from None
    if "" in files:
        raise AdapterError(f"{root} is a file: name the folder of an adapter, or its {CONFIG}")
    if not files:
        raise AdapterError(f"{root} does not exist, or is empty")
    folders: dict[str, dict[str, Entry]] = {"": {}}
    inside: dict[str, set[str]] = {}
    for path, entry in files.items():
        *above, name = path.split("/")
        if any(part[:1] in ("", ".") or part in SKIPPED_FOLDERS for part in above) or not name:
            continue
        if "/".join(above) not in folders:
            for depth, part in enumerate(above):
                folders.setdefault("/".join(above[: depth + 1]), {})
                inside.setdefault("/".join(above[:depth]), set()).add(part)
        folders["/".join(above)][name] = entry
    for folder, entries in folders.items():
        address = f"{root}/{folder}" if folder else root
        _places[address] = Place(address, of, entries, inside.get(folder, ()))


def _from_cache(of: Hub) -> str:
    """The folder that huggingface_hub fetched earlier. Raises AdapterError."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(of.repository, revision=of.revision, local_files_only=True)
    except (OSError, ValueError):
        raise AdapterError(f"{of.root} is not in the local cache of the Hub, and HF_HUB_OFFLINE is set") from None
    here = os.path.join(found, *filter(None, of.inner.split("/")))
    if not os.path.isdir(here):
        raise AdapterError(f"{of.root} is not in the local cache of the Hub, and HF_HUB_OFFLINE is set")
    return here


def list_all(addresses: Iterable[str]) -> None:
    """Have the files at addresses listed, many at once; why one could not be is told where it is looked at."""
    from concurrent.futures import ThreadPoolExecutor

    def one(address: str) -> None:
        with suppress(AdapterError):
            root, _ = folder_of(address)
            if _stores[root].lists:
                _list(root)
                _fresh.add(root)

    with ThreadPoolExecutor(LISTINGS) as threads:
        list(threads.map(one, addresses))


def walk(root: str) -> Iterator[tuple[str, Sequence[Named] | None]]:
    """As of the loader. Raises AdapterError."""
    root = known(root)
    if not _stores[root].lists:
        if root in _places:
            _places.pop(root).drop()  # it may be another by now
        yield root, None
        return
    if root in _fresh:
        _fresh.remove(root)
    else:
        _list(root)
    below = [each for each in _places if each == root or each.startswith(f"{root}/")]
    for address in sorted(below, key=lambda each: each.split("/")):
        place = _places[address]
        entries = [Name(name, False) for name in place.files or ()] + [Name(name, True) for name in place.folders]
        if place.here:
            entries = [Name(name, os.path.isdir(os.path.join(place.here, name))) for name in place.names()]
        yield address, entries


def folder_of(address: str) -> tuple[str, bool]:
    """The folder that an address means, and whether that is the one of the file that it is. Raises AdapterError."""
    above, _, name = named(address).rpartition("/")
    starts, ends = ("adapter_config", "adapter_model"), (".json", ".safetensors", ".bin")
    if name not in (*NAMES, RECORD) and not (name.startswith(starts) and name.endswith(ends)):
        return known(address), False
    path, mark, query = address.partition("?")
    known(path.rstrip("/").removesuffix(f"/{name}") + mark + query)
    return above, True


def has_secret(folder: str) -> bool:
    """Whether more is needed to read a folder than is told of its address."""
    return any(of.secret for root, of in _stores.items() if folder == root or folder.startswith(f"{root}/"))


def names(folder: str) -> list[str]:
    """As `listed` of the loader. Raises AdapterError and OSError."""
    return _place(folder).names()


def lists(folder: str) -> bool:
    """Whether it is known which files a folder has, before they are asked for."""
    return _place(folder).listed


def glance(folder: str) -> Glance | None:
    """As of the loader."""
    try:
        return _place(folder).glance()
    except AdapterError:
        return None  # loading it says why


def here(folder: str) -> str | None:
    """Where the files of a folder were downloaded to, if they were; else what a scan reads of it is held. Raises
    AdapterError.
    """
    place = _place(folder)
    place.wait()
    return place.here


def opened(path: str) -> tuple[BinaryIO, int]:
    """As `regular` of the loader. Raises AdapterError."""
    folder, _, name = path.replace(os.sep, "/").rpartition("/")
    return _place(folder).file(name)


def has(path: str) -> bool:
    """Whether a file is there."""
    folder, _, name = path.replace(os.sep, "/").rpartition("/")
    return _place(folder).has(name)


def stamped(folder: str, names: Iterable[str]) -> tuple[Stamp, ...]:
    """As of the loader."""
    return _place(folder).stamps(names)


def ahead(items: Iterable[Item], address: Callable[[Item], str | None], *, whole: bool) -> Iterator[Item]:
    """Items one by one, while the files of those behind them are on the way; `address` gives the remote folder that has
    to be read for one. What was read for an item is forgotten when the next is asked for. With `whole` each is
    downloaded, one after the other.
    """
    waiting = deque[tuple[Item, str | None]]()
    rest = iter(items)
    while True:
        for item in islice(rest, (1 if whole else AHEAD) - len(waiting)):
            folder = address(item)
            if folder is not None and not whole:
                with suppress(AdapterError):  # loading it says why
                    _place(folder).start()
            waiting.append((item, folder))
        if not waiting:
            return
        item, folder = waiting.popleft()
        if folder is None:
            yield item
            continue
        try:
            if whole:
                with suppress(AdapterError):
                    _place(folder).download(numbers)
            yield item
        finally:
            if folder in _places:
                _places.pop(folder).drop()


def kept(folder: str) -> str:
    """A copy of a remote adapter in the cache, made once of each version of its files, with what loaders read. Raises
    AdapterError.
    """
    from . import cache

    place = _place(folder)
    place.wait()
    files = {name: entry for name, entry in (place.files or {}).items() if numbers(name, entry.size)}
    made_of = sorted(files.items()) if all(entry.tag for entry in files.values()) else os.urandom(16)
    name = sha256(repr((folder, made_of)).encode(errors="surrogatepass")).hexdigest()[:32]

    def good(there: str) -> bool:
        return all(
            os.path.isfile(path := os.path.join(there, name)) and os.path.getsize(path) == entry.size
            for name, entry in files.items()
        )

    def make(there: str) -> None:
        stage = os.path.join(cache.root(), f".{name}.{os.urandom(8).hex()}")
        os.mkdir(stage)
        try:
            place.save(stage, numbers)
            shutil.rmtree(there, ignore_errors=True)
            os.rename(stage, there)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    return cache.once(name, good, make)


def check_free(out: str) -> None:
    """Raises AdapterError where nothing can be written to an address, or something is there."""
    plain = known(out)
    of = _stores[plain]
    if not of.by_stream:
        raise AdapterError(f"{plain} cannot be written to: name a folder here, s3://… or gs://…{of.otherwise}")
    try:
        there = run(of.listing())
    except Absent:
        there = {}
    except (Unread, CancelledError) as error:
        raise AdapterError(f"{plain} {error}") from None
    if there:
        raise AdapterError(f"{plain} exists, and what is in a store cannot be replaced as a whole: name another one")


@contextmanager
def uploaded(out: str) -> Iterator[str]:
    """A folder here whose files are written to an address in the end, where nothing is there: the config last, as what
    has none is no adapter yet; read back; and removed again where one of them fails. Raises AdapterError.
    """
    check_free(out)
    above = tempfile.mkdtemp(prefix="ckpt-doctor-")
    _temporary.add(above)
    here = os.path.join(above, os.path.basename(named(out)))
    try:
        yield here
        _upload(here, named(out))
    finally:
        shutil.rmtree(above, ignore_errors=True)
        _temporary.discard(above)


def _upload(here: str, out: str) -> None:
    of = _stores[out]
    names = sorted(os.listdir(here), key=lambda name: (name == CONFIG, name))
    begun: list[str] = []
    try:
        for name in names:
            begun.append(name)
            try:
                run(of.put(os.path.join(here, name), name))
                with tempfile.TemporaryFile(dir=here) as back, open(os.path.join(here, name), "rb") as file:
                    run(of.copy(name, None, back, shutil.disk_usage(here).free))
                    back.seek(0)
                    same = _digest(file) == _digest(back)
            except (Unread, CancelledError) as error:
                if isinstance(error, Taken):
                    begun.remove(name)
                raise AdapterError(f"{out}/{name} {error}") from None
            if not same:
                raise AdapterError(f"{out}/{name} does not read back as it was written")
    except BaseException:
        left = []
        for name in begun:
            try:
                run(of.remove(name))
            except Absent:
                pass
            except (Unread, CancelledError):
                left.append(name)
        if left:
            raise AdapterError(f"{out} was written in part, and {', '.join(left)} could not be removed") from None
        raise


def _digest(file: BinaryIO) -> bytes:
    digest = sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.digest()


def numbers(name: str, size: int) -> bool:  # noqa: ARG001 - as `download` asks
    """Whether reading an adapter with all its numbers looks into a file."""
    return name in (RECORD, STATE) or name.startswith("adapter_") or name.endswith(WEIGHTS)


@contextmanager
def reading(folders: Iterable[str], wanted: Callable[[str, int], bool] | None) -> Iterator[None]:
    """Have the files of remote folders that are `wanted` here as long as it lasts, or without it what a scan reads.
    What fails is told whoever loads them.
    """
    remote = [folder for folder in folders if loader.is_remote(folder)]
    try:
        for folder in remote:
            with suppress(AdapterError):
                if wanted is None:
                    _place(folder).start()
                else:
                    _place(folder).download(wanted)
        yield
    finally:
        for folder in remote:
            forget(folder)


def forget(folder: str) -> None:
    """Let go of what was read of a folder."""
    if folder in _places:
        _places[folder].drop()


def moved(load: Callable[[str], Adapter], here: str, folder: str) -> Adapter:
    """The adapter that was downloaded to `here`, as the one of a remote folder. Raises AdapterError."""
    try:
        adapter = load(here)
    except AdapterError as error:
        raise AdapterError(str(error).replace(here, folder)) from None
    faults = tuple(fault._replace(message=fault.message.replace(here, folder)) for fault in adapter.faults)
    return adapter._replace(path=folder, faults=faults)
