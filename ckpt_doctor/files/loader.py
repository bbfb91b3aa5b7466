"""A path → Adapter: which files there are, which of them PEFT reads, and what is wrong with them."""

import json
import math
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from ..adapter import Adapter, AdapterError, Columns, DamagedFile, Fault, forms
from ..adapter.limits import JSON, SHARED, check_config, check_depth, check_forms, check_numbers, check_values
from .formats import safetensors
from .there import is_folder, mode

if TYPE_CHECKING:
    from ..adapter import TensorInfo

CONFIG = "adapter_config.json"
SAFETENSORS = "adapter_model.safetensors"
INDEX = "adapter_model.safetensors.index.json"
BIN = "adapter_model.bin"
RECORD = "ckpt-doctor.json"
STATE = "trainer_state.json"
NAMES = (CONFIG, SAFETENSORS, INDEX, BIN)
MARKS = (CONFIG,)
"""What makes an adapter of a folder, beside weights."""

MAX_COMPARED = 1 << 20
MAX_GLANCE = 1 << 20
READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
Stamp = tuple[str, int, int, int]
REMOTE = ("hf://", "s3://", "gs://", "http://", "https://")
"""What addresses begin with that are no paths here; what is there is read by `remote`."""
SMALL = 2 << 20
"""Bytes of a remote .bin that is read as a whole; where the numbers of a larger one are is not read."""
SKIPPED_FOLDERS = {"node_modules", "__pycache__", "site-packages"}


class Glance(NamedTuple):
    """All that a scan reads of an adapter, not yet parsed; `header` is that of the weights, and `size` theirs."""

    names: tuple[str, ...]
    config: bytes
    header: bytes
    size: int
    stamps: tuple[Stamp, ...]


def is_remote(path: str) -> bool:
    """Whether a path is the address of something in a store or on a server."""
    return path.startswith(REMOTE)


def told(path: str) -> str:
    """A path as it may be printed: of an address without user, password and signature."""
    if not is_remote(path):
        return path
    from .stores.address import named

    try:
        return named(path)
    except AdapterError:
        return path if not {*"@?#"} & {*path} else path.partition("//")[0] + "//"


def told_in_part(path: str) -> bool:
    """Whether the address of a remote folder has a password or a signature, which is not told."""
    if not is_remote(path):
        return False
    from . import remote

    return remote.has_secret(path)


def handed(folders: list[str], width: int) -> object:
    """What one of so many processes needs to read folders, beside their names: for `take`, there. Raises
    AdapterError.
    """
    addresses = [folder for folder in folders if is_remote(folder)]
    if not addresses:
        return None
    from . import remote

    return remote.handed(addresses, width)


def take(given: Any) -> None:
    """Be able to read the folders that another process hands over."""
    if given is not None:
        from . import remote

        remote.take(given)


@contextmanager
def reading(*folders: str, whole: bool | Callable[[str, int], bool] = True) -> Iterator[None]:
    """Have what is read of remote folders held as long as it lasts; with `whole` they are downloaded: what an adapter
    is made of, or the files whose name and size it says.
    """
    if not any(map(is_remote, folders)):
        yield
        return
    from . import remote

    with remote.reading(folders, remote.numbers if whole is True else whole or None):
        yield


def arriving(folders: list[str], *, whole: bool) -> Iterable[str]:
    """Folders one by one; what is read of remote ones is on the way meanwhile, `whole` where all numbers are."""
    if not any(map(is_remote, folders)):
        return folders
    from . import remote

    def one_by_one() -> Iterator[str]:
        with remote.ahead(folders, lambda folder: folder if is_remote(folder) else None, whole=whole) as coming:
            yield from coming

    return one_by_one()


class Unlisted(AdapterError):  # noqa: N818 - no fault of what may be there
    """What is at a path cannot be looked at, so that it is not known whether there is an adapter."""


