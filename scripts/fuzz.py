"""Give every reader files that chance makes of real ones, first of those that reach lines which none before reached.

    python scripts/fuzz.py SECONDS [READER…] [--seed N] [--keep]

A reader is one of `READERS`. A file that reaches a new line of ckpt_doctor joins those that others are made of; with
--keep what joined, and no more than reaches the same lines, is kept in tests/data/fuzz, from which each run begins. Printed
are, of each reader, how many files it was given and how many joined; and each that raises anything but AdapterError, asks
to be reported, or is read here and not by the library that it is for, or as something else. It ends with 1 where there is
any.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import pickletools
import random
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import hostile

from ckpt_doctor.adapter import NOTHING_ASKED, AdapterError, DamagedFile, Gathered, TensorInfo
from ckpt_doctor.adapter.runtimes import NEWEST, SERVERS
from ckpt_doctor.cli.baseline import Baseline, document
from ckpt_doctor.cli.fleet import Told
from ckpt_doctor.cli.journal import Journal
from ckpt_doctor.cli.settings import Settings, read_config
from ckpt_doctor.files.base import load_base
from ckpt_doctor.files.loader import read_weights
from ckpt_doctor.files.streams import Files, content
from ckpt_doctor.reports.wording import Tally, mark
from ckpt_doctor.verbs.compare import compare
from ckpt_doctor.verbs.fix import fix
from ckpt_doctor.verbs.plan import plan
from ckpt_doctor.verbs.report import Report
from ckpt_doctor.verbs.scan import examine
from ckpt_doctor.verbs.verify import verify

ROOT = Path(__file__).parent.parent
PACKAGE = str(ROOT / "ckpt_doctor")
KEPT = ROOT / "tests/data/fuzz"
MOST_KEPT = 9_000
"""Bytes that are kept of the files of one reader."""
DATA = ROOT / "tests/data/conversions"
RECORD, INDEX, SHARD = "ckpt-doctor.json", "adapter_model.safetensors.index.json", "adapter_model-1.safetensors"
ASKED = NOTHING_ASKED._replace(runtimes=frozenset((NEWEST,)))


class Reader(NamedTuple):
    """What is done with a file in an empty folder, which gives what it did that it may not; and files to begin with."""

    read: Callable[[bytes, Path], str]
    seeds: Callable[[], Sequence[bytes]]


def _judged(folder: Path) -> str:
    for question in (NOTHING_ASKED, ASKED):
        report = examine(str(folder), question)
        if "please report it" in (report.error or ""):
            return report.trace or str(report.error)
        if report.subject is not None:
            plan(report)
            compare(report.subject, report.subject)
    return ""


def _in(name: str, source: Path = hostile.LORA, without: str = "", shard: str = "") -> Callable[[bytes, Path], str]:
    """An adapter of which one file is this, another is left out or is the shard of this name."""

    def read(data: bytes, folder: Path) -> str:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        if without:
            (folder / without).unlink()
        if shard:
            (folder / hostile.WEIGHTS).rename(folder / shard)
        (folder / name).write_bytes(data)
        if name == RECORD:
            with suppress(AdapterError):
                verify(str(folder))
        return _judged(folder)

    return read


# What is read here is what the library reads


class Tensor(NamedTuple):
    """A tensor as a library has it: its dtype by the name in safetensors, its bytes, and where it can be a view, its
    strides and where it begins in its storage.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    strides: tuple[int, ...] = ()
    start: int = 0


Theirs = dict[str, Tensor] | str
"""What a library reads of a file, or why it reads no tensors by name."""


def _differs(path: Path, theirs: Theirs) -> str:
    """What is read otherwise here than by a library. More may be refused, as beyond a limit, and is then said to be."""
    try:
        ours = read_weights(str(path))
    except DamagedFile as error:
        if "torch.save writes no such file" in error.message:  # another reader than torch may see another file
            return ""
        return "" if isinstance(theirs, str) else f"it is {error.fault} here ({error.message}), and read by the library"
    except AdapterError:
        return ""
    if isinstance(theirs, str):
        return f"it is read here, and not by the library: {theirs[:200]}"
    if ours.keys() != theirs.keys():
        return f"names are {[*ours][:4]} here, and {[*theirs][:4]} in the library"
    with Files() as files:
        return next(filter(None, (_unlike(name, ours[name], theirs[name], files) for name in ours)), "")


