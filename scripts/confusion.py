"""How often the verdicts are right: a corpus of adapters with the outcome of real loads, against what the rules say.

usage: python scripts/confusion.py CORPUS [--base NAME=PATH]... [--wrong]
CORPUS holds adapters/ and truth.json: name → {"family", "base", "peft": {release: [verdict, error]}, "adapter_name"?}.
`loads` (it could not be compared) counts as accepts, `unknown` of ours as a disagreement; but where `files_do_not_tell`,
or `only_the_base_tells` and none was given, no more than that it loads is to be known: accepts and unknown are right.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from ckpt_doctor.adapter import Question
from ckpt_doctor.adapter.findings import verdict
from ckpt_doctor.files.base import load_base
from ckpt_doctor.verbs.scan import examine


def main(corpus: Path, bases: dict[str, str], verbose: bool) -> None:
    """Print the confusion matrix, the agreement by release and by family, and what disagrees."""
    models = {name: load_base(path) for name, path in bases.items()}
    matrix: Counter[tuple[str, str]] = Counter()
    total: Counter[str] = Counter()
    by: dict[str, Counter[str]] = {"release": Counter(), "family": Counter()}
    disagreements: Counter[tuple[str, str, str]] = Counter()
    for name, truth in json.loads((corpus / "truth.json").read_text()).items():
        report = examine(
            str(corpus / "adapters" / name),
            Question(None, truth.get("adapter_name", "default"), models.get(truth.get("base", ""))),
        )
        without = truth.get("base", "") not in models
        untold = truth.get("files_do_not_tell") or (truth.get("only_the_base_tells") and without)
        for release, (outcome, _) in truth["peft"].items():
            real = "accepts" if outcome == "loads" else outcome
            ours = verdict(f"peft=={release}", report.findings) if not report.error else "error"
            right = real == ours or bool(untold and real != "rejects" and ours in ("accepts", "unknown"))
            matrix[real, ours] += 1
            total["all"] += 1
            total["right"] += right
            total["false"] += ours == "accepts" and not right
            for key, value in (("release", release), ("family", truth["family"])):
                by[key][value + " all"] += 1
                by[key][value + " right"] += right
            if not right:
                disagreements[name, real, ours] += 1
    kinds = ("accepts", "rejects", "misloads", "unknown", "error")
    rows = [(real, *(matrix[real, ours] for ours in kinds)) for real in kinds[:3]]
    print(tabulate(rows, headers=("real ↓  ours →", *kinds)))
    share = 100 * total["right"] / total["all"]
    print(f"\n{total['right']} of {total['all']} agree ({share:.2f} %), {total['false']} false accepts\n")
    for key, counts in by.items():
        names = [name.removesuffix(" all") for name in counts if name.endswith(" all")]
        table = [(name, counts[name + " all"], 100 * counts[name + " right"] / counts[name + " all"]) for name in names]
        print(tabulate([row for row in table if row[2] < 100], headers=(key, "pairs", "% right"), floatfmt=".1f"), "\n")
    if verbose:
        print(tabulate([(*key, count) for key, count in sorted(disagreements.items())]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--base", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--wrong", dest="verbose", action="store_true")
    asked = parser.parse_args()
    main(asked.corpus, dict(item.split("=", 1) for item in asked.base), asked.verbose)
