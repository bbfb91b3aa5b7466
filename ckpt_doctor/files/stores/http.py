"""Files of a server: requests with ranges, redirects that take no credentials along."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from . import store
from .store import CHANGED, HOPS, UNSIZED, Absent, Answer, Busy, Entry, Piece, Store, Unread, check, why

BUSY = (429, 500, 502, 503, 504)
"""Answers after which the same may go later."""


@lru_cache
def _filesystem(scheme: str) -> Any:
    """Fsspec's HTTP, as it is configured, with the proxies of the environment, as all other libraries have them."""
    from urllib.request import getproxies_environment

    import fsspec
    from fsspec.config import conf

    client = {"trust_env": True} if getproxies_environment() else {}  # which takes two threads a request
    return fsspec.filesystem(scheme, client_kwargs={**client, **conf.get(scheme, {}).get("client_kwargs", {})})


@lru_cache
def _timeout(seconds: float) -> Any:
    """For a connection, and for each piece of what comes."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)


class Http(Store):
    """A folder of a server: nothing lists it, so what may be in it is asked for by name."""

    lists = False

    def __init__(self, root: str, address: str) -> None:
        """`address` is the root with what of it is not told: a user, a password, a query with a signature."""
        super().__init__(root)
        parts = urlsplit(address)
        self._query = parts.query
        self._secret: dict[str, str] = {}
        if "@" in parts.netloc:
            from base64 import b64encode

            user = unquote(parts.netloc.rpartition("@")[0])
            user += "" if ":" in user else ":"
            self._secret = {"Authorization": "Basic " + b64encode(user.encode()).decode()}
        self._base = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self.secret = bool(self._secret or self._query)

    async def session(self) -> Any:
        """The session of fsspec's HTTP, made as its configuration says."""
        if self._fs is None:
            self._fs = _filesystem(urlsplit(self._base).scheme)
        return await self._fs.set_session()

    def address(self, name: str, tag: str) -> str:
        """Where a file is."""
        return f"{self._base}/{quote(name)}" + (f"?{self._query}" if self._query else "")

    def headers(self, tag: str) -> dict[str, str]:
        """What is sent to the server itself, and to no other: credentials, and which version of the file is wanted."""
        known = {}
        if tag.startswith('"'):
            known = {"If-Match": tag}
        elif tag and not tag.startswith("W/"):
            known = {"If-Unmodified-Since": tag}
        return {**self._options.get("headers", {}), **self._secret, **known}

    @property
    def _options(self) -> dict[str, Any]:
        """What fsspec's configuration adds to each request."""
        return self._fs.kwargs if self._fs is not None else {}

    def tag(self, headers: Any) -> str:
        """The tag of an answer."""
        return str(headers.get("ETag") or headers.get("Last-Modified") or "")

    @asynccontextmanager
    async def ask(self, name: str, start: int, end: int | None, tag: str) -> AsyncIterator[Answer]:
        """As of Store."""
        import aiohttp
        from yarl import URL

        session = await self.session()
        address = URL(self.address(name, tag))
        options = {key: value for key, value in self._options.items() if key != "headers"}
        ours = self.headers(tag)
        asked = {"Accept-Encoding": "identity"} | ({} if end is None else {"Range": f"bytes={start}-{end - 1}"})
        timeout = _timeout(store.SECONDS)
        try:
            for _ in range(HOPS + 1):
                async with session.get(
                    address, headers={**ours, **asked}, allow_redirects=False, timeout=timeout, **options
                ) as response:
                    if response.status in (301, 302, 303, 307, 308):
                        target = _target(address, response.headers.get("Location", ""))
                        if target.origin() != address.origin():
                            if address.scheme == "https" and target.scheme != "https":
                                raise Unread("is redirected from https to a connection that anyone can read")
                            ours, options = {}, {key: options[key] for key in ("proxy",) if key in options}
                        address = target
                        continue
                    self._check(response)
                    try:
                        yield _answer(response, start, self.tag(response.headers))
                    except BaseException:
                        response.close()  # what else comes of it is the answer to nothing
                        raise
                    return
            raise Unread(f"is redirected more than {HOPS} times")
        except aiohttp.ClientPayloadError:
            raise Busy("was cut off by the server") from None
        except (aiohttp.ServerTimeoutError, asyncio.TimeoutError):
            raise Unread(f"was given up, as nothing came for {store.SECONDS:.0f} s") from None
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise Busy(f"cannot be reached: {why(error)}") from None
        except (aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError):
            raise Busy("was answered with what is no HTTP") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise Unread(f"cannot be read: {why(error)}") from None

    def _check(self, response: Any) -> None:
        """Raises Unread for an answer that has nothing to read."""
        status = response.status
        if status in (200, 206):
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise Unread("is sent in another encoding than was asked for")
            return
        if status in (404, 410):
            raise Absent("does not exist")
        if status in (401, 403):
            raise Unread(f"gives no access ({status}): {self.access}")
        if status == 412:
            raise Unread(CHANGED)
        if status == 416:
            raise _OutOfRange(response)
        if status in BUSY:
            said = f"is on a server that is busy ({status})"
            raise Busy(said, seconds(response.headers.get("Retry-After", "")))
        raise Unread(f"was answered with {status}")

    access = "the server wants a user and a password, or others than it was given"
    """What to do where there is no access."""

    async def piece(self, name: str, start: int, length: int, known: Entry | None = None) -> Piece:
        """As of Store; of a file that is empty a server has no range."""
        try:
            return await super().piece(name, start, length, known)
        except _OutOfRange as out:
            if out.entry is None or start < out.entry.size:
                raise Unread("was answered with 416") from None
            check(out.entry, known)
            return Piece(b"", out.entry)


class _OutOfRange(Unread):
    """The range begins at the end of the file, or after it."""

    def __init__(self, response: Any) -> None:
        super().__init__("was answered with 416")
        size = re.fullmatch(r"bytes \*/([0-9]{1,18})", response.headers.get("Content-Range", ""))
        self.entry = Entry(int(size[1]), str(response.headers.get("ETag") or "")) if size else None


def _target(address: Any, location: str) -> Any:
    """Where a redirect leads. Raises Unread."""
    from yarl import URL

    try:
        target = URL(urljoin(str(address), location), encoded=location.isascii() and " " not in location)
        if location and target.scheme in ("http", "https") and target.host:
            return target.with_user(None)
    except ValueError:
        pass
    raise Unread("is redirected to what is no address")


def _answer(response: Any, start: int, tag: str) -> Answer:
    """The answer that headers describe. Raises Unread where they contradict each other."""

    async def read(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = await response.content.read(count - len(data))
            if not piece:
                break
            data += piece
        return bytes(data)

    if response.status == 200:
        length = response.content_length
        if length is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise Unread(UNSIZED)
        return Answer(0, length, length, tag, read)
    given = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", response.headers.get("Content-Range", "")
    )
    first, last = (int(given[1]), int(given[2])) if given else (-1, -1)
    size = int(given[3]) if given and given[3] != "*" else None
    if first != start or last < first or (size is not None and last >= size):
        raise Unread("was answered with another range than was asked for")
    return Answer(first, last + 1, size, tag, read)


def seconds(text: str) -> float | None:
    """What a Retry-After says: seconds, or a date."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    if not text:
        return None
    import time
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
