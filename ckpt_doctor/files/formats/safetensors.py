"""safetensors: 8 bytes of length, a JSON header, the data. Judged as safetensors' own `tensor.rs` judges."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

from ...adapter import DTYPE_BITS, DamagedFile, FileRange, TensorInfo

MAX_HEADER = 100_000_000  # tensor.rs: MAX_HEADER_SIZE
MAX_INT = 2**64


def read(file: BinaryIO, path: str, size: int) -> dict[str, TensorInfo]:
    """The tensors of an open file of `size` bytes. Raises DamagedFile."""
    if size < 8:
        raise DamagedFile("truncated-file", f"{size} bytes are too few for a safetensors file")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_HEADER:
        raise DamagedFile(
            "malformed-safetensors", f"the header says it has {length} bytes, more than the format allows"
        )
    if length + 8 > size:
        raise DamagedFile("truncated-file", f"the header ends at byte {length + 8}, the file at byte {size}")
    return parse_header(file.read(length), path, 8 + length, size)


def metadata(file: BinaryIO) -> dict[str, str]:
    """The `__metadata__` of an open file that `read` took."""
    (length,) = struct.unpack("<Q", file.read(8))
    extra: dict[str, str] = json.loads(file.read(length)).get("__metadata__") or {}
    return extra


def parse_header(raw: bytes, path: str, start: int, size: int) -> dict[str, TensorInfo]:
    """Header bytes → tensors; data begins at byte `start` of the file of `size` bytes. Raises DamagedFile."""
    try:
        header = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedFile("malformed-safetensors", f"the header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise DamagedFile("malformed-safetensors", "the header is not a JSON object")
    if b"\\u" in raw:
        _no_lone_surrogates(header)
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise DamagedFile("malformed-safetensors", "__metadata__ is not a map of strings")
    if raw.count(b":") != 4 * len(header) + (metadata is not None) + len(metadata or ()):
        _no_duplicate_fields(raw)
    tensors = {name: _tensor(name, entry, path, start) for name, entry in header.items()}
    end = start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].source.offset, item[1].source.length)):  # type: ignore[union-attr]
        source = info.source
        assert isinstance(source, FileRange)  # noqa: S101 - _tensor makes nothing else
        if source.offset != end:
            raise DamagedFile("malformed-safetensors", f"the bytes of {name} overlap others or leave a gap")
        end = source.offset + source.length
    if end > size:
        raise DamagedFile("truncated-file", f"the file ends {end - size} bytes before its last tensor does")
    if end < size:
        raise DamagedFile("malformed-safetensors", f"{size - end} bytes after the last tensor belong to none")
    return tensors


def _tensor(name: str, entry: Any, path: str, start: int) -> TensorInfo:
    try:
        dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = DTYPE_BITS[dtype]
        for number in (*shape, first, last):
            if type(number) is not int or not 0 <= number < MAX_INT:
                raise TypeError
        for size in shape:
            bits *= size
    except (KeyError, TypeError, ValueError):
        raise DamagedFile("malformed-safetensors", f"the header's entry for {name} is not one") from None
    if bits % 8 or bits // 8 != last - first:
        raise DamagedFile(
            "malformed-safetensors", f"{name} is {dtype} {list(shape)}, which is not the {last - first} bytes it has"
        )
    return TensorInfo(dtype, tuple(shape), FileRange(path, start + first, last - first))


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _no_lone_surrogates(header: dict[str, Any]) -> None:
    """Half a character, as Python's json lets it pass and serde does not."""
    try:
        json.dumps(header, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DamagedFile("malformed-safetensors", "a name in the header is not valid Unicode") from None


def _no_duplicate_fields(raw: bytes) -> None:
    """Serde refuses a field given twice within one tensor; a tensor's name given twice is caught by its bytes."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(items)
        if len(fields) != len(items) and {"dtype", "shape", "data_offsets"} & fields.keys():
            raise DamagedFile("malformed-safetensors", "a field of a tensor is given twice")
        return fields

    json.loads(raw, object_pairs_hook=pairs)


def header(tensors: dict[str, TensorInfo], extra: dict[str, str]) -> tuple[bytes, list[str]]:
    """Header bytes, 8-byte length included, and the order of the data: by alignment, then name, as safetensors.

    `extra` is the `__metadata__`.
    """
    order = sorted(tensors, key=lambda name: (-DTYPE_BITS[tensors[name].dtype], name))
    entries: dict[str, Any] = {"__metadata__": extra} if extra else {}
    at = 0
    for name in order:
        info = tensors[name]
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [at, at + info.nbytes]}
        at += info.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, order
