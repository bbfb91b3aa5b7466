"""torch's zip format (`.bin`): an uncompressed zip of `data.pkl` and one record a storage. No pickle is executed.

`data.pkl` is walked by a small machine that knows the opcodes torch writes, calls nothing, and is bounded in bytes,
steps and depth: an unpickler, also a restricted one, can be hung by a few hundred bytes of nested keys.
"""

from __future__ import annotations

import struct
import zipfile
from typing import Any, BinaryIO, NamedTuple

from ...adapter import DTYPE_BITS, AdapterError, DamagedFile, FileRange, Gathered, TensorInfo
from ...adapter.limits import PICKLE, STEPS, check_names

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "UntypedStorage": "U8",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_REBUILDS = {
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_parameter_with_state"
}  # fmt: skip


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
    """The tensors of an open zip file; of a checkpoint as of `tensors`. Without `heads` the header of each record is
    not read, and with it where its bytes begin. Raises DamagedFile, or AdapterError where it is beyond what is read
    here.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
            if not pickles:
                raise DamagedFile("malformed-bin", "the zip has no data.pkl, so torch did not write it")
            root = pickles[0][: -len("data.pkl")]
            _no_other_reading(archive.infolist(), root)
            if _directory(file, size) != (archive.start_dir, len(records)):
                raise _hidden("the zip has more than its records and its directory")
            if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
                raise AdapterError(f"{path}: the zip is compressed; save it again with torch.save")
            PICKLE.check(records[pickles[0]].file_size, path)
            if root + "byteorder" in records and archive.read(root + "byteorder") != b"little":
                raise AdapterError(f"{path}: the tensors are big-endian; save them again on a little-endian machine")
            state = Machine(archive.read(pickles[0]), path).run()
            storages = {
                name[len(root) + 5 :]: record_range(file if heads else None, path, info, size)
                for name, info in records.items()
                if name.startswith(root + "data/")
            }
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, RuntimeError) as error:
        raise DamagedFile("malformed-bin", f"the zip cannot be read ({error})") from None
    return tensors(state, storages, path, nested=nested)


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
        strange = info.filename != info.orig_filename or "\\" in inner or ".." in inner.split("/")
        if strange or not info.filename.startswith(root) or inner.startswith("/"):
            raise _hidden(f"the zip has the record {info.orig_filename[:60]!r} outside its folder")
    if f"{root}constants.pkl".lower() in names:
        raise _hidden("the zip has a constants.pkl, as TorchScript has")


def _directory(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """Where the directory at the very end of a zip begins, and its number of records; None where it is not there.

    A reader that looks for the end from another side, or takes another of two ends, would see another archive
    (PKWARE's APPNOTE.TXT, 4.3.14 to 4.3.16: the records at the end, with and without zip64).
    """
    file.seek(max(size - 98, 0))
    tail = file.read(98)
    mark, *disks, here, count, length, start, comment = struct.unpack("<4s4H2IH", tail[-22:])
    if mark != b"PK\x05\x06" or any(disks) or here != count or comment:
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
        raise DamagedFile("malformed-bin", f"the entry {name!r} is not a tensor")
    storage = storages.get(view.storage.key)
    if storage is None:
        raise DamagedFile("malformed-bin", f"the storage of {name} is missing")
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


class Machine:
    """Walks a pickle of dicts, tuples, numbers, strings and torch's rebuild calls; anything else is a diagnosis."""

    def __init__(self, data: bytes, path: str) -> None:
        self.data = data
        self.path = path
        self.steps = 0
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def run(self) -> Any:
        """The value of one pickle; the next one may follow it. Raises DamagedFile, AdapterError."""
        try:
            return self._run()
        except UnicodeDecodeError:
            raise DamagedFile("malformed-bin", "its pickle has a text that is not UTF-8") from None

    def _run(self) -> Any:
        self.stack, self.marks, self.memo = [], [], {}
        while True:
            self.steps += 1
            if self.steps > STEPS.most:
                STEPS.check(self.steps, self.path)
            op = self.take(1)
            if op == b".":
                return self.pop()
            handler = _OPS.get(op)
            if handler is None:
                if op in b"io\x81\x82\x83\x84\x92":
                    raise _code("build an object")
                raise DamagedFile("malformed-bin", f"its pickle has the opcode {op!r}, which torch does not write")
            handler(self)

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

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise DamagedFile("malformed-bin", "its pickle takes more from its stack than is there")
        return self.stack.pop()

    def to_mark(self) -> list[Any]:
        if not self.marks:
            raise DamagedFile("malformed-bin", "its pickle has no mark where it needs one")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def top_dict(self) -> dict[Any, Any]:
        if not self.stack or not isinstance(self.stack[-1], dict):
            raise DamagedFile("malformed-bin", "its pickle fills something that is not a dict")
        top: dict[Any, Any] = self.stack[-1]
        return top

    def put(self, index: int) -> None:
        if not self.stack:
            raise DamagedFile("malformed-bin", "its pickle remembers what it never made")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise DamagedFile("malformed-bin", "its pickle asks for what it never made")
        self.push(self.memo[index])

    def set_item(self, target: dict[Any, Any], key: Any, value: Any) -> None:
        if type(key) not in (str, int):
            raise DamagedFile("malformed-bin", "a key of its state dict is neither a string nor a number")
        target[key] = value

    def set_items(self) -> None:
        items = self.to_mark()
        target = self.top_dict()
        for key, value in zip(items[::2], items[1::2], strict=False):
            self.set_item(target, key, value)

    def set_one(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_item(self.top_dict(), key, value)

    def tuple_of(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def extend(self, items: list[Any]) -> None:
        if not self.stack or not isinstance(self.stack[-1], list):
            raise DamagedFile("malformed-bin", "its pickle fills something that is not a list")
        self.stack[-1].extend(items)

    def build(self) -> None:
        state = self.pop()
        if not isinstance(self.stack[-1] if self.stack else None, dict) or not isinstance(state, dict):
            raise _code("set the state of an object")

    def find_global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise _code("call an object")
        allowed = (
            (module == "collections" and name == "OrderedDict")
            or (module == "torch._utils" and name in _REBUILDS)
            or (module in ("torch", "torch.storage") and name in _STORAGES)
            or (module == "torch" and name in _DTYPES)
        )
        if not allowed:
            raise _code(f"call {module[:60]}.{name[:60]}")
        self.push(_Global(module, name))

    def persistent(self) -> None:
        pid = self.pop()
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage" and isinstance(pid[1], _Global)):
            raise DamagedFile("malformed-bin", "a storage of its pickle is not described as torch does")
        _, kind, key, _, count, *view = pid
        if kind.name not in _STORAGES or type(key) is not str or type(count) is not int or any(view):
            raise DamagedFile("malformed-bin", "a storage of its pickle is not described as torch does")
        self.storages[key] = _Storage(_STORAGES[kind.name], key, count)
        self.push(self.storages[key])

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _code("call an object")
        if function.name == "OrderedDict":
            if arguments not in ((), ([],)):
                raise DamagedFile("malformed-bin", "its pickle has a dict that torch does not write")
            self.push({})
        elif function.name.startswith("_rebuild_parameter"):
            if not arguments or not isinstance(arguments[0], _View):
                raise DamagedFile("malformed-bin", "a parameter of its pickle is not a tensor")
            self.push(arguments[0])
        elif function.name.startswith("_rebuild_tensor"):
            self.push(_view(function.name, arguments))
        else:
            raise _code(f"call {function.module}.{function.name}")


def _view(name: str, arguments: tuple[Any, ...]) -> _View:
    if name == "_rebuild_tensor_v3" and len(arguments) > 6 and isinstance(arguments[6], _Global):
        dtype = _DTYPES.get(arguments[6].name)
    elif arguments and isinstance(arguments[0], _Storage):
        dtype = arguments[0].dtype
    else:
        dtype = None
    if dtype is None or len(arguments) < 4 or not isinstance(arguments[0], _Storage):
        raise DamagedFile("malformed-bin", "a tensor of its pickle is not described as torch does")
    storage, start, shape, strides = arguments[:4]
    numbers = [
        start,
        *(shape if isinstance(shape, tuple) else [None]),
        *(strides if isinstance(strides, tuple) else [None]),
    ]
    if (
        any(type(n) is not int or not 0 <= n < 1 << 48 for n in numbers)
        or len(shape) != len(strides)
        or len(shape) > 64
    ):
        raise DamagedFile("malformed-bin", "a tensor of its pickle is not described as torch does")
    return _View(dtype, storage, start, shape, strides)


def _text(size: int) -> Any:
    return lambda m: m.push(m.take(m.number(size)).decode("utf-8", "surrogatepass"))


_OPS: dict[bytes, Any] = {
    b"\x80": lambda m: m.take(1),
    b"\x95": lambda m: m.take(8),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": lambda m: m.pop(),
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
    b"u": lambda m: m.set_items(),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"J": lambda m: m.push(m.number(4, True)),
    b"\x8a": lambda m: m.push(m.number(m.number(1), True)),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": _text(4),
    b"\x8c": _text(1),
    b"q": lambda m: m.put(m.number(1)),
    b"r": lambda m: m.put(m.number(4)),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"h": lambda m: m.get(m.number(1)),
    b"j": lambda m: m.get(m.number(4)),
    b"c": lambda m: m.find_global(m.line(), m.line()),
    b"\x93": lambda m: (lambda name, module: m.find_global(module, name))(m.pop(), m.pop()),
    b"Q": lambda m: m.persistent(),
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
}
