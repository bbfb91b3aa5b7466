"""A command of ckpt-doctor where the system cannot do what Windows cannot, on Linux.

usage: python elsewhere.py windows|macos|linux ARGUMENT...

What is refused or missing: flags and calls that Windows has not got, the modules of POSIX, folders that are opened or
synced, links, a rename to a name that is taken, and a change of what is open or mapped here. macOS misses but the
exchange of two names.
"""

from __future__ import annotations

import builtins
import ctypes  # noqa: F401 - these look at sys.platform when they are imported
import errno
import multiprocessing.connection  # noqa: F401
import os
import shutil
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click  # noqa: F401
import filelock
import numpy as np  # noqa: F401
import safetensors.numpy  # noqa: F401

MISSING = (
    "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "killpg", "sched_getaffinity", "getuid", "geteuid", "fork",
    "mkfifo", "statvfs", "posix_fadvise", "copy_file_range", "sendfile", "link", "getpgid", "setsid",
)  # fmt: skip
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "posix_ipc"}


def is_open(path: Any) -> bool:
    """Whether a file, or one in a folder, is open or mapped by this process."""
    place = os.path.realpath(path)
    held = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    held += [line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()]
    return any(one == place or one.startswith(place + "/") for one in held)


def windows() -> None:
    """Have this process see what Windows would."""
    real_open, real_import, real_rename = os.open, builtins.__import__, os.rename

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real_open(path, *arguments, **options)

    def imported(name: str, *arguments: Any, **options: Any) -> Any:
        if name in POSIX:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *arguments, **options)

    def renamed(source: Any, target: Any) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", target)
        real_rename(source, target)

    def unless_open(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(path: Any, *arguments: Any, **options: Any) -> Any:
            if is_open(path):
                raise PermissionError(errno.EACCES, "it is being used by another process", path)
            return real(path, *arguments, **options)

        return step

    def no_link(source: Any, target: Any, *_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "a required privilege is not held by the client", source, None, target)

    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    for name in MISSING:
        delattr(os, name)
    os.open, os.symlink, builtins.__import__ = opened, no_link, imported
    os.rename = renamed
    for name in ("rename", "replace", "unlink", "remove", "rmdir"):
        setattr(os, name, unless_open(getattr(os, name)))
    filelock.FileLock = lambda _: nullcontext()  # type: ignore[assignment,misc] - its lock of Windows is not here
    sys.platform = "win32"


def main() -> None:
    """Run it."""
    kind, *arguments = sys.argv[1:]
    if kind == "windows":
        windows()
    if kind == "macos":
        sys.platform = "darwin"
    from ckpt_doctor.__main__ import run

    sys.argv = ["ckpt-doctor", *arguments]
    run()


if __name__ == "__main__":
    main()
