"""Addresses: which store one is in, and how it is told, without what is secret of it."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from ...adapter import AdapterError
from .buckets import S3, Gcs
from .http import Http
from .hub import Hub, hub_parts
from .store import Store

EXTRA = "pip install 'ckpt-doctor[remote]'"
NEEDED = {"s3": ("fsspec", "s3fs"), "gs": ("fsspec", "gcsfs"), "hf": ("fsspec", "aiohttp", "huggingface_hub")}
"""What a kind of address is read by; others by fsspec and aiohttp."""


@lru_cache
def _missing(scheme: str) -> list[str]:
    from importlib.util import find_spec

    return [name for name in NEEDED.get(scheme, ("fsspec", "aiohttp")) if find_spec(name) is None]


def store(address: str) -> Store:
    """The store that an address is in. Raises AdapterError for what is no address, or where its library is missing."""
    scheme, _, rest = address.partition("://")
    root = named(address)
    if missing := _missing(scheme):
        raise AdapterError(f"{root} is remote, and reading it needs {' and '.join(missing)}: {EXTRA}")
    if scheme in ("http", "https"):
        return Http(root, address)
    if scheme == "hf":
        return Hub(root, *hub_parts(root))
    path = rest.strip("/")
    return S3(root, path) if scheme == "s3" else Gcs(root, path)


@lru_cache(1024)
def named(address: str) -> str:
    """An address as it is told: without user, password, query and fragment, and without a slash at its end. Raises
    AdapterError for what is none.
    """
    scheme, _, rest = address.partition("://")
    if scheme in ("http", "https"):
        try:
            parts = urlsplit(address)
            _ = parts.port
        except ValueError:
            raise AdapterError(f"{scheme}://… is no address: its host or port is none") from None
        host = parts.netloc.rpartition("@")[2]
        if not host:
            raise AdapterError(f"{scheme}:// names no server")
        if host == "huggingface.co" and "/resolve/" not in parts.path:
            raise AdapterError(f"{scheme}://{host}{parts.path} is a page of the Hub: name it hf://ORG/NAME")
        return urlunsplit((scheme, host, parts.path.rstrip("/"), "", ""))
    first = rest.partition("/")[0]
    if not first:
        raise AdapterError(f"{scheme}:// names no {'repository' if scheme == 'hf' else 'bucket'}")
    if scheme != "hf" and "@" in first:
        raise AdapterError(
            f"{scheme}:// takes no credentials in an address: {S3.access if scheme == 's3' else Gcs.access}"
        )
    if scheme == "hf":
        hub_parts(address)
    return f"{scheme}://{rest.strip('/')}"
