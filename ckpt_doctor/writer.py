"""Stream an adapter to a folder: stage beside it, fsync, read back, rename. Memory stays flat whatever the size."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from .adapter import Adapter, AdapterError, Computed, FileRange, NotExactError, TensorInfo
from .formats import safetensors
from .loader import BIN, CONFIG, INDEX, RECORD, SAFETENSORS, find, read_weights, stamped
from .renaming import exchanged, to_free_name
from .streams import CHUNK, Files, chunks, content

MAX_OTHER = 10_000_000  # bytes of a file that is carried along
REPLACED = ".replaced-by-ckpt-doctor."
"""In the name of a folder beside OUT, where what was in its place waits until the new one is there."""

_LEFT_OUT = re.compile(
    r"optimizer.*|scheduler.*|rng_state.*|scaler\..*|trainer_state.*|training_args.*|global_step.*|.*\.distcp"
    r"|.*\.bak\d*|adapter_model\..*|(?:pytorch_|tf_|flax_)?model[-.].*(?:bin|safetensors|h5|msgpack|index\.json)|consolidated.*|.*\.gguf"
)
"""States of a training run, and weights: the base model's, or an adapter's that were not repaired."""


Prove = Callable[[str], dict[str, Any]]


class Written(NamedTuple):
    """A folder that was written, the names that stayed behind, and the proof that it computes the same.

    `backups` are the names that old files have now, where an adapter was written in its own place.
    """

    out: str
    left_out: tuple[str, ...]
    proof: dict[str, Any]
    backups: tuple[str, ...] = ()


def write(
    adapter: Adapter, source: Adapter, out: str, record: dict[str, Any], prove: Prove, *, force: bool, copy_all: bool
) -> Written:
    """Write an adapter, made from `source`, to the folder `out`: whole, or not at all. Raises AdapterError.

    `adapter.format` is "safetensors" or "bin". What no repair touched keeps its bytes: the config where it is
    equal, the tensors, the metadata of the file. `prove` sees the staged folder before it takes its place; what it says
    goes into the record, what it raises stops the writing.

    Without `force` nothing that has the name `out` is replaced, whenever it came. With it, all of an old `out` is, but
    for its folders that hold adapters: those are not this adapter's. An interruption leaves the old one or the new one
    (see `_replace` for systems that cannot exchange two names).
    """
    out = os.path.abspath(out)
    parent, name = os.path.split(out)
    if os.path.lexists(out) and not force:
        raise taken(out)
    try:
        with _staging(parent, f".{name}.") as staging:
            stage = os.path.join(staging, name)
            os.mkdir(stage)
            with _steady(source):
                left_out, proof = _fill(stage, adapter, source, record, prove, lambda: _carry(stage, source, copy_all))
            _exchange(stage, out, force=force)
    except OSError as error:
        raise AdapterError(f"{out} cannot be written: {error.strerror or error}") from None
    return Written(out, tuple(left_out), proof)


def taken(out: str) -> AdapterError:
    """What is said of an `out` that is there, and is not to be replaced."""
    return AdapterError(f"{out} exists; name another folder, or use --force to replace it")


def write_in_place(adapter: Adapter, source: Adapter, record: dict[str, Any], prove: Prove) -> Written:
    """Write an adapter, made from `source`, in the place of it. Raises AdapterError; then all is as it was.

    As `write`, but every other file stays where it is. An old file becomes a `.bak`, which stays unless git has it.
    """
    from .exchange import alone, exchange

    folder = source.folder
    try:
        with _staging(folder, ".ckpt-doctor-") as stage:
            with _steady(source):
                _, proof = _fill(stage, adapter, source, record, prove, list)
            with alone(folder):
                _check_steady(source)
                backups = exchange(stage, folder, (*source.weights, SAFETENSORS, INDEX, BIN), last=CONFIG)
    except OSError as error:
        raise AdapterError(f"{folder} cannot be written to: {error.strerror}") from None
    return Written(folder, (), proof, tuple(backups))


@contextmanager
def _staging(parent: str, prefix: str) -> Iterator[str]:
    """A new folder, whose name begins with `prefix`, and which is gone in the end. Raises AdapterError."""
    staging = os.path.join(parent, prefix + os.urandom(8).hex())  # named before it is made, so that it surely goes
    try:
        try:
            os.makedirs(parent, exist_ok=True)
            os.mkdir(staging, 0o700)
        except OSError as error:
            raise AdapterError(f"{parent} cannot be written to: {error.strerror}") from None
        yield staging
    finally:
        _remove(staging)


def _remove(folder: str) -> None:
    """Remove a folder as far as the system lets us; one interruption does not leave half of it."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _steady(source: Adapter) -> Iterator[None]:
    """Have nothing made of files that others write to meanwhile. Raises AdapterError, whatever went wrong by that."""
    try:
        yield
    finally:
        _check_steady(source)


