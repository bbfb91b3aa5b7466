"""What is asked of a store or a server: S3, Google Cloud Storage, the Hub, HTTP, by fsspec and huggingface_hub.

A request is for a range of one file, and no more than that is read of its answer, whatever the server sends.
Credentials and endpoints are those that the libraries find. They go to the server that they are for, and into no
message.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from ..adapter import AdapterError

SECONDS = 30.0
"""For the answer to one request, and for each piece of a download."""
SLOWEST = 1 << 14
"""Bytes a second of a download, which has `SECONDS` beside."""
IN_FLIGHT = 64
"""Requests at once."""
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
MOST_FILES = 5_000_000
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
CHANGED = Unread("was changed by others while it was read; try again")


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

    def __init__(self, root: str) -> None:
        """`root` is the address as it is told: without credentials."""
        self.root = root

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
            async with limit(), self.ask(name, start, start + length, known.tag if known else "") as answer:
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
                _check(entry, known)
                if len(data) < min(length, size - start):
                    raise Busy("was cut off by the server")
                return Piece(data, entry)

        return await _again(once, SECONDS + length / SLOWEST)

    async def copy(self, name: str, known: Entry | None, sink: BinaryIO, room: int) -> Entry:
        """Write a whole file to `sink`, where there is `room` for so many bytes. Raises Unread and OSError."""

        async def once() -> Entry:
            sink.seek(0)
            sink.truncate()
            async with limit(), self.ask(name, 0, None, known.tag if known else "") as answer:
                if answer.size is None:
                    raise Unread(UNSIZED)
                entry = Entry(answer.size, answer.tag if self.tagged or not known else known.tag)
                _check(entry, known)
                if entry.size > room:
                    raise Unread(f"has {entry.size} bytes, and there is room for {room}: set TMPDIR to another disk")
                left = entry.size
                async with _within(SECONDS + entry.size / SLOWEST):
                    while left:
                        async with _within(SECONDS):
                            data = await answer.read(min(left, CHUNK))
                        if not data:
                            raise Busy("was cut off by the server")
                        sink.write(data)
                        left -= len(data)
            return entry

        return await _again(once, None)


def _check(entry: Entry, known: Entry | None) -> None:
    """Raises Unread where a file is another than it was."""
    if known is not None and (entry.size != known.size or (entry.tag and known.tag and entry.tag != known.tag)):
        raise CHANGED


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Cancel what is awaited in it after so many seconds. Raises Unread. (asyncio.timeout is of Python 3.11.)"""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - only coroutines call it
    over = False

    def end() -> None:
        nonlocal over
        over = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, end)
    try:
        yield
    except asyncio.CancelledError:
        if over:
            raise Unread(f"was given up, as it did not come within {seconds:.0f} s") from None
        raise
    finally:
        timer.cancel()


async def _again(once: Callable[[], Coroutine[Any, Any, Result]], seconds: float | None) -> Result:
    """What `once` gives, asked again where the server is busy or breaks off, as long as there is patience."""
    waited, pause = 0.0, PAUSE
    for tried in range(1, TRIES + 1):
        try:
            if seconds is None:
                return await once()
            async with _within(seconds):
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


def limit() -> asyncio.Semaphore:
    """What keeps the requests at once to so many."""
    loop = asyncio.get_running_loop()
    if loop not in _limits:
        _limits[loop] = asyncio.Semaphore(IN_FLIGHT)
    return _limits[loop]


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Have something done by fsspec's loop, and wait for it."""
    return begin(work).result()  # type: ignore[no-any-return]


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
        self._fs: Any = None

    async def session(self) -> Any:
        """The session of fsspec's HTTP, made as its configuration says."""
        if self._fs is None:
            import fsspec

            self._fs = fsspec.filesystem(urlsplit(self._base).scheme)
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
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS, sock_read=SECONDS)
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
            raise Unread(f"was given up, as nothing came for {SECONDS:.0f} s") from None
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
            raise CHANGED
        if status == 416:
            raise _OutOfRange(response)
        if status in (429, 500, 502, 503, 504):
            said = f"is on a server that is busy ({status})"
            raise Busy(said, _seconds(response.headers.get("Retry-After", "")))
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
            _check(out.entry, known)
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


