"""Stream an adapter to a folder: stage beside it, fsync, read back, rename. Memory stays flat whatever the size."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from .adapter import DTYPE_BITS, Adapter, AdapterError, FileRange, Gathered, TensorInfo, Zeros
from .formats import safetensors
from .loader import BIN, CONFIG, INDEX, RECORD, SAFETENSORS

CHUNK = 1 << 20
MAX_OTHER = 10_000_000  # bytes of a file that is carried along

_LEFT_OUT = (
    "optimizer",
    "scheduler",
    "rng_state",
    "trainer_state",
    "training_args",
    "global_step",
    "pytorch_model",
    "model",
)


class _Files:
    """The files that tensors come from, each opened once."""

    def __init__(self) -> None:
        self.open: dict[str, BinaryIO] = {}

    def __getitem__(self, path: str) -> BinaryIO:
        if path not in self.open:
            self.open[path] = open(path, "rb")  # noqa: SIM115 - closed in close
        return self.open[path]

    def close(self) -> None:
        for file in self.open.values():
            file.close()


def chunks(info: TensorInfo, files: _Files) -> Iterator[bytes]:
    """The bytes of a tensor, in pieces of at most 1 MiB (a strided tensor: one row of elements at a time)."""
    source = info.source
    if isinstance(source, Zeros):
        for at in range(0, source.length, CHUNK):
            yield bytes(min(CHUNK, source.length - at))
    elif isinstance(source, FileRange):
        file, left = files[source.path], source.length
        file.seek(source.offset)
        while left:
            piece = file.read(min(CHUNK, left))
            if not piece:
                raise AdapterError(f"{source.path} became shorter while it was read")
            left -= len(piece)
            yield piece
    else:
        yield from _gathered(info, source, files)


def _gathered(info: TensorInfo, source: Gathered, files: _Files) -> Iterator[bytes]:
    """Row by row, the elements of a strided view."""
    width = DTYPE_BITS[info.dtype] // 8
    file, base = files[source.storage.path], source.storage.offset + source.start * width
    *outer, columns = info.shape
    *steps, step = source.strides
    for index in itertools.product(*(range(size) for size in outer)):
        at = base + width * sum(i * s for i, s in zip(index, steps, strict=True))
        row = bytearray(columns * width)
        for first in range(0, columns, _ROW):
            count = min(_ROW, columns - first)
            file.seek(at + first * step * width)
            if step == 1:
                row[first * width : (first + count) * width] = file.read(count * width)
            elif (count * step) * width <= CHUNK:
                span = file.read(((count - 1) * step + 1) * width)
                for i in range(count):
                    row[(first + i) * width : (first + i + 1) * width] = span[i * step * width : (i * step + 1) * width]
            else:
                for i in range(count):
                    file.seek(at + (first + i) * step * width)
                    row[(first + i) * width : (first + i + 1) * width] = file.read(width)
        yield bytes(row)


_ROW = 4096  # elements of a strided row that are read together


def write(adapter: Adapter, out: str, record: dict[str, Any], *, force: bool, weights: str) -> dict[str, Any]:
    """Write the adapter to the folder `out`, whole or not at all.

    `weights` is "safetensors" or "bin". The result says the sha256 of each written file and what was left out.
    Raises AdapterError.
    """
    out = os.path.abspath(out)
    parent, name = os.path.split(out)
    if os.path.lexists(out) and not force:
        raise AdapterError(f"{out} exists; name another folder, or use --force to replace it")
    try:
        os.makedirs(parent, exist_ok=True)
        stage = tempfile.mkdtemp(prefix=f".{name}.", dir=parent)
    except OSError as error:
        raise AdapterError(f"{parent} cannot be written to: {error.strerror}") from None
    try:
        left_out = _fill(stage, adapter, record, weights)
        os.chmod(stage, 0o777 & ~_umask())
        _exchange(stage, out)
    except OSError as error:
        raise AdapterError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return {"left_out": left_out}


def _fill(stage: str, adapter: Adapter, record: dict[str, Any], weights: str) -> list[str]:
    config = json.dumps(adapter.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    _write_bytes(os.path.join(stage, CONFIG), config.encode())
    name = SAFETENSORS if weights == "safetensors" else BIN
    target = os.path.join(stage, name)
    sums = _write_safetensors(target, adapter.tensors) if weights == "safetensors" else _write_bin(target, adapter)
    if weights == "safetensors":
        verify(target, adapter.tensors, sums)
    left_out = _carry(stage, adapter)
    after = {CONFIG: sha256(os.path.join(stage, CONFIG)), name: sha256(target)}
    before = {file: sha256(os.path.join(adapter.folder, file)) for file in (CONFIG, *adapter.weights)}
    full = {**record, "sha256": {"before": before, "after": after}, "left_out": left_out}
    _write_bytes(os.path.join(stage, RECORD), (json.dumps(full, indent=2, ensure_ascii=False) + "\n").encode())
    _sync_folder(stage)
    return left_out


def _write_safetensors(path: str, tensors: dict[str, TensorInfo]) -> dict[str, bytes]:
    head, order = safetensors.header(tensors, {"format": "pt"})
    sums: dict[str, bytes] = {}
    files = _Files()
    try:
        with open(path, "wb") as file:
            file.write(head)
            for name in order:
                digest = hashlib.sha256()
                for piece in chunks(tensors[name], files):
                    file.write(piece)
                    digest.update(piece)
                sums[name] = digest.digest()
            file.flush()
            os.fsync(file.fileno())
    finally:
        files.close()
    return sums


def verify(path: str, tensors: dict[str, TensorInfo], sums: dict[str, bytes]) -> None:
    """Read a written safetensors file back: same tensors, same bytes, and safetensors itself opens it."""
    from safetensors import safe_open

    from .loader import read_weights

    written = read_weights(path)
    files = _Files()
    try:
        with safe_open(path, framework="numpy") as opened:
            names = set(opened.keys())
        if names != tensors.keys() or written.keys() != tensors.keys():
            raise AdapterError(f"{path} does not hold what was written; the disk may be failing")
        for name, info in written.items():
            digest = hashlib.sha256()
            for piece in chunks(info, files):
                digest.update(piece)
            if info[:2] != tensors[name][:2] or digest.digest() != sums[name]:
                raise AdapterError(f"{path}: {name} does not read back as it was written; the disk may be failing")
    finally:
        files.close()


def _write_bin(path: str, adapter: Adapter) -> dict[str, bytes]:
    try:
        import torch
    except ImportError:
        raise AdapterError("writing .bin needs torch: pip install 'ckpt-doctor[torch]'") from None
    import tempfile as temporary

    from safetensors.torch import load_file

    with temporary.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        staged = os.path.join(folder, SAFETENSORS)
        sums = _write_safetensors(staged, adapter.tensors)
        verify(staged, adapter.tensors, sums)
        torch.save(dict(load_file(staged)), path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return sums


def _carry(stage: str, adapter: Adapter) -> list[str]:
    """Copy the other files of the folder, and name those that stay behind."""
    left_out = []
    for name in adapter.files:
        if name in (CONFIG, RECORD, *adapter.weights) or (
            name == INDEX and INDEX not in adapter.weights and len(adapter.weights) != 1
        ):
            continue
        source = os.path.join(adapter.folder, name)
        weights = name.startswith("adapter_model.") or name.endswith((".distcp", ".gguf"))
        if not os.path.isfile(source):
            if not os.path.isdir(source) or name.startswith(_LEFT_OUT):
                left_out.append(name)
        elif weights or name.startswith(_LEFT_OUT) or os.path.getsize(source) > MAX_OTHER:
            left_out.append(name)
        else:
            with open(source, "rb") as file:
                _write_bytes(os.path.join(stage, name), file.read())
    return left_out


def sha256(path: str) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _write_bytes(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(stage: str, out: str) -> None:
    """Put `stage` in the place of `out`; an old `out` stays until then."""
    if not os.path.lexists(out):
        os.rename(stage, out)
    else:
        old = tempfile.mkdtemp(prefix=f".{os.path.basename(out)}.old.", dir=os.path.dirname(out))
        os.rename(out, os.path.join(old, "out"))
        try:
            os.rename(stage, out)
        except OSError:
            os.rename(os.path.join(old, "out"), out)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    _sync_folder(os.path.dirname(out))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
