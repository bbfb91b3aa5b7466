"""What is at a path, where what is there might be lost by a wrong answer: os.path says no also where a disk fails, or
where we may not look.
"""

from __future__ import annotations

import os
import stat


def mode(path: str, *, follow: bool = False) -> int:
    """The st_mode of what is at a path: of a link itself, or with `follow` of where it ends. 0 where nothing is there,
    or a link cannot be followed, or nothing can have such a name. Raises OSError where that cannot be told.
    """
    try:
        found = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL, a lone surrogate
        return 0
    if follow and stat.S_ISLNK(found):
        return os.stat(path).st_mode if os.path.exists(path) else 0
    return found


def is_there(path: str) -> bool:
    """Whether something has this name, also a link that ends nowhere. Raises OSError."""
    return mode(path) != 0


def is_folder(path: str) -> bool:
    """Whether a path leads to a folder. Raises OSError."""
    return stat.S_ISDIR(mode(path, follow=True))


def is_file(path: str) -> bool:
    """Whether a path leads to a file. Raises OSError."""
    return stat.S_ISREG(mode(path, follow=True))


def is_link(path: str) -> bool:
    """Whether a path is a link. Raises OSError."""
    return stat.S_ISLNK(mode(path))