def _seconds(text: str) -> float | None:
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


class Hub(Http):
    """A repository of the Hugging Face Hub at one commit, or a folder of one."""

    lists = True
    tagged = False
    otherwise = "; `hf upload` brings a folder to the Hub"
    access = "log in with `hf auth login` or set HF_TOKEN; a gated model wants its terms accepted on its page"

    def __init__(self, root: str, repository: str, revision: str | None, inner: str) -> None:
        super().__init__(root, "https://hub")
        self.repository = repository
        self.revision = revision
        self.inner = inner
        self.commit = ""
        self._sent: dict[str, str] = {}

    async def listing(self) -> dict[str, Entry]:
        """As of Store; which commit it is is settled here, and holds for all that is read."""
        from huggingface_hub import HfApi

        loop = asyncio.get_running_loop()
        try:
            about = await loop.run_in_executor(
                None,
                lambda: HfApi().model_info(
                    self.repository, revision=self.revision, files_metadata=True, timeout=SECONDS
                ),
            )
        except Exception as error:  # of requests or of httpx, by the release of huggingface_hub
            raise Unread(f"was not given by the Hub: {_hub_says(error, self.access)}") from None
        if not re.fullmatch(r"[0-9a-f]{40}", about.sha or ""):
            raise Unread("was given by the Hub without a commit")
        self.commit = str(about.sha)
        found = {}
        for each in about.siblings or ():
            name = each.rfilename
            if self.inner and not name.startswith(f"{self.inner}/"):
                continue
            lfs = each.lfs
            tag = (lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", "")) if lfs else each.blob_id
            if each.size is not None:
                found[name[len(self.inner) :].lstrip("/")] = Entry(int(each.size), str(tag or ""))
        return found

    def address(self, name: str, tag: str) -> str:
        """As of Http."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repository, f"{self.inner}/{name}".lstrip("/"), revision=self.commit)

    def headers(self, tag: str) -> dict[str, str]:
        """As of Http; the commit is in the address."""
        if not self._sent:
            from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

            self._sent = dict(build_hf_headers(library_name="ckpt-doctor"))
        return self._sent

    def tag(self, headers: Any) -> str:
        """As of Http. Raises Unread where the answer is of another commit."""
        if headers.get("X-Repo-Commit", self.commit) != self.commit:
            raise CHANGED
        return ""


def _hub_says(error: Exception, access: str) -> str:
    """Why the Hub gave nothing."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"GatedRepoError", "RepositoryNotFoundError"}:
        return f"it does not exist, or gives no access: {access}"
    if "RevisionNotFoundError" in names:
        return "it has no such revision"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status:
        return f"it answered with {status}"
    return why(error)


class Gcs(Http):
    """A folder of a bucket of Google Cloud Storage."""

    lists = True
    by_stream = True
    access = "set GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GCS_TOKEN=anon for what is public"

    def __init__(self, root: str, path: str) -> None:
        super().__init__(root, "https://gcs")
        self.path = path

    async def session(self) -> Any:
        """As of Http, made by gcsfs."""
        if self._fs is None:
            from gcsfs.core import GCSFileSystem  # not the one that asks by gRPC first which kind of bucket it is

            self._fs = GCSFileSystem()
        await self._fs._set_session()
        return self._fs.session

    async def listing(self) -> dict[str, Entry]:
        """As of Store; the tag is the generation."""
        await self.session()
        return await _found(self._fs, self.path, "generation", self.access)

    def address(self, name: str, tag: str) -> str:
        """As of Http."""
        address = str(self._fs.url(f"{self.path}/{name}"))
        return f"{address}&ifGenerationMatch={tag}" if tag else address

    def headers(self, tag: str) -> dict[str, str]:
        """As of Http."""
        return dict(self._fs._get_headers(None))

    def tag(self, headers: Any) -> str:
        """As of Http."""
        return str(headers.get("X-Goog-Generation") or "")

    @property
    def _options(self) -> dict[str, Any]:
        return {}

    async def put(self, path: str, name: str) -> None:
        """As of Store."""
        await self.session()
        await _put(self._fs, path, f"{self.path}/{name}", self.access)

    async def remove(self, name: str) -> None:
        """As of Store."""
        await _removed(self._fs, f"{self.path}/{name}", self.access)


class S3(Store):
    """A folder of a bucket of S3, or of what speaks as it does."""

    by_stream = True
    access = "set AWS_PROFILE or AWS_ACCESS_KEY_ID, or FSSPEC_S3_ANON=true for what is public"

    def __init__(self, root: str, path: str) -> None:
        super().__init__(root)
        self.path = path
        self._made: Any = None

    @property
    def _fs(self) -> Any:
        if self._made is None:
            import fsspec
            from fsspec.config import conf

            config = {"max_pool_connections": IN_FLIGHT, **conf.get("s3", {}).get("config_kwargs", {})}
            self._made = fsspec.filesystem("s3", config_kwargs=config)
        return self._made

    async def listing(self) -> dict[str, Entry]:
        """As of Store; the tag is the ETag."""
        return await _found(self._fs, self.path, "ETag", self.access)

    @asynccontextmanager
    async def ask(self, name: str, start: int, end: int | None, tag: str) -> AsyncIterator[Answer]:
        """As of Store."""
        bucket, _, key = f"{self.path}/{name}".partition("/")
        options = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
        if tag:
            options["IfMatch"] = tag
        async with _told(self.access):
            answer = await self._fs._call_s3("get_object", Bucket=bucket, Key=key, **options)
            body = answer["Body"]
            given = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)", answer.get("ContentRange") or "")
            try:

                async def read(count: int) -> bytes:
                    data = bytearray()
                    while len(data) < count:
                        piece = await body.read(count - len(data))
                        if not piece:
                            break
                        data += piece
                    return bytes(data)

                first, last, size = map(int, given.groups()) if given else (0, -1, -1)
                if given and (first != start or not first <= last < size):
                    raise Unread("was answered with another range than was asked for")
                length = answer.get("ContentLength")
                ends, size_ = (last + 1, size) if given else (length, length)
                yield Answer(first, ends, size_, str(answer.get("ETag") or ""), read)
            finally:
                body.close()

    async def put(self, path: str, name: str) -> None:
        """As of Store."""
        await _put(self._fs, path, f"{self.path}/{name}", self.access)

    async def remove(self, name: str) -> None:
        """As of Store."""
        await _removed(self._fs, f"{self.path}/{name}", self.access)


