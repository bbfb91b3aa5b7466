"""Put new files of an adapter in the place of its old ones; nothing is lost, and nothing is ever half new."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from .staging import lock
from .there import is_file, is_link, is_there

SUFFIX = ".bak"


def exchange(stage: str, folder: str, old: Iterable[str], *, last: str) -> list[str]:
    """Move the files of `stage` into `folder`, in the place of `old` ones; the names of the backups that stay.

    The file `last`, without which nothing can be loaded, goes away first and comes last: whoever reads in between, or
    after a crash, finds an adapter that no loader takes, never one that is half new. What fails is undone. Raises
    OSError.
    """
    new = [name for name in os.listdir(stage) if not _same(os.path.join(stage, name), os.path.join(folder, name))]
    gone = {name for name in old if not is_there(os.path.join(stage, name))} | set(new)
    moved: dict[str, str] = {}
    placed: list[str] = []
    try:
        for name in sorted(gone, key=lambda name: name != last):
            if is_there(os.path.join(folder, name)):
                moved[name] = _free(folder, name)
                os.rename(os.path.join(folder, name), os.path.join(folder, moved[name]))
        for name in sorted(new, key=lambda name: name == last):
            if name in moved:
                shutil.copymode(os.path.join(folder, moved[name]), os.path.join(stage, name))
            placed.append(name)
            os.rename(os.path.join(stage, name), os.path.join(folder, name))
    except BaseException:  # the last move that was noted may have been made, or not
        for name in placed:
            if not is_there(os.path.join(stage, name)):
                os.unlink(os.path.join(folder, name))
        for name in sorted(moved, key=lambda name: name == last):
            if is_there(os.path.join(folder, moved[name])):
                os.rename(os.path.join(folder, moved[name]), os.path.join(folder, name))
        raise
    kept = []
    for name, backup in sorted(moved.items()):
        if git_has(folder, name, backup):
            os.unlink(os.path.join(folder, backup))
        else:
            kept.append(backup)
    return kept


@contextmanager
def alone(folder: str) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder, where the system knows how."""
    held = lock(folder)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def git_has(folder: str, name: str, file: str) -> bool:
    """Whether the commit that is checked out has a file of this name in `folder` with the bytes that `file` has.

    What the repository says is not run: no filter, so what git-lfs keeps elsewhere is not found; and nothing is
    fetched, as a partial clone would by a command of its config.
    """
    if is_link(os.path.join(folder, file)):
        return False
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environ.update(GIT_ALLOW_PROTOCOL="none", GIT_NO_LAZY_FETCH="1")
    ids = []
    for arguments in (("rev-parse", "--verify", "--quiet", f"HEAD:./{name}"), ("hash-object", "--no-filters", file)):
        try:
            command = ["git", "-C", folder, *arguments]
            run = subprocess.run(command, capture_output=True, check=False, env=environ)  # noqa: S603
        except OSError:
            return False
        if run.returncode:
            return False
        ids.append(run.stdout.strip())
    return ids[0] == ids[1]


def _same(new: str, old: str) -> bool:
    return is_file(old) and not is_link(old) and filecmp.cmp(new, old, shallow=False)


def _free(folder: str, name: str) -> str:
    """The name of a backup that is not there yet."""
    backup, count = name + SUFFIX, 1
    while is_there(os.path.join(folder, backup)):
        count += 1
        backup = f"{name}{SUFFIX}{count}"
    return backup
