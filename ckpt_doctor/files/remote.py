"""Adapters in stores and on servers: which there are, and for the loader what it reads of each (`place`)."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import islice
from typing import BinaryIO, NamedTuple, TypeVar

from ..adapter import Adapter, AdapterError
from . import loader
from .loader import CONFIG, NAMES, RECORD, SKIPPED_FOLDERS, STATE, WEIGHTS, Glance, Named, Stamp
from .place import TEMPORARY, Name, Place, start
from .stores.address import named, store
from .stores.hub import Hub, offline
from .stores.store import IN_FLIGHT, Entry, Store, Unread, listed, run, take_share

AHEAD, BATCH = 64, 16
"""Adapters that are on the way before the first of them is looked at, and how many of them are asked for together."""
TURN = 0.0005
"""Seconds that a thread has at the most where another waits."""
LISTINGS = 16
"""Addresses whose files are listed at once."""

Item = TypeVar("Item")

STORES: dict[str, Store] = {}
"""By what is told of the addresses that were named, which may have had a password or a signature."""
_PLACES: dict[str, Place] = {}
_BELOW: dict[str, list[str]] = {}
"""The folders at and below the addresses that were listed."""
_DOWNLOADS: list[str] = []
"""Folders for what other processes download."""
_FRESH: dict[str, AdapterError | None] = {}
"""Addresses that were listed for whoever asks next, or why they could not be."""


def known(address: str) -> str:
    """An address as it is told, whose password or signature is remembered, and in no message. Raises AdapterError."""
    plain = named(address)
    if plain != address.rstrip("/") or plain not in STORES:
        STORES[plain] = store(address)
    return plain


def _root(address: str) -> str:
    """The address that was named and that one is at or below. Raises AdapterError."""
    root = address
    while root not in STORES:
        root, slash, _ = root.rpartition("/")
        if not slash:
            return known(address)
    return root


class Handed(NamedTuple):
    """What another process needs to read remote folders, of which it lists none: the stores by their roots, what was
    listed of the folders, how many requests it may have at once, and where its downloads are.
    """

    stores: dict[str, Store]
    places: list[Place]
    share: int
    downloads: str


def handed(folders: Iterable[str], width: int) -> Handed:
    """What one of so many processes needs to read folders, within `handing`. Raises AdapterError."""
    stores = {root: STORES[root] for root in map(_root, folders)}
    places = [place_of(folder) for folder in folders if STORES[_root(folder)].lists]
    return Handed(stores, places, max(1, IN_FLIGHT // width), _DOWNLOADS[-1])


@contextmanager
def handing() -> Iterator[None]:
    """Have other processes read folders as long as it lasts: what is left of their downloads is gone then."""
    _DOWNLOADS.append(folder := tempfile.mkdtemp(prefix="ckpt-doctor-"))
    TEMPORARY.add(folder)
    try:
        yield
    finally:
        _DOWNLOADS.remove(folder)
        shutil.rmtree(folder, ignore_errors=True)
        TEMPORARY.discard(folder)


def take(given: Handed) -> None:
    """Read, in this process, what another hands over, and forget what it gave before."""
    STORES.clear()
    STORES.update(given.stores)
    _PLACES.clear()
    _PLACES.update((place.address, place) for place in given.places)
    _BELOW.clear()
    _BELOW.update((root, []) for root in given.stores)
    take_share(given.share)
    tempfile.tempdir = given.downloads


def place_of(address: str) -> Place:
    """A folder. Raises AdapterError."""
    place = _PLACES.get(address)
    if place is None:
        address = address if address in STORES else named(address)
        root = _root(address)
        if STORES[root].lists and root not in _BELOW:
            _list(root)
        place = _PLACES.get(address) or Place(address, STORES[root], {} if STORES[root].lists else None)
        _PLACES[address] = place
    return place


def _forget(root: str) -> None:
    """Let go of what was listed at and below a root."""
    for address in _BELOW.pop(root, [root]):
        if address in _PLACES:
            _PLACES.pop(address).drop()


def _list(root: str) -> None:
    """Note the folders at and below a root as they are now. Raises AdapterError."""
    of = STORES[root]
    _forget(root)
    if isinstance(of, Hub) and offline():
        here = _from_cache(of)
        for folder, _ in loader.walk(here):
            inner = os.path.relpath(folder, here).replace(os.sep, "/")
            address = root if inner == "." else f"{root}/{inner}"
            _PLACES[address] = Place(address, of, None, here=folder)
            _BELOW.setdefault(root, []).append(address)
        return
    try:
        files = run(listed(of))
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
    for folder, entries in sorted(folders.items(), key=lambda pair: pair[0].split("/")):
        address = f"{root}/{folder}" if folder else root
        _PLACES[address] = Place(address, of, entries, inside.get(folder, ()))
        _BELOW.setdefault(root, []).append(address)


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

    def one(root: str) -> None:
        try:
            _list(root)
            _FRESH[root] = None
        except AdapterError as error:
            _FRESH[root] = error

    roots: dict[str, None] = {}
    for address in addresses:
        with suppress(AdapterError):
            root, _ = folder_of(address)
            if STORES[root].lists:
                roots[root] = None
    with ThreadPoolExecutor(LISTINGS) as threads:
        list(threads.map(one, roots))


def look(address: str) -> str:
    """The folder that an address means, as it is now. Raises AdapterError."""
    root, _ = folder_of(address)
    if root in _FRESH:
        failure = _FRESH.pop(root)
        if failure:
            raise failure
    elif STORES[root].lists:
        _list(root)
    else:
        _forget(root)
    return root


def walk(root: str) -> Iterator[tuple[str, Sequence[Named] | None]]:
    """As of the loader, of what was looked at before: nothing of what is no address, which looking at it says."""
    root = loader.told(root)
    if root in STORES and not STORES[root].lists:
        yield root, None
    for address in _BELOW.get(root, ()):
        place = _PLACES[address]
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
    return STORES[_root(folder)].secret


def names(folder: str) -> list[str]:
    """As `listed` of the loader. Raises AdapterError and OSError."""
    return place_of(folder).names()


def settled(folder: str) -> tuple[Stamp, ...] | None:
    """As of the loader."""
    return place_of(folder).settled()


def glance(folder: str) -> Glance | None:
    """As of the loader."""
    try:
        return place_of(folder).glance()
    except AdapterError:
        return None  # loading it says why


def here(folder: str) -> str | None:
    """Where the files of a folder were downloaded to, if they were; else what a scan reads of it is held. Raises
    AdapterError.
    """
    place = place_of(folder)
    place.wait()
    return place.here


def opened(path: str) -> tuple[BinaryIO, int]:
    """As `regular` of the loader. Raises AdapterError."""
    folder, _, name = path.replace(os.sep, "/").rpartition("/")
    return place_of(folder).file(name)


def has(path: str) -> bool:
    """Whether a file is there."""
    folder, _, name = path.replace(os.sep, "/").rpartition("/")
    return place_of(folder).has(name)


def stamped(folder: str, names: Iterable[str]) -> tuple[Stamp, ...]:
    """As of the loader."""
    return place_of(folder).stamps(names)


@contextmanager
def ahead(items: Iterable[Item], address: Callable[[Item], str | None], *, whole: bool) -> Iterator[Iterator[Item]]:
    """Items one by one, while the files of those behind them are on the way; `address` gives the remote folder that has
    to be read for one. What was read for an item is forgotten when the next is asked for, and in the end. With `whole`
    each is downloaded, one after the other.
    """
    told: str | None = None

    def coming() -> Iterator[Item]:
        nonlocal told
        for item, told in _ahead(items, address, whole):
            yield item
            drop(told)

    try:
        with _short_turns():
            yield coming()
    finally:
        drop(told)


def drop(folder: str | None) -> None:
    """Let go of a folder, and of what was read of it."""
    if folder in _PLACES:
        _PLACES.pop(folder).drop()


@contextmanager
def _short_turns() -> Iterator[None]:
    """Have threads take turns ten times as often: one that examines would let the one that asks wait at each answer."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _ahead(
    items: Iterable[Item], address: Callable[[Item], str | None], whole: bool
) -> Iterator[tuple[Item, str | None]]:
    waiting = deque[tuple[Item, str | None]]()
    rest = iter(items)
    while True:
        few: list[Place] = []
        for item in islice(rest, 1 if whole else BATCH) if len(waiting) <= (0 if whole else AHEAD - BATCH) else ():
            folder = address(item)
            waiting.append((item, folder))
            if folder is not None and not whole:
                with suppress(AdapterError):  # loading it says why
                    few.append(place_of(folder))
        start(few)
        if not waiting:
            return
        item, folder = waiting.popleft()
        if folder is not None and whole:
            with suppress(AdapterError):
                place_of(folder).download(numbers)
        yield item, folder


