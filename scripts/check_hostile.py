"""Give the real command every input of tests/hostile.py, and print what it does that it may not.

    python scripts/check_hostile.py [NAME…]

Each command has a process of its own, with a limit on memory and time, on a copy in a temporary folder. Flagged are: more
than a second of processor time beyond what the same takes for a healthy adapter, more than 200 MB, a traceback or a
request to report one, an exit code that no command has, an input that changed, code that ran, JSON that is none, control
characters in what is printed, and a verdict that an input does not deserve. A legitimate header of 20 MB may take longer,
in proportion to its size: a second more than twice what half of it takes is flagged. What has as many tensors as it may
take as long and as much. It takes some twenty minutes, and ends with 1 where anything is flagged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import hostile

from ckpt_doctor.adapter.runtimes import NEWEST

SECONDS, MEMORY = 1.0, 200 << 20
"""What a command may take beyond a healthy adapter, and at all."""
KILLED = 8
ROOM = 3 << 30
FORMATS = ("json", "jsonl", "sarif", "junit", "github", "markdown")
SLOW = 90
"""The seconds after which what is as large as a legitimate file is killed."""
HEALTHY, HALF, LARGE = "healthy", "half of it", "a legitimate header of 20 MB"


def commands(adapter: Path, work: Path) -> dict[str, list[str]]:
    """The commands that an adapter is given to, by a name."""
    healthy, out = str(hostile.LORA), str(work / "out")
    name = str(adapter)
    files = [f"--format={one}={work}/scan.{one}" for one in FORMATS]
    return {
        "scan": ["scan", name, "-v", "--layers", "--format=table", *files],
        "scan --for": ["scan", name, "--for", "servers", "--for", "peft==*", "--format=json"],
        "fix": ["fix", name, f"{out}1", "-v"],
        "fix --for peft==*": ["fix", name, f"{out}2", "--for", "peft==*", "--best-effort", "--format=json"],
        "fix --for peft==0.9.0": ["fix", name, f"{out}5", "--for", "peft==0.9.0", "--best-effort"],  # safetensors
        "fix --for servers": ["fix", name, f"{out}3", "--for", "servers", "--dry-run", "-v"],
        "fix --to lora": ["fix", name, f"{out}4", "--to", "lora", "--trim", "--format=json"],
        "compare": ["compare", name, healthy, "--format=json"],
        "compare itself": ["compare", name, name],
        "together": ["together", name, healthy, "--format=json"],
        "together reversed": ["together", healthy, name],
        "verify": ["verify", name],
        "preload": ["preload", name],
    }


class Run(NamedTuple):
    """What came of a command: `code` None where it was killed, seconds of processor time, bytes of memory."""

    code: int | None
    seconds: float
    memory: int
    out: str
    err: str


def run(arguments: list[str], work: Path, killed: int = KILLED) -> Run:
    """One command in a process of its own."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
        resource.setrlimit(resource.RLIMIT_CPU, (killed, killed))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))

    environ = {
        **os.environ,
        "CKPT_DOCTOR_CACHE": str(work / "cache"),
        "HF_HUB_CACHE": str(work / "hub"),
        "NO_COLOR": "1",
    }
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = [sys.executable, "-m", "ckpt_doctor", *arguments]
        process = subprocess.Popen(
            command, cwd=work, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=limit
        )
        alarm = threading.Timer(20 * killed, process.kill)  # what waits takes no processor time
        alarm.start()
        _, status, used = os.wait4(process.pid, 0)
        alarm.cancel()
        process.returncode = code = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="surrogateescape"))
    return Run(code if code >= 0 else None, used.ru_utime + used.ru_stime, used.ru_maxrss << 10, *texts)