def find(path: str, marks: Collection[str] = MARKS, others: list[str] | None = None) -> list[str]:
    """The adapter folders at or below `path`, sorted: those with weights or a file of `marks` in them.

    `others` gets the folders beside them, and not below one, that have weights of whatever kind. Raises AdapterError
    where there is nothing to look at.
    """
    if is_remote(path):
        from . import remote

        _, is_file = remote.folder_of(path)
        folder = remote.look(path)
        return [folder] if is_file else sorted(_found(folder, marks, others))
    try:
        if not mode(path):
            raise AdapterError(f"{path} does not exist")
        if is_folder(path):
            return sorted(_found(path, marks, others))
    except OSError as error:
        raise Unlisted(f"{path} cannot be read: {error.strerror}") from None
    folder, name = os.path.split(path)
    if name.startswith("adapter_") or name in marks:
        return [folder or "."]
    raise AdapterError(f"{path} is not an adapter: name its folder, its adapter_config.json or its adapter_model file")


def may_hold_adapters(path: str) -> bool:
    """Whether there are adapters at or below a path, or what is there cannot be looked at."""
    try:
        return bool(find(path))
    except AdapterError:
        return True


def nothing_in(path: str) -> AdapterError:
    """What to raise for a path without an adapter: what lies there instead, where that is recognised."""
    from .recognise import said

    return AdapterError(f"no adapter was found in {told(path)}{said(path)}")


def locate(path: str, subfolder: str | None = None) -> str:
    """The folder of the one adapter that `path` means: itself, where it is one, else the only one below it.

    `subfolder` names one of several. Raises AdapterError where there is none, or more than one.
    """
    if subfolder is not None:
        path = os.path.join(path, subfolder)
    folders = find(path)
    if not folders:
        raise nothing_in(path)
    path = told(path)
    own = os.path.normpath(path) in map(os.path.normpath, folders)
    if own or len(folders) == 1:
        return path if own else folders[0]
    below = [os.path.relpath(folder, path).replace(os.sep, "/") for folder in folders]
    shown = ", ".join(below[:5]) + (f" and {len(below) - 5} more" if len(below) > 5 else "")
    raise AdapterError(f"{path} holds {len(folders)} adapters: name one of the subfolders {shown}")


DOWNLOAD = "scan it with --values, which downloads it first"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".gguf")
"""Endings of files of weights."""


def _found(root: str, marks: Collection[str], others: list[str] | None) -> Iterator[str]:
    outer = ""  # the adapter that others may lie in
    for folder, entries in walk(root):
        if isinstance(entries, OSError) and folder == root:
            raise Unlisted(f"{root} cannot be read: {entries.strerror}")
        if entries is None or isinstance(entries, OSError):
            yield folder  # scanning it says why it cannot be read
            continue
        within = bool(outer) and is_within(folder, outer)
        if any(entry.name in marks or entry.name.startswith("adapter_model.") for entry in entries):
            yield folder
            outer = outer if within else folder
        elif others is not None and not within and any(entry.name.endswith(WEIGHTS) for entry in entries):
            others.append(folder)


class Named(Protocol):
    """A file or folder in a folder, as os.DirEntry is one."""

    @property
    def name(self) -> str:
        """What it is called there."""

    def is_dir(self, *, follow_symlinks: bool = ...) -> bool:
        """Whether it is a folder."""


def walk(root: str) -> Iterator[tuple[str, Sequence[Named] | OSError | None]]:
    """Each folder at and below one, and what is in it, or why it cannot be read; no links are followed. All below a
    folder come next after it. Of a remote folder what was listed; None where its server lists nothing.
    """
    if is_remote(root):
        from . import remote

        yield from remote.walk(root)
        return
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            yield folder, error
            continue
        yield folder, listed
        for entry in listed:
            if entry.is_dir(follow_symlinks=False) and entry.name[:1] != "." and entry.name not in SKIPPED_FOLDERS:
                folders.append(os.path.join(folder, entry.name))


def is_within(folder: str, other: str) -> bool:
    """Whether a folder that a walk gives lies below another that it gave."""
    return folder.startswith(os.path.join(other, ""))