def _unlike(name: str, ours: TensorInfo, theirs: Tensor, files: Files) -> str:
    if ours[:2] != theirs[:2]:
        return f"{name[:80]!r} is {ours[:2]} here, and {theirs[:2]} in the library"
    if content(ours, files) != theirs.data:
        return f"{name[:80]!r} has other bytes here than in the library"
    source = ours.source
    if isinstance(source, Gathered) and theirs.strides:
        strides = [(a, b) for a, b, size in zip(source.strides, theirs.strides, ours.shape, strict=True) if size > 1]
        if source.start != theirs.start or any(a != b for a, b in strides):
            return f"{name[:80]!r} is another view here than in the library"
    return ""


def of_safetensors(data: bytes) -> Theirs:
    """What safetensors reads."""
    from safetensors import SafetensorError, deserialize

    try:
        return {name: Tensor(of["dtype"], tuple(of["shape"]), bytes(of["data"])) for name, of in deserialize(data)}
    except SafetensorError as error:
        return str(error)


def of_torch(data: bytes) -> Theirs:
    """What torch reads where it runs no code, if it is tensors by name."""
    import torch
    from safetensors.torch import _TYPES

    dtypes = {dtype: name for name, dtype in _TYPES.items()} | {torch.float8_e8m0fnu: "F8_E8M0"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # of whatever kind
            return f"{type(error).__name__}: {error}"
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        return "it is no dict of names"
    found = {}
    for name, value in dict.items(state):
        if not isinstance(value, torch.Tensor):
            return f"{name[:80]!r} is no tensor"
        try:
            plain = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
            raw = bytes(plain.view(torch.uint8).numpy().data) if plain.numel() else b""
            strides, start = value.stride(), value.storage_offset()
        except Exception:  # sparse, quantised: no bytes of its own
            raw, strides, start = b"?", (), 0
        found[name] = Tensor(dtypes.get(value.dtype, str(value.dtype)), tuple(value.shape), raw, strides, start)
    # PEFT asks the dict itself, which may have been told what to answer
    return found if list(state.keys()) == [*found] and len(state.items()) == len(found) else {}


def of_numpy(data: bytes) -> Theirs:
    """What numpy reads of a .npz without pickles, whatever its checksums are."""
    import numpy as np

    try:
        with (
            mock.patch.object(zipfile.ZipExtFile, "_update_crc", return_value=None),
            np.load(io.BytesIO(data), allow_pickle=False) as file,
        ):
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # of whatever kind
        return f"{type(error).__name__}: {error}"
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        return "it has records that are no arrays"
    kinds = {"f": "F", "i": "I", "u": "U"}
    return {
        name: Tensor(
            "BOOL" if array.dtype.kind == "b" else f"{kinds.get(array.dtype.kind)}{8 * array.dtype.itemsize}",
            array.shape,
            array.tobytes(),
        )
        for name, array in arrays.items()
    }


def _beside(library: Callable[[bytes], Theirs], name: str) -> Callable[[bytes, Path], str]:
    """A file of tensors beside the library that it is for."""

    def read(data: bytes, folder: Path) -> str:
        path = folder / name
        path.write_bytes(data)
        return _differs(path, library(data)) or _denied(path)

    return read


def _denied(path: Path) -> str:
    """Whether what is said to be called is what torch calls by itself."""
    from torch._weights_only_unpickler import _get_allowed_globals

    try:
        read_weights(str(path))
    except DamagedFile as error:
        _, _, what = error.message.partition("would call ")
        name = what.partition(", which")[0]
        return f"{name} is said to be code, and torch calls it" if name in _get_allowed_globals() else ""
    except AdapterError:
        pass
    return ""


def _written(data: bytes, folder: Path) -> str:
    """What `fix` writes of an adapter with these weights is what it said, as safetensors reads it."""
    source, out = folder / "in", folder / "out"
    shutil.copytree(hostile.ADALORA, source)
    (source / hostile.WEIGHTS).unlink()
    (source / (hostile.BIN if data[:1] in b"P\x80" else hostile.WEIGHTS)).write_bytes(data)
    report = examine(str(source), ASKED)
    if report.subject is None:
        return report.trace or ""
    fixed = fix(report, str(out), report.asked)
    if fixed.written is None:
        return ""
    theirs = of_safetensors((out / hostile.WEIGHTS).read_bytes())
    if isinstance(theirs, str):
        return f"what was written is not read by safetensors: {theirs}"
    promised = fixed.plan.after.adapter.tensors
    if promised.keys() != theirs.keys():
        return "what was written has other names than was promised"
    with Files() as files:
        return next(filter(None, (_unlike(name, promised[name], theirs[name], files) for name in promised)), "")


# Files beside an adapter


@cache
def _report() -> Report:
    return examine(str(hostile.LORA), NOTHING_ASKED)


def _baseline(data: bytes, folder: Path) -> str:
    path = folder / "known.json"
    path.write_bytes(data)
    known = Baseline(str(path))
    known.known(_report())
    document(str(path), [_report()], known.gone())
    return ""


def _project(data: bytes, folder: Path) -> str:
    path = folder / ("pyproject.toml" if b"[tool" in data else "ckpt-doctor.toml")
    path.write_bytes(data)
    by = read_config(str(path)).settings_of(str(folder / "legacy/a"), Settings(), frozenset())
    by.settle(_report())
    return ""


def _base(name: str) -> Callable[[bytes, Path], str]:
    def read(data: bytes, folder: Path) -> str:
        (folder / name).write_bytes(data)
        shutil.copy(hostile.LORA / hostile.WEIGHTS, folder / "model-1.safetensors")
        base = load_base(str(folder / name))
        report = examine(str(hostile.LORA), NOTHING_ASKED._replace(runtimes=SERVERS | {NEWEST}, base=base))
        return report.trace or ""

    return read


STATE = b"state"


def _journal_file(folder: Path) -> Path:
    path = folder / "journal"
    journal = Journal(str(path))
    journal.note("adapter", STATE, Told('{"path": "adapter"}', mark(_report()), True, ("a/b", "main")))
    journal.close()
    return path


def _recall(path: Path) -> str:
    journal = Journal(str(path))
    told = journal.known("adapter", STATE)
    if told is not None:
        tally = Tally()
        tally.count(told.mark)
        tally.by_cause, told.mark.exit_code, told.line.encode()
    journal.close()
    return ""


def _journal(data: bytes, folder: Path) -> str:
    (folder / "journal").write_bytes(data)
    return _recall(folder / "journal")


def _journal_row(data: bytes, folder: Path) -> str:
    """The same with a row of which the texts are these."""
    path = _journal_file(folder)
    try:
        row = json.loads(data)
        texts = [json.dumps(row[key]) for key in ("model", "mark")]
    except (ValueError, KeyError, TypeError, RecursionError):
        texts = [data.decode(errors="replace")] * 2
    file = sqlite3.connect(path)
    file.execute("UPDATE adapters SET model = ?, mark = ?", texts)
    file.commit()
    file.close()
    return _recall(path)


def _journal_seed() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [_journal_file(Path(folder)).read_bytes()]


# Files to begin with


def _file(folder: Path, name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(folder / name).read_bytes()]


def _bins() -> list[bytes]:
    """What torch writes of an adapter, in both formats, and of other dtypes and views."""
    import torch
    from safetensors.torch import load_file

    state = load_file(hostile.LORA / hostile.WEIGHTS)
    some = torch.arange(24, dtype=torch.float32)
    others = {
        "a": some.view(4, 6).t(), "b": some[3:9], "c": torch.zeros(0, 3), "d": torch.tensor(1.5),
        "e": torch.nn.Parameter(torch.ones(2).half()), "f": torch.arange(4).to(torch.bfloat16),
        "g": torch.ones(3, dtype=torch.uint16), "h": torch.tensor([True]), "i": torch.zeros(2).to(torch.float8_e4m3fn),
    }  # fmt: skip
    module = torch.nn.Linear(2, 2).state_dict()  # an OrderedDict with _metadata
    files = []
    for content_ in (state, others, module):
        for new in (True, False):
            file = io.BytesIO()
            torch.save(content_, file, _use_new_zipfile_serialization=new)
            files.append(file.getvalue())
    return files


def _adalora_bin() -> list[bytes]:
    import torch
    from safetensors.torch import load_file

    state = {name: tensor.t().contiguous().t() for name, tensor in load_file(hostile.ADALORA / hostile.WEIGHTS).items()}
    file = io.BytesIO()
    torch.save(state, file)
    return [file.getvalue(), (hostile.ADALORA / hostile.WEIGHTS).read_bytes()]


def _json(**values: Any) -> Callable[[], Sequence[bytes]]:
    return lambda: [json.dumps(values).encode()]


def _index() -> list[bytes]:
    return [
        json.dumps({"weight_map": dict.fromkeys(read_weights(str(hostile.LORA / hostile.WEIGHTS)), SHARD)}).encode()
    ]


def _record() -> list[bytes]:
    """A record that fix writes, and the least of one."""
    with tempfile.TemporaryDirectory() as folder:
        fix(examine(str(hostile.ADALORA), ASKED), f"{folder}/out", ASKED.runtimes)
        return [
            Path(folder, "out", RECORD).read_bytes(),
            b'{"schema_version": 1, "tool": {"name": "ckpt-doctor", "version": "1"}}',
        ]


def _known() -> list[bytes]:
    report = examine(str(hostile.ADALORA), NOTHING_ASKED)
    return [document(f"{hostile.FIXTURES}/x", [report], ()).encode(), b'{"schema_version": 1, "findings": []}']


KOHYA = {
    f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_{leaf}.{end}": shape
    for leaf in "qk" for end, shape in (("lora_down.weight", (2, 4)), ("lora_up.weight", (4, 2)), ("alpha", ()))
}  # fmt: skip

PROJECT = b"""for = ["peft==0.9.0", "servers"]
select = ["CD1", "CD2"]
ignore = "CD201"
fail-on = "warning"
adapter-name = "default"
max-rank = 16
values = false
jobs = 2
[[overrides]]
paths = ["legacy/*"]
fail-on = "never"
for = "peft"
"""
MODEL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_hidden_layers": 2,
    "vocab_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2,
    "quantization_config": {}, "text_config": {}, "vision_config": {}, "head_dim": 4, "_name_or_path": "a/b",
    "num_local_experts": 2, "tie_word_embeddings": True,
}  # fmt: skip