async def _found(fs: Any, path: str, tag: str, access: str) -> dict[str, Entry]:
    """The files at and below a path of a store of fsspec's."""
    async with _told(access):
        fs.invalidate_cache()
        listed = await fs._find(path, detail=True)
        fs.invalidate_cache()
    if len(listed) > MOST_FILES:
        raise Unread(f"has more than {MOST_FILES:,} files, which is more than is followed here: name a folder of it")
    found = {}
    for name, about in listed.items():
        if about.get("type") == "file":
            found[name[len(path) :].lstrip("/")] = Entry(int(about["size"]), str(about.get(tag) or ""))
    return found


async def _put(fs: Any, path: str, target: str, access: str) -> None:
    async with _told(access, writing=True), limit():
        await fs._put_file(path, target, mode="create")


async def _removed(fs: Any, target: str, access: str) -> None:
    async with _told(access), limit():
        await fs._rm_file(target)


@asynccontextmanager
async def _told(access: str, *, writing: bool = False) -> AsyncIterator[None]:
    """What a library of a store raises, as Unread."""
    try:
        yield
    except (Unread, asyncio.CancelledError):
        raise
    except FileNotFoundError:
        raise Absent("does not exist") from None
    except FileExistsError:
        raise Taken("is there already") from None
    except PermissionError as error:
        raise Unread(f"gives no access: {access} ({why(error)})") from None
    except Exception as error:  # of botocore, aiohttp, gcsfs
        answer = getattr(error.__cause__ or error, "response", None)
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
        status = status or getattr(error, "code", None) or getattr(error, "status", None)
        if status in (412, "412", 409):
            raise (Taken("is there already") if writing else CHANGED) from None
        name = type(error).__name__
        if name in ("NoCredentialsError", "PartialCredentialsError"):
            raise Unread(f"gives no access: {access}") from None
        if name in ("ClientPayloadError", "IncompleteReadError", "ResponseStreamingError"):
            raise Busy("was cut off by the server") from None
        if "Timeout" in name:
            raise Unread(f"was given up, as nothing came in time ({name})") from None
        raise Unread(f"cannot be read: {why(error)}") from None