def load(folder: str, seen: Glance | None = None) -> Adapter:
    """Read the adapter in `folder`, or in what a glance has read of it: headers and config only.

    What is damaged is in `faults` of the result. Raises AdapterError for what cannot be examined.
    """
    if is_remote(folder) and seen is None:
        from . import remote

        here = remote.here(folder)
        if here is not None:
            return remote.moved(load, here, folder)
    seen = seen or glance(folder)
    whole = _whole(folder, seen) if seen else None
    if whole is not None:
        return whole
    from ..adapter.codes import OTHER_NAME
    from .recognise import of_tensors, recognised

    try:
        names = listed(folder)
    except NotADirectoryError:
        return _file(folder)
    except OSError as error:
        raise AdapterError(f"{folder} cannot be read: {error.strerror}") from None
    stamps = stamped(folder, [name for name in names if name == CONFIG or name.endswith((".safetensors", ".bin"))])
    faults: list[Fault] = []
    config = _json(folder, CONFIG, faults, "broken-config") if CONFIG in names else None
    if CONFIG not in names:
        faults.append(
            Fault("no-config", f"{CONFIG} is missing, and without it no loader knows the method or its scale")
        )
    record = _json(folder, RECORD, [], "") if RECORD in names else None
    tensors: Mapping[str, TensorInfo] = {}
    kind: str | None = None
    weights: tuple[str, ...] = ()
    try:
        if SAFETENSORS in names:
            kind, weights = "safetensors", (SAFETENSORS,)
            tensors = read_weights(os.path.join(folder, SAFETENSORS))
        elif BIN in names:  # also beside shards, which no release looks for (save_and_load.py: load_peft_weights)
            kind, weights = "bin", (BIN,)
            tensors = read_weights(os.path.join(folder, BIN))
        elif INDEX in names:
            kind = "safetensors"
            weights, tensors = shards(folder)
        else:
            other = sorted(name for name in names if name.startswith("adapter_model."))
            hint = f"; {other[0]} is none that PEFT reads" if other else ""
            found = recognised(folder, names)
            if found is not None:  # which says more than that there is no config
                faults = [fault for fault in faults if fault.name != "no-config"]
            faults.append(found or Fault("no-weights", f"neither {SAFETENSORS} nor {BIN} is there{hint}"))
    except DamagedFile as error:
        faults.append(Fault(error.fault, f"{(weights or (INDEX,))[0]}: {error.message}"))
    if weights and not tensors and not faults:
        faults.append(Fault("no-tensors", f"{weights[0]} holds no tensor: nothing was saved"))
    if tensors and CONFIG not in names:
        of_another = of_tensors(weights[0], tensors)
        if of_another is not None and of_another.name != OTHER_NAME.name:
            faults = [of_another]
    check_config(config or {}, tensors, folder)
    adapter = Adapter(folder, folder, config, tensors, kind, weights, tuple(names), tuple(faults), record)
    adapter = adapter._replace(stamps=stamps)
    if adapter.peft_type == "ADALORA" and STATE in names:
        adapter = adapter._replace(trained=_steps(folder))
    return _with_beside(adapter) if kind == "safetensors" and BIN in names else adapter


def _steps(folder: str) -> tuple[int, int] | None:
    """The step of a Trainer's state, and the last of its run; None where it does not tell (transformers
    trainer_callback.py: TrainerState).
    """
    try:
        state = _json(folder, STATE, [], "") or {}
    except AdapterError:
        return None
    step, last = state.get("global_step"), state.get("max_steps")
    return (step, last) if type(step) is int and type(last) is int and step >= 0 and last > 0 else None


def _file(path: str) -> Adapter:
    """A file that is no adapter, and was recognised. Raises AdapterError."""
    from .recognise import recognised

    folder, name = os.path.split(path)
    found = recognised(folder or ".", [name])
    if found is None:
        raise AdapterError(f"{path} is not an adapter: name its folder, its {CONFIG} or its adapter_model file")
    return Adapter(path, folder or ".", None, {}, None, (), (name,), (found,))


