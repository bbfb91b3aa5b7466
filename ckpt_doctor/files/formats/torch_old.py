"""torch's format from before 1.6: five pickles in a row, then each storage as a count and its elements.

Magic number, protocol, the machine that wrote it, the state dict, the order of the storages (torch/serialization.py:
_legacy_save). No pickle is executed.
"""

from __future__ import annotations

from typing import BinaryIO

from ...adapter import DTYPE_BITS, AdapterError, DamagedFile, FileRange, TensorInfo
from ...adapter.limits import PICKLE
from .torch_zip import Machine, tensors

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read(file: BinaryIO, path: str, size: int, *, nested: bool = False) -> dict[str, TensorInfo]:
    """The tensors of an open file of `size` bytes; of a checkpoint as of `torch_zip.tensors`. Raises DamagedFile, or
    AdapterError for a big-endian one.
    """
    machine = Machine(file.read(PICKLE.most), path)
    if machine.run() != MAGIC or machine.run() != PROTOCOL:
        raise DamagedFile("malformed-bin", "it is a pickle, but not one that torch.save wrote")
    system = machine.run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise AdapterError(f"{path}: the tensors are big-endian; save them again on a little-endian machine")
    state, order = machine.run(), machine.run()
    if not isinstance(order, list):
        raise DamagedFile("malformed-bin", "it does not say in which order its storages follow")
    at = machine.at
    storages: dict[str, FileRange] = {}
    for key in order:
        if not isinstance(key, str) or key not in machine.storages:
            raise DamagedFile("malformed-bin", "it has a storage that no tensor uses")
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        length = count * DTYPE_BITS[machine.storages[key].dtype] // 8
        at += 8 + length
        if count >= 1 << 48 or at > size:
            raise DamagedFile("truncated-file", f"the file ends within the storage {key[:40]}")
        storages[key] = FileRange(path, at - length, length)
    return tensors(state, storages, path, nested=nested)
