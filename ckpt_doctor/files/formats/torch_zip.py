"""torch's zip format (`.bin`): an uncompressed zip of `data.pkl` and one record a storage. No pickle is executed.

`data.pkl` is walked by a small machine that knows the opcodes torch writes, calls nothing, and is bounded in bytes,
steps and depth: an unpickler, also a restricted one, can be hung by a few hundred bytes of nested keys. What it takes
`torch.load(weights_only=True)` of 2.13 takes, too, and as the same tensors (`scripts/fuzz.py` holds them against each
other). What torch reads beyond that, as sparse tensors, is said not to be followed: AdapterError. DamagedFile says that
torch does not read it either, and that it has code where torch refuses what it names.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO, NamedTuple

from ...adapter import DTYPE_BITS, AdapterError, DamagedFile, FileRange, Gathered, TensorInfo
from ...adapter.limits import MEMO, PICKLE, STACK, STEPS, check_names

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
}  # fmt: skip
_UNTYPED = "UntypedStorage"
"""A storage of bytes (torch/serialization.py: _load, persistent_load)."""
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_REBUILDS = {
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_parameter_with_state"
}  # fmt: skip
_UNFOLLOWED = re.compile(
    r"collections\.Counter|User(?:Dict|List|String)\.(?:Counter|OrderedDict)|_codecs\.encode|(?:builtins|__builtin__)\.(?:bytearray|complex|set)"
    r"|torch\.(?:Size|Tensor|device|nn\.parameter\.Parameter|serialization\._get_layout|storage\.TypedStorage)"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\._utils\._rebuild_(?:device_tensor_from_(?:cpu_tensor|numpy)|meta_tensor_no_storage|nested_tensor|qtensor"
    r"|sparse_tensor|wrapper_subclass)"
    r"|torch\.(?:ComplexDouble|QInt32|QInt8|QUInt2x4|QUInt4x2|QUInt8)Storage"
    r"|torch\.(?:(?:cuda\.)?(?:sparse\.)?(?:BFloat16|Byte|Char|Double|Float|Half|Int|Long|Short)|(?:cuda\.)?Bool)Tensor"
    r"|torch\.cuda\.(?:BFloat16|Bool|Byte|Char|ComplexDouble|ComplexFloat|Double|Float|Half|Int|Long|Short)Storage"
    r"|torch\.(?:u?int[1-7]|q(?:u?int8|int32|uint2x4|uint4x2)|bits(?:8|16|1x8|2x4|4x2)|complex(?:32|128)"
    r"|float4_e2m1fn_x2|per_(?:tensor|channel)_(?:affine|symmetric)|per_channel_affine_float_qparams)"
)
"""What else torch calls or names in a pickle without being told to, also as Python 2 named it (torch 2.13,
_weights_only_unpickler.py: _get_allowed_globals, _read_global_instruction)."""
_OTHERS = b"12BCFILPSTVdglo\x82\x83\x84\x8b\x8d\x8e\x90\x91\x92\x96\x97\x98"
"""Opcodes that Python's pickle reads, and neither torch 2.6 nor `_OPS`."""
_OF_GRADIENTS = ("F64", "F32", "F16", "BF16", "C64", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0")
"""Dtypes that can require gradients: those of floats and of complex numbers."""


class _Ordered(dict[Any, Any]):
    """An OrderedDict of a pickle, which may have attributes, as a dict may not."""


class _Global(NamedTuple):
    module: str
    name: str


class _Storage(NamedTuple):
    dtype: str
    key: str
    size: int


class _View(NamedTuple):
    dtype: str
    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


UNREAD = 1 << 62
"""What is added to the place of a record whose own header was not read, which tells where its bytes are: no file has so
many.
"""


def read(file: BinaryIO, path: str, size: int, *, nested: bool = False, heads: bool = True) -> dict[str, TensorInfo]:
    """The tensors of an open zip file; of a checkpoint as of `tensors`, also one whose opcodes are those of an older
    torch alone. Without `heads` the header of each record is not read, and with it where its bytes begin. Raises
    DamagedFile, or AdapterError where it is beyond what is read here.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
            roots = [info.filename[:-8] for info in listed if re.fullmatch("(?i)[^/]+/data[.]pkl", info.filename)]
            if not roots:
                raise DamagedFile("malformed-bin", "the zip has no data.pkl, so torch did not write it")
            root = roots[0]
            _no_other_reading(listed, root)
            if _directory(file, size) != (archive.start_dir, len(listed)):
                raise _hidden("the zip has more than its records and its directory")
    except NotImplementedError as error:
        raise AdapterError(f"{path}: the zip is not followed here ({error}); save it again with torch.save") from None
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, RuntimeError) as error:
        if _END in _tail(file, size):
            raise _hidden(f"the zip has an end, and no directory before it ({error})") from None
        raise DamagedFile("malformed-bin", f"the zip cannot be read ({error})") from None
    if any(info.compress_type != zipfile.ZIP_STORED for info in listed):
        raise AdapterError(f"{path}: the zip is compressed; save it again with torch.save")
    records = {info.filename[len(root) :].lower(): info for info in listed}  # torch finds them whatever the case

    def content(name: str, most: int) -> bytes:
        if name not in records:
            raise DamagedFile("malformed-bin", f"the zip has no record {name}")
        _, at, length = record_range(file, path, records[name], size)
        if records[name].flag_bits & 1:
            raise DamagedFile("malformed-bin", f"the record {name} of the zip is encrypted, which torch does not read")
        PICKLE.check(length, path)
        file.seek(at)
        return file.read(min(length, most))

    machine = Machine(content("data.pkl", PICKLE.most), path)
    state = machine.run()  # before what else may be wrong, as it says what is code
    if any(info.flag_bits & ~_FLAGS or info.volume or info.compress_size != info.file_size for info in listed):
        raise AdapterError(f"{path}: the zip is not of the form that torch writes, and is not followed; save it again")
    version = content(".data/version" if ".data/version" in records else "version", 20)
    if not re.fullmatch(rb"(?:[1-9]|10)\n?", version):
        raise AdapterError(f"{path} is of a version of torch's format that is not followed here: {version[:20]!r}")
    order = content("byteorder", 20) if "byteorder" in records else b"little"
    if order != b"little":
        if order != b"big":
            raise DamagedFile("malformed-bin", f"its byte order is {order!r}, which is none")
        raise AdapterError(f"{path}: the tensors are big-endian; save them again on a little-endian machine")
    for name, form in _TEXTS.items():
        if name in records and not re.fullmatch(form, content(name, 1000), re.DOTALL):
            raise AdapterError(f"{path}: the record {name} of the zip is not as torch writes it; save it again")
    storages = {}
    for key, storage in machine.storages.items():
        info = records.get(f"data/{key}".lower())
        if info is None:
            raise DamagedFile("malformed-bin", f"the storage {key[:40]} is missing")
        storages[key] = record_range(file if heads else None, path, info, size)
        if storages[key].length != storage.size * DTYPE_BITS[storage.dtype] // 8:
            raise DamagedFile("malformed-bin", f"the storage {key[:40]} is not as long as its pickle says")
    if not nested:
        machine.check_opcodes()
    return tensors(state, storages, path, nested=nested)


_TEXTS = {".format_version": rb".*", ".storage_alignment": rb"[0-9]{1,18}", ".data/serialization_id": rb"[\0-\x7f]*"}
"""Records that torch reads, the latter two as a number and as a text (torch/serialization.py: _load)."""
_FLAGS = 0x0808
"""Of a record, as torch and zipfile write them: its sizes follow its bytes, its name is UTF-8 (APPNOTE.TXT, 4.4.4)."""


def _no_other_reading(records: list[zipfile.ZipInfo], root: str) -> None:
    """Refuse records that torch takes for others than are read here: it finds them by name, whatever the case, and
    hands what has constants.pkl to TorchScript (caffe2/serialize/inline_container.cc: PyTorchStreamReader;
    torch/serialization.py: _is_torchscript_zip).
    """
    names = {info.filename.lower() for info in records}
    if len(names) < len(records):
        raise _hidden("the zip has two records of one name")
    for info in records:
        inner = info.filename.removeprefix(root)
        strange = (
            info.filename != info.orig_filename or "\\" in inner or ".." in inner.split("/") or not inner.isascii()
        )
        if strange or not info.filename.startswith(root) or inner.startswith("/"):
            raise _hidden(f"the zip has the record {info.orig_filename[:60]!r} outside its folder")
    if f"{root}constants.pkl".lower() in names:
        raise _hidden("the zip has a constants.pkl, as TorchScript has")


_END = b"PK\x05\x06"


def _tail(file: BinaryIO, size: int) -> bytes:
    """What a zip can have its end in, with the longest comment."""
    file.seek(max(size - (1 << 16) - 22, 0))
    return file.read()


def _directory(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """Where the directory at the very end of a zip begins, and its number of records; None where it is not there.

    A reader that looks for the end from another side, or takes another of two ends, would see another archive
    (PKWARE's APPNOTE.TXT, 4.3.14 to 4.3.16: the records at the end, with and without zip64).
    """
    file.seek(max(size - 98, 0))
    tail = file.read(98)
    mark, *disks, here, count, length, start, comment = struct.unpack("<4s4H2IH", tail[-22:])
    if mark != _END or any(disks) or here != count or comment:
        return None
    end = size - 22
    if len(tail) == 98 and tail[-42:-38] == b"PK\x06\x07":
        mark, own, _, _, *disks, here, full, far_length, far_start = struct.unpack("<4sQ2H2I4Q", tail[:56])
        _, disk, at, number = struct.unpack("<4sIQI", tail[-42:-22])
        pairs = [(count, full, 16), (length, far_length, 32), (start, far_start, 32)]
        if any(near not in (far, (1 << bits) - 1) for near, far, bits in pairs):
            return None
        if mark != b"PK\x06\x06" or own != 44 or any(disks) or here != full or (disk, at, number) != (0, size - 98, 1):
            return None
        count, length, start, end = full, far_length, far_start, size - 98
    return (start, count) if start + length == end else None


def _hidden(what: str) -> DamagedFile:
    message = f"{what}, so torch may run a pickle that is not the one seen here; torch.save writes no such file"
    return DamagedFile("pickle-with-code", message)


MODELS = ("model", "module", "state_dict", "model_state_dict")
"""The keys under which checkpoints of trainers have the model beside other states (accelerate utils/fsdp_utils.py:
save_fsdp_model; lightning's Trainer.save_checkpoint)."""


def tensors(state: Any, storages: dict[str, FileRange], path: str, *, nested: bool = False) -> dict[str, TensorInfo]:
    """The tensors of a state dict that a machine made, given where each storage lies; of a checkpoint, if `nested`,
    those of its model. Raises DamagedFile and AdapterError.
    """
    if nested and isinstance(state, dict):
        state = next((inner for key in MODELS if isinstance(inner := state.get(key), dict)), state)
    if not isinstance(state, dict):
        raise DamagedFile("malformed-bin", "it holds no state dict")
    check_names([name for name in state if isinstance(name, str)], path)
    return {name: _tensor(name, value, storages) for name, value in state.items()}


def record_range(file: BinaryIO | None, path: str, info: zipfile.ZipInfo, size: int) -> FileRange:
    """Where the bytes of a record that is not compressed are, behind UNREAD without the file. Raises DamagedFile."""
    if file is None:
        if info.header_offset + 30 + info.file_size > size:
            raise DamagedFile("truncated-file", f"the file ends within {info.filename}")
        return FileRange(path, UNREAD + info.header_offset, info.file_size)
    file.seek(info.header_offset)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise DamagedFile("malformed-bin", f"the zip has no record where {info.filename} should begin")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
    if start + info.file_size > size:
        raise DamagedFile("truncated-file", f"the file ends within {info.filename}")
    return FileRange(path, start, info.file_size)


def _tensor(name: Any, view: Any, storages: dict[str, FileRange]) -> TensorInfo:
    if not isinstance(name, str) or not isinstance(view, _View):
        raise DamagedFile("malformed-bin", f"the entry {repr(name)[:80]} is not a tensor")
    storage = storages[view.storage.key]
    width = DTYPE_BITS[view.dtype] // 8
    last = view.start
    for size, stride in zip(view.shape, view.strides, strict=True):
        last += (size - 1) * stride
    count = 1
    expected: list[int] = []
    for size in reversed(view.shape):
        expected.insert(0, count)
        count *= size
    if count and (last + 1) * width > storage.length:
        raise DamagedFile("malformed-bin", f"{name} reaches beyond its storage")
    if count * width > max(storage.length, 1):
        raise AdapterError(f"{storage.path}: {name[:80]} repeats numbers of its storage, which is not followed here")
    if count == 0:
        return TensorInfo(view.dtype, view.shape, FileRange(storage.path, storage.offset, 0))
    if all(s == 1 or a == b for s, a, b in zip(view.shape, view.strides, expected, strict=True)):
        start = storage.offset + view.start * width
        return TensorInfo(view.dtype, view.shape, FileRange(storage.path, start, count * width))
    return TensorInfo(view.dtype, view.shape, Gathered(storage, view.start, view.strides))


def _code(what: str) -> DamagedFile:
    return DamagedFile("pickle-with-code", f"its pickle would {what}, which no loader should run")


def _broken(what: str) -> DamagedFile:
    """What to raise for what torch does not read. What Python's pickle would run behind it is not known."""
    return DamagedFile("malformed-bin", f"its pickle has {what}", walked=False)


class Machine:
    """Walks a pickle of dicts, tuples, numbers, strings and torch's rebuild calls; anything else is a diagnosis.

    `of_storage` is how many values describe a storage: 5 in a zip, 6 in the older format.
    """

    def __init__(self, data: bytes, path: str, of_storage: int = 5) -> None:
        self.data = data
        self.path = path
        self.of_storage = of_storage
        self.steps = 0
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}
        self.opcodes: set[bytes] = set()

    def run(self) -> Any:
        """The value of one pickle; the next one may follow it. Raises DamagedFile, AdapterError."""
        try:
            return self._run()
        except UnicodeDecodeError:
            raise _broken("a text that is not UTF-8") from None

    def _run(self) -> Any:
        self.stack, self.marks, self.memo = [], [], {}
        while True:
            self.steps += 1
            if self.steps > STEPS.most:
                STEPS.check(self.steps, self.path)
            op = self.data[self.at : self.at + 1]
            self.at += 1
            if op == b".":
                return self.pop()
            handler = _OPS.get(op)
            if handler is None:
                if not op:
                    raise DamagedFile("malformed-bin", "its pickle ends early")
                if op in b"\x81\x8f":
                    raise self.unfollowed("an object or a set")
                if op in _OTHERS:
                    raise _broken(f"the opcode {op!r}, which torch does not write")
                raise DamagedFile("malformed-bin", f"its pickle has the opcode {op!r}, which no pickle has")
            handler(self)

    def check_opcodes(self) -> None:
        """Raises AdapterError where there were opcodes of Python's pickle that torch reads before 2.6 alone
        (_weights_only_unpickler.py: Unpickler.load).
        """
        if self.opcodes:
            raise AdapterError(
                f"{self.path}: its pickle has the opcode {min(self.opcodes)!r}, which torch 2.6 and newer do not read; "
                "save it again with torch.save, without pickle_protocol"
            )

    def unfollowed(self, what: str) -> AdapterError:
        """What to raise for what torch may read."""
        return AdapterError(f"{self.path}: its pickle has {what}, which is not followed here; save the tensors alone")

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) < count:
            raise DamagedFile("malformed-bin", "its pickle ends early")
        self.at += count
        return piece

    def number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self) -> str:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise DamagedFile("malformed-bin", "its pickle ends early")
        text = self.data[self.at : end].decode("utf-8")
        self.at = end + 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)
        if len(self.stack) > STACK.most:
            STACK.check(len(self.stack), self.path)

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _broken("nothing where it takes something from its stack")
        return self.stack[-1]

    def to_mark(self) -> list[Any]:
        if not self.marks:
            raise _broken("no mark where it needs one")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def put(self, index: int) -> None:
        self.memo[index] = self.top()
        if len(self.memo) > MEMO.most:
            MEMO.check(len(self.memo), self.path)

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise _broken("a memo that it never made")
        self.push(self.memo[index])

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise _broken("entries of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str and not (type(key) is int and abs(key) < 1 << 48):
                raise self.unfollowed("a key of a dict that is neither a string nor a small number")
            target[key] = value

    def set_one(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def tuple_of(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def extend(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise _broken("items of what is no list")
        target.extend(items)

    def build(self) -> None:
        """The state of an object: of an OrderedDict its attributes, by which Module.state_dict keeps _metadata, and by
        which one could have other items than its own.
        """
        state, target = self.pop(), self.top()
        if type(target) is not _Ordered:
            raise self.unfollowed("the state of an object")
        if not isinstance(state, dict) or any(type(key) is not str or hasattr(OrderedDict, key) for key in state):
            raise self.unfollowed("attributes of a dict")

    def find_global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise _broken("what is no name where it names an object")
        if len(module) + len(name) > 200:
            raise _code(f"call {module[:60]}.{name[:60]}")
        home, _, last = f"{module}.{name}".rpartition(".")  # torch looks at both as one
        followed = (
            (home == "collections" and last == "OrderedDict")
            or (home == "torch._utils" and last in _REBUILDS)
            or (home == "torch" and (last in _STORAGES or last in _DTYPES))
            or (home == "torch.storage" and last == _UNTYPED)
        )
        if followed and last == name:
            self.push(_Global(module, name))
        elif followed or _UNFOLLOWED.fullmatch(f"{module}.{name}"):
            raise self.unfollowed(f"{module}.{name}")
        else:
            raise _code(f"call {module[:60]}.{name[:60]}")

    def instance(self) -> None:
        """An object as Python's pickle alone reads it: what it names may run."""
        self.find_global(self.line(), self.line())
        raise _broken("the opcode b'i', which torch does not write")

    def persistent(self) -> None:
        pid = self.pop()
        if not isinstance(pid, tuple) or len(pid) != self.of_storage or pid[0] != "storage":
            raise _broken("what is no storage where one is named")
        _, kind, key, _, count, *view = pid
        if not isinstance(kind, _Global):
            raise _broken("a storage of no type")
        if kind.name == _UNTYPED and view:  # _legacy_load asks it for its dtype, which it has none of
            raise _broken("a dtype that torch writes into its format from before 1.6, and does not read there")
        dtype = "U8" if kind.name == _UNTYPED else _STORAGES.get(kind.name)
        if dtype is None:
            raise _broken("a storage of no type")
        plain = type(key) is str and re.fullmatch("[ -~]+", key) and type(count) is int and 0 <= count < 1 << 48
        if not plain or view not in ([], [None]):
            raise self.unfollowed("a storage that is not described as torch.save does")
        storage = self.storages.setdefault(key, _Storage(dtype, key, count))
        if storage != (dtype, key, count):  # torch takes the first, but where it is empty
            raise self.unfollowed("one storage as two")
        self.push(storage)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Global):
            raise _broken("a call of what is no function")
        if not isinstance(arguments, tuple) or function.module in ("torch", "torch.storage"):
            raise self.unfollowed(f"a call of {function.name} in another form than torch.save writes")
        if function.name == "OrderedDict":
            if arguments not in ((), ([],)):
                raise self.unfollowed("an OrderedDict with arguments")
            self.push(_Ordered())
        elif function.name.startswith("_rebuild_parameter"):
            self.push(self.parameter(function.name, arguments))
        else:
            self.push(self.view(function.name, arguments))

    def parameter(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What `_rebuild_parameter` makes of a tensor: the same."""
        states = 1 if name.endswith("_with_state") else 0
        if len(arguments) != 3 + states or not isinstance(arguments[0], _View):
            raise _broken("a parameter of no tensor")
        tensor, grad, hooks, *state = arguments
        if type(grad) is not bool or (grad and tensor.dtype not in _OF_GRADIENTS):
            raise _broken("a parameter whose requires_grad it cannot have")
        if hooks != {} or any(state):  # attributes, of which one is `data`
            raise self.unfollowed("a parameter with hooks or attributes")
        return tensor

    def view(self, name: str, arguments: tuple[Any, ...]) -> _View:
        """What `_rebuild_tensor`, its v2 and its v3 make of storage, offset, shape and strides, from v2 on with
        requires_grad and hooks, in v3 the dtype, and of what else there may be, as that its numbers are to be negated.
        """
        least = {"_rebuild_tensor": 4, "_rebuild_tensor_v2": 6}.get(name, 7)
        if not least <= len(arguments) <= least + (least > 4) or not isinstance(arguments[0], _Storage):
            raise _broken("a tensor of no storage")
        storage, start, shape, strides, *more = arguments
        dtype = storage.dtype
        if least == 7:
            if not (isinstance(more[2], _Global) and more[2].name in _DTYPES):
                raise _broken("a tensor of no dtype")
            dtype = _DTYPES[more.pop(2).name]
        grad, hooks, metadata = more + [False, {}, None][len(more) :]
        if type(grad) is not bool or (grad and (dtype not in _OF_GRADIENTS or least == 7)):
            raise _broken("a tensor whose requires_grad it cannot have")
        if hooks not in ({}, None) or metadata not in ({}, None):
            raise self.unfollowed("a tensor with hooks, or one to be negated or conjugated")
        if not isinstance(shape, tuple) or not isinstance(strides, tuple):
            raise self.unfollowed("a tensor whose shape is no tuple")
        numbers = (start, *shape, *strides)
        if any(type(n) is not int or not 0 <= n < 1 << 48 for n in numbers) or not len(strides) == len(shape) <= 64:
            raise self.unfollowed("a tensor that is not described as torch.save does")
        return _View(dtype, storage, start, shape, strides)


def _text(size: int) -> Any:
    return lambda m: m.push(m.take(m.number(size)).decode("utf-8", "surrogatepass"))


_OPS: dict[bytes, Any] = {
    b"\x80": lambda m: m.take(1),
    b"\x95": lambda m: (m.opcodes.add(b"\x95"), m.take(8)),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": lambda m: (m.opcodes.add(b"0"), m.pop()),
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.to_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"a": lambda m: (lambda value: m.extend([value]))(m.pop()),
    b"e": lambda m: (lambda items: m.extend(items))(m.to_mark()),
    b"s": lambda m: m.set_one(),
    b"u": lambda m: m.set_items(m.to_mark()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"J": lambda m: m.push(m.number(4, True)),
    b"\x8a": lambda m: m.push(m.number(m.number(1), True)),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": _text(4),
    b"U": lambda m: m.push(m.take(m.number(1)).decode("utf-8")),
    b"\x8c": lambda m: (m.opcodes.add(b"\x8c"), _text(1)(m)),
    b"q": lambda m: m.put(m.number(1)),
    b"r": lambda m: m.put(m.number(4)),
    b"\x94": lambda m: (m.opcodes.add(b"\x94"), m.put(len(m.memo))),
    b"h": lambda m: m.get(m.number(1)),
    b"j": lambda m: m.get(m.number(4)),
    b"c": lambda m: m.find_global(m.line(), m.line()),
    b"\x93": lambda m: (m.opcodes.add(b"\x93"), (lambda name, module: m.find_global(module, name))(m.pop(), m.pop())),
    b"i": lambda m: m.instance(),
    b"Q": lambda m: m.persistent(),
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
}
