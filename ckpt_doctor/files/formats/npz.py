"""numpy's .npz: a zip of arrays, as older MLX wrote its adapters. The header of each is a line of text, and no pickle
is read (numpy.lib.format: what `allow_pickle=False` reads). The checksums of the zip are not looked at.
"""

from __future__ import annotations

import re
import struct
import zipfile
from math import prod
from typing import BinaryIO

from ...adapter import DTYPE_BITS, AdapterError, DamagedFile, FileRange, TensorInfo
from ...adapter.limits import check_names
from .torch_zip import record_range

_DTYPES = {
    "f8": "F64",
    "f4": "F32",
    "f2": "F16",
    "i8": "I64",
    "i4": "I32",
    "i2": "I16",
    "i1": "I8",
    "u1": "U8",
    "b1": "BOOL",
}
LONGEST = 1 << 12
"""Bytes of a header; one of two dimensions has 118."""
_SIZE = "(?:0|[1-9][0-9]{0,14})"
_HEADER = re.compile(
    r"\{'descr': '[<|]([a-z][0-9])', 'fortran_order': (True|False), "
    rf"'shape': \((|{_SIZE}, ?|{_SIZE}(?:, ?{_SIZE}){{1,31}}(?:, ?)?)\),? ?\}}[ \n]*"
)


_MAGICS = [b"\x93NUMPY" + version for version in (b"\1\0", b"\2\0", b"\3\0")]


def read(file: BinaryIO, path: str, size: int) -> dict[str, TensorInfo]:
    """The arrays of an open zip file. Raises DamagedFile, or AdapterError where it is beyond what is read here."""
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in records):
                raise AdapterError(f"{path}: the zip is compressed; save it again with numpy.savez")
            names = [info.filename.removesuffix(".npy") for info in records]
            check_names(names, path)
            for info in records:
                archive.open(info).close()  # which looks at the record's own header, as numpy has it looked at
            if len(set(names)) < len(names):
                raise DamagedFile("malformed-bin", "the zip has two arrays of one name")
            return {
                name: _array(file, path, name, record_range(file, path, info, size))
                for name, info in zip(names, records, strict=True)
            }
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, RuntimeError) as error:
        raise DamagedFile("malformed-bin", f"the zip cannot be read ({error})") from None


def _array(file: BinaryIO, path: str, name: str, record: FileRange) -> TensorInfo:
    file.seek(record.offset)
    start = file.read(12)
    if min(record.length, len(start)) < 12 or start[:8] not in _MAGICS:
        raise DamagedFile("malformed-bin", f"{name} is no array of numpy's")
    (length,) = struct.unpack("<H" if start[6] == 1 else "<I", start[8:10] if start[6] == 1 else start[8:12])
    first = record.offset + (10 if start[6] == 1 else 12)
    if length > LONGEST:
        raise DamagedFile("malformed-bin", f"the header of {name} is longer than that of an array")
    file.seek(first)
    header = _HEADER.fullmatch(file.read(length).decode("latin1"))
    dtype = _DTYPES.get(header[1]) if header else None
    if header is None or dtype is None:
        raise AdapterError(f"{path}: {name[:80]} is an array of a type that is not read")
    shape = tuple(int(number) for number in header[3].replace(" ", "").split(",") if number)
    if header[2] == "True" and len(shape) > 1:
        raise AdapterError(f"{path}: {name[:80]} has its columns first, which is not followed here")
    nbytes = prod(shape) * DTYPE_BITS[dtype] // 8
    if first + length + nbytes > record.offset + record.length:
        raise DamagedFile("malformed-bin", f"{name} has not the bytes that its shape says")
    if first + length + nbytes < record.offset + record.length:  # which numpy does not look at
        raise AdapterError(f"{path}: {name[:80]} has more bytes than its shape says; save it again with numpy.savez")
    return TensorInfo(dtype, shape, FileRange(path, first + length, nbytes))
