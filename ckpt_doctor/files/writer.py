"""Stream an adapter to a folder: stage beside it, fsync, read back, rename. Memory stays flat whatever the size."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ..adapter import Adapter, AdapterError, Computed, FileRange, NotExactError, TensorInfo, forms
from .beside import Beside
from .digests import Growing, sha256
from .formats import safetensors
from .loader import (
    BIN,
    CONFIG,
    INDEX,
    RECORD,
    SAFETENSORS,
    check_steady,
    is_within,
    may_hold_adapters,
    read_weights,
    steady,
)
from .replacing import check_replaceable, sync, take_place
from .staging import staging
from .streams import CHUNK, Files, chunks, content
from .there import is_file, is_folder, is_link, is_there

SCHEMA = 1
"""The version of the shape of the record."""
MAX_OTHER = 10_000_000  # bytes of a file that is carried along

_LEFT_OUT = re.compile(
    r"optimizer.*|scheduler.*|rng_state.*|scaler\..*|trainer_state.*|training_args.*|global_step.*|.*\.distcp"
    r"|.*\.bak\d*|adapter_model\..*|(?:pytorch_|tf_|flax_)?model[-.].*(?:bin|safetensors|h5|msgpack|index\.json)|consolidated.*|.*\.gguf"
    r"|random_states.*|pytorch_model_fsdp.*|(?:[0-9]{7}_)?adapters\.(?:safetensors|npz)|adapter_[0-9]+\.pt"
)
"""States of a training run, and weights: the base model's, or an adapter's that were not repaired."""


Prove = Callable[[str], dict[str, Any]]


class Layout(NamedTuple):
    """What the files of a folder are called: of the config ("" where there is none) and of the weights. `metadata` is
    that of the weights, None where that of the source stays.
    """

    config: str = CONFIG
    weights: str = SAFETENSORS
    metadata: dict[str, str] | None = None


OF_PEFT = Layout()


class Written(NamedTuple):
    """A folder that was written, the names that stayed behind, and the proof that it computes the same.

    `backups` are the names that old files have now, where an adapter was written in its own place.
    """

    out: str
    left_out: tuple[str, ...]
    proof: dict[str, Any]
    backups: tuple[str, ...] = ()


def write(
    adapter: Adapter, source: Adapter, out: str, record: dict[str, object], prove: Prove, *, force: bool,
    copy_all: bool, layout: Layout = OF_PEFT,
) -> Written:  # fmt: skip
    """Write an adapter, made from `source`, to the folder `out`: whole, or not at all. Raises AdapterError.

    `adapter.format` is "safetensors" or "bin"; `layout` is that of another tool where it is written in its form. What
    no repair touched keeps its bytes: the config where it is equal, the tensors, the metadata of the file. `prove` sees
    the staged folder before it takes its place; what it says goes into the record, what it raises stops the writing.

    Without `force` nothing that has the name `out` is replaced, whenever it came. With it, all of an old `out` is, but
    for its folders that hold adapters: those are not this adapter's. An interruption leaves the old one or the new one
    (see `_replace` for systems that cannot exchange two names).
    """
    out = os.path.abspath(out)
    parent, name = os.path.split(out)
    try:
        if is_there(out):
            check_replaceable(out, force=force)
        with staging(parent) as folder:
            stage = os.path.join(folder, name)
            os.mkdir(stage)
            with steady(source):
                left_out, proof = _fill(
                    stage, adapter, source, record, prove, lambda: _carry(stage, source, copy_all), layout
                )
            take_place(stage, out, force=force)
    except OSError as error:
        of_source = isinstance(error.filename, str) and is_within(error.filename, source.folder)
        what = f"{error.filename} cannot be read" if of_source else f"{out} cannot be written"
        raise AdapterError(f"{what}: {error.strerror or error}") from None
    return Written(out, tuple(left_out), proof)


def write_in_place(adapter: Adapter, source: Adapter, record: dict[str, object], prove: Prove) -> Written:
    """Write an adapter, made from `source`, in the place of it. Raises AdapterError; then all is as it was.

    As `write`, but every other file stays where it is. An old file becomes a `.bak`, which stays unless git has it.
    """
    from .exchange import alone, exchange

    folder = source.folder
    try:
        with staging(folder) as stage:
            with steady(source):
                _, proof = _fill(stage, adapter, source, record, prove, list)
            with alone(folder):
                check_steady(source)
                backups = exchange(stage, folder, (*source.weights, SAFETENSORS, INDEX, BIN), last=CONFIG)
    except OSError as error:
        raise AdapterError(f"{folder} cannot be written to: {error.strerror}") from None
    return Written(folder, (), proof, tuple(backups))


def _fill(
    stage: str,
    adapter: Adapter,
    source: Adapter,
    record: dict[str, object],
    prove: Prove,
    carry: Callable[[], list[str]],
    layout: Layout = OF_PEFT,
) -> tuple[list[str], dict[str, Any]]:
    _check_writable(adapter, source)
    name = BIN if adapter.format == "bin" else layout.weights
    target = os.path.join(stage, name)
    there = [file for file in (CONFIG, *source.weights) if file in source.files]  # other tools may have no config
    with Beside() as beside:  # a digest takes as long as a copy, and lets other threads run
        sums = beside.start(lambda: {file: sha256(os.path.join(source.folder, file), beside) for file in there})
        if adapter.config == source.config and not source.origin and layout is OF_PEFT:
            _copy(os.path.join(source.folder, CONFIG), os.path.join(stage, CONFIG))
        elif layout.config:
            _write_bytes(os.path.join(stage, layout.config), (json.dumps(adapter.config, indent=2) + "\n").encode())
        with Growing(target, beside) as growing:
            if adapter.format == "bin":
                computed = _write_bin(target, adapter.tensors)
            else:
                metadata = _metadata(source) if layout.metadata is None else layout.metadata
                computed = _write_safetensors(target, adapter.tensors, metadata, growing.grown)
        _read_back(target, adapter.tensors, computed)
        proved = prove(stage)
        left_out = carry()
        before = sums.result()
        after = {layout.config: sha256(os.path.join(stage, layout.config))} if layout.config else {}
        after[name] = growing.digest.result()
    if source.record and before == after:
        _copy(os.path.join(source.folder, RECORD), os.path.join(stage, RECORD))
    else:
        full = {**record, "sha256": {"before": before, "after": after}, "left_out": left_out}
        full["proof"] = {key: value for key, value in proved.items() if key != "modules"}
        if source.record:
            full["earlier"] = source.record
        _write_bytes(os.path.join(stage, RECORD), (json.dumps(full, indent=2) + "\n").encode())
    sync(stage)
    return left_out, proved


def _check_writable(adapter: Adapter, source: Adapter) -> None:
    """Raises NotExactError for what a `.bin` or a config can say and a safetensors file cannot, whatever is written."""
    for name, info in adapter.tensors.items():
        if name == "__metadata__" or not _is_text(name):
            raise NotExactError(f"{source.path}: no safetensors file can have a tensor named {name[:80]!r}")
        while isinstance(info.source, Computed):  # it has the sizes of what it is made from, or more
            info = info.source.base
        if any(size < 0 for size in info.shape):
            raise NotExactError(f"{source.path}: the config has a rank below 0, so nothing tells the size of {name}")


def _is_text(name: str) -> bool:
    """Whether a name is valid Unicode; half a surrogate pair, which a pickle can hold, is not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _metadata(source: Adapter) -> dict[str, str]:
    """The metadata of the file that the tensors came from; PEFT wants the format in it."""
    metadata: dict[str, str] = {}
    if source.format == "safetensors":
        for name in source.weights:
            with open(os.path.join(source.folder, name), "rb") as file:
                metadata.update(safetensors.metadata(file))
    return {**metadata, "format": "pt"} if source.origin else {"format": "pt", **metadata}


