"""Repaired copies, each made once and kept under a name made from what it was made of."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from glob import escape, glob

from ..adapter import AdapterError
from .digests import sha256
from .replacing import REPLACED

VARIABLE = "CKPT_DOCTOR_CACHE"


def root() -> str:
    """The folder of all copies: $CKPT_DOCTOR_CACHE, else ckpt-doctor in $XDG_CACHE_HOME or ~/.cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.abspath(os.path.expanduser(os.environ.get(VARIABLE) or os.path.join(caches, "ckpt-doctor")))


def key(folder: str, names: Iterable[str], values: Iterable[object]) -> str:
    """A name for what is made of the files `names` of a folder and of `values`: hex, 32 digits."""
    made_of = [(name, sha256(os.path.join(folder, name))) for name in sorted(names)]
    return hashlib.sha256(repr((made_of, *values)).encode()).hexdigest()[:32]


def once(name: str, good: Callable[[str], bool], make: Callable[[str], object]) -> str:
    """The folder `name` of the cache: as it is, if it is `good`, else made; by one process at a time.

    `make` has to let a folder appear whole or not at all; what a process that was killed left of one is removed. The
    time of the folder is that of its last use. Raises AdapterError where the cache cannot be written to.
    """
    folder = os.path.join(root(), name)
    if not good(folder):
        from filelock import FileLock

        try:
            os.makedirs(os.path.join(root(), "locks"), exist_ok=True)
            with FileLock(os.path.join(root(), "locks", name)):
                if not good(folder):
                    for left in glob(os.path.join(escape(root()), f"{name}{REPLACED}*")):
                        shutil.rmtree(left, ignore_errors=True)
                    make(folder)
        except OSError as error:
            message = f"{root()} cannot be written to: {error.strerror}; set {VARIABLE} to another folder"
            raise AdapterError(message) from None
    with suppress(OSError):  # a cache that came with an image may be read-only
        os.utime(folder)
    return folder
