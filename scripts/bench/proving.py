"""What a proof of one adapter costs, beside that release's own bare `from_pretrained` on the same skeleton.

usage: python scripts/bench/proving.py ADAPTER RELEASE [--venvs .venvs] [--rounds N]
Prints the median of the seconds of both, start of Python and imports and all, their ratio, and the most memory of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ckpt_doctor import skeleton
from ckpt_doctor.verbs.jobs import job_of
from ckpt_doctor.verbs.scan import examine

BARE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import peft, runner
with open(sys.argv[2]) as file:
    job = json.load(file)
peft.PeftModel.from_pretrained(runner.skeleton(job), job["adapter"])
"""

PROOF = """
import sys
from ckpt_doctor.verbs.prove import prove
from ckpt_doctor.verbs.scan import examine
print(prove(examine(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


def run(command: list[str]) -> tuple[float, float]:
    """Seconds of one run of a command, and the most memory that it or its child held, in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[:3]} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("release")
    parser.add_argument("--venvs", type=Path, default=Path(".venvs"))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    runtime, python = f"peft=={given.release}", str(given.venvs / f"peft-{given.release}/bin/python")
    with tempfile.TemporaryDirectory() as folder:
        told = job_of(examine(given.adapter, repairs=False), runtime, str(Path(folder) / "adapter")).told
        (Path(folder) / "job").write_text(json.dumps(told))
        bare = [python, "-W", "ignore", "-c", BARE, str(Path(skeleton.__file__).parent), str(Path(folder) / "job")]
        proof = [sys.executable, "-c", PROOF, given.adapter, runtime, python]
        taken: dict[str, list[tuple[float, float]]] = {"bare": [], "proof": []}
        for _ in range(given.rounds):
            taken["bare"].append(run(bare))
            taken["proof"].append(run(proof))
    size = sum(path.stat().st_size for path in Path(given.adapter).iterdir()) / 1e6
    medians = {name: statistics.median(seconds for seconds, _ in runs) for name, runs in taken.items()}
    for name, runs in taken.items():
        print(f"{name:6} {medians[name]:6.1f} s  {max(memory for _, memory in runs):5.0f} MB")
    print(f"{given.adapter}, {size:.0f} MB, in {runtime}: {medians['proof'] / medians['bare']:.2f} x the bare load")


if __name__ == "__main__":
    main()