def _write_safetensors(
    path: str, tensors: Mapping[str, TensorInfo], metadata: dict[str, str], grown: Callable[[int], None] | None = None
) -> dict[str, bytes]:
    """Write, and give the digests of the tensors that were computed on the way: those are not computed again. `grown`
    is told how many bytes are in the file.
    """
    from safetensors import safe_open

    head, order = safetensors.header(tensors, metadata)
    computed: dict[str, bytes] = {}
    with Files() as files, open(path, "wb") as file:
        file.write(head)
        for name in order:
            for piece in chunks(tensors[name], files):
                file.write(piece)
                if grown:
                    grown(file.raw.tell())  # what is still in a buffer here does not count
                if isinstance(tensors[name].source, Computed):  # in one piece
                    computed[name] = hashlib.sha256(piece).digest()
        file.flush()
        os.fsync(file.fileno())
    with safe_open(path, framework="numpy"):
        pass  # it raises where safetensors' own reader would not take the file
    return computed


def _write_bin(path: str, tensors: Mapping[str, TensorInfo]) -> dict[str, bytes]:
    try:
        import torch
    except ImportError:
        raise AdapterError("writing .bin needs torch: pip install 'ckpt-doctor[torch]'") from None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        staged = os.path.join(folder, SAFETENSORS)
        computed = _write_safetensors(staged, tensors, {})
        try:
            loaded = load_file(staged)
        except SafetensorError as error:  # which was just read back, but for dtypes that torch has not, as F6_E2M3
            raise NotExactError(f"no {BIN} can hold it: {error}") from None
        try:
            torch.save(loaded, path)
        except RuntimeError as error:  # torch's own writer does not say what the system said
            raise AdapterError(f"torch cannot write {path}; the disk may be full ({error})") from None
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return computed