def _whole(folder: str, seen: Glance) -> Adapter | None:
    """The adapter of a glance; None where something is wrong with it, which `load` then says."""
    path = os.path.join(folder, SAFETENSORS)
    try:
        check_numbers(seen.config, os.path.join(folder, CONFIG))
        config: object = json.loads(seen.config.decode("utf-8"))
        check_depth(config, seen.config, os.path.join(folder, CONFIG))
        tensors = safetensors.parse_header(seen.header, path, 8 + len(seen.header), seen.size)
    except (DamagedFile, ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or not tensors or (STATE in seen.names and config.get("peft_type") == "ADALORA"):
        return None
    check_config(config, tensors, folder)
    return Adapter(folder, folder, config, tensors, "safetensors", (SAFETENSORS,), seen.names, stamps=seen.stamps)


def listed(folder: str) -> list[str]:
    """The names of what is in a folder, sorted. Raises OSError, and AdapterError for a remote one."""
    if is_remote(folder):
        from . import remote

        return remote.names(folder)
    return sorted(os.listdir(folder))


def settled(folder: str) -> tuple[Stamp, ...] | None:
    """What `stamped` has of all that is in a folder; None where it does not tell one version of it from another, as
    where a server lists no files, or a store gives one no tag. Raises OSError and AdapterError.
    """
    if is_remote(folder):
        from . import remote

        return remote.settled(folder)
    return stamped(folder, listed(folder))


def stamped(folder: str, names: Iterable[str]) -> tuple[Stamp, ...]:
    """Name, number (inode), size and time of each file, as long as nobody replaces it or writes to it; of a remote one
    a number of its tag, as its ETag is one.
    """
    if is_remote(folder):
        from . import remote

        return remote.stamped(folder, names)
    stamps = []
    for name in names:
        try:
            about = os.stat(os.path.join(folder, name))
        except OSError:
            continue  # reading it says what is wrong
        stamps.append(_stamp(name, about))
    return tuple(stamps)


@contextmanager
def steady(adapter: Adapter) -> Iterator[None]:
    """Have nothing made of files that others write to meanwhile. Raises AdapterError, whatever went wrong by that."""
    try:
        yield
    finally:
        check_steady(adapter)


def check_steady(adapter: Adapter) -> None:
    """Raises AdapterError where the files of an adapter are not those that it was read from."""
    if stamped(adapter.folder, [name for name, *_ in adapter.stamps]) != adapter.stamps:
        raise AdapterError(f"{adapter.path} was written to by others meanwhile, so it was left as it is; try again")


def _stamp(name: str, about: os.stat_result) -> Stamp:
    return name, about.st_ino, about.st_size, about.st_mtime_ns


def glance(folder: str) -> Glance | None:
    """The bytes of an adapter whose config and safetensors are all that is looked into, and not large; else None."""
    if is_remote(folder):
        from . import remote

        return remote.glance(folder)
    try:
        names = sorted(os.listdir(folder))
        if CONFIG not in names or SAFETENSORS not in names or BIN in names or RECORD in names:
            return None
        config, of_config, _ = _start(folder, CONFIG)
        header, of_weights, whole = _start(folder, SAFETENSORS)
    except OSError:
        return None
    if len(config) != of_config[2] or not whole or (STATE in names and b"ADALORA" in config):
        return None
    return Glance(tuple(names), config, header, of_weights[2], (of_config, of_weights))


def _start(folder: str, name: str) -> tuple[bytes, Stamp, bool]:
    """The bytes of a config, or of the header behind its length, up to MAX_GLANCE; and whether a header is all there.
    Raises OSError.
    """
    path = os.path.join(folder, name)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError
    file = os.open(path, READING)
    try:
        stamp = _stamp(name, os.fstat(file))
        if name == CONFIG:
            return os.read(file, min(stamp[2], MAX_GLANCE)), stamp, True
        start = os.read(file, 8)
        length = int.from_bytes(start, "little")
        header = os.read(file, min(length, MAX_GLANCE))
        return header, stamp, len(start) == 8 and len(header) == length
    finally:
        os.close(file)


def _with_beside(adapter: Adapter) -> Adapter:
    """Look into the `.bin` beside safetensors: is there code in it, and does it hold the same?"""
    try:
        other = read_weights(os.path.join(adapter.folder, BIN))
        return adapter._replace(bin_agrees=agree(adapter.tensors, other, MAX_COMPARED))
    except DamagedFile as error:
        fault = error.fault if error.walked else "not-read"
        return adapter._replace(bin_agrees=False, beside=Fault(fault, error.message))
    except (AdapterError, OSError) as error:
        return adapter._replace(beside=Fault("not-read", str(error)))


def agree(
    tensors: "Mapping[str, TensorInfo]", others: "Mapping[str, TensorInfo]", most: float = math.inf
) -> bool | None:
    """Whether two files hold the same tensors; None where more than `most` bytes would be read. Raises AdapterError."""
    if forms(tensors) != forms(others):
        return False
    if sum(info.nbytes for info in others.values()) > most:
        return None
    from .streams import Files, identical

    with Files() as files:
        return all(identical(info, others[name], files) for name, info in tensors.items())


def regular(path: str) -> tuple[BinaryIO, int]:
    """A regular file, opened, and its size. Never waits, as on a FIFO. Raises DamagedFile and AdapterError."""
    if is_remote(path):
        from . import remote

        return remote.opened(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DamagedFile("not-a-file", "it is not a regular file")
        descriptor = os.open(path, READING)
    except FileNotFoundError:
        raise DamagedFile("not-a-file", "it is a link to a file that is not there") from None
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from None
    return os.fdopen(descriptor, "rb"), os.fstat(descriptor).st_size


def content(path: str) -> bytes:
    """What a text file holds that somebody names, as a baseline: a regular one. Raises AdapterError."""
    try:
        file, size = regular(path)
    except DamagedFile as error:
        raise AdapterError(f"{path} cannot be read: {error.message}") from None
    with file:
        JSON.check(size, path)
        return file.read(size)


def read_weights(path: str, *, nested: bool = False) -> "Mapping[str, TensorInfo]":
    """The tensors of one weights file, by what it holds; its name must agree. Of a checkpoint that has other states
    beside the model, if `nested`, those of the model. Raises DamagedFile, AdapterError.
    """
    file, size = regular(path)
    try:
        with file:
            tensors = _read(file, path, size, nested)
    except OSError as error:  # a file of /proc looks as any other
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(tensors, Columns):
        check_forms(forms(tensors).values(), path)
        SHARED.check(sum(info.nbytes for info in tensors.values()) // size, path)
    return tensors


def _read(file: BinaryIO, path: str, size: int, nested: bool) -> "Mapping[str, TensorInfo]":
    head = file.read(512)
    file.seek(0)
    if size == 0:
        raise DamagedFile("empty-file", "it is empty")
    if head.startswith(b"version https://git-lfs"):
        raise DamagedFile("lfs-pointer", "it is a git-lfs pointer, not the weights; run `git lfs pull`")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise DamagedFile("html-page", "it is a web page, not the weights; download the file itself")
    if head.startswith(b"GGUF"):
        if path.endswith((".safetensors", BIN)):
            raise DamagedFile("wrong-container", "it is GGUF, as llama.cpp has it, under another name")
        from .formats import gguf

        return gguf.read(file, path, size)
    is_zip = head.startswith(b"PK\x03\x04")
    is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if path.endswith(".safetensors"):
        if is_zip or (is_pickle and head[2:8] != b"\0" * 6):
            raise DamagedFile("wrong-container", "it is torch's format under the name of safetensors")
        if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
            raise DamagedFile("wrong-container", "it is compressed; unpack it")
        return safetensors.read(file, path, size)
    if path.endswith(".npz") and (is_zip or head.startswith(b"PK\x05\x06")):  # also one of no arrays
        from .formats import npz

        return npz.read(file, path, size)
    if is_zip:
        from .formats import torch_zip

        return torch_zip.read(file, path, size, nested=nested, heads=size <= SMALL or not is_remote(path))
    if _is_tar(head):
        raise DamagedFile("pickle-with-code", "it is a tar archive, and torch would run every pickle in it")
    large = size > SMALL and is_remote(path)
    if large and is_pickle:
        raise AdapterError(f"{path} is in torch's format from before 1.6, which only a whole file tells: {DOWNLOAD}")
    walked = False
    if not large:
        from .formats import torch_old

        try:  # whatever it begins with: Python's pickle runs more than torch writes
            return torch_old.read(file, path, size, nested=nested)
        except DamagedFile as error:
            if is_pickle or error.fault != "malformed-bin":
                raise
            walked = error.walked
    if head[8:9] == b"{":
        message = "it is safetensors under the name of torch's format"
        raise DamagedFile("wrong-container", message, walked=walked)
    raise DamagedFile("malformed-bin", "it is not a file that torch.save wrote", walked=walked)


def _is_tar(head: bytes) -> bool:
    """Whether 512 bytes are the header of a tar archive, which torch looks for before any pickle, as torch.save of
    before 0.1.10 wrote it (torch/serialization.py: _legacy_load).
    """
    from tarfile import HeaderError, TarInfo

    try:
        TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except HeaderError:
        return False
    return True


def shards(folder: str, index: str = INDEX, *, nested: bool = False) -> "tuple[tuple[str, ...], dict[str, TensorInfo]]":
    """The files that an index names, and their tensors. Raises DamagedFile, AdapterError."""
    faults: list[Fault] = []
    content = _json(folder, index, faults, "broken-index")
    names = (content or {}).get("weight_map")
    if faults or not isinstance(names, dict):
        raise DamagedFile("broken-index", faults[0].message if faults else "it has no weight_map")
    _, end = os.path.splitext(index.removesuffix(".index.json"))
    of_files: dict[str, list[str]] = {}
    for name, file in names.items():
        of_files.setdefault(str(file), []).append(name)
    files = sorted(of_files)
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        if os.path.basename(file) != file or not file.endswith(end):
            raise DamagedFile("broken-index", f"{file[:80]!r} is not the name of a shard in this folder")
        if not is_there(os.path.join(folder, file)):
            raise DamagedFile("broken-index", f"the shard {file} is missing")
        inside = read_weights(os.path.join(folder, file), nested=nested)
        twice = next((name for name in inside if name in tensors), None)
        if twice is not None:  # which one is read hangs on who reads it
            raise DamagedFile("broken-index", f"{twice} is in {file}, and in a shard before it")
        tensors.update(inside)
        missing = [name for name in of_files[file] if name not in inside]
        if missing:
            raise DamagedFile("broken-index", f"{file} does not have {missing[0]}, as the index says")
    return tuple(files), tensors


def is_there(path: str) -> bool:
    """Whether there is something at a path, be it a link to nothing."""
    if is_remote(path):
        from . import remote

        return remote.has(path)
    return os.path.lexists(path)


def read_json(folder: str, name: str) -> tuple[dict[str, object] | None, str]:
    """The object in a file of a folder, or None and what is wrong with it. Raises AdapterError."""
    faults: list[Fault] = []
    value = _json(folder, name, faults, "")
    return value, "".join(fault.message for fault in faults)


def _json(folder: str, name: str, faults: list[Fault], broken: str) -> dict[str, object] | None:
    path = os.path.join(folder, name)
    try:
        file, size = regular(path)
        with file:
            JSON.check(size, path)
            raw = file.read(size)
        check_values(raw, path)
        check_numbers(raw, path)
        value: object = json.loads(raw.decode("utf-8"))
        check_depth(value, raw, path)
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except DamagedFile as error:
        faults.append(Fault("not-a-file", f"{name}: {error.message}"))
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        faults.append(Fault(broken, f"{name} is not valid: {error or 'it is nested too deeply'}"))
    else:
        return value
    return None
