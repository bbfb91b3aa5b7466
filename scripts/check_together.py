"""Hold what `together` says of random pairs of adapters against what real PEFT releases do with them.

usage: python scripts/check_together.py [--venvs .venvs] [--releases 0.14.0 0.21.2] [--seed 1] [--count 100] [--keep FOLDER]
Each release saves the pairs that it then merges in each way, swaps, and has side by side (scripts/together/in_peft.py).
Prints what is not so, and the counts by use: with the base model, and without. Exits with 1 where an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from ckpt_doctor.adapter import NO_BASE, question_of
from ckpt_doctor.files.base import named_base
from ckpt_doctor.verbs.together import together

IN_PEFT = str(Path(__file__).parent / "together/in_peft.py")
RANK = 8
OPEN = ("cat", "linear", "ties", "beside")
"""What is open to adapters of one rank and one set of modules."""
USES = {"hot-swapped": "hotswap", "side by side": "beside"}


def pairs(python: str, folder: Path, seed: int, count: int) -> list[Path]:
    """The pairs that a release saves, in a folder of its own."""
    _run(python, "save", str(folder), str(seed), str(count))
    return [folder / str(number) for number in range(count)]


def truth(python: str, places: list[Path]) -> list[dict[str, tuple[str, str]]]:
    """What a release does with each pair, by use."""
    return [json.loads(line)["uses"] for line in _run(python, "run", *map(str, places)).splitlines()]


def _run(python: str, *words: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    return subprocess.run([python, IN_PEFT, *words], check=True, capture_output=True, text=True, env=env).stdout


def judged(place: Path, release: str, *, base: bool) -> dict[str, tuple[str, str]]:
    """What `together` says of a pair, by use."""
    model = named_base(str(place.parent / "base")) if base else NO_BASE
    question = question_of(frozenset((f"peft=={release}",)), "default", model, None)
    (found,) = together([str(place / "a"), str(place / "b")], question)
    return {
        USES.get(answer.use, answer.use.removeprefix("merged by ")): (answer.verdict, answer.reason)
        for answer in found.answers
    }


def main() -> int:
    """Ask both, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, default=Path(".venvs"))
    parser.add_argument("--releases", nargs="+", default=["0.14.0", "0.21.2"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="a folder for the pairs, and for what was done with them")
    given = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        for release in given.releases:
            python = str(given.venvs / f"peft-{release}/bin/python")
            folder = (given.keep or Path(temporary)) / release
            known = folder.with_suffix(".json") if given.keep else None
            if known and known.exists():
                places, real = [folder / str(number) for number in range(given.count)], json.loads(known.read_text())
            else:
                places = pairs(python, folder, given.seed, given.count)
                real = truth(python, places)
                if known:
                    known.write_text(json.dumps(real))
            for base in (True, False):
                wrong += _told(release, places, real, base=base)
            wrong += _made(python, release, places, Path(temporary) / f"made-{release}")
    return int(bool(wrong))


def _made(python: str, release: str, places: list[Path], folder: Path) -> int:
    """Give each pair one rank and one set of modules, and have the release do to it what it then has to take."""
    made, refused = [], Counter[str]()
    for place in places:
        out = folder / place.name
        words = ["fix", str(place), str(out), "--to", "lora", "--rank", str(RANK), "--modules", "union"]
        done = subprocess.run(
            [sys.executable, "-m", "ckpt_doctor", *words, "--for", f"peft=={release}"], capture_output=True, text=True
        )
        if done.returncode == 0:
            made.append(out)
        else:
            said = (done.stderr or done.stdout).strip().splitlines()[-1]
            refused[said.removeprefix("ckpt-doctor: ").replace(str(place), "")[2:90].lstrip(": ")] += 1
    wrong = 0
    for place, uses in zip(made, truth(python, made) if made else [], strict=True):
        told = judged(place, release, base=False)
        for use, (verdict, error) in uses.items():
            if verdict != told[use][0] or (use in OPEN and verdict != "accepts"):
                wrong += 1
                print(f"{place.name} {use} in {release}, after fix: {told[use]}, really {verdict} {error[:150]}")
    print(f"{release}: {len(made)} pairs made alike, {wrong} uses of them wrong; refused: {dict(refused)}")
    return wrong


def _told(release: str, places: list[Path], real: list[dict[str, tuple[str, str]]], *, base: bool) -> int:
    counts: dict[str, Counter[str]] = {}
    for place, uses in zip(places, real, strict=True):
        said = judged(place, release, base=base)
        for use, (verdict, error) in uses.items():
            mine, reason = said[use]
            if "by itself" in reason:  # what it does alone is the lab's to hold
                counts.setdefault(use, Counter())["not by itself"] += 1
                continue
            right = "unknown" if mine == "unknown" else "right" if mine == verdict else "WRONG"
            counts.setdefault(use, Counter())[f"{right} ({verdict})"] += 1
            if right == "WRONG":
                print(f"{place.name} {use} in {release}: {mine} ({reason}), really {verdict} {error[:150]}")
    for use, count in counts.items():
        print(f"{release} {'with' if base else 'without'} base, {use}: {dict(sorted(count.items()))}")
    return sum(count for uses in counts.values() for what, count in uses.items() if what.startswith("WRONG"))


if __name__ == "__main__":
    sys.exit(main())
