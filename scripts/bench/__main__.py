"""How fast a scan is, and how fast a fix copies, each beside what it is measured by, in the same rotation.

usage: python scripts/bench [--adapters N] [--rounds N] [--values GIGABYTES] [--copy GIGABYTES] [--remote]
                            [--others BIN] [--write FILE]
Trust the ratios: machines are noisy.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import site
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from corpora import WIDTHS

HERE = Path(__file__).parent
BROKEN = HERE.parents[1] / "fixtures/adalora-rank0-0.17.1"
PYTHON = [sys.executable, "-S"]
"""Without site, which takes longer where this project is installed to be edited."""
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), *site.getsitepackages()])
SCAN = [*PYTHON, "-m", "ckpt_doctor", "scan"]
HELLO = """
import click
@click.command()
@click.argument("path")
def hello(path): click.echo("hello " + path)
hello()
"""


PAGE = """# Benchmarks

Medians of one rotation: the commands of a part ran in turn, so that whatever else the machine did disturbed all alike. Read the ratios: by the clock, and in brackets by
the time of cores. What each part is, and how its files are made, is in `scripts/bench/`.

`python scripts/bench {command}`

```
{said}
```
"""
SAID: list[str] = []
"""All that was printed."""


class Run(NamedTuple):
    """What one run of a command took: seconds, seconds of a core for it and the processes that it started, and the most
    memory that one of them held, in MB.
    """

    seconds: float
    cpu: float
    megabytes: float


def run(command: list[str]) -> Run:
    """Run a command. The memory is never less than this process holds, which forks it: so what needs more is done in others."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT, cwd=tempfile.gettempdir())
    _, _, usage = os.wait4(process.pid, 0)
    return Run(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def medians(commands: dict[str, list[str]], rounds: int, between: Callable[[], None] = lambda: None) -> dict[str, Run]:
    """Run commands in turn, once for nothing; the median of each, and the most memory. `between` cleans up after each."""
    taken: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            taken[name].append(run(command))
            between()
    for runs in taken.values():
        del runs[0]
    return {
        name: Run(*(statistics.median(values) for values in list(zip(*runs, strict=True))[:2]), max(r[2] for r in runs))
        for name, runs in taken.items()
    }


def rotation(
    title: str, commands: dict[str, list[str]], rounds: int, between: Callable[[], None] = lambda: None
) -> None:
    """Tell the medians of commands, each beside those of all that are none of ours: by the clock, and in brackets by
    the time of cores, which others on the machine disturb less.
    """
    found = medians(commands, rounds, between)
    say(f"\n{title}")
    for name, one in found.items():
        ratios = [
            f"{one.seconds / other.seconds:7.2f} ({one.cpu / other.cpu:.2f}) x {of}"
            for of, other in found.items() if not of.startswith(("scan", "fix"))
        ]  # fmt: skip
        say(f"{name:24} {one.seconds * 1000:9.1f} ms  {one.megabytes:4.0f} MB  {'  '.join(ratios)}")


def say(text: str) -> None:
    """Print a line, and keep it."""
    SAID.append(text)
    print(text, flush=True)


def walker(folder: Path) -> dict[str, list[str]]:
    """The walker in C, where there is a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return {}
    subprocess.run([compiler, "-O2", "-o", folder / "walker", HERE / "walker.c"], check=True)
    return {"C walker": [str(folder / "walker")]}


def scans(folder: Path, adapters: int, rounds: int) -> None:
    """Scans of one adapter beside a click program that says hello, and of many beside a walk and a loop."""
    subprocess.run([*PYTHON, HERE / "corpora.py", folder, str(adapters)], check=True)
    start_up = {"click hello": [*PYTHON, "-c", HELLO, "you"]}
    for name, path in (("7B LoRA", folder / "7B LoRA"), ("broken", BROKEN)):
        start_up |= {f"scan {name}, {how}": [*SCAN, "--format", how, str(path)] for how in ("json", "table")}
    rotation("start-up", start_up, 7 * rounds)
    least = {**walker(folder), "json.loads loop": [*PYTHON, str(HERE / "loop.py")]}
    for name in ("MoE LoRA", "families", "distinct"):
        commands = {other: [*command, str(folder / name)] for other, command in least.items()}
        title = name if name == "MoE LoRA" else f"{adapters} adapters, {name}"
        scan = [*SCAN, "--format", "jsonl", str(folder / name)]
        several = (
            {f"scan --jobs {jobs}": [*scan, "--jobs", jobs] for jobs in ("2", "auto")} if name != "MoE LoRA" else {}
        )
        rotation(title, {**commands, "scan": scan, **several}, rounds)
    for name, times in (("7B LoRA", 20 * rounds), ("MoE LoRA", rounds)):
        subprocess.run([*PYTHON, HERE / "parts.py", folder / name, str(times)], check=True, env=ENVIRONMENT)


def values(folder: Path, gigabytes: float, rounds: int) -> None:
    """Scans that read every number of so many gigabytes, of each type, beside cat, in files that memory has."""
    for dtype in WIDTHS:
        subprocess.run([*PYTHON, HERE / "corpora.py", folder, "0", str(gigabytes), dtype, "64"], check=True)
        path = folder / dtype
        commands = {"cat": ["cat", str(path / "adapter_model.safetensors")], "scan": [*SCAN, "--values", str(path)]}
        rotation(f"every number of {gigabytes} GB of {dtype}", commands, rounds)
        shutil.rmtree(path)


def spectra(folder: Path, rounds: int) -> None:
    """The ranks of a 7B LoRA of rank 64 with what of them is used, beside the arithmetic alone."""
    subprocess.run([*PYTHON, HERE / "corpora.py", folder, "0", "0.32", "BF16", "64"], check=True)
    ranks = [*PYTHON, "-m", "ckpt_doctor", "ranks", "--values", str(folder / "BF16")]
    bare = [*PYTHON, str(HERE / "bare_spectra.py"), str(folder / "BF16")]
    rotation("singular values of a LoRA of rank 64, 0.32 GB", {"bare loop": bare, "scanned by ranks": ranks}, rounds)
    shutil.rmtree(folder / "BF16")


def copying(folder: Path, gigabytes: float, rounds: int) -> None:
    """A fix of a LoRA with a layer of rank 0, in so many gigabytes, beside what copies the same folder: cp and fsync,
    that with the digests of both sides and a cat, and torch's way. Every source is in memory, and no command has to
    wait until what another left is on the disk.
    """
    subprocess.run([*PYTHON, HERE / "corpora.py", folder, "0", str(gigabytes), "BF16", "0"], check=True)
    source, copy, weights = folder / "BF16", folder / "copy", "adapter_model.safetensors"
    cp = f"cp -r {source} {copy} && sync {copy}/*"
    read = f"sha256sum {source}/{weights} {copy}/{weights} && cat {copy}/{weights}"
    torch = f"from safetensors.torch import load_file, save_file; save_file(load_file('{source}/{weights}'), '{copy}/{weights}')"
    commands = {
        "cp + fsync": ["sh", "-c", cp],
        "cp + fsync + sha256 + cat": ["sh", "-c", f"{cp} && {read}"],
        "load_file + save_file": ["sh", "-c", f'mkdir {copy}; {" ".join(PYTHON)} -c "{torch}"'],
        "fix": [*PYTHON, "-m", "ckpt_doctor", "fix", str(source), str(folder / "out")],
    }

    def clean() -> None:
        for made in (copy, folder / "out"):
            shutil.rmtree(made, ignore_errors=True)
        os.sync()

    rotation(f"fix of {gigabytes:g} GB", commands, rounds, clean)


def beside_others(folder: Path, adapters: int, tools: Path, rounds: int) -> None:
    """Seconds for each adapter, of scans of many and of other scanners that are in the folder `tools`, of two of them."""
    two = folder / "two"
    found = sorted(path.parent for path in (folder / "families").rglob("adapter_config.json"))[:2]
    for path in found:
        shutil.copytree(path, two / path.name)
    theirs = {
        "adaptersentry": [
            "batch",
            "--workers",
            "1",
            "--no-cache",
            "--output-dir",
            str(folder / "theirs"),
            "--input-dir",
        ],
        "modelaudit": ["scan", "--no-cache", "--quiet"],
    }
    commands = {
        name: [str(tools / name), *options, str(two)] for name, options in theirs.items() if (tools / name).exists()
    }
    ENVIRONMENT.update(PROMPTFOO_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    ours = medians({"scan": [*SCAN, "--format", "jsonl", str(folder / "families")]}, rounds)["scan"].seconds / adapters
    say(f"\neach adapter: {ours * 1000:.3f} ms of {adapters}, families")
    for name, one in medians(commands, 1).items():
        say(
            f"{name:24} {one.seconds / len(found) * 1000:9.1f} ms  {one.megabytes:4.0f} MB  {one.seconds / len(found) / ours:9.0f} x scan"
        )


def remote(folder: Path, adapters: int, rounds: int) -> None:
    """Scans of remote adapters beside the same ranges by fsspec's cat_ranges, as many at once, of a server here."""
    subprocess.run([*PYTHON, HERE / "corpora.py", folder, str(adapters)], check=True)
    for name in ("families", "distinct"):
        command = [*PYTHON, str(HERE / "range_server.py"), str(folder / name)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            port = server.stdout.readline().strip() if server.stdout else ""
            found = sorted(
                path.parent.relative_to(folder / name) for path in (folder / name).rglob("adapter_config.json")
            )
            listed = folder / f"{name}.txt"
            listed.write_text("".join(f"http://127.0.0.1:{port}/{path}\n" for path in found))
            scan = [*SCAN, "--format", "jsonl", "--files-from", str(listed)]
            commands = {"cat_ranges": [*PYTHON, str(HERE / "cat_ranges.py"), str(listed)], "scan": scan}
            rotation(f"{adapters} remote adapters, {name}", commands, rounds)
            server.communicate()  # which ends it


def processor() -> str:
    """What the machine is, as ratios are of it alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names) or os.cpu_count()} x {names[0] if names else platform.processor()}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=1000, help="of each corpus that has many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--values", type=float, default=0.25, metavar="GIGABYTES", help="read so much of each type")
    parser.add_argument("--remote", action="store_true", help="measure scans of remote adapters, and nothing else")
    parser.add_argument("--copy", type=float, metavar="GIGABYTES", help="measure a fix of so much as well")
    parser.add_argument(
        "--others", type=Path, metavar="BIN", help="beside adaptersentry and modelaudit, installed there"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write what is printed into a file of Markdown")
    asked = parser.parse_args()
    say(f"Python {platform.python_version()}, {processor()}")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as name:
        if asked.remote:
            remote(Path(name).resolve(), asked.adapters, asked.rounds)
            sys.exit()
        scans(Path(name).resolve(), asked.adapters, asked.rounds)
        values(Path(name).resolve(), asked.values, asked.rounds)
        spectra(Path(name).resolve(), asked.rounds)
        if asked.others:
            beside_others(Path(name).resolve(), asked.adapters, asked.others.resolve(), asked.rounds)
        if asked.copy:
            copying(Path(name).resolve(), asked.copy, asked.rounds)
    if asked.write:
        asked.write.write_text(PAGE.format(command=" ".join(sys.argv[1:]), said="\n".join(SAID)))