READERS = {
    "safetensors": Reader(
        _beside(of_safetensors, hostile.WEIGHTS),
        lambda: [*hostile.SAFETENSORS.values(), (hostile.LORA / hostile.WEIGHTS).read_bytes()],
    ),
    "torch": Reader(
        _beside(of_torch, hostile.BIN),
        lambda: [
            *_bins(),
            *(data for _, data in hostile.TORCH.values()),
            hostile.views((4, 8), (8, 1)),
            hostile.zipped(hostile.PLAIN),
            hostile.PLAIN,
            hostile.encrypted(),
        ],
    ),
    "npz": Reader(_beside(of_numpy, "adapters.npz"), _file(DATA / "mlx/npz", "adapters.npz")),
    "weights": Reader(_in(hostile.WEIGHTS), _file(hostile.LORA, hostile.WEIGHTS)),
    "bin": Reader(_in(hostile.BIN, without=hostile.WEIGHTS), _bins),
    "mlx npz": Reader(_in("adapters.npz", DATA / "mlx/npz"), _file(DATA / "mlx/npz", "adapters.npz")),
    "gguf": Reader(_in("lora.gguf", DATA / "gguf/llama/gguf"), _file(DATA / "gguf/llama/gguf", "lora.gguf")),
    "mlx": Reader(_in(hostile.CONFIG, DATA / "mlx/lora"), _file(DATA / "mlx/lora", hostile.CONFIG)),
    "torchtune": Reader(
        _in(hostile.CONFIG, DATA / "torchtune/qwen2/lora"), _file(DATA / "torchtune/qwen2/lora", hostile.CONFIG)
    ),
    "kohya": Reader(_in("kohya.safetensors", hostile.LORA, hostile.WEIGHTS), lambda: [hostile.tensors(KOHYA)]),
    "config": Reader(_in(hostile.CONFIG), _file(hostile.LORA, hostile.CONFIG)),
    "adalora": Reader(_in(hostile.CONFIG, hostile.ADALORA), _file(hostile.ADALORA, hostile.CONFIG)),
    "state": Reader(_in("trainer_state.json", hostile.ADALORA), _json(global_step=1, max_steps=2)),
    "record": Reader(_in(RECORD), _record),
    "index": Reader(_in(INDEX, shard=SHARD), _index),
    "baseline": Reader(_baseline, _known),
    "project": Reader(
        _project, lambda: [PROJECT, b"[tool.ckpt-doctor]\n" + PROJECT.replace(b"[[", b"[[tool.ckpt-doctor.")]
    ),
    "base": Reader(_base("config.json"), _json(**MODEL)),
    "base index": Reader(
        _base("model.safetensors.index.json"),
        _json(weight_map={"a": "model-1.safetensors"}, metadata={"total_size": 4}),
    ),
    "journal": Reader(_journal, _journal_seed),
    "journal row": Reader(
        _journal_row,
        _json(
            model={"name": "a/b", "revision": "main", "found": ""},
            mark=["healthy", False, False, [["CD201", "adalora-rank-zero", "rejected"]]],
        ),
    ),
    "writer": Reader(_written, _adalora_bin),
}


