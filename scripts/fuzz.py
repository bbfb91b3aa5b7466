"""Give every reader files that chance makes of real ones, first of those that reach lines which none before reached.

    python scripts/fuzz.py SECONDS [READER…] [--seed N]

A reader is one of `READERS`. A file that reaches a new line of ckpt_doctor joins those that others are made of. Printed
are, of each reader, how many files it was given and how many joined; and each that raises anything but AdapterError, asks
to be reported, or, of safetensors, is read here and not by the library, or the other way round. It ends with 1 where there
is any.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import hostile

from ckpt_doctor.adapter import NOTHING_ASKED, AdapterError, DamagedFile
from ckpt_doctor.adapter.runtimes import NEWEST
from ckpt_doctor.files.loader import read_weights
from ckpt_doctor.verbs.compare import compare
from ckpt_doctor.verbs.plan import plan
from ckpt_doctor.verbs.scan import examine
from ckpt_doctor.verbs.verify import verify

PACKAGE = str(Path(__file__).parent.parent / "ckpt_doctor")
RECORD, INDEX = "ckpt-doctor.json", "adapter_model.safetensors.index.json"


class Reader(NamedTuple):
    """What is done with a file in an empty folder, which gives what it did that it may not; and files to begin with."""

    read: Callable[[bytes, Path], str]
    seeds: Callable[[], Sequence[bytes]]


def _judged(folder: Path) -> str:
    for question in (NOTHING_ASKED, NOTHING_ASKED._replace(runtimes=frozenset((NEWEST,)))):
        report = examine(str(folder), question)
        if "please report it" in (report.error or ""):
            return report.trace or str(report.error)
        if report.subject is not None:
            plan(report)
            compare(report.subject, report.subject)
    return ""


def _in(name: str, source: Path = hostile.LORA, without: str = "") -> Callable[[bytes, Path], str]:
    """An adapter of which one file is this."""

    def read(data: bytes, folder: Path) -> str:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        if without:
            (folder / without).unlink()
        (folder / name).write_bytes(data)
        if name == RECORD:
            with suppress(AdapterError):
                verify(str(folder))
        return _judged(folder)

    return read


def _beside_safetensors(data: bytes, folder: Path) -> str:
    from safetensors import SafetensorError, safe_open

    path = folder / hostile.WEIGHTS
    path.write_bytes(data)
    theirs: Any = None
    ours: Any = None
    try:
        with safe_open(path, framework="numpy") as file:
            theirs = sorted(file.keys())
    except SafetensorError:
        pass
    try:
        ours = sorted(read_weights(str(path)))
    except DamagedFile:
        pass
    except AdapterError:  # beyond a limit of ours, which is said
        return ""
    return "" if ours == theirs else f"safetensors reads {str(theirs)[:80]}, and here it is {str(ours)[:80]}"


def _file(folder: Path, name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(folder / name).read_bytes()]


READERS = {
    "safetensors": Reader(
        _beside_safetensors, lambda: [*hostile.SAFETENSORS.values(), (hostile.LORA / hostile.WEIGHTS).read_bytes()]
    ),
    "bin": Reader(
        _in(hostile.BIN, without=hostile.WEIGHTS),
        lambda: [hostile.views((4, 8), (8, 1)), hostile.zipped(hostile.PLAIN), hostile.PLAIN, hostile.encrypted()],
    ),
    "config": Reader(_in(hostile.CONFIG), _file(hostile.LORA, hostile.CONFIG)),
    "adalora": Reader(_in(hostile.CONFIG, hostile.ADALORA), _file(hostile.ADALORA, hostile.CONFIG)),
    "record": Reader(_in(RECORD), lambda: [b'{"schema_version": 1, "tool": {"name": "ckpt-doctor", "version": "1"}}']),
    "index": Reader(
        _in(INDEX, without=hostile.WEIGHTS), lambda: [b'{"weight_map": {"a": "adapter_model-1.safetensors"}}']
    ),
}


class Chance:
    """Files made of others, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def of(self, files: Sequence[bytes]) -> bytes:
        """A file, one to four times changed: JSON at a value, or any at its bytes."""
        data = self._draw.choice(files)
        for _ in range(self._draw.randint(1, 4)):
            data = self._values(data) if data[:1] == b"{" and self._draw.random() < 0.7 else self._bytes(data, files)
        return data

    def _values(self, data: bytes) -> bytes:
        try:
            value = json.loads(data)
            key = self._draw.choice([*value])
            value[key] = self._draw.choice([*hostile.ODD.values(), *value.values()])
            return json.dumps(value).encode()
        except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
            return data

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


def _traced(lines: set[tuple[str, int]]) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that notes the lines of the package that are run."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    return trace


def fuzz(name: str, seconds: float, seed: int) -> list[str]:
    """What was found wrong with a reader in some seconds."""
    reader, chance = READERS[name], Chance(seed)
    files, lines = [*reader.seeds()], set[tuple[str, int]]()
    given, wrong, until = 0, dict[str, bytes](), time.monotonic() + seconds
    while time.monotonic() < until:
        data = files[given] if given < len(reader.seeds()) else chance.of(files)
        before = len(lines)
        sys.settrace(_traced(lines))
        try:
            said = outcome(reader, data)
        finally:
            sys.settrace(None)
        given += 1
        if said:
            wrong.setdefault(said[-400:], data)
        elif len(lines) > before and given > len(reader.seeds()):
            files.append(data)
    joined = len(files) - len(reader.seeds())
    print(f"{name}: {given} files, {joined} of which joined, {len(lines)} lines, {len(wrong)} wrong", flush=True)
    for said, data in wrong.items():
        print(f"{name}: {said}\n  of {data[:600]!r}", flush=True)
    return [*wrong]


def main() -> None:
    """Divide some seconds among readers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("readers", nargs="*", metavar="READER")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = options.readers or [*READERS]
    found = [wrong for name in names for wrong in fuzz(name, options.seconds / len(names), options.seed)]
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
