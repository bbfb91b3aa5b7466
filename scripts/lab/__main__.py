"""The lab: adapters that real PEFT releases save, as they are and as people break them, loaded in real releases.

usage: python scripts/lab RELEASE... [--count N] [--seed SEED] [--savers RELEASE...] [--record]
Environments are those of scripts/make_peft_venvs.sh. In OUT are adapters/, base/, outputs/ and truth.json afterwards, as
scripts/make_net.py reads them. What the verdicts get wrong is printed; with --record, it joins tests/data/lab.json.xz.
What `fix` writes of all of them is loaded as well, and has to compute what its original means: repairs.json.
A release that the facts do not know yet is judged as the newest that they know, and scripts/add_release.py says what it
changes in the tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import edits
import repairs
import report
from truth import Truths

from ckpt_doctor.adapter.runtimes import PEFT_RELEASES

HERE = Path(__file__).parent
SCRIPTS = HERE.parent
ROOT = SCRIPTS.parent


class Lab:
    """A folder of adapters, and the environments that make and load them."""

    def __init__(self, out: Path, venvs: Path, seed: str) -> None:
        self.out, self.venvs, self.seed = out, venvs, seed
        self.made: dict[str, dict[str, Any]] = {}
        self.repairs: list[repairs.Repair] = []

    def _run(self, release: str, script: str, *arguments: str) -> list[dict[str, Any]]:
        """Run one of these scripts in the environment of a release; the JSON lines that it prints."""
        command = [str(self.venvs / f"peft-{release}/bin/python"), "-W", "ignore", str(HERE / script), *arguments]
        with (self.out / f"{Path(script).stem}-{release}.log").open("w") as log:
            done = subprocess.run(command, cwd=self.out, stdout=subprocess.PIPE, stderr=log, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def save(self, savers: list[str], count: int) -> None:
        """Have each adapter made by a release that is drawn."""
        rows = []
        drawn = [Random(f"{self.seed}-{index}-saver").choice(savers) for index in range(count)]
        for release in dict.fromkeys(drawn):
            indices = [str(index) for index, saver in enumerate(drawn) if saver == release]
            rows += self._run(release, "save.py", self.seed, *indices)
        by_name = {row["name"]: {**row, "edit": "", "of": row["name"]} for row in rows if row}
        self.made = dict(sorted(by_name.items()))

    def edit(self) -> None:
        """Put edited copies beside some."""
        self.made |= edits.edited(self.out / "adapters", self.seed, self.made)

    def fix(self, releases: list[str]) -> None:
        """Put beside them what fixes make of them."""
        results, self.repairs = repairs.repaired(self.out, self.made, releases)
        self.made |= results

    def load(self, releases: list[str], savers: list[str]) -> None:
        """Load each in each release, and where it was saved; write what became of it."""
        pairs = [f"{row['base']}:{name}" for name, row in self.made.items()]
        loads = {}
        for release in dict.fromkeys((*releases, *savers)):
            rows = self._run(release, "load.py", f"outputs/{release}", *pairs)
            loads[release] = {row["adapter"]: row for row in rows}
        Truths(self.out, self.made, loads).write(releases, self.repairs)


def unknown(releases: list[str]) -> list[str]:
    """Those of which the facts know nothing."""
    return [release for release in releases if release not in PEFT_RELEASES]


def main() -> None:
    """Make, load, judge, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", nargs="+", help="where adapters are loaded")
    parser.add_argument("--savers", nargs="*", default=[], help="releases that save them, too")
    parser.add_argument("--count", type=int, default=100, help="adapters that are saved")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venvs")
    parser.add_argument("--out", type=Path, default=None, help="build/seed-SEED where it is not said")
    parser.add_argument("--record", action="store_true", help="let it join tests/data/lab.json.xz")
    asked = parser.parse_args()
    if asked.out is None:
        asked.out = ROOT / f"build/seed-{asked.seed}"
        shutil.rmtree(asked.out, ignore_errors=True)
    elif asked.out.exists():
        parser.error(f"{asked.out} exists")
    savers = list(dict.fromkeys((*asked.release, *asked.savers)))
    (asked.out / "adapters").mkdir(parents=True)
    lab = Lab(asked.out.resolve(), asked.venvs.resolve(), asked.seed)
    lab.save(savers, asked.count)
    lab.edit()
    lab.fix([release for release in asked.release if release not in unknown(asked.release)])
    lab.load(asked.release, savers)
    report.tell(asked.out, record=asked.record)
    for release in unknown(asked.release):
        python = str(lab.venvs / f"peft-{release}/bin/python")
        subprocess.run([sys.executable, str(SCRIPTS / "add_release.py"), python], check=True)


if __name__ == "__main__":
    main()
