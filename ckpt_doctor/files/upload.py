"""What is written to a store: whole, read back, and nothing in the place of anything."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from hashlib import sha256
from typing import BinaryIO

from ..adapter import AdapterError
from .loader import CONFIG
from .place import TEMPORARY
from .remote import STORES, known
from .stores.address import named
from .stores.store import Absent, Taken, Unread, listed, run


def check_free(out: str) -> None:
    """Raises AdapterError where nothing can be written to an address, or something is there."""
    plain = known(out)
    of = STORES[plain]
    if not of.by_stream:
        raise AdapterError(f"{plain} cannot be written to: name a folder here, s3://… or gs://…{of.otherwise}")
    try:
        there = run(listed(of))
    except Absent:
        there = {}
    except (Unread, CancelledError) as error:
        raise AdapterError(f"{plain} {error}") from None
    if there:
        raise AdapterError(f"{plain} exists, and what is in a store cannot be replaced as a whole: name another one")


@contextmanager
def uploaded(out: str) -> Iterator[str]:
    """A folder here whose files are written to an address in the end, where nothing is there: the config last, as what
    has none is no adapter yet; read back; and removed again where one of them fails. Raises AdapterError.
    """
    check_free(out)
    above = tempfile.mkdtemp(prefix="ckpt-doctor-")
    TEMPORARY.add(above)
    here = os.path.join(above, os.path.basename(named(out)))
    try:
        yield here
        _upload(here, named(out))
    finally:
        shutil.rmtree(above, ignore_errors=True)
        TEMPORARY.discard(above)


def _upload(here: str, out: str) -> None:
    of = STORES[out]
    names = sorted(os.listdir(here), key=lambda name: (name == CONFIG, name))
    begun: list[str] = []
    try:
        for name in names:
            begun.append(name)
            try:
                run(of.put(os.path.join(here, name), name))
                with tempfile.TemporaryFile(dir=here) as back, open(os.path.join(here, name), "rb") as file:
                    run(of.copy(name, None, back, shutil.disk_usage(here).free))
                    back.seek(0)
                    same = _digest(file) == _digest(back)
            except (Unread, CancelledError) as error:
                if isinstance(error, Taken):
                    begun.remove(name)
                raise AdapterError(f"{out}/{name} {error}") from None
            if not same:
                raise AdapterError(f"{out}/{name} does not read back as it was written")
    except BaseException:
        left = []
        for name in begun:
            try:
                run(of.remove(name))
            except Absent:
                pass
            except (Unread, CancelledError):
                left.append(name)
        if left:
            raise AdapterError(f"{out} was written in part, and {', '.join(left)} could not be removed") from None
        raise


def _digest(file: BinaryIO) -> bytes:
    digest = sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.digest()
