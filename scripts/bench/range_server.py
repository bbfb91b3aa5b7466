"""A server of the files below a folder, by ranges, with as little as it takes: what is measured is who asks.

usage: python scripts/bench/range_server.py FOLDER
Prints its port. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import cast

RANGE = re.compile(rb"\r\nRange: bytes=(\d+)-(\d+)\r\n")


class Ranges(asyncio.Protocol):
    """One connection, kept open; a request is never larger than what comes at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while b"\r\n\r\n" in self.rest:
            head, _, self.rest = self.rest.partition(b"\r\n\r\n")
            head += b"\r\n"
            path = os.path.join(sys.argv[1], head.split(b" ", 2)[1].decode().lstrip("/"))
            try:
                file = os.open(path, os.O_RDONLY)
            except OSError:
                self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            size = os.fstat(file).st_size
            wanted = RANGE.search(head)
            first, last = (int(wanted[1]), min(int(wanted[2]), size - 1)) if wanted else (0, size - 1)
            body = os.pread(file, last + 1 - first, first)
            os.close(file)
            self.transport.write(
                b'HTTP/1.1 206 Partial Content\r\nETag: "1"\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n'
                % (first, last, size, len(body))
                + body
            )


async def main() -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Ranges, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    sys.argv[1] = str(Path(sys.argv[1]).resolve())
    asyncio.run(main())
