"""How fast a scan starts and a fix copies, each beside what it is measured by, in the same run.

usage: python scripts/benchmark.py [--gigabytes N] [--rounds N]
Trust the ratios: machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ADAPTER = Path(__file__).parent.parent / "fixtures/adalora-rank0-0.17.1"
COMMAND = [sys.executable, "-m", "ckpt_doctor"]
HELLO = """
import click
@click.command()
@click.argument("path")
def hello(path): click.echo("hello " + path)
hello()
"""


def run(command: list[str]) -> tuple[float, float]:
    """Seconds of one run of a command, and the most memory that it held, in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def start_up(rounds: int) -> None:
    """A scan of one adapter against a click program that says hello."""
    commands = {
        "click hello": [sys.executable, "-c", HELLO, "you"],
        "scan --format json": [*COMMAND, "scan", "--format", "json", str(ADAPTER)],
        "scan": [*COMMAND, "scan", str(ADAPTER)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(run(command)[0])
    least = statistics.median(times["click hello"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:24} {median * 1000:8.1f} ms  {median / least:5.2f} x")


def make(folder: Path, gigabytes: float) -> None:
    """A LoRA of 224 layers, one of them of rank 0, in so many gigabytes of random bytes."""
    config = {"peft_type": "LORA", "r": 64, "lora_alpha": 64, "target_modules": ["q"], "use_dora": False}
    side = int(gigabytes * 1e9 / 224 / 2 / 2 / 64)
    header: dict[str, object] = {}
    at = 0
    for layer in range(224):
        rank = 64 if layer else 0
        for factor, shape in (("A", [rank, side]), ("B", [side, rank])):
            size = 2 * shape[0] * shape[1]
            name = f"base_model.model.layers.{layer}.q.lora_{factor}.weight"
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    block = os.urandom(1 << 24)
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while at:
            at -= file.write(block[:at])
        os.fsync(file.fileno())


def copying(gigabytes: float, rounds: int) -> None:
    """A fix against cp and fsync of the same folder."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as name:
        folder = Path(name)
        make(folder / "in", gigabytes)
        copy = ["sh", "-c", f"cp -r {folder}/in {folder}/copy && sync {folder}/copy/*"]
        fix = [*COMMAND, "fix", str(folder / "in"), str(folder / "out")]
        ratios = []
        for _ in range(rounds):
            copied, _ = run(copy)
            fixed, memory = run(fix)
            ratios.append(fixed / copied)
            print(f"cp + fsync {copied:6.2f} s   fix {fixed:6.2f} s, {memory:4.0f} MB   {fixed / copied:5.2f} x")
            shutil.rmtree(folder / "copy")
            shutil.rmtree(folder / "out")
        print(f"fix of {gigabytes} GB: {statistics.median(ratios):.2f} x cp + fsync")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    start_up(10 * asked.rounds)
    copying(asked.gigabytes, asked.rounds)