def _check_steady(source: Adapter) -> None:
    if stamped(source.folder, [name for name, *_ in source.stamps]) != source.stamps:
        raise AdapterError(f"{source.path} was written to by others meanwhile, so it was left as it is; try again")


def _fill(
    stage: str, adapter: Adapter, source: Adapter, record: dict[str, Any], prove: Prove, carry: Callable[[], list[str]]
) -> tuple[list[str], dict[str, Any]]:
    from concurrent.futures import ThreadPoolExecutor

    _check_writable(adapter, source)
    name = BIN if adapter.format == "bin" else SAFETENSORS
    target = os.path.join(stage, name)
    with ThreadPoolExecutor(1) as beside:  # a digest takes as long as a copy, and lets other threads run
        sums = {file: beside.submit(sha256, os.path.join(source.folder, file)) for file in (CONFIG, *source.weights)}
        if adapter.config == source.config:
            _copy(os.path.join(source.folder, CONFIG), os.path.join(stage, CONFIG))
        else:
            _write_bytes(os.path.join(stage, CONFIG), (json.dumps(adapter.config, indent=2) + "\n").encode())
        if adapter.format == "bin":
            computed = _write_bin(target, adapter.tensors)
        else:
            computed = _write_safetensors(target, adapter.tensors, _metadata(source))
        written = {file: beside.submit(sha256, os.path.join(stage, file)) for file in (CONFIG, name)}
        _read_back(target, adapter.tensors, computed)
        proved = prove(stage)
        left_out = carry()
        before, after = ({file: sum_.result() for file, sum_ in of.items()} for of in (sums, written))
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
    found: dict[str, str] = {}
    if source.format == "safetensors":
        for name in source.weights:
            with open(os.path.join(source.folder, name), "rb") as file:
                found.update(safetensors.metadata(file))
    return {"format": "pt", **found}


def _write_safetensors(path: str, tensors: dict[str, TensorInfo], metadata: dict[str, str]) -> dict[str, bytes]:
    """Write, and give the digests of the tensors that were computed on the way: those are not computed again."""
    from safetensors import safe_open

    head, order = safetensors.header(tensors, metadata)
    computed: dict[str, bytes] = {}
    with Files() as files, open(path, "wb") as file:
        file.write(head)
        for name in order:
            for piece in chunks(tensors[name], files):
                file.write(piece)
                if isinstance(tensors[name].source, Computed):  # in one piece
                    computed[name] = hashlib.sha256(piece).digest()
        file.flush()
        os.fsync(file.fileno())
    with safe_open(path, framework="numpy"):
        pass  # it raises where safetensors' own reader would not take the file
    return computed