EXTRA = "pip install 'ckpt-doctor[remote]'"
NEEDED = {"s3": ("fsspec", "s3fs"), "gs": ("fsspec", "gcsfs"), "hf": ("fsspec", "aiohttp", "huggingface_hub")}
"""What a kind of address is read by; others by fsspec and aiohttp."""


@lru_cache
def _missing(scheme: str) -> list[str]:
    from importlib.util import find_spec

    return [name for name in NEEDED.get(scheme, ("fsspec", "aiohttp")) if find_spec(name) is None]


def store(address: str) -> Store:
    """The store that an address is in. Raises AdapterError for what is no address, or where its library is missing."""
    scheme, _, rest = address.partition("://")
    root = named(address)
    if missing := _missing(scheme):
        raise AdapterError(f"{root} is remote, and reading it needs {' and '.join(missing)}: {EXTRA}")
    if scheme in ("http", "https"):
        return Http(root, address)
    if scheme == "hf":
        return Hub(root, *hub_parts(root))
    path = rest.strip("/")
    return S3(root, path) if scheme == "s3" else Gcs(root, path)


def named(address: str) -> str:
    """An address as it is told: without user, password, query and fragment, and without a slash at its end. Raises
    AdapterError for what is none.
    """
    scheme, _, rest = address.partition("://")
    if scheme in ("http", "https"):
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
        if not host:
            raise AdapterError(f"{scheme}:// names no server")
        return urlunsplit((scheme, host, parts.path.rstrip("/"), "", ""))
    first = rest.partition("/")[0]
    if not first:
        raise AdapterError(f"{scheme}:// names no {'repository' if scheme == 'hf' else 'bucket'}")
    if scheme != "hf" and "@" in first:
        raise AdapterError(
            f"{scheme}:// takes no credentials in an address: {S3.access if scheme == 's3' else Gcs.access}"
        )
    if scheme == "hf":
        hub_parts(address)
    return f"{scheme}://{rest.strip('/')}"


def hub_parts(address: str) -> tuple[str, str | None, str]:
    """`hf://org/name@revision/inner` → its repository, revision and folder (huggingface_hub hf_file_system.py:
    resolve_path: a revision with a slash has %2F in place of it, but for refs/pr/N). Raises AdapterError.
    """
    found = re.fullmatch(
        r"hf://(?P<id>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[^/@]+))?(?:/(?P<inner>.*))?",
        address.rstrip("/"), re.ASCII,
    )  # fmt: skip
    if not found or found["id"].startswith(("datasets/", "spaces/")):
        raise AdapterError("an address on the Hub is hf://ORG/NAME, hf://ORG/NAME@REVISION or one of a folder below")
    return found["id"], unquote(found["revision"]) if found["revision"] else None, (found["inner"] or "").strip("/")


def offline() -> bool:
    """Whether huggingface_hub is told to ask for nothing (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
