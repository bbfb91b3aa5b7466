"""Adapters of the Hugging Face Hub, by way of huggingface_hub, its cache and its HF_ENDPOINT."""

from __future__ import annotations

import os
import re

from ..adapter import AdapterError
from .loader import CONFIG, locate

_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def fetched(path: str, subfolder: str | None = None, revision: str | None = None) -> str:
    """A local folder: `path` where it exists, else the Hub's files of the adapter that the id `path` names.

    Of several adapters below the root only the one that is meant is fetched, and of it what loaders read. Raises
    AdapterError.
    """
    if os.path.lexists(path):
        return path
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
        return str(huggingface_hub.snapshot_download(path, revision=revision, allow_patterns=f"{at}adapter_*"))
    except (OSError, ValueError) as error:
        message = (str(error).strip() or repr(error)).splitlines()[0]
        raise AdapterError(f"{path} does not exist here, and the Hub did not give it: {message}") from None
