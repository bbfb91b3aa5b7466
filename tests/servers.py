"""Servers on the loopback that speak as real ones do, or as no real one should."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit


class Asked(NamedTuple):
    """A request: its method, path with query, headers by names in lower case, and how many bytes were sent back."""

    method: str
    path: str
    headers: dict[str, str]
    sent: list[int]

    @property
    def name(self) -> str:
        return self.path.partition("?")[0].rpartition("/")[2]


Odd = Callable[["Handler", Asked], bool]
"""What answers a request otherwise than a good server does; whether it did."""


class Handler(BaseHTTPRequestHandler):
    """Files of a folder, by ranges, with ETags, as a server does that does well."""

    protocol_version = "HTTP/1.1"
    server: Server
    sent: list[int]

    def do_GET(self) -> None:
        self.sent = [0]
        asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.sent)
        self.server.asked.append(asked)
        if self.server.odd is None or not self.server.odd(self, asked):
            self.answer(asked)

    do_POST = do_GET  # noqa: N815
    do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, asked: Asked) -> None:
        path = self.server.root / unquote(urlsplit(asked.path).path).lstrip("/")
        if not path.is_file():
            self.reply(404)
            return
        self.file(path, asked)

    def file(self, path: Path, asked: Asked, headers: dict[str, str] | None = None) -> None:
        data = path.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {**({"ETag": tag} if self.server.tags else {}), **(headers or {})}
        if asked.headers.get("if-match", tag) != tag:
            self.reply(412)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
        if wanted and self.server.ranges:
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            if first > last:
                self.reply(416, headers={"Content-Range": f"bytes */{len(data)}", **headers})
                return
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self.reply(206, data[first : last + 1], headers)
            return
        self.reply(200, data, headers)

    def reply(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.send(data)

    def send(self, data: bytes) -> None:
        try:
            for at in range(0, len(data), 1 << 16):
                self.wfile.write(data[at : at + (1 << 16)])
                self.sent[0] += len(data[at : at + (1 << 16)])
        except OSError:  # who asked has enough
            self.close_connection = True


class Server(ThreadingHTTPServer):
    """A server of a folder that notes what it was asked."""

    daemon_threads = True
    request_queue_size = 256

    tags = True

    def __init__(self, root: Path, *, ranges: bool = True, odd: Odd | None = None, handler: type = Handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.root = root
        self.ranges = ranges
        self.odd = odd
        self.asked: list[Asked] = []

    def handle_error(self, *_: object) -> None:
        """Connections that are closed early are meant."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# What no server should do


def slow(_: Handler, __: Asked) -> bool:
    time.sleep(3)
    return False


def dripping(handler: Handler, _: Asked) -> bool:
    """A byte now and then, for ever."""
    handler.send_response(206)
    handler.send_header("Content-Range", "bytes 0-999999/1000000")
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _second in range(40):
        try:
            handler.wfile.write(b"x")
        except OSError:
            break
        time.sleep(0.2)
    handler.close_connection = True
    return True


def cut_off(handler: Handler, asked: Asked) -> bool:
    """Half of the body, then the end of the connection."""
    data = (handler.server.root / asked.path.lstrip("/")).read_bytes()
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True
    return True


