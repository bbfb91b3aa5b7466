"""Renames that lose nothing to a race: to a name that nothing has, and of two names for each other."""

from __future__ import annotations

import errno
import os
import sys

from .there import is_there

_NOREPLACE, _EXCHANGE = 1, 2  # linux/fs.h: RENAME_NOREPLACE, RENAME_EXCHANGE
_AT_FDCWD = -100  # linux/fcntl.h
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
"""What says that a kernel, a filesystem (NFS) or a sandbox (EPERM) has not got the call or the flag."""


def to_free_name(folder: str, target: str) -> None:
    """Rename a folder that is not empty. Raises FileExistsError where `target` is there, and any other OSError.

    Check and use are one step wherever this runs: by renameat2 on Linux, by rename itself on Windows. Where there is no
    renameat2 for it (macOS, musl, NFS), rename(2) refuses all but an empty folder, so that is the one thing that can be
    replaced, if it appears in between.
    """
    if _renamed(folder, target, _NOREPLACE):
        return
    if is_there(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    try:
        os.rename(folder, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR) and is_there(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        raise


def exchanged(a: str, b: str) -> bool:
    """Give two things each other's name in one step; False, and nothing is done, where the system cannot.

    Linux can on its own filesystems (renameat2), not on NFS. Raises OSError.
    """
    return _renamed(a, b, _EXCHANGE)


def _renamed(source: str, target: str, flag: int) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2  # glibc ≥ 2.28
    except (AttributeError, OSError):
        return False
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), source, None, target)
