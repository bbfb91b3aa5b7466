"""Adapters that mean harm, or that chance made: names, patterns, numbers, types, pickles and headers that cost a reader
its time, its memory or its head. `scripts/check_hostile.py` gives each to the real command; a share is in test_hostile.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

FIXTURES = Path(__file__).parent.parent / "fixtures"
LORA, ADALORA = FIXTURES / "lora-plain-0.21.2", FIXTURES / "adalora-rank0-0.21.2"
CONFIG, WEIGHTS, BIN = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
MARK = "ran"
"""The file that what runs would make, in the working folder."""


class Input(NamedTuple):
    """What is done to a copy of `source`, and what is to come of it: one of the codes `finds`, where any is named; with
    `doubted` the newest PEFT, which may not be called to accept it.
    """

    make: Callable[[Path], None]
    source: Path = LORA
    finds: tuple[str, ...] = ()
    doubted: bool = False
    long: bool = False
    """Too large for a test."""
    tensors: int = 0
    """How many tensors are followed as those of any file: they may take as long as so many of a legitimate one."""


def container(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file of any header."""
    return struct.pack("<Q", len(header)) + header + data


def late(make: Callable[[], Callable[[Path], None]]) -> Callable[[Path], None]:
    """What is large, made when it is asked for."""
    return lambda folder: make()(folder)