def short(handler: Handler, asked: Asked) -> bool:
    """A Content-Length that is half of the range that is said to be sent."""
    data = (handler.server.root / asked.path.lstrip("/")).read_bytes()
    handler.reply(206, data[: len(data) // 2], {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"})
    return True


def babbling(handler: Handler, asked: Asked) -> bool:
    """More than the Content-Length says, which is what the next answer begins with."""
    data = (handler.server.root / asked.path.lstrip("/")).read_bytes()
    headers = {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}", "Content-Length": str(len(data) // 2)}
    handler.reply(206, data, headers)
    return True


def endless(handler: Handler, _: Asked) -> bool:
    """200, no length, and bytes for ever."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    block = b" " * (1 << 16)
    try:
        while True:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
            handler.sent[0] += len(block)
    except OSError:
        handler.close_connection = True
    return True


def status(code: int, **headers: str) -> Odd:
    def answer(handler: Handler, _: Asked) -> bool:
        handler.reply(code, b"", {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return answer


def another_range(handler: Handler, _: Asked) -> bool:
    handler.reply(206, b"{}", {"Content-Range": "bytes 5-6/1000"})
    return True


# The Hub


class HubHandler(Handler):
    """What huggingface_hub asks of the Hub: a model with its files at a commit, and files by redirect to another host,
    as the Hub has them: large ones at a CDN, with a signature, which wants no token.
    """

    server: Hub

    def answer(self, asked: Asked) -> None:
        path, query = unquote(urlsplit(asked.path).path), parse_qs(urlsplit(asked.path).query)
        hub = self.server
        if hub.token and asked.headers.get("authorization") != f"Bearer {hub.token}":
            self.reply(401, headers={"X-Error-Code": "RepoNotFound"})
            return
        about = re.fullmatch(r"/api/models/(?P<id>[^/]+/[^/]+)(?:/revision/(?P<revision>.+))?", path)
        if about:
            if about["id"] != hub.name or (about["revision"] or "main") not in (*hub.branches, *hub.branches.values()):
                code = "RevisionNotFound" if about["id"] == hub.name else "RepoNotFound"
                self.reply(404, headers={"X-Error-Code": code})
                return
            commit = hub.branches.get(about["revision"] or "main", about["revision"] or "")
            self.reply(
                200, json.dumps(self.about(commit, "blobs" in query)).encode(), {"Content-Type": "application/json"}
            )
            return
        file = re.fullmatch(rf"/{hub.name}/resolve/(?P<commit>[^/]+)/(?P<path>.+)", path)
        commit = hub.branches.get(file["commit"], file["commit"]) if file else ""
        place = hub.root / commit / file["path"] if file else hub.root
        if not place.is_file():
            self.reply(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": commit}
        if place.suffix == ".json" or hub.cdn is None:
            self.file(place, asked, headers)
            return
        signed = f"{hub.cdn}/{commit}/{file['path'] if file else ''}?X-Amz-Signature=0123456789abcdef&Expires=1"
        self.reply(302, headers={**headers, "Location": signed, "X-Linked-Size": str(place.stat().st_size)})

    def about(self, commit: str, blobs: bool) -> dict[str, Any]:
        files = sorted(path for path in (self.server.root / commit).rglob("*") if path.is_file())
        siblings = []
        for path in files:
            entry: dict[str, Any] = {"rfilename": str(path.relative_to(self.server.root / commit))}
            if blobs:
                data = path.read_bytes()
                entry |= {"size": len(data), "blobId": hashlib.sha256(b"blob" + data).hexdigest()[:40]}
                if path.suffix != ".json":
                    entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        return {"id": self.server.name, "modelId": self.server.name, "sha": commit, "private": False, "tags": [],
                "downloads": 0, "likes": 0, "siblings": siblings}  # fmt: skip


class Hub(Server):
    """The Hub with one repository: `root` has a folder for each commit, `branches` say which is which."""

    def __init__(
        self, root: Path, name: str, branches: dict[str, str], cdn: str | None = None, token: str = ""
    ) -> None:
        super().__init__(root, handler=HubHandler)
        self.name = name
        self.branches = branches
        self.cdn = cdn
        self.token = token


# Google Cloud Storage


class GcsHandler(Handler):
    """What gcsfs asks of the JSON API: lists of objects, media by ranges, uploads that must not replace, deletions."""

    def answer(self, asked: Asked) -> None:
        parts = urlsplit(asked.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        root = self.server.root
        listed = re.fullmatch(r"/storage/v1/b/([^/]+)/o", parts.path)
        media = re.fullmatch(r"/download/storage/v1/b/([^/]+)/o/(.+)", parts.path)
        upload = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", parts.path)
        one = re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)", parts.path)
        if upload and asked.method == "POST":
            self.upload(root / upload[1], query, self.rfile.read(int(asked.headers["content-length"])))
        elif listed and asked.method == "GET":
            bucket = root / listed[1]
            names = sorted(str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file())
            items = [self.item(bucket, name) for name in names if name.startswith(query.get("prefix", ""))]
            self.json({"kind": "storage#objects", "items": items} if bucket.is_dir() else None)
        elif media:
            path = root / unquote(media[1]) / unquote(media[2])
            generation = self.generation(path) if path.is_file() else ""
            if path.is_file() and query.get("ifGenerationMatch", generation) != generation:
                self.reply(412)
            elif path.is_file():
                self.file(path, asked, {"X-Goog-Generation": generation})
            else:
                self.reply(404)
        elif one and asked.method == "DELETE":
            (root / unquote(one[1]) / unquote(one[2])).unlink()
            self.reply(204)
        elif one and (root / one[1] / unquote(one[2])).is_file():
            self.json(self.item(root / one[1], unquote(one[2])))
        else:
            self.json(None)

    def json(self, value: object) -> None:
        if value is None:
            self.reply(404, b'{"error": {"code": 404, "message": "Not Found"}}', {"Content-Type": "application/json"})
        else:
            self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def generation(path: Path) -> str:
        return str(int(hashlib.sha256(path.read_bytes()).hexdigest()[:12], 16))

    def item(self, bucket: Path, name: str) -> dict[str, Any]:
        path = bucket / name
        return {"kind": "storage#object", "name": name, "bucket": bucket.name, "size": str(path.stat().st_size),
                "generation": self.generation(path), "metageneration": "1", "etag": "x"}  # fmt: skip

    def upload(self, bucket: Path, query: dict[str, str], body: bytes) -> None:
        """A multipart/related upload: what the object is, then its bytes."""
        mark = body[: body.index(b"\r\n")] if b"\r\n" in body[:200] else body[: body.index(b"\n")]
        first, second = body.split(mark)[1:3]
        about = json.loads(re.split(rb"\r?\n\r?\n", first, maxsplit=1)[1])
        data = re.split(rb"\r?\n\r?\n", second, maxsplit=1)[1]
        path = bucket / about.get("name", query.get("name", ""))
        if query.get("ifGenerationMatch") == "0" and path.exists():
            self.reply(412)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.removesuffix(b"\n"))
        self.json(self.item(bucket, str(path.relative_to(bucket))))
