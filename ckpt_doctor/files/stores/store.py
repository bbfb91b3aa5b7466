"""What is asked of a store or a server: S3, Google Cloud Storage, the Hub, HTTP, by fsspec and huggingface_hub.

A request is for a range of one file, and no more than that is read of its answer, whatever the server sends.
Credentials and endpoints are those that the libraries find. They go to the server that they are for, and into no
message.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, BinaryIO, NamedTuple, TypeVar

SECONDS = 30.0
"""For the answer to one request, and for each piece of a download."""
LISTING = 600.0
"""For a list of files, which may take a request for each thousand, and whose libraries ask again by themselves."""
SLOWEST = 1 << 14
"""Bytes a second of a download, which has `SECONDS` beside."""
IN_FLIGHT = 64
"""Requests at once, of all processes together."""
TRIES = 3
"""Of one request, where the server is busy or the connection breaks."""
PATIENCE = 60.0
"""Seconds that a request waits for a busy server at the most, all its tries together."""
PAUSE = 0.5
"""Seconds before a second try, where the server names none; then twice as many."""
HOPS = 5
"""Redirects of one request."""
MOST_SKIPPED = 1 << 20
"""Bytes that are read for nothing of a server without ranges."""
MOST_FILES = 1_000_000
"""Of one listing."""
CHUNK = 1 << 20

Result = TypeVar("Result")


class Entry(NamedTuple):
    """A file: its size in bytes, and a tag that is another when its content is ("": the server gives none)."""

    size: int
    tag: str


class Piece(NamedTuple):
    """Bytes of a file, and what the answer says of the file."""

    data: bytes
    entry: Entry


class Unread(Exception):  # noqa: N818 - why something was not read, which becomes a sentence about its address
    """Why an address was not read: the end of a sentence that begins with the address."""


class Absent(Unread):
    """There is no such file."""


class Taken(Unread):
    """There is such a file already."""


class Busy(Unread):
    """What may go when it is asked again, `after` so many seconds where the server says so."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


UNSIZED = "is not read, as the server does not say how long it is"
CHANGED = "was changed by others while it was read; try again"


class Answer(NamedTuple):
    """The answer to a request: where its body begins and ends in the file, the size of the file and its tag, and what
    reads up to so many bytes of it. None is what the server does not say.
    """

    first: int
    end: int | None
    size: int | None
    tag: str
    read: Callable[[int], Awaitable[bytes]]


class Store:
    """A folder of a store, and all below it; a file is named by its path from there."""

    lists = True
    """Whether it says which files there are."""
    tagged = True
    """Whether an answer has the tag that a listing has."""
    by_stream = False
    """Whether a folder can be written to; `otherwise` says what can be done where not."""
    otherwise = ""
    secret = False
    """Whether the address has a password or a signature."""
    _fs: Any = None
    """What the library asks by, once it is needed; not for another process."""

    def __init__(self, root: str) -> None:
        """`root` is the address as it is told: without credentials."""
        self.root = root

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_fs"}

    async def listing(self) -> dict[str, Entry]:
        """The files at and below the root, by path, of a store that lists them. Raises Unread."""
        raise NotImplementedError

    def ask(self, name: str, start: int, end: int | None, tag: str) -> Any:
        """An asynchronous context with the Answer for bytes of a file, of that `tag` if one is known. Raises Unread."""
        raise NotImplementedError

    async def put(self, path: str, name: str) -> None:
        """Have a local file in the store, if there is none of that name. Raises Unread."""
        raise NotImplementedError

    async def remove(self, name: str) -> None:
        """Have a file of the store gone. Raises Unread."""
        raise NotImplementedError

    async def piece(self, name: str, start: int, length: int, known: Entry | None = None) -> Piece:
        """Up to `length` bytes from `start` on, fewer where the file ends. Raises Unread, also where the file is
        another than the `known` one.
        """
        if known is not None:
            length = min(length, known.size - start)
            if length <= 0:
                return Piece(b"", known)

        async def once() -> Piece:
            async with self.ask(name, start, start + length, known.tag if known else "") as answer:
                skipped = start - answer.first
                if not 0 <= skipped <= MOST_SKIPPED:
                    raise Unread("is on a server that sends whole files and no ranges: download it first")
                data = (await answer.read(skipped + length))[skipped:]
                size = answer.size
                if size is None and len(data) < length and answer.end is None:
                    size = start + len(data)
                if size is None:
                    raise Unread(UNSIZED)
                entry = Entry(size, answer.tag if self.tagged or not known else known.tag)
                check(entry, known)
                if len(data) < min(length, size - start):
                    raise Busy("was cut off by the server")
                return Piece(data, entry)

        return await again(once, SECONDS + length / SLOWEST)

    async def copy(self, name: str, known: Entry | None, sink: BinaryIO, room: int) -> Entry:
        """Write a whole file to `sink`, where there is `room` for so many bytes. Raises Unread and OSError."""

        async def once() -> Entry:
            sink.seek(0)
            sink.truncate()
            async with self.ask(name, 0, None, known.tag if known else "") as answer:
                if answer.size is None:
                    raise Unread(UNSIZED)
                entry = Entry(answer.size, answer.tag if self.tagged or not known else known.tag)
                check(entry, known)
                if entry.size > room:
                    raise Unread(f"has {entry.size} bytes, and there is room for {room}: set TMPDIR to another disk")
                left = entry.size
                async with _Within(SECONDS + entry.size / SLOWEST):
                    while left:
                        async with _Within(SECONDS):
                            data = await answer.read(min(left, CHUNK))
                        if not data:
                            raise Busy("was cut off by the server")
                        sink.write(data)
                        left -= len(data)
            return entry

        return await again(once, None)