class Chance:
    """Files made of others, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def of(self, files: Sequence[bytes]) -> bytes:
        """A file, one to four times changed: JSON at a value, a pickle at an opcode, or any at its bytes."""
        data = self._draw.choice(files)
        for _ in range(self._draw.randint(1, 4)):
            if self._draw.random() < 0.3:
                data = self._bytes(data, files)
            elif data[:1] == b"{":
                data = self._values(data)
            elif data[:2] == b"PK":
                data = self._records(data, files)
            elif data[:1] == b"\x80":
                data = self._opcodes(data, files)
            else:
                data = self._bytes(data, files)
        return data

    def _values(self, data: bytes) -> bytes:
        try:
            value = whole = json.loads(data)
            key = self._draw.choice([*value])
            while self._draw.random() < 0.5 and isinstance(value[key], dict | list) and value[key]:
                value = value[key]
                key = self._draw.choice([*value] if isinstance(value, dict) else range(len(value)))
            others = value.values() if isinstance(value, dict) else value
            value[key] = self._draw.choice([*hostile.ODD.values(), *others])
            return json.dumps(whole).encode()
        except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
            return data

    def _records(self, data: bytes, files: Sequence[bytes]) -> bytes:
        """A zip with one of its records changed, left out, or under another name."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                records = [(info.filename, archive.read(info)) for info in archive.infolist()]
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, struct.error, zlib.error):
            return self._bytes(data, files)
        at = 0 if self._draw.random() < 0.7 else self._draw.randrange(len(records)) if records else 0
        if not records:
            return data
        name, content_ = records[at]
        changed = self._opcodes(content_, files) if content_[:1] == b"\x80" else self._bytes(content_, files)
        records[at : at + 1] = self._draw.choice([[(name, changed)]] * 6 + [[], [(name.swapcase(), content_)]])
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that is there twice
            for name, content_ in records:
                archive.writestr(zipfile.ZipInfo(name), content_)
        return file.getvalue()

    def _opcodes(self, data: bytes, files: Sequence[bytes]) -> bytes:
        """A pickle with some of its opcodes left out, twice there, or as another has them."""
        pieces, others = _pieces(data), _pieces(_pickle_of(self._draw.choice(files)))
        if len(pieces) < 2 or not others:
            return self._bytes(data, files)
        at, other = self._draw.randrange(len(pieces)), self._draw.randrange(len(others))
        size, much = self._draw.choice([1, 1, 2, 8]), self._draw.choice([0, 1, 1, 2, 8, 30])
        pieces[at : at + size] = self._draw.choice([[], pieces[at : at + size] * 2, others[other : other + much]])
        return b"".join(pieces)

    def _bytes(self, data: bytes, files: Sequence[bytes]) -> bytes:
        at, end = sorted(self._draw.randint(0, len(data)) for _ in range(2))
        other = self._draw.choice(files)
        start = self._draw.randint(0, len(other))
        return self._draw.choice([
            data[:at] + self._draw.randbytes(1) + data[at + 1 :],
            data[:at] + data[min(end, at + 16) :],
            data[:end] + data[at:end][:64] + data[end:],
            data[:at] + other[start : start + 32] + data[at:],
            data[:at] + self._draw.choice([b"0", b"-1", b"[", b"}", b'"', b"\xff", b"9" * 20]) + data[at:],
        ])  # fmt: skip


