"""What a scan of one adapter does within one process, part by part, each beside json.loads of the same header.

usage: python scripts/bench/parts.py FOLDER ROUNDS
"""

from __future__ import annotations

import io
import json
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ckpt_doctor.adapter import NOTHING_ASKED
from ckpt_doctor.facts.subject import Subject
from ckpt_doctor.files.formats import safetensors
from ckpt_doctor.files.loader import load
from ckpt_doctor.reports import jsonl
from ckpt_doctor.rules import judge
from ckpt_doctor.verbs.report import Report
from ckpt_doctor.verbs.scan import examine


def parts(folder: Path, rounds: int) -> None:
    """Print the milliseconds of each part, the median of all rounds, in one rotation."""
    path = folder / "adapter_model.safetensors"
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        raw = file.read(length)
    adapter = load(str(folder))

    def read() -> None:
        with path.open("rb") as file:
            file.read(8 + length)

    def judged() -> Report:
        subject = Subject(adapter)
        return Report(str(folder), None, subject, judge(subject))

    report = judged()
    head = struct.pack("<Q", length) + raw
    works: dict[str, Callable[[], object]] = {
        "json.loads": lambda: json.loads(raw),
        "read": read,
        "parse": lambda: safetensors.read(io.BytesIO(head), str(path), size),
        "load": lambda: load(str(folder)),
        "judge": judged,
        "report": lambda: list(jsonl.scan([report])),
        "examine": lambda: examine(str(folder), NOTHING_ASKED),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    least = statistics.median(times["json.loads"])
    print(f"\n{folder.name}, {len(adapter.tensors)} tensors, within one process; load is to find, read and parse")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:24} {median * 1000:9.3f} ms  {median / least:6.2f} x json.loads")


if __name__ == "__main__":
    parts(Path(sys.argv[1]), int(sys.argv[2]))
