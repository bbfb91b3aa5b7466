"""Many scans and fixes of one tree at once, then one process that sweeps for long, and what its memory does.

usage: check_load.py [--processes 64] [--minutes 60]

All at once: scans, fixes to one OUT with --force, fixes to OUTs of their own, fixes in place of one adapter and preloads
into one cache. Then every scan must have told the same, the tree must be as it was, each OUT and the cache whole, the
adapter in place the repaired one, and nothing staged may stay.
The sweep examines adapters, each with a header that was not seen before, half of them broken in random ways, and
repairs one in fifty; its memory in the last third must not be above that of the first by more than a tenth.
Prints what it found; exits with 1 where that is wrong.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
FIXTURES = sorted(path for path in (ROOT / "fixtures").iterdir() if (path / "adapter_config.json").exists())
ZERO = "adalora-rank0-0.9.0"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def at_once(count: int, work: Path) -> list[str]:
    """What is wrong after `count` processes at once."""
    for fixture in FIXTURES[:20]:
        shutil.copytree(fixture, work / "tree" / fixture.name)
    shutil.copytree(ROOT / "fixtures" / ZERO, work / "one")
    before = tree(work / "tree")
    kinds = {
        "scan": ["scan", "tree", "--format", "json", "--exit-zero"],
        "fix": ["fix", "tree", "all", "--force", "-q"],
        "own": ["fix", f"tree/{ZERO}", "own-{}", "-q"],
        "place": ["fix", "--in-place", "one", "-q"],
        "preload": ["preload", f"tree/{ZERO}", "--for", "peft==0.9.0"],
    }
    environ = {**os.environ, "CKPT_DOCTOR_CACHE": str(work / "cache"), "OPENBLAS_NUM_THREADS": "1"}
    running = []
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        command = [sys.executable, "-m", "ckpt_doctor", *(part.format(number) for part in kinds[kind])]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append((kind, number, subprocess.Popen(command, cwd=work, env=environ, **pipes)))  # type: ignore[call-overload]
    ends = [(kind, number, *process.communicate(), process.returncode) for kind, number, process in running]
    wrong = [
        f"{kind} {number}: exit {code}: {err[-300:]}"
        for kind, number, _, err, code in ends
        if code and not (kind == "place" and code == 2 and "so it was left as it is; try again" in err)
    ]
    wrong += [f"{kind}: a fault" for kind, _, _, err, _ in ends if "please report" in err or "Traceback" in err]
    scans = {out for kind, _, out, _, _ in ends if kind == "scan"}
    if len(scans) != 1 or len(json.loads(scans.pop())["reports"]) != sum(
        name.endswith("adapter_config.json") for name in before
    ):
        wrong.append("scans tell different things")
    if tree(work / "tree") != before:
        wrong.append("the tree was written to")
    subprocess.run([sys.executable, "-m", "ckpt_doctor", *kinds["fix"][:2], "alone", "-q"], cwd=work, check=True)
    if tree(work / "all") != tree(work / "alone"):
        wrong.append("what many wrote is not what one writes")
    owns = [tree(work / f"own-{number}") for kind, number, *_ in ends if kind == "own"]
    if any(own != owns[0] for own in owns):
        wrong.append("an OUT of its own is not whole")
    paths = {out for kind, _, out, _, _ in ends if kind == "preload"}
    if len(paths) != 1 or not Path(paths.pop().strip(), "adapter_config.json").exists():
        wrong.append("preloads end in different places")
    left = [str(path) for path in work.rglob(".ckpt-doctor-*")]
    if left:
        wrong.append(f"staged: {left}")
    check = subprocess.run(
        [sys.executable, "-m", "ckpt_doctor", "compare", f"tree/{ZERO}", "one"], cwd=work, check=False
    )
    if check.returncode:
        wrong.append("the adapter that was repaired in place is another")
    print(f"{count} at once: {dict(collections.Counter(kind for kind, *_ in ends))}, {len(wrong)} wrong", flush=True)
    return wrong


def memory() -> int:
    """MB that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def sweep(minutes: float, work: Path) -> list[str]:
    """What is wrong with memory over so many minutes."""
    import ckpt_doctor

    generator, end, seen, done = random.Random(1), time.monotonic() + 60 * minutes, list[int](), 0
    while time.monotonic() < end or len(seen) < 3:
        folder = work / "adapter"
        shutil.copytree(generator.choice(FIXTURES), folder)
        shuffle(folder, generator)
        try:
            report = ckpt_doctor.scan(folder)
            if not done % 50 and report.adapter is not None:
                ckpt_doctor.fix(folder, work / "out", force=True)
        except ckpt_doctor.AdapterError:
            pass
        shutil.rmtree(folder)
        done += 1
        if not done % 200:
            seen.append(memory())
    third = len(seen) // 3
    first, last = max(seen[:third]), max(seen[-third:])
    print(f"{done} adapters in {minutes:g} minutes: {first} MB in the first third, {last} in the last", flush=True)
    return [f"memory grew from {first} to {last} MB"] if last > 1.1 * first else []


def shuffle(folder: Path, generator: random.Random) -> None:
    """Names and values that were not seen before, and now and then a byte that is wrong."""
    new = f"x{generator.randrange(1 << 40):010x}"
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if weights.exists() and weights.stat().st_size > 1000:
        data = bytearray(weights.read_bytes())
        size = int.from_bytes(data[:8], "little")
        head = data[8 : 8 + size].replace(b"base_model", new[:10].encode(), generator.randrange(3))
        if generator.random() < 0.5:
            head[generator.randrange(len(head))] = generator.randrange(256)
        weights.write_bytes(bytes(data[:8] + head + data[8 + size :]))
    text = config.read_text()
    if generator.random() < 0.5:
        at = generator.randrange(len(text))
        text = text[:at] + generator.choice('{}[]",:0123456789null') + text[at + 1 :]
    config.write_text(
        text.replace('"peft_type"', f'"{new}": {generator.random()}, "peft_type"', generator.randrange(2))
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = at_once(options.processes, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        wrong += sweep(options.minutes, Path(folder))
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
