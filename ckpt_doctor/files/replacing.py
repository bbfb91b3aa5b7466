"""Put a folder that was staged in the place of OUT; nothing is lost, whenever it is stopped."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress

from ..adapter import AdapterError
from .loader import may_hold_adapters
from .renaming import exchanged, to_free_name
from .there import is_file, is_folder, is_link, is_there

REPLACED = ".replaced-by-ckpt-doctor."
"""In the name of a folder beside OUT, where what was in its place waits until the new one is there."""


def take_place(stage: str, out: str, *, force: bool) -> None:
    """Put `stage` in the place of `out`; with `force` also if something is there, which is then at `stage`, or gone.

    Raises AdapterError where something is there and is to stay, and OSError.
    """
    try:
        to_free_name(stage, out)
    except FileExistsError:
        check_replaceable(out, force=force)
        _keep_below(out, stage)
        if not exchanged(stage, out):
            _replace(stage, out)
    sync(os.path.dirname(out))


def _keep_below(out: str, stage: str) -> None:
    """Give `stage` the folders of an old `out` that hold adapters, as links to the same files where that can be.

    So they are in `out` at any moment. Where `out` is itself a link, what it points to stays anyhow.
    """
    if not is_folder(out) or is_link(out):
        return
    for name in os.listdir(out):
        below, kept = os.path.join(out, name), os.path.join(stage, name)
        if not is_folder(below) or not may_hold_adapters(below):
            continue
        if is_link(below):
            os.symlink(os.readlink(below), kept)
            continue
        shutil.copytree(below, kept, symlinks=True, copy_function=_link)
        for folder, *_ in os.walk(kept):
            sync(folder)
    sync(stage)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a filesystem without links, or another one that is mounted there
        shutil.copy2(source, target)
        sync(target)


def _replace(stage: str, out: str) -> None:
    """Put `stage` in the place of `out` in two steps, where the system cannot exchange two names in one.

    In between, what was in the place of `out` lies beside it, under a name that `left_behind` finds if the process is
    killed there. It takes the name of `stage` only when the new one is in place. Raises OSError, and AdapterError where
    the old one can neither be replaced nor go back.
    """
    aside = out + REPLACED + os.urandom(4).hex()
    old = os.path.join(aside, os.path.basename(out))
    try:
        os.mkdir(aside, 0o700)
        os.rename(out, old)
        os.rename(stage, out)
    finally:
        if not is_there(stage):  # it is in place, and what is left of the old one by that name goes with the next run
            try:
                os.rename(aside, stage)
            except BaseException as error:
                remove(aside)
                if not isinstance(error, OSError):
                    raise
        elif is_there(old):
            try:
                to_free_name(old, out)
            except OSError:
                raise AdapterError(f"{out} cannot be written; what was in its place is now {old}") from None
        with suppress(OSError):
            os.rmdir(aside)


def left_behind(outs: Iterable[str]) -> Iterator[str]:
    """What was in the place of each of `outs` when a fix was killed, and still lies beside it (see `_replace`)."""
    beside: dict[str, set[str]] = {}
    for out in outs:
        parent, name = os.path.split(os.path.abspath(out))
        beside.setdefault(parent, set()).add(name)
    for parent, names in beside.items():
        for entry in sorted(os.listdir(parent)) if os.path.isdir(parent) else ():
            name, mark, _ = entry.rpartition(REPLACED)
            old = os.path.join(parent, entry, name)
            if mark and name in names and os.path.lexists(old):
                yield old


def taken(out: str) -> AdapterError:
    """What is said of an `out` that is there, and is not to be replaced."""
    return AdapterError(f"{out} exists; name another folder, or use --force to replace it")


def check_replaceable(out: str, *, force: bool) -> None:
    """Raises AdapterError where `out`, which is there, is to stay: whatever it is without `force`, and with it what is
    no folder, file or link. A device that was replaced (/dev/null) would be lost to every program.
    """
    if not force:
        raise taken(out)
    if not (is_folder(out) or is_file(out) or is_link(out)):
        raise AdapterError(f"{out} is a device, a pipe or a socket, and is not replaced: name a folder")


def remove(folder: str) -> None:
    """Remove a folder as far as the system lets us; one interruption does not leave half of it."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def sync(path: str) -> None:
    """Have the names in a folder, or what a file holds, on the disk. Windows does it for folders by itself."""
    if sys.platform == "win32" and is_folder(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