def is_raw(text: str) -> list[str]:
    """Characters that no output may have as they are."""
    bad = {c for c in set(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    return sorted(map(ascii, bad))


def is_json(text: str) -> bool:
    """Whether a text is JSON, which has no NaN."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def digest(folder: Path) -> str:
    """What a folder holds."""
    sum_ = hashlib.sha256()
    chunk = 1 << 20
    for path in sorted(folder.iterdir()):
        link = os.readlink(path) if path.is_symlink() else ""
        sum_.update(repr((path.name, link, path.lstat().st_mode)).encode())
        if path.is_file() and not link:
            with path.open("rb") as file:
                while piece := file.read(chunk):
                    sum_.update(piece)
    return sum_.hexdigest()


def allowed(name: str, usual: Run, half: Run | None, tensors: int) -> tuple[float, int]:
    """The seconds and the bytes of memory that a command may take for an input of so many legitimate tensors, by what
    it took for a healthy one and for half of a large one.
    """
    seconds, memory = usual.seconds + SECONDS, max(MEMORY, usual.memory + (MEMORY >> 2))
    if not tensors or half is None:
        return seconds, memory if name != HEALTHY else ROOM  # torch writes a .bin
    share = tensors / hostile.inputs()[HALF].tensors
    return seconds + share * half.seconds, max(memory, int(1.2 * max(share, 1) * half.memory))


def faults(
    name: str, result: Run, usual: Run, arguments: list[str], half: Run | None = None, tensors: int = 0
) -> list[str]:
    """What one command did that it may not."""
    found = []
    seconds, memory = allowed(name, usual, half, tensors)
    if result.code is None or result.code not in (0, 1, 2):
        found.append(f"killed after {result.seconds:.1f} s" if result.code is None else f"exit {result.code}")
    if result.seconds > seconds and name != HALF:
        found.append(f"{result.seconds:.1f} s of {seconds:.1f}")
    if result.memory > memory and name != HALF:
        found.append(f"{result.memory >> 20} MB of {memory >> 20}")
    for word in ("Traceback", "please report it"):
        if word in result.out + result.err:
            line = next(line for line in (result.out + result.err).splitlines() if word in line)
            found.append(line[:300])
    for stream, said in (("stdout", result.out), ("stderr", result.err)):
        if raw := is_raw(said):
            found.append(f"{stream} has {' '.join(raw)}")
        if any(line.startswith(("::", "##[")) for line in said.splitlines()):
            found.append(f"{stream} has a workflow command")
    if (
        "--format=json" in arguments
        and result.code is not None
        and not is_json(result.out)
        and "Usage:" not in result.err
    ):
        found.append("stdout is no JSON")
    return found


def html(text: str) -> list[Any]:
    """What a reader of Markdown takes for HTML."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt().parse(text)
    every = [*tokens, *(inner for token in tokens for inner in token.children or ())]
    return [token for token in every if token.type.startswith("html")]


def of_files(work: Path) -> list[str]:
    """What is wrong with the files that a scan wrote."""
    found = []
    for one in FORMATS:
        path = work / f"scan.{one}"
        if not path.exists():
            continue
        said = path.read_text(errors="surrogateescape")
        if raw := is_raw(said):
            found.append(f"{one} has {' '.join(raw)}")
        texts = said.splitlines() if one == "jsonl" else [said] if one in ("json", "sarif") else []
        if not all(map(is_json, texts)):
            found.append(f"{one} is no JSON")
        if one == "github" and any(line.startswith("##[") for line in said.splitlines()):
            found.append("github has a workflow command")
        if one == "markdown" and any("<script" in token.content for token in html(said)):
            found.append("markdown has a script")
    return found


def _has_other_weights(adapter: Path) -> bool:
    """Whether its weights are not those of the healthy adapter that it was made of."""
    weights = adapter / hostile.WEIGHTS
    return not weights.is_file() or weights.read_bytes() != (hostile.LORA / hostile.WEIGHTS).read_bytes()


def verdicts(work: Path, case: hostile.Input) -> list[str]:
    """What a scan says of an input that it may not say."""
    path = work / "scan.json"
    if not path.exists():
        return ["there is no report"]
    (report,) = json.loads(path.read_text())["reports"]
    codes = {finding["code"] for finding in report["findings"]}
    found = []
    if case.finds and not report["error"] and not codes & {*case.finds}:
        found.append(f"none of {', '.join(case.finds)} in {', '.join(sorted(codes))}")
    if case.doubted and not report["error"] and report["verdicts"].get(NEWEST) == "accepts":
        found.append("is accepted")
    return found


def check(name: str, case: hostile.Input, usual: dict[str, Run], half: dict[str, Run]) -> list[str]:
    """What is flagged of one input."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        adapter = work / "adapter"
        subprocess.run(
            [sys.executable, __file__, "--build", name, str(adapter)], check=True
        )  # which leaves no memory here
        before = digest(adapter)
        flagged = []
        for command, arguments in commands(adapter, work).items():
            result = run(arguments, work, SLOW if case.tensors else KILLED)
            usual.setdefault(command, result)
            if name == HALF:
                half[command] = result
            said = faults(name, result, usual[command], arguments, half.get(command), case.tensors)
            flagged += [f"{name}: {command}: {fault}" for fault in said]
            if (work / hostile.MARK).exists():
                flagged.append(f"{name}: {command}: code ran")
            if command == "scan":
                said = of_files(work) + verdicts(work, case)
                flagged += [f"{name}: {command}: {fault}" for fault in said]
            if command == "compare" and '"verdict": "same"' in result.out and _has_other_weights(adapter):
                flagged.append(f"{name}: compare: same as another")
        if digest(adapter) != before:
            flagged.append(f"{name}: it was written to")
        for out in work.glob("out*/README.md"):
            if out.is_file() and name.startswith("a link"):
                flagged.append(f"{name}: a link was followed into {out.parent.name}")
    return flagged


def readers() -> list[str]:
    """Headers that are read here and not by safetensors, or the other way round."""
    from safetensors import SafetensorError, safe_open

    from ckpt_doctor.adapter import DamagedFile
    from ckpt_doctor.files.loader import read_weights

    flagged = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, hostile.WEIGHTS)
        for name, content in hostile.SAFETENSORS.items():
            path.write_bytes(content)
            try:
                with safe_open(path, framework="numpy") as file:
                    theirs: Any = sorted(file.keys())
            except SafetensorError:
                theirs = None
            try:
                ours: Any = sorted(read_weights(str(path)))
            except DamagedFile:
                ours = None
            if ours != theirs:
                flagged.append(f"header: {name}: safetensors {theirs}, here {ours}")
    return flagged


def main() -> None:
    """Check what is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--build", nargs=2, metavar=("NAME", "FOLDER"), help="make the adapter of one input, and do no more"
    )
    options = parser.parse_args()
    if options.build:
        hostile.built(Path(options.build[1]), hostile.inputs()[options.build[0]])
        return
    usual: dict[str, Run] = {}
    cases = hostile.inputs()
    half: dict[str, Run] = {}
    flagged = check(HEALTHY, cases.pop(HEALTHY), usual, half)
    flagged += readers()
    flagged += check(HALF, cases.pop(HALF), usual, half)
    chosen = {
        name: case for name, case in cases.items() if not options.names or any(part in name for part in options.names)
    }
    with ThreadPoolExecutor(options.jobs) as pool:
        for lines in pool.map(lambda item: check(*item, usual, half), chosen.items()):
            for line in lines:
                print(line, flush=True)
            flagged += lines
    print(
        f"{len(chosen)} inputs, {len(usual)} commands each, {len(hostile.SAFETENSORS)} headers: {len(flagged)} flagged"
    )
    for line in flagged:
        if line.startswith((HEALTHY, HALF, "header")):
            print(line)
    sys.exit(bool(flagged))


if __name__ == "__main__":
    main()