def _read_back(path: str, tensors: Mapping[str, TensorInfo], computed: dict[str, bytes]) -> None:
    """What is on the disk now has the same tensors, byte for byte, as what was to be written."""
    written = read_weights(path)
    same = forms(written) == forms(tensors)
    with Files() as files:
        for name, info in written.items() if same else ():
            if name in computed:
                same = same and hashlib.sha256(content(info, files)).digest() == computed[name]
                continue
            for piece, at in _offsets(chunks(tensors[name], files)):
                source = info.source
                assert isinstance(source, FileRange)  # noqa: S101 - a file just written has nothing else
                file = files[path]
                file.seek(source.offset + at)
                same = same and file.read(len(piece)) == piece
    if not same:
        raise AdapterError(f"{path} does not read back as it was written; the disk may be failing")


def _offsets(pieces: Iterator[bytes | memoryview]) -> Iterator[tuple[bytes | memoryview, int]]:
    at = 0
    for piece in pieces:
        yield piece, at
        at += len(piece)


def wanted(copy_all: bool) -> Callable[[str, int], bool]:
    """Which files of a remote folder a fix downloads, by name and size: what an adapter is made of, and what comes
    along.
    """

    def is_wanted(name: str, size: int) -> bool:
        from .remote import numbers

        return copy_all or numbers(name, size) or (not _LEFT_OUT.fullmatch(name) and size <= MAX_OTHER)

    return is_wanted


def carried(source: Adapter, copy_all: bool = False) -> list[str]:
    """The names of the other files of the folder that come along with an adapter."""
    ours = {CONFIG, RECORD, BIN, SAFETENSORS, *source.weights}

    def comes_along(name: str) -> bool:
        path = os.path.join(source.folder, name)
        if name in ours or not is_file(path) or not _ends_inside(path, source.folder):
            return False
        return copy_all or (not _LEFT_OUT.fullmatch(name) and os.path.getsize(path) <= MAX_OTHER)

    return [name for name in source.files if comes_along(name)]


def _ends_inside(path: str, folder: str) -> bool:
    """Whether a file of a folder is one of its own, and no link to one elsewhere; of a folder in the Hub's cache the
    files are links to the `blobs` of the same model (huggingface_hub: file_download.py, _create_symlink).
    """
    if not is_link(path):
        return True
    target, own = os.path.realpath(path), os.path.realpath(folder)
    model, mark, _ = own.rpartition(os.sep + "snapshots" + os.sep)
    roots = [own, os.path.join(model, "blobs")] if mark else [own]
    return any(target.startswith(os.path.join(root, "")) for root in roots)


def _carry(stage: str, source: Adapter, copy_all: bool) -> list[str]:
    """Copy the other files of the folder, and name those that stay behind. Folders with adapters are not ours."""
    along = [name for name in carried(source, copy_all) if not is_there(os.path.join(stage, name))]
    for name in along:
        _copy(os.path.join(source.folder, name), os.path.join(stage, name))
    written = {*along, CONFIG, RECORD, *source.weights}

    def stays_behind(name: str) -> bool:
        path = os.path.join(source.folder, name)
        return is_file(path) or not (name.startswith(".") or (is_folder(path) and may_hold_adapters(path)))

    return [name for name in source.files if name not in written and stays_behind(name)]


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "wb") as new:
        shutil.copyfileobj(old, new, CHUNK)
        new.flush()
        os.fsync(new.fileno())


def _write_bytes(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