def kept(folder: str) -> str:
    """A copy of a remote adapter in the cache, made once of each version of its files, with what loaders read. Raises
    AdapterError.
    """
    from . import cache
    from .replacing import take_place
    from .staging import staging

    place = place_of(folder)
    place.wait()
    files = {name: entry for name, entry in (place.files or {}).items() if numbers(name, entry.size)}

    def good(there: str) -> bool:
        sizes = ((os.path.join(there, name), entry.size) for name, entry in files.items())
        return all(os.path.isfile(path) and os.path.getsize(path) == size for path, size in sizes)

    def make(there: str) -> None:
        with staging(cache.root()) as stage:
            copy = os.path.join(stage, name)
            shutil.copytree(_downloaded(place), copy)
            take_place(copy, there, force=True)

    try:
        if all(entry.tag for entry in files.values()):
            name = sha256(repr((folder, sorted(files.items()))).encode(errors="surrogatepass")).hexdigest()[:32]
        else:  # only the content tells one version from another
            name = cache.key(_downloaded(place), os.listdir(_downloaded(place)), (folder,))
        return cache.once(name, good, make)
    finally:
        place.drop()


def _downloaded(place: Place) -> str:
    """The folder that a place was downloaded to. Raises AdapterError."""
    place.download(numbers)
    place.wait()
    assert place.here is not None  # noqa: S101 - else that was raised
    return place.here


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
                if wanted is not None:
                    place_of(folder).download(wanted)
        yield
    finally:
        for folder in remote:
            forget(folder)


def forget(folder: str) -> None:
    """Let go of what was read of a folder."""
    if folder in _PLACES:
        _PLACES[folder].drop()


def moved(load: Callable[[str], Adapter], here: str, folder: str) -> Adapter:
    """The adapter that was downloaded to `here`, as the one of a remote folder. Raises AdapterError."""
    try:
        adapter = load(here)
    except AdapterError as error:
        raise AdapterError(str(error).replace(here, folder)) from None
    faults = tuple(fault._replace(message=fault.message.replace(here, folder)) for fault in adapter.faults)
    return adapter._replace(path=folder, faults=faults)
