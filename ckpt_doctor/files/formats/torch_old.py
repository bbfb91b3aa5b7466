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
    machine = Machine(file.read(PICKLE.most), path, of_storage=6)
    if machine.run() != MAGIC or machine.run() != PROTOCOL:
        raise DamagedFile("malformed-bin", "it is a pickle, but not one that torch.save wrote", walked=False)
    system = machine.run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise AdapterError(f"{path}: the tensors are not said to be little-endian; save them again on such a machine")
    if machine.storages:
        raise DamagedFile("malformed-bin", "it has a storage before its tensors", walked=False)
    state, order = machine.run(), machine.run()
    if not isinstance(order, list):
        raise machine.unfollowed("the order of its storages in another form than a list")
    at = machine.at
    storages: dict[str, FileRange] = {}
    for key in order:
        if not isinstance(key, str) or key not in machine.storages:
            raise DamagedFile("malformed-bin", "it has a storage that no tensor uses")
        file.seek(at)
        storage = machine.storages[key]
        count = int.from_bytes(file.read(8), "little")
        length = count * DTYPE_BITS[storage.dtype] // 8
        at += 8 + length
        if count >= 1 << 48 or at > size:
            raise DamagedFile("truncated-file", f"the file ends within the storage {key[:40]}")
        if count != storage.size:  # torch takes it where a tensor reaches beyond what its pickle says
            raise machine.unfollowed("another size of a storage than the file")
        storages[key] = FileRange(path, at - length, length)
    if len(storages) < len(machine.storages):
        raise AdapterError(f"{path} has no numbers for some storages, and torch takes what the memory holds")
    if not nested:
        machine.check_opcodes()
    return tensors(state, storages, path, nested=nested)