async def listed(store: Store) -> dict[str, Entry]:
    """The files of a store that lists them, as it gives them. Raises Unread."""
    async with _Within(LISTING):
        return await store.listing()


def check(entry: Entry, known: Entry | None) -> None:
    """Raises Unread where a file is another than it was."""
    if known is not None and (entry.size != known.size or (entry.tag and known.tag and entry.tag != known.tag)):
        raise Unread(CHANGED)


class _Within:
    """Cancel what is awaited in it after so many seconds. Raises Unread. (asyncio.timeout is of Python 3.11.)"""

    __slots__ = ("_over", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only coroutines call it
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)

    def _end(self) -> None:
        self._over = True
        self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._over and kind is asyncio.CancelledError:
            raise Unread(f"was given up, as it did not come within {self._seconds:.0f} s") from None


async def again(once: Callable[[], Coroutine[Any, Any, Result]], seconds: float | None) -> Result:
    """What `once` gives, asked again where the server is busy or breaks off, as long as there is patience. Raises
    Unread.
    """
    waited, pause = 0.0, PAUSE
    for tried in range(1, TRIES + 1):
        try:
            async with limit():  # outside of what is timed: it is not this server that one waits for
                if seconds is None:
                    return await once()
                async with _Within(seconds):
                    return await once()
        except Busy as busy:
            wait = pause if busy.after is None else busy.after
            if tried == TRIES:
                raise
            if waited + wait > PATIENCE:
                raise Unread(f"{busy}, and asks to wait {wait:.0f} s, which is longer than is waited") from None
            waited, pause = waited + wait, 2 * pause
            await asyncio.sleep(wait)
    raise AssertionError("unreachable")


_limits: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
_share = [IN_FLIGHT]


def take_share(requests: int) -> None:
    """Have this process ask for so many at once, as others ask as well."""
    if _share != [requests]:
        _share[:] = [requests]
        _limits.clear()


def limit() -> asyncio.Semaphore:
    """What keeps the requests at once to the share of this process."""
    loop = asyncio.get_running_loop()
    if loop not in _limits:
        _limits[loop] = asyncio.Semaphore(*_share)
    return _limits[loop]


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Have something done by fsspec's loop, and wait for it; what interrupts that, as Ctrl-C, ends it."""
    future: Future[Result] = begin(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def begin(work: Coroutine[Any, Any, Any]) -> Any:
    """Have something done by fsspec's loop: a concurrent Future."""
    from fsspec.asyn import get_loop

    return asyncio.run_coroutine_threadsafe(work, get_loop())


def why(error: BaseException) -> str:
    """What a library says, as one short line without user, password, query or signature of an address."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = re.sub(r"://[^/\s@]*@", "://", text)
    text = re.sub(r"\?[^\s'\"]*", "", text)
    return re.sub(r"(?i)(bearer|basic|token|signature|credential)([ =:]+)\S+", r"\1\2…", text)[:200]