def _pickle_of(data: bytes) -> bytes:
    """The pickle in a file of torch, or whatever it is."""
    with suppress(zipfile.BadZipFile, EOFError, KeyError, OSError, ValueError, RuntimeError, struct.error, zlib.error):
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return archive.read("archive/data.pkl")
    return data


def _pieces(data: bytes) -> list[bytes]:
    """The opcodes of pickles in a row, each with its argument, and what is behind them."""
    starts, file = [], io.BytesIO(data)
    with suppress(Exception):
        while file.tell() < len(data):
            begin = file.tell()
            starts += [begin + at for _, _, at in pickletools.genops(data[begin:]) if at is not None]
            file.seek(starts[-1] + 1)
    return [data[a:b] for a, b in pairwise([*starts, len(data)])]


def outcome(reader: Reader, data: bytes) -> str:
    """What a reader does with a file that it may not; "" where it does all right."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return reader.read(data, Path(folder))
        except AdapterError:
            return ""
        except Exception as error:
            from traceback import format_exc

            return f"{error!r}\n{format_exc()}"


class Reached:
    """The lines of the package that were run: `count` of them. What has none left is not watched any more."""

    def __init__(self) -> None:
        self.count = 0
        self._left: dict[CodeType, set[int]] = {}

    def outcome(self, reader: Reader, data: bytes) -> tuple[str, bool]:
        """What a reader does with a file that it may not, and whether it runs a line for the first time."""
        before = self.count
        sys.settrace(self._trace)
        try:
            return outcome(reader, data), self.count > before
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        left = self._left.get(code)
        if left is None:
            ours = code.co_filename.startswith(PACKAGE)
            left = self._left[code] = {line for _, _, line in code.co_lines() if line} if ours else set()
        if not left:
            return None
        if event == "line" and frame.f_lineno in left:
            left.discard(frame.f_lineno)
            self.count += 1
        return self._trace


def kept(name: str) -> list[bytes]:
    """The files that earlier runs kept for a reader."""
    path = KEPT / f"{name.replace(' ', '-')}.zip"
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(info) for info in archive.infolist()]


def keep(name: str, files: Sequence[bytes]) -> None:
    """Keep those of some files, the small ones first, that reach lines which neither the seeds nor the others do."""
    reader, reached = READERS[name], Reached()
    for data in reader.seeds():
        reached.outcome(reader, data)
    path = KEPT / f"{name.replace(' ', '-')}.zip"
    KEPT.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for at, data in enumerate(sorted({*files}, key=lambda data: (len(data), data))):
            packed = len(lzma.compress(data))
            if archive.start_dir + packed < MOST_KEPT and reached.outcome(reader, data) == ("", True):
                archive.writestr(zipfile.ZipInfo(f"{at:04}"), data, zipfile.ZIP_LZMA)
        empty = not archive.infolist()
    if empty:
        path.unlink()


def fuzz(name: str, seconds: float, seed: int, *, keeping: bool = False) -> list[str]:
    """What was found wrong with a reader in some seconds."""
    reader, chance, reached = READERS[name], Chance(seed), Reached()
    first = [*reader.seeds(), *kept(name)]
    files = [*first]
    given, wrong, until = 0, dict[str, bytes](), time.monotonic() + seconds
    while given < len(first) or time.monotonic() < until:
        data = files[given] if given < len(first) else chance.of(files)
        said, new = reached.outcome(reader, data)
        given += 1
        if said:
            wrong.setdefault(said[-400:], data)
        elif new and given > len(first):
            files.append(data)
    joined = files[len(first) :]
    print(
        f"{name}: {given} files, {len(joined)} of which joined, {reached.count} lines, {len(wrong)} wrong", flush=True
    )
    for said, data in wrong.items():
        print(f"{name}: {said}\n  of {data[:1500]!r}", flush=True)
    if keeping:
        keep(name, [*kept(name), *joined])
    return [*wrong]


def main() -> None:
    """Divide some seconds among readers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("readers", nargs="*", metavar="READER")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    names = options.readers or [*READERS]
    found = [
        wrong
        for name in names
        for wrong in fuzz(name, options.seconds / len(names), options.seed, keeping=options.keep)
    ]
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
