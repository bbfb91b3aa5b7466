"""A Dask cluster that examines adapters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..adapter import AdapterError

if TYPE_CHECKING:
    from distributed import Client

SECONDS = 30
"""That a scheduler may take to answer, and a worker to be there."""
STEADY = 5.0
"""Seconds for which the scheduler is not asked again how many there are."""


@contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """The cluster whose scheduler is at an address, and how many workers it has; left as it is. Raises AdapterError."""
    try:
        from distributed import Client
    except ImportError:
        raise AdapterError("--dask needs Dask: pip install 'ckpt-doctor[dask]'") from None
    try:
        client = Client(address, set_as_default=False, timeout=SECONDS, name="ckpt-doctor")
    except (OSError, ValueError, TypeError) as error:  # the last where TLS is not configured
        why = next(iter(str(error).splitlines()), "")
        raise AdapterError(f"no Dask scheduler answers at {address} ({why})") from None
    try:
        try:
            client.wait_for_workers(1, timeout=SECONDS)
        except asyncio.TimeoutError:
            raise AdapterError(f"the Dask cluster at {address} has no worker") from None
        yield client.get_executor(pure=False), _Width(client, address)
    finally:
        logging.disable()  # what is cut off tells of it
        client.close()
        logging.disable(logging.NOTSET)


class _Width:
    """How many workers a cluster has, which may become more and less. Raises AdapterError where its scheduler is gone,
    of which the futures that were begun while the client looked for it never tell.
    """

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self._address = address
        self._known, self._until = 1, 0.0

    def __call__(self) -> int:
        now = time.monotonic()
        if self._client.status in ("closing", "closed"):
            logging.disable()  # nothing can be cancelled there any more, which each future would tell of
            raise AdapterError(
                f"the Dask scheduler at {self._address} is gone: a run with --resume goes on, begun again"
            )
        if now > self._until and self._client.status == "running":
            with suppress(OSError):  # it was lost just now, and is looked for
                self._known = max(len(self._client.nthreads()), 1)
            self._until = time.monotonic() + STEADY
        return self._known