def _write_bin(path: str, tensors: dict[str, TensorInfo]) -> dict[str, bytes]:
    try:
        import torch
    except ImportError:
        raise AdapterError("writing .bin needs torch: pip install 'ckpt-doctor[torch]'") from None
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        staged = os.path.join(folder, SAFETENSORS)
        computed = _write_safetensors(staged, tensors, {})
        torch.save(load_file(staged), path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return computed


def _read_back(path: str, tensors: dict[str, TensorInfo], computed: dict[str, bytes]) -> None:
    """What is on the disk now has the same tensors, byte for byte, as what was to be written."""
    written = read_weights(path)
    same = {name: info[:2] for name, info in written.items()} == {name: info[:2] for name, info in tensors.items()}
    with Files() as files:
        for name in written if same else ():
            if name in computed:
                same = same and hashlib.sha256(content(written[name], files)).digest() == computed[name]
                continue
            for piece, at in _offsets(chunks(tensors[name], files)):
                source = written[name].source
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


def carried(source: Adapter, copy_all: bool = False) -> list[str]:
    """The names of the other files of the folder that come along with an adapter."""
    ours = {CONFIG, RECORD, BIN, SAFETENSORS, *source.weights}

    def comes_along(name: str) -> bool:
        path = os.path.join(source.folder, name)
        if name in ours or not os.path.isfile(path):
            return False
        return copy_all or (not _LEFT_OUT.fullmatch(name) and os.path.getsize(path) <= MAX_OTHER)

    return [name for name in source.files if comes_along(name)]


def _carry(stage: str, source: Adapter, copy_all: bool) -> list[str]:
    """Copy the other files of the folder, and name those that stay behind. Folders with adapters are not ours."""
    along = carried(source, copy_all)
    for name in along:
        _copy(os.path.join(source.folder, name), os.path.join(stage, name))
    written = {*along, CONFIG, RECORD, *source.weights}

    def stays_behind(name: str) -> bool:
        path = os.path.join(source.folder, name)
        return os.path.isfile(path) or not (name.startswith(".") or (os.path.isdir(path) and find(path)))

    return [name for name in source.files if name not in written and stays_behind(name)]


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "wb") as new:
        shutil.copyfileobj(old, new, CHUNK)
        new.flush()
        os.fsync(new.fileno())


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


def sync(path: str) -> None:
    """Have the names in a folder, or what a file holds, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(stage: str, out: str, *, force: bool) -> None:
    """Put `stage` in the place of `out`; with `force` also if something is there, which is then at `stage`, or gone.

    Raises AdapterError where something is there and is to stay, and OSError.
    """
    try:
        to_free_name(stage, out)
    except FileExistsError:
        if not force:
            raise taken(out) from None
        _keep_below(out, stage)
        if not exchanged(stage, out):
            _replace(stage, out)
    sync(os.path.dirname(out))


def _keep_below(out: str, stage: str) -> None:
    """Give `stage` the folders of an old `out` that hold adapters, as links to the same files where that can be.

    So they are in `out` at any moment. Where `out` is itself a link, what it points to stays anyhow.
    """
    if not os.path.isdir(out) or os.path.islink(out):
        return
    for name in os.listdir(out):
        below, kept = os.path.join(out, name), os.path.join(stage, name)
        if not os.path.isdir(below) or not find(below):
            continue
        if os.path.islink(below):
            os.symlink(os.readlink(below), kept)
            continue
        shutil.copytree(below, kept, symlinks=True, copy_function=_link)
        for folder, *_ in os.walk(kept):
            sync(folder)
    sync(stage)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a filesystem without links, or another one that is mounted there
        shutil.copy2(source, target)
        sync(target)


def _replace(stage: str, out: str) -> None:
    """Put `stage` in the place of `out` in two steps, where the system cannot exchange two names in one.

    In between, what was in the place of `out` lies beside it, under a name that `left_behind` finds if the process is
    killed there. It is removed only when the new one is in place. Raises OSError, and AdapterError where the old one
    can neither be replaced nor go back.
    """
    aside = out + REPLACED + os.urandom(4).hex()
    old = os.path.join(aside, os.path.basename(out))
    try:
        os.mkdir(aside, 0o700)
        os.rename(out, old)
        os.rename(stage, out)
    finally:
        if not os.path.lexists(stage):  # it is in place
            _remove(aside)
        elif os.path.lexists(old):
            try:
                to_free_name(old, out)
            except OSError:
                raise AdapterError(f"{out} cannot be written; what was in its place is now {old}") from None
        with suppress(OSError):
            os.rmdir(aside)


def left_behind(outs: Iterable[str]) -> Iterator[str]:
    """What was in the place of each of `outs` when a fix was killed, and still lies beside it (see `_replace`)."""
    beside: dict[str, set[str]] = {}
    for out in outs:
        parent, name = os.path.split(os.path.abspath(out))
        beside.setdefault(parent, set()).add(name)
    for parent, names in beside.items():
        for entry in sorted(os.listdir(parent)) if os.path.isdir(parent) else ():
            name, mark, _ = entry.rpartition(REPLACED)
            old = os.path.join(parent, entry, name)
            if mark and name in names and os.path.lexists(old):
                yield old
