"""Buckets of S3 and of Google Cloud Storage, by s3fs and gcsfs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from .http import Http
from .store import CHANGED, IN_FLIGHT, MOST_FILES, Absent, Answer, Busy, Entry, Store, Taken, Unread, limit, why


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
        async with _told(self.access):
            listed = await self._fs._find(self.path, detail=True, update_cache=False)
        return _found(listed.values(), self.path, "generation")

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

    def _s3(self) -> Any:
        if self._fs is None:
            import fsspec
            from fsspec.config import conf

            config = {"max_pool_connections": IN_FLIGHT, **conf.get("s3", {}).get("config_kwargs", {})}
            self._fs = fsspec.filesystem("s3", config_kwargs=config)
        return self._fs

    async def listing(self) -> dict[str, Entry]:
        """As of Store; the tag is the ETag."""
        async with _told(self.access):
            listed = await self._s3()._lsdir(self.path, delimiter="", max_items=MOST_FILES + 1)
        return _found(listed, self.path, "ETag")

    @asynccontextmanager
    async def ask(self, name: str, start: int, end: int | None, tag: str) -> AsyncIterator[Answer]:
        """As of Store."""
        bucket, _, key = f"{self.path}/{name}".partition("/")
        options = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
        if tag:
            options["IfMatch"] = tag
        async with _told(self.access):
            answer = await self._s3()._call_s3("get_object", Bucket=bucket, Key=key, **options)
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
        await _put(self._s3(), path, f"{self.path}/{name}", self.access)

    async def remove(self, name: str) -> None:
        """As of Store."""
        await _removed(self._s3(), f"{self.path}/{name}", self.access)


def _found(listed: Collection[dict[str, Any]], path: str, tag: str) -> dict[str, Entry]:
    """The files at and below a path of a store, as fsspec describes them. Raises Unread."""
    if len(listed) > MOST_FILES:
        raise Unread(f"has more than {MOST_FILES:,} files, which is more than is followed here: name a folder of it")
    found = {}
    for about in listed:
        name = about["name"]
        if about.get("type") == "file" and name.startswith(f"{path}/"):
            found[name[len(path) + 1 :]] = Entry(int(about["size"]), str(about.get(tag) or ""))
    return found


async def _put(fs: Any, path: str, target: str, access: str) -> None:
    async with _told(access, writing=True), limit():
        try:
            await fs._put_file(path, target, mode="create")
        except Exception as error:
            if _status(error) != 501:
                raise
            await fs._put_file(path, target)  # by a store that knows no condition; nothing was there before


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
        if _status(error) in (409, 412):
            raise (Taken("is there already") if writing else Unread(CHANGED)) from None
        name = type(error).__name__
        if name in ("NoCredentialsError", "PartialCredentialsError"):
            raise Unread(f"gives no access: {access}") from None
        if name in ("ClientPayloadError", "IncompleteReadError", "ResponseStreamingError"):
            raise Busy("was cut off by the server") from None
        if "Timeout" in name:
            raise Unread(f"was given up, as nothing came in time ({name})") from None
        raise Unread(f"cannot be read: {why(error)}") from None


def _status(error: Exception) -> int | None:
    """The status of HTTP that an exception of botocore, aiohttp or gcsfs is about, if it says so."""
    answer = getattr(error.__cause__ or error, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    status = status or getattr(error, "code", None) or getattr(error, "status", None)
    return int(status) if isinstance(status, int | str) and str(status).isdecimal() else None
