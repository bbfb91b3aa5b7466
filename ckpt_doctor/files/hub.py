"""Adapters of the Hugging Face Hub, by way of huggingface_hub, its cache and its HF_ENDPOINT."""

from __future__ import annotations

import os
import re
from functools import lru_cache

from ..adapter import AdapterError, Base
from .base import is_hub_id, load_base
from .loader import CONFIG, is_remote, locate

_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def fetched(path: str, subfolder: str | None = None, revision: str | None = None) -> str:
    """The local folder of the one adapter that `path` means: at or below it where it exists, else of the Hub's files of
    the id that it is, or of the address, whose files are then in the cache.

    Of several adapters below the root only the one that is meant is fetched, and of it what loaders read. Raises
    AdapterError.
    """
    if os.path.lexists(path):
        return locate(path, subfolder)
    if path.startswith("hf://"):
        from .stores.hub import hub_parts

        path, given, inner = hub_parts(path)
        revision, subfolder = given or revision, "/".join(filter(None, (inner, subfolder))) or None
    elif is_remote(path):
        from .remote import kept

        return kept(locate(path, subfolder))
    if not _ID.fullmatch(path):
        raise AdapterError(f"{path} does not exist")
    try:
        import huggingface_hub
    except ImportError:
        hint = "for one of that name on the Hub: pip install huggingface_hub"
        raise AdapterError(f"{path} does not exist; {hint}") from None
    at = f"{subfolder.strip('/')}/" if subfolder else ""
    try:
        root = huggingface_hub.snapshot_download(path, revision=revision, allow_patterns=f"{at}*{CONFIG}")
        folder = os.path.relpath(locate(root, subfolder), root)
        at = "" if folder == "." else f"{folder.replace(os.sep, '/')}/"
        # of the commit that the folder is named after: the branch may have moved in between
        commit = os.path.basename(root) if _COMMIT.fullmatch(os.path.basename(root)) else revision
        root = huggingface_hub.snapshot_download(path, revision=commit, allow_patterns=f"{at}adapter_*")
        return locate(os.path.join(root, folder))
    except (OSError, ValueError) as error:
        message = (str(error).strip() or repr(error)).splitlines()[0]
        raise AdapterError(f"{path} does not exist here, and the Hub did not give it: {message}") from None


_COMMIT = re.compile(r"[0-9a-f]{40}")


@lru_cache(256)
def cached_base(name: str, revision: str = "main") -> Base | None:
    """The model of an id on the Hub, as it lies in the local cache (huggingface_hub: models--OWNER--NAME/snapshots), at
    a commit or what a branch was when it was fetched; None where it is not there. Without network, and never as a path:
    the name comes from an adapter's config.
    """
    if not is_hub_id(name) or not re.fullmatch(r"[\w-][\w.-]*", revision, re.ASCII):
        return None
    folder = os.path.join(_cache(), "models--" + name.replace("/", "--"))
    commit = revision if _COMMIT.fullmatch(revision) else _read(os.path.join(folder, "refs", revision))
    if not _COMMIT.fullmatch(commit):
        return None
    try:
        return load_base(os.path.join(folder, "snapshots", commit))
    except (AdapterError, OSError):
        return None


def _cache() -> str:
    """Where huggingface_hub keeps what it fetched (constants.py: HF_HUB_CACHE)."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    hub = hub or os.path.join(os.environ.get("HF_HOME") or os.path.join(home, "huggingface"), "hub")
    return os.path.expanduser(hub)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return ""