def tensors(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """A safetensors file of F32 zeros."""
    at, entries = 0, {}
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return container(json.dumps(entries, separators=(",", ":")).encode(), bytes(at))


def pair(module: str) -> dict[str, tuple[int, ...]]:
    """The factors of a module that r 4 makes of 8 features."""
    return {f"base_model.model.{module}.lora_A.weight": (4, 8), f"base_model.model.{module}.lora_B.weight": (8, 4)}


def of_modules(*modules: str, **config: Any) -> Callable[[Path], None]:
    """Have layers of these names."""

    def make(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(tensors({k: s for module in modules for k, s in pair(module).items()}))
        change(folder, **config)

    return make


def of_sizes(*sizes: tuple[int, ...], **config: Any) -> Callable[[Path], None]:
    """Have one layer whose factors A, B and E have these sizes."""

    def make(folder: Path) -> None:
        end = "" if len(sizes) > 2 else ".weight"
        shapes = {f"base_model.model.blocks.0.q.lora_{f}{end}": of for f, of in zip("ABE", sizes, strict=False)}
        (folder / WEIGHTS).write_bytes(tensors(shapes))
        change(folder, target_modules=["q"], **config)

    return make


def of_one_hash(count: int) -> list[int]:
    """Whole numbers that all have the hash 0 (CPython's pyhash.h: _PyHASH_MODULUS)."""
    return [at * (2**61 - 1) for at in range(1, count + 1)]


def of_shapes_of_one_hash(folder: Path) -> None:
    """Have 20,000 tensors of different shapes, without numbers, which all have one hash."""
    sizes = islice(product([0, *of_one_hash(7)], repeat=5), 20_000)
    entries = {
        f"base_model.model.blocks.{at}.q.lora_A.weight": {"dtype": "F32", "shape": [0, *more], "data_offsets": [0, 0]}
        for at, more in enumerate(sizes)
    }
    (folder / WEIGHTS).write_bytes(container(json.dumps(entries, separators=(",", ":")).encode()))
    change(folder, target_modules=["q"])


def of_many_experts(layers: int = 60, **config: Any) -> Callable[[Path], None]:
    """138,240 tensors of one model, as real ones have."""
    modules = [
        f"model.layers.{at}.mlp.experts.{expert}.{leaf}"
        for at in range(layers) for expert in range(384) for leaf in ("gate_proj", "up_proj", "down_proj")
    ]  # fmt: skip
    return of_modules(*modules, target_modules=["gate_proj", "up_proj", "down_proj"], **config)


FACTORS = {
    "IA3": {"ia3_l": (8, 1)},
    "LOHA": {"hada_w1_a": (8, 4), "hada_w1_b": (4, 8), "hada_w2_a": (8, 4), "hada_w2_b": (4, 8)},
}


def of_method(method: str, modules: list[str], **config: Any) -> Callable[[Path], None]:
    """Have layers of another method."""

    def make(folder: Path) -> None:
        factors = FACTORS[method]
        shapes = {f"base_model.model.{module}.{name}": factors[name] for module in modules for name in factors}
        (folder / WEIGHTS).write_bytes(tensors(shapes))
        known = {"peft_type": method, "target_modules": modules, "feedforward_modules": [], "r": 4, "alpha": 4}
        (folder / CONFIG).write_text(json.dumps({**known, **config}))

    return make


def of_saved(count: int) -> Callable[[Path], None]:
    """As many modules that are saved whole, each by its name."""
    modules = [f"norm{at}" for at in range(count)]

    def make(folder: Path) -> None:
        shapes = {f"base_model.model.{module}.weight": (8,) for module in modules}
        (folder / WEIGHTS).write_bytes(tensors({**pair("layers.0.q"), **shapes}))
        change(folder, modules_to_save=modules, target_modules=["q"])

    return make


def of_dtype(dtype: str, bits: int) -> Callable[[Path], None]:
    """Have factors of another dtype, of zeros."""

    def make(folder: Path) -> None:
        size = 4 * bits
        entries = {
            key: {"dtype": dtype, "shape": shape, "data_offsets": [size * at, size * at + size]}
            for at, (key, shape) in enumerate(pair("blocks.0.q").items())
        }
        (folder / WEIGHTS).write_bytes(container(json.dumps(entries).encode(), bytes(2 * size)))
        change(folder, target_modules=["q"])

    return make


def change(folder: Path, **values: Any) -> None:
    """Change keys of the config; `...` takes one out."""
    path = folder / CONFIG
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def config(**values: Any) -> Callable[[Path], None]:
    """Have other values in the config."""
    return lambda folder: change(folder, **values)


def text(raw: str) -> Callable[[Path], None]:
    """Have a config of this text."""
    return lambda folder: (folder / CONFIG).write_text(raw) and None  # type: ignore[func-returns-value]


def header(raw: bytes, data: bytes = bytes(8)) -> Callable[[Path], None]:
    """Have weights of this header."""
    return lambda folder: (folder / WEIGHTS).write_bytes(container(raw, data)) and None  # type: ignore[func-returns-value]


def bin_of(data: bytes, *, beside: bool = False) -> Callable[[Path], None]:
    """Have a .bin of these bytes, alone or beside safetensors."""

    def make(folder: Path) -> None:
        if not beside:
            (folder / WEIGHTS).unlink()
        (folder / BIN).write_bytes(data)

    return make


def zipped(data: bytes, *more: tuple[str, bytes], version: bytes | None = b"3\n") -> bytes:
    """The zip that torch.save writes of a pickle, and records that it does not."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name given twice is meant
        archive.writestr("archive/data.pkl", data)
        for name, content in more:
            archive.writestr(name, content)
        if version is not None:
            archive.writestr("archive/version", version)
    return file.getvalue()


def encrypted() -> bytes:
    """A zip whose record says that it is encrypted."""
    data = bytearray(zipped(PLAIN))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + flags] |= 1
    return bytes(data)


class Runs:
    """What makes the file MARK when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.open, (MARK, os.O_CREAT | os.O_WRONLY)


CODE = pickle.dumps(Runs(), protocol=2)
PLAIN = b"\x80\x02}."


def tarred(*names: str) -> bytes:
    """A tar archive of pickles with code."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(CODE)
            archive.addfile(info, io.BytesIO(CODE))
    return file.getvalue()


def legacy_tar() -> bytes:
    """A tar whose first member has the name of the five pickles of torch's older format."""
    data = tarred("x")
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
    head = bytearray(data[:512])
    head[: len(magic)] = magic
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


def number(value: int) -> bytes:
    """The pickle of a number."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def string(value: str) -> bytes:
    """The pickle of a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def group(*items: bytes) -> bytes:
    """The pickle of a tuple."""
    return b"(" + b"".join(items) + b"t"


def named(name: str) -> bytes:
    """The pickle of what a module has by a name."""
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def called(name: str, *arguments: bytes) -> bytes:
    """The pickle of a call."""
    return named(name) + group(*arguments) + b"R"


def storage(kind: str = "torch.FloatStorage", key: str = "0", count: int = 4, *more: bytes) -> bytes:
    """The pickle of a storage."""
    return group(string("storage"), named(kind), string(key), string("cpu"), number(count), *more) + b"Q"


def of_storage(
    of: bytes, start: int = 0, sizes: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,), *more: bytes,
    grad: bytes = b"\x89", hooks: bytes = called("collections.OrderedDict"), by: str = "_rebuild_tensor_v2",
) -> bytes:  # fmt: skip
    """The pickle of a tensor in a storage."""
    numbers = (group(*map(number, sizes)), group(*map(number, strides)))
    return called(f"torch._utils.{by}", of, number(start), *numbers, grad, hooks, *more)


def shared(count: int, size: int) -> Callable[[Path], None]:
    """Have a .bin of as many layers whose factors all are one storage of `size` numbers."""

    def make(folder: Path) -> None:
        width = size // 4
        views = {"A": ((4, width), (width, 1)), "B": ((width, 4), (4, 1))}
        of = {factor: of_storage(storage(count=size), 0, *view) for factor, view in views.items()}
        names = {f"base_model.model.blocks.{at}.q.lora_{f}.weight": of[f] for at in range(count) for f in of}
        bin_of(saved(state(**names), data=bytes(4 * size)))(folder)
        change(folder, target_modules=["q"])

    return make


def view(sizes: tuple[int, ...], strides: tuple[int, ...], count: int = 1) -> bytes:
    """The pickle of a tensor that looks at a storage of `count` numbers through sizes and strides."""
    return of_storage(storage(count=count), 0, sizes, strides)


def state(**entries: bytes) -> bytes:
    """The pickle of a state dict."""
    return b"\x80\x02}(" + b"".join(string(name) + value for name, value in entries.items()) + b"u."


def views(sizes: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """A .bin of LoRA factors that are views larger than their file."""
    names = {f"base_model.model.blocks.0.q.lora_{factor}.weight": view(sizes, strides) for factor in "AB"}
    return zipped(state(**names), ("archive/data/0", bytes(4)))


SLOW = "(?:[a-z.0-9]+)+!"
"""A pattern that takes a backtracking engine 2 ** n steps for a name of n characters."""
LONG = "blocks.0." + "a" * 40 + ".q"


def slow(**values: Any) -> Input:
    """A costly pattern in the config, and a name that shows it."""
    return Input(of_modules(LONG, "blocks.0.v", **values), doubted=True)


def ia3(**values: Any) -> Input:
    """The same in an IA3."""

    def make(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(tensors({f"base_model.model.{LONG}.ia3_l": (8, 1)}))
        known = {"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": [], "modules_to_save": None}
        known.update(fan_in_fan_out=False, init_ia3_weights=True, inference_mode=True, task_type=None, **values)
        (folder / CONFIG).write_text(json.dumps(known))

    return Input(make, doubted=True)


def zero_rank(**values: Any) -> Input:
    """Ranks in the config beyond what the layers have, and a layer without any."""

    def make(folder: Path) -> None:
        shapes = {**pair("blocks.0.q"), **pair("blocks.1.q")}
        shapes = {key: (0, 8) if "1.q.lora_A" in key else (8, 0) if "1.q.lora_B" in key else shape
                  for key, shape in shapes.items()}  # fmt: skip
        (folder / WEIGHTS).write_bytes(tensors(shapes))
        change(folder, target_modules=["q"], **values)

    return Input(make)


def fifo(name: str) -> Callable[[Path], None]:
    """Have a pipe in the place of a file, which blocks whoever opens it."""

    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def device(name: str) -> Callable[[Path], None]:
    """Have a link to a device that never ends."""

    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/dev/zero")

    return make


def nested(depth: int, inner: str = "1") -> str:
    """A JSON value of many lists."""
    return "[" * depth + inner + "]" * depth


def overflow(first: float) -> Callable[[Path], None]:
    """An F64 adapter whose norm is beyond what a float holds."""

    def make(folder: Path) -> None:
        values = struct.pack("<8d", first, 0, 0, 1, 1e200, 0, 0, 1)
        entries = {
            f"base_model.model.blocks.0.q.lora_{factor}.weight": {
                "dtype": "F64", "shape": [2, 2], "data_offsets": [32 * at, 32 * at + 32],
            }
            for at, factor in enumerate("AB")
        }  # fmt: skip
        (folder / WEIGHTS).write_bytes(container(json.dumps(entries).encode(), values))
        change(folder, r=2, target_modules=["q"])

    return make


def of_proc(name: str) -> Callable[[Path], None]:
    """Have a link to what looks as a file, and cannot be read."""

    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/proc/self/mem")

    return make


def link(target: str) -> Callable[[Path], None]:
    """Have a link beside the weights that points elsewhere."""
    return lambda folder: (folder / "README.md").symlink_to(target)


UGLY = "\x1b]0;a\x07\x9b31m\u202eb\u2028::error::c\n##[error]d|`e`<script>f</script>\x7f\u2066\ufeff"
"""What commands a terminal, turns a line, ends one, starts a workflow command, a cell, code or a script."""


def deep_pickle(op: bytes, count: int) -> bytes:
    return b"\x80\x02" + op * count + b"."


def shared_tuples() -> bytes:
    """Tuples of two of the one before: their text has 2 ** 60 characters."""
    return (
        b"\x80\x02)q\x00" + b"".join(b"h%c" % at * 2 + b"\x86q%c" % (at + 1) for at in range(60)) + b"X\1\0\0\0a\x93."
    )


HUGE = 10**400
ODD: dict[str, Any] = {
    "null": None, "true": True, "0": 0, "-1": -1, "1.5": 1.5, "''": "", "[]": [], "[[]]": [[]], "[{}]": [{}],
    "[null]": [None], "{}": {}, "{a: []}": {"a": []}, "{'': 1}": {"": 1}, "10 ** 400": HUGE, "1e400": 1e400,
    "NaN": float("nan"), "lone surrogate": "\ud800", "[lone surrogate]": ["\ud800"], "['a', 1]": ["a", 1],
    "ugly": UGLY, "{ugly: ugly}": {UGLY: UGLY}, "broken pattern": "(", "{broken pattern: 1}": {"(": 1},
    "10 ** 12": 10**12, "NUL": "\0",
}  # fmt: skip
"""Values that a key of a JSON file may have and that nobody expects there."""


def inputs() -> dict[str, Input]:
    """Every one of them, by name."""
    many = [f"layer{at}.q" for at in range(60_000)]
    found: dict[str, Input] = {
        "healthy": Input(lambda _: None),
        "half of it": Input(late(lambda: of_many_experts(30)), long=True, tensors=69_120),
        "a legitimate header of 20 MB": Input(late(of_many_experts), long=True, tensors=138_240),
        "a legitimate one by its layers": Input(
            late(lambda: of_many_experts(15, layers_to_transform=[*range(15)])), long=True, tensors=138_240
        ),
        # names
        "name of 26 digits": Input(of_modules("layers.0." + "1" * 26 + "a.q", "layers.1.q")),
        "name of dotted digits": Input(of_modules("layers.0." + "1." * 40 + "a!.q")),
        "layer 10,000,000": Input(of_modules("layers.0.q", "layers.10000000.q")),
        "layer of 5,000 digits": Input(of_modules("layers.0.q", f"layers.{'9' * 5000}.q")),
        "20,000 dots": Input(of_modules("layers.0.q" + ".a" * 20_000)),
        "100,000 dots": Input(of_modules("." * 100_000 + "q")),
        "50,000 prefixes": Input(of_modules("module." * 50_000 + "q")),
        "50,000 wrappers": Input(of_modules("_orig_mod." * 50_000 + "q")),
        "a name of 1 MB": Input(of_modules("a" * (1 << 20))),
        "a name of 1 MB of numbers": Input(of_modules("1." * (1 << 19) + "q")),
        "a name of 1 MB of factors": Input(of_modules("lora_A." * (1 << 17) + "q")),
        "a name of 1 MB of experts": Input(of_modules("experts.1." * (1 << 17) + "q")),
        "a name of 1 MB of lines": Input(of_modules("\n" * (1 << 17) + "q")),
        "an empty name": Input(of_modules("")),
        "20,000 layers with holes": Input(
            late(lambda: of_modules(*(f"layers.{at * 7919 % 99991}.q{at % 7}" for at in range(20_000)))),
            long=True,
            tensors=40_000,
        ),
        "a hole beyond those that are looked at": Input(
            of_modules(
                *(f"layers.47.experts.{at}.w1" for at in range(128)),
                target_modules=r".*layers\.(47\.experts\.\d+|46\.experts\.127)\.w1",
                init_lora_weights=False,
            ),
            finds=("CD312",),
            doubted=True,
        ),
        "60,000 modules": Input(late(lambda: of_modules(*many)), long=True),
        "300 models of 300 blocks": Input(
            late(lambda: of_modules(*(f"m{a}.layers.{b}.q" for a in range(300) for b in range(300)))),
            long=True,
            tensors=180_000,
        ),
        "ugly names": Input(of_modules(f"layers.0.{UGLY}.q", "layers.1.q")),
        # patterns
        "slow target_modules": slow(target_modules=SLOW),
        "slow target_modules in a list": slow(target_modules=["q", SLOW]),
        "slow exclude_modules": slow(exclude_modules=SLOW),
        "slow rank_pattern": slow(rank_pattern={SLOW: 4}),
        "slow alpha_pattern": slow(alpha_pattern={SLOW: 4}),
        "slow modules_to_save": slow(modules_to_save=[SLOW]),
        "slow layers_pattern": slow(layers_to_transform=[0], layers_pattern=[SLOW]),
        "slow target_modules of IA3": ia3(target_modules=SLOW),
        "slow feedforward_modules of IA3": ia3(feedforward_modules=SLOW),
        "slow AdaLoRA": Input(lambda folder: change(folder, target_modules=SLOW), ADALORA),
        "a pattern of 100,000 brackets": Input(config(target_modules="(" * 100_000 + "q" + ")" * 100_000)),
        "a pattern of repeats": Input(config(target_modules="(?:(?:(?:q{1000}){1000}){1000}){1000}")),
        "a pattern of 1 MB": Input(late(lambda: config(target_modules="|".join(["q"] * (1 << 19)))), long=True),
        "100,000 targets": Input(late(lambda: config(target_modules=[f"q{at}" for at in range(100_000)])), long=True),
        "600,000 targets": Input(
            late(lambda: of_modules("x.0.q", "x.1.q", target_modules=["q", *(f"a.{at}" for at in range(600_000))]))
        ),
        "100,000 targets that are patterns": Input(
            late(lambda: config(target_modules=[f"q.{at}$" for at in range(100_000)])), long=True
        ),
        "60,000 keys of rank_pattern": Input(
            late(lambda: config(rank_pattern={f"q{at}": 4 for at in range(60_000)})), long=True
        ),
        "3,000 slow keys of rank_pattern": Input(
            late(lambda: of_modules(LONG, rank_pattern={f"{SLOW}{at}": 4 for at in range(3_000)})),
            doubted=True,
            long=True,
        ),
        "60,000 modules_to_save": Input(
            late(lambda: config(modules_to_save=[f"q{at}" for at in range(60_000)])), long=True
        ),
        "1,000 modules by 1,000 keys": Input(
            of_modules(*many[:1000], rank_pattern=dict.fromkeys(many[:1000], 4), target_modules=["q"]), long=True
        ),
        "4,000 modules by 4,000 keys": Input(
            of_modules(*many[:4_000], alpha_pattern=dict.fromkeys(many[:4_000], 4), target_modules=many[:4_000]),
            tensors=8_000,
        ),
        "4,000 modules of a LoHa by 4,000 keys": Input(
            of_method("LOHA", many[:4_000], rank_pattern=dict.fromkeys(many[:4_000], 4)), tensors=16_000
        ),
        "9,000 strays by 100,000 targets": Input(
            late(
                lambda: of_modules(
                    "layers.0.q",
                    *(f"s{at}" for at in range(9_000)),
                    target_modules=["q", *(f"q{at}" for at in range(100_000))],
                )
            ),
            tensors=18_000,
        ),
        "40,000 ends of names that are full ones": Input(
            late(
                lambda: of_modules(
                    *(f"layers.{at}.q" for at in range(40_000)), target_modules=[f"{at}.q" for at in range(40_000)]
                )
            ),
            long=True,
            tensors=80_000,
        ),
        "8,000 modules by 8,000 ways to write a key": Input(
            late(
                lambda: of_modules(
                    *(f"layers.{at}.{'-' * 13}" for at in range(8_000)),
                    target_modules=["-" * 13],
                    alpha_pattern=dict.fromkeys(map("".join, islice(product(("-", "\\-"), repeat=13), 8_000)), 8),
                )
            ),
            tensors=16_000,
        ),
        "a word of 1 MB in layers_pattern": Input(
            late(lambda: config(layers_to_transform=[0], layers_pattern=["q" * (1 << 20)]))
        ),
        "8,000 targets of IA3": Input(of_method("IA3", many[:8_000]), tensors=8_000),
        "4,000 modules by 4,000 layers_to_transform": Input(
            of_modules(
                *(f"layers.{at}.q{at}" for at in range(4_000)),
                layers_to_transform=many[:4_000],
                target_modules=[f"q{at}" for at in range(4_000)],
            ),
            tensors=8_000,
        ),
        "1,000 modules by 1,000 target_parameters": Input(
            of_modules(*many[:1000], target_modules=["q"], target_parameters=[f"{one}.weight" for one in many[:1000]])
        ),
        "4,000 modules_to_save by 4,000 tensors": Input(late(lambda: of_saved(4_000))),
        # pickles
        "shared tuples": Input(bin_of(zipped(shared_tuples())), finds=("CD012", "CD010")),
        "shared tuples as a key": Input(bin_of(zipped(b"\x80\x02})" + b"2\x86" * 40 + b"K\x01s.")), finds=("CD012",)),
        "nested tuples": Input(
            bin_of(zipped(b"\x80\x02)" + b"\x85" * 200_000 + b"X\1\0\0\0a\x93.")), finds=("CD012", "CD010")
        ),
        "nested tuples in the older format": Input(bin_of(b"\x80\x02)" + b"\x85" * 200_000 + b"."), finds=("CD012",)),
        "60 MB of marks": Input(late(lambda: bin_of(zipped(deep_pickle(b"(", 60 << 20)))), finds=("CD012",), long=True),
        "60 MB of None": Input(late(lambda: bin_of(zipped(deep_pickle(b"N", 60 << 20)))), finds=("CD012",), long=True),
        "60 MB of dicts": Input(late(lambda: bin_of(zipped(deep_pickle(b"}", 60 << 20)))), finds=("CD012",), long=True),
        "60 MB of None in the older format": Input(
            late(lambda: bin_of(deep_pickle(b"N", 60 << 20))), finds=("CD012",), long=True
        ),
        "a number of 60 MB": Input(
            late(lambda: bin_of(zipped(b"\x80\x02\x8b" + struct.pack("<I", 1 << 25) + b"\xff" * (1 << 25) + b"."))),
            finds=("CD012",),
            long=True,
        ),
        "4,000,000 memos": Input(
            late(lambda: bin_of(zipped(b"\x80\x04N" + b"\x94" * 4_000_000 + b"."))), finds=("CD012",), long=True
        ),
        "200,001 dicts on the stack": Input(bin_of(zipped(deep_pickle(b"}", 200_001)))),
        "750,001 memos": Input(bin_of(zipped(b"\x80\x04N" + b"\x94" * 750_001 + b"."))),
        "a view of 2 by 2 ** 40": Input(bin_of(views((2, 1 << 40), (0, 0)))),
        "a view of 20,000,000 by 2": Input(bin_of(views((20_000_000, 2), (0, 0)))),
        "a view of 64 dimensions": Input(bin_of(views((2,) * 40, (0,) * 40))),
        "bad UTF-8 in the older format": Input(bin_of(b"\x80\x02X\x01\0\0\0\xff.")),
        "an encrypted entry": Input(bin_of(encrypted()), finds=("CD010", "CD012")),
        # code
        "a pickle with code": Input(bin_of(zipped(CODE)), finds=("CD010",)),
        "a pickle with code, older format": Input(bin_of(CODE), finds=("CD010", "CD012")),
        "a tar": Input(bin_of(tarred("pickle")), finds=("CD010",)),
        "a tar that begins as five pickles": Input(bin_of(legacy_tar()), finds=("CD010",)),
        "two data.pkl": Input(bin_of(zipped(PLAIN, ("archive/data.pkl", CODE))), finds=("CD010",)),
        "Data.PKL beside data.pkl": Input(bin_of(zipped(PLAIN, ("archive/Data.PKL", CODE))), finds=("CD010",)),
        "an entry outside the root": Input(bin_of(zipped(PLAIN, ("other/data.pkl", CODE))), finds=("CD010",)),
        "code beside safetensors": Input(bin_of(zipped(CODE), beside=True), finds=("CD010",)),
        "megatron_core that is imported": Input(
            config(megatron_config={"a": 1}, megatron_core="antigravity"), doubted=False, finds=("CD016",)
        ),
        "parent_library that is imported": Input(
            config(auto_mapping={"base_model_class": "Net", "parent_library": "antigravity"})
        ),
        # headers and configs
        "a header of 100 MB of spaces": Input(late(lambda: header(b"{}" + b" " * 99_000_000, b"")), long=True),
        "a header of 100 MB of tensors": Input(
            late(lambda: of_modules(*(f"{at:0200}" for at in range(180_000)))), long=True
        ),
        "a header of 90 MB of lists": Input(
            late(lambda: header(b'{"a":' + nested(40_000_000).encode() + b"}")), long=True
        ),
        "a header of 40 MB of shapes": Input(
            late(
                lambda: header(
                    b'{"a":{"dtype":"F32","shape":[' + b"1," * 20_000_000 + b'1],"data_offsets":[0,4]}}', bytes(4)
                )
            ),
            long=True,
        ),
        "a header of 90 MB of metadata": Input(
            late(
                lambda: header(
                    b'{"__metadata__":{' + b",".join(b'"%d":""' % at for at in range(6_000_000)) + b"}}", b""
                )
            ),
            long=True,
        ),
        "a shape of 4,000 digits": Input(
            header(b'{"a":{"dtype":"F32","shape":[' + b"9" * 4000 + b'],"data_offsets":[0,8]}}'),
            finds=("CD005", "CD011"),
        ),
        "a size of 4,301 digits in the header": Input(  # the first that Python makes no number of
            header(b'{"a":{"dtype":"F32","shape":[' + b"9" * 4301 + b'],"data_offsets":[0,8]}}'),
            finds=("CD005", "CD011"),
        ),
        "a config of 60 MB": Input(late(lambda: text('{"a":[' + "[]," * 20_000_000 + "[]]}")), long=True),
        "a config of 60 MB of keys": Input(
            late(lambda: text("{" + ",".join(f'"{at}":{at}' for at in range(3_500_000)) + "}")), long=True
        ),
        "a deep config": Input(text('{"a":' + nested(100_000) + "}"), finds=("CD003",)),
        "a config of 500 lists": Input(text('{"peft_type":"LORA","target_modules":' + nested(500) + "}")),
        # ranks
        "r of 10 ** 12": zero_rank(r=10**12),
        "rank_pattern of 10 ** 12": zero_rank(rank_pattern={"blocks.1.q": 10**12}),
        "r of 10 ** 400": zero_rank(r=HUGE),
        "init_r of 10 ** 9": Input(config(init_r=10**9), ADALORA),
        "init_r of 10 ** 12": Input(config(init_r=10**12, target_r=10**12, rank_pattern=None), ADALORA),
        "layers_to_transform of 10 ** 12": Input(config(layers_to_transform=[10**12], layers_pattern="blocks")),
        "layer_replication of 10 ** 9": Input(config(layer_replication=[[0, 10**9]])),
        # sizes of tensors
        "1,000 dimensions": Input(of_sizes((4, *[1] * 999), (8, *[1] * 999)), doubted=True),
        "sizes of 2 ** 63 and 0": Input(of_sizes((2**63, 0), (0, 2**63)), doubted=True),
        "rank 0 by 10 ** 9": Input(of_sizes((0, 10**9), (10**9, 0)), doubted=True),
        "rank 0 by 10 ** 9, of AdaLoRA": Input(
            of_sizes((0, 10**9), (10**9, 0), (0, 1), rank_pattern=None), ADALORA, doubted=True
        ),
        "1,000 layers of one storage": Input(shared(1_000, 100_000)),
        # numbers of one hash
        "20,000 shapes of one hash": Input(of_shapes_of_one_hash),
        "30,000 layers of one hash": Input(config(layers_to_transform=of_one_hash(30_000), layers_pattern="blocks")),
        "30,000 keys of one hash": Input(
            late(
                lambda: bin_of(
                    zipped(b"\x80\x02}(" + b"".join(number(at) + b"N" for at in of_one_hash(30_000)) + b"u.")
                )
            )
        ),
        "30,000 keys of one hash, older format": Input(
            late(lambda: bin_of(b"\x80\x02}(" + b"".join(number(at) + b"N" for at in of_one_hash(30_000)) + b"u."))
        ),
        # pipes and devices
        "the config is a pipe": Input(fifo(CONFIG)),
        "the weights are a pipe": Input(fifo(WEIGHTS)),
        "the .bin is a pipe": Input(lambda folder: fifo(BIN)(folder)),
        "the record is a pipe": Input(fifo("ckpt-doctor.json")),
        "another file is a pipe": Input(fifo("README.md")),
        "the config is a device": Input(device(CONFIG)),
        "the weights are a device": Input(device(WEIGHTS)),
        "the record is a device": Input(device("ckpt-doctor.json")),
        "the config cannot be read": Input(of_proc(CONFIG)),
        "the weights cannot be read": Input(of_proc(WEIGHTS)),
        "the .bin cannot be read": Input(of_proc(BIN)),
        "100,000 keys": Input(late(lambda: config(**{f"k{at}": at for at in range(100_000)}))),
        "the state of a trainer is a device": Input(device("trainer_state.json"), ADALORA),
        # links
        "a link to a file elsewhere": Input(link("/etc/passwd")),
        "a link to nothing": Input(link("/nowhere")),
        # numbers
        "numbers of six bits": Input(of_dtype("F6_E2M3", 6), doubted=True),
        "numbers of four bits": Input(of_dtype("F4", 4), doubted=True),
        "a norm that overflows": Input(overflow(1e200)),
        "a record that is not JSON": Input(lambda folder: (folder / "ckpt-doctor.json").write_bytes(b"\xff{") and None),
        "a record of lists": Input(lambda folder: (folder / "ckpt-doctor.json").write_text(nested(100_000)) and None),
        "odd strings in the config": Input(
            config(base_model_name_or_path=UGLY, task_type=UGLY, revision=UGLY, bias=UGLY, peft_version=UGLY)
        ),
        "peft_version of 5,000 digits": Input(config(peft_version="9" * 5_000 + ".1")),
        "peft_version without a minor": Input(config(peft_version="0.")),
        "lora_alpha NaN": Input(config(lora_alpha=float("nan"))),
        "lora_alpha 1e400": Input(config(lora_alpha=float("inf"))),
        "target_modules of types": Input(config(target_modules=["a", 1, None, [], {}])),
    }
    return found


SAFETENSORS: dict[str, bytes] = {
    "metadata twice": container(b'{"__metadata__":{},"__metadata__":{},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "a product over 2 ** 64": container(b'{"a":{"dtype":"F32","shape":[9223372036854775808,4,0],"data_offsets":[0,0]}}'),
    "minus zero": container(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    "1e400 in an unknown field": container(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":1e400}}'),
    "a size of 4,301 digits": container(b'{"a":{"dtype":"F32","shape":[' + b"1" * 4301 + b'],"data_offsets":[0,4]}}', bytes(4)),
    "4,301 digits in an unknown field": container(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":' + b"1" * 4301 + b"}}"),
    "300 digits in an unknown field": container(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":' + b"1" * 300 + b"}}"),
    "nesting beyond 128": container(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":' + nested(129).encode() + b"}}"),
    "nesting of 120": container(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":' + nested(120).encode() + b"}}"),
    "a tensor twice, the first broken": container(b'{"a":1,"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "a shape {}": container(b'{"a":{"dtype":"F32","shape":{},"data_offsets":[0,4]}}', bytes(4)),
    'a shape ""': container(b'{"a":{"dtype":"F32","shape":"","data_offsets":[0,4]}}', bytes(4)),
    "metadata keys of fields, twice": container(b'{"__metadata__":{"dtype":"1","dtype":"2"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "an entry as an array": container(b'{"a":["F32",[2],[0,8]]}', bytes(8)),
    "an unknown field": container(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":[1,{"y":2}]}}', bytes(8)),
    "a tensor twice": container(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "spaces around": container(b' {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "metadata null": container(b'{"__metadata__":null,"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
}  # fmt: skip
"""Headers on which two readers may differ."""


BYTES = bytes(range(1, 17))
"""A storage of four F32."""


def saved(pickle: bytes, *more: tuple[str, bytes], data: bytes = BYTES, version: bytes | None = b"3\n") -> bytes:
    """A .bin of one storage."""
    return zipped(pickle, ("archive/data/0", data), *more, version=version)


def saved_old(
    pickle: bytes,
    order: tuple[str, ...] = ("0",),
    data: bytes = BYTES,
    *,
    magic: bytes = b"\x80\x02",
    little: bytes = b"\x88",
) -> bytes:
    """A .bin of torch before 1.6, with the storages in an order."""
    head = (
        magic
        + b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}"
        + string("little_endian")
        + little
        + b"s."
    )
    each = struct.pack("<q", len(data) // 4) + data
    return head + pickle + b"\x80\x02](" + b"".join(map(string, order)) + b"e." + each * len(order)


def record(data: bytes, place: int, value: int, mark: bytes = b"PK\x01\x02") -> bytes:
    """A zip with another byte in what it says of its storage: in its directory, or before the bytes."""
    changed = bytearray(data)
    at = data.rindex(
        mark, 0, data.rindex(b"archive/data/0") if mark == b"PK\x01\x02" else data.index(b"archive/data/0")
    )
    changed[at + place] = value
    return bytes(changed)


def _torch() -> dict[str, tuple[str, bytes]]:
    plain, old = of_storage(storage()), of_storage(storage("torch.FloatStorage", "0", 4, b"N"))
    ints, untyped = storage("torch.IntStorage"), storage("torch.storage.UntypedStorage", "0", 16)
    ordered = called("collections.OrderedDict")
    file = saved(state(a=plain))

    def third(of: bytes, dtype: str, *more: bytes, grad: bytes = b"\x89") -> bytes:
        return of_storage(of, 0, (4,), (1,), named(f"torch.{dtype}"), *more, grad=grad, by="_rebuild_tensor_v3")

    def parameter(of: bytes, *more: bytes, grad: bytes = b"\x88", by: str = "_rebuild_parameter") -> bytes:
        return called(f"torch._utils.{by}", of, grad, ordered, *more)

    def one(value: bytes) -> bytes:
        return saved(state(a=value))

    def flag(value: bytes) -> bytes:
        return b"}" + value + b"\x88s"

    return {
        "plain": ("read", file),
        "read by bytes": ("read", one(of_storage(untyped, 0, (16,)))),
        "another dtype than its storage": ("read", one(third(storage(), "uint16"))),
        "bytes of a dtype": ("read", one(third(untyped, "bfloat16"))),
        "a view": ("read", one(of_storage(storage(), 1, (1, 2), (7, 2)))),
        "a tensor of no numbers beyond its storage": ("read", one(of_storage(storage(), 100, (0,)))),
        "a tensor that requires gradients": ("read", one(of_storage(storage(), grad=b"\x88"))),
        "no metadata": ("read", one(of_storage(storage(), 0, (4,), (1,), b"}"))),
        "a parameter": ("read", one(parameter(plain))),
        "a parameter of a parameter": ("read", one(parameter(parameter(plain)))),
        "a state dict with metadata": (
            "read", saved(b"\x80\x02" + ordered + b"(" + string("a") + plain + b"u}" + string("_metadata") + ordered + b"sb."),
        ),
        "a name in ASCII": ("read", saved(b"\x80\x02}(U\x01a" + plain + b"u.")),
        "the pickle in capitals": ("read", file.replace(b"data.pkl", b"DATA.PKL")),
        "a storage in capitals": ("read", saved(state(a=plain.replace(b"\1\0\0\x000", b"\1\0\0\0A"))).replace(b"data/0", b"data/a")),
        "another checksum": ("read", record(file, 16, 255)),
        "another name before its bytes": ("read", record(file, 38, 120, b"PK\3\4")),
        "version 10": ("read", saved(state(a=plain), version=b"10")),
        "before 1.6": ("read", saved_old(state(a=old))),
        "before 1.6, without a protocol": ("read", saved_old(state(a=old), magic=b"")),
        "before 1.6, a storage twice in the order": ("read", saved_old(state(a=old), ("0", "0"))),
        "before 1.6, and more behind it": ("read", saved_old(state(a=old)) + b"abc"),
        # what torch reads otherwise than it looks, or what is not worth to be followed
        "a dict with other items": (
            "refused",
            saved(b"\x80\x02" + ordered + b"(" + string("a") + plain + b"u}" + string("items") + named("collections.OrderedDict") + b"sb."),
        ),
        "other data in a parameter": (
            "refused",
            one(parameter(plain, b"}" + string("data") + of_storage(storage(), 1, (2,)) + b"s", by="_rebuild_parameter_with_state")),
        ),
        "numbers to be negated": ("refused", one(of_storage(storage(), 0, (4,), (1,), flag(string("neg"))))),
        "numbers to be conjugated": (
            "refused", one(of_storage(storage("torch.ComplexFloatStorage", "0", 2), 0, (2,), (1,), flag(string("conj")))),
        ),
        "hooks": ("refused", one(of_storage(storage(), hooks=b"K\x01"))),
        "a storage of two dtypes": (
            "refused", saved(state(a=of_storage(storage("torch.HalfStorage", "0", 8)), b=plain)),
        ),
        "a storage of two sizes": ("refused", saved(state(a=plain, b=of_storage(storage("torch.FloatStorage", "0", 2), 0, (4,))))),
        "complex128": ("refused", one(of_storage(storage("torch.ComplexDoubleStorage", "0", 1), 0, (1,)))),
        "sparse": ("refused", one(called("torch._utils._rebuild_sparse_tensor", b"N", b"N"))),
        "quantised": ("refused", one(of_storage(storage("torch.QInt8Storage", "0", 16), by="_rebuild_qtensor"))),
        "a torch.Size": ("refused", one(called("torch.Size", group(b"K\x04")))),
        "a set": ("refused", one(b"\x8f")),
        "a set of Python 2": ("refused", one(named("__builtin__.set"))),
        "an OrderedDict of Python 2": ("refused", one(called("UserDict.OrderedDict"))),
        "a name in two halves": (
            "refused",
            one(of_storage(storage()).replace(b"ctorch._utils\n_", b"ctorch\n_utils._")),
        ),
        "a key that is None": (
            "refused",
            saved(b"\x80\x02" + ordered + b"(" + string("a") + plain + b"u}" + string("_metadata") + b"}NNssb."),
        ),
        "an object": ("refused", one(ordered + b")\x81")),
        "a tensor that is set": ("refused", one(plain + b"(tb")),
        "the shape as a list": (
            "refused", one(called("torch._utils._rebuild_tensor_v2", storage(), number(0), b"]K\x04a", group(number(1)), b"\x89", ordered)),
        ),
        "two sizes and one stride": ("refused", one(of_storage(storage(), 0, (1,), ()))),
        "a number as a key of a storage": (
            "refused",
            one(of_storage(group(string("storage"), named("torch.FloatStorage"), b"K\x00", string("cpu"), number(4)) + b"Q")),
        ),
        "a key of a storage with NUL": ("refused", one(of_storage(storage(key="0\0x")))),
        "a key of a storage beyond ASCII": ("refused", saved(state(a=of_storage(storage(key="\u212a"))).replace(b"data/0", b"data/k"))),
        "a newer protocol": ("refused", saved(b"\x80\x04\x95" + bytes(8) + state(a=plain)[2:])),
        "big-endian": ("refused", saved(state(a=plain), ("archive/byteorder", b"big"))),
        "big-endian in capitals": ("refused", saved(state(a=plain), ("archive/ByteOrder", b"big"))),
        "an odd version": ("refused", saved(state(a=plain), version=b" 3x")),
        "an odd version in its second place": (
            "refused", saved(state(a=plain), ("archive/.data/version", b"x"))
        ),
        "a zip of a version to come": ("refused", record(file, 6, 99)),
        "an alignment that is no number": ("refused", saved(state(a=plain), ("archive/.storage_alignment", b"x"))),
        "an id that is no text": ("refused", saved(state(a=plain), ("archive/.data/serialization_id", b"\x85"))),
        "a record that is encrypted": ("refused", record(file, 8, 1)),
        "a record on another disk": ("refused", record(file, 34, 2)),
        "a record of two sizes": ("refused", record(file, 20, 8)),
        "before 1.6, big-endian": ("refused", saved_old(state(a=old), little=b"\x89")),
        "before 1.6, a storage that a tensor reaches beyond": (
            "refused", saved_old(state(a=of_storage(storage("torch.FloatStorage", "0", 2, b"N")))),
        ),
        "before 1.6, a storage without numbers": ("refused", saved_old(state(a=old), ())),
        "before 1.6, a view of a storage": (
            "refused", saved_old(state(a=of_storage(storage("torch.FloatStorage", "0", 4, group(string("v"), b"K\x01", b"K\x02")), 0, (2,)))),
        ),
        # what torch does not read
        "a pickle that is encrypted": ("damaged", encrypted()),
        "no version": ("damaged", saved(state(a=plain), version=None)),
        "no byte order": ("damaged", saved(state(a=plain), ("archive/byteorder", b"little\n"))),
        "a storage larger than its record": ("damaged", one(of_storage(storage(count=8)))),
        "a storage smaller than its record": ("damaged", one(of_storage(storage(count=2), 0, (2,)))),
        "a view beyond its storage": ("damaged", one(of_storage(storage(), 0, (5,)))),
        "a storage of no type": ("damaged", one(of_storage(storage("torch.float32")))),
        "gradients of whole numbers": ("damaged", one(of_storage(ints, grad=b"\x88"))),
        "gradients of another dtype": ("damaged", one(third(untyped, "float32", grad=b"\x88"))),
        "gradients that are None": ("damaged", one(of_storage(storage(), grad=b"N"))),
        "a parameter of whole numbers": ("damaged", one(parameter(of_storage(ints)))),
        "too few arguments": (
            "damaged", one(called("torch._utils._rebuild_tensor_v2", storage(), number(0), group(number(4)), group(number(1)), b"\x89")),
        ),
        "an odd number of items": ("damaged", saved(b"\x80\x02}(" + string("a") + plain + string("b") + b"u.")),
        "items of what is below a mark": ("damaged", saved(b"\x80\x02}(" + string("a") + plain + b"s.")),
        "a storage as before 1.6": ("damaged", one(old)),
        "before 1.6, a storage as later": ("damaged", saved_old(state(a=plain))),
        "before 1.6, a storage of bytes": (
            "damaged", saved_old(state(a=of_storage(storage("torch.storage.UntypedStorage", "0", 4, b"N")))),
        ),
        "before 1.6, cut short": ("damaged", saved_old(state(a=old))[:-1]),
        # what torch does not call
        "a storage by another name": ("code", one(of_storage(storage("torch.storage.FloatStorage")))),
        "os.system": ("code", one(called("os.system", string("true")))),
        "os.system, first of all": ("code", b"cos\nsystem\n" + group(string("true")) + b"R."),
    }  # fmt: skip


TORCH = _torch()
"""Files of torch on which two readers may differ: whether one is read here, refused as not followed, damaged, or code."""


def built(folder: Path, case: Input) -> Path:
    """The adapter of an input, in a new folder."""
    shutil.copytree(case.source, folder)
    case.make(folder)
    return folder
