"""The hidden folder in which something is written before it takes its place, and those that a killed process left."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

from ..adapter import AdapterError
from .replacing import remove
from .there import is_link, is_there

_OURS = re.compile(r"\.ckpt-doctor-[0-9a-f]{16}")


@contextmanager
def staging(parent: str) -> Iterator[str]:
    """A new hidden folder in `parent`, gone in the end. Raises AdapterError.

    It is locked as long as this process lives, so that the next that stages something in `parent` knows those of dead
    processes, and removes them.
    """
    while True:
        # named before it is made, so that it surely goes
        folder = os.path.join(parent, f".ckpt-doctor-{os.urandom(8).hex()}")
        held = None
        try:
            try:
                os.makedirs(parent, exist_ok=True)
                _sweep(parent)
                os.mkdir(folder, 0o700)
                held = lock(folder)
            except OSError as error:
                raise AdapterError(f"{parent} cannot be written to: {error.strerror}") from None
            if is_there(folder):  # else it was taken for that of a dead process before it was locked
                yield folder
                return
        finally:
            remove(folder)
            if held is not None:
                os.close(held)


@lru_cache(64)  # a tree of ten thousand adapters is written to one folder
def _sweep(parent: str) -> None:
    """Remove what dead processes staged in a folder. Raises OSError where it cannot be listed."""
    for entry in os.listdir(parent):
        folder = os.path.join(parent, entry)
        if _OURS.fullmatch(entry) and not is_link(folder):
            held = lock(folder, wait=False)
            if held is not None:
                remove(folder)
                os.close(held)


def lock(folder: str, *, wait: bool = True) -> int | None:
    """The descriptor by which a folder is locked; None where the system cannot (Windows, NFS), or where it is not to be
    waited for and another has it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    return None
