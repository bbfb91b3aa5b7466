"""Hold what `prove` says against what real releases did with real models.

usage: python scripts/check_prove.py CORPUS [--venvs .venvs] [--releases 0.9.0 ...] [--base]
CORPUS holds adapters/ and truth.json (name → {"base", "peft": {release: [verdict, error]}, "runtimes": {id: …}}), and
base/ for --base. A release is one of PEFT, or the id of transformers, which needs --base.
Prints what is not so, why others are not answered, and the counts; exits with 1 where an answer is wrong. Adapters that
are marked as telling nothing are among these.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from ckpt_doctor.adapter import question_of
from ckpt_doctor.adapter.runtimes import PEFT
from ckpt_doctor.files.base import named_base
from ckpt_doctor.verbs.prove import proofs
from ckpt_doctor.verbs.scan import examine

AT_ONCE = 40
"""Adapters that one process loads."""


def main() -> int:
    """Prove all, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--venvs", type=Path, default=Path(".venvs"))
    parser.add_argument("--releases", nargs="+", default=["0.9.0", "0.13.2", "0.21.2"])
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--only", default="", help="a part of the names")
    given = parser.parse_args()
    truth = json.loads((given.corpus / "truth.json").read_text())
    names = [name for name in sorted(truth) if given.only in name]
    counts, reasons = Counter[str](), Counter[str]()
    real_loads = {
        name: {**{f"peft=={release}": load for release, load in row.get("peft", {}).items()}, **row.get("runtimes", {})}
        for name, row in truth.items()
    }
    for release in given.releases:
        id_ = release if "==" in release else f"peft=={release}"
        python = str(given.venvs / id_.replace("==", "-") / "bin/python")
        for at in range(0, len(names), AT_ONCE):
            some = [name for name in names[at : at + AT_ONCE] if id_ in real_loads[name]]
            reports = []
            for name in some:
                row = truth[name]
                base = named_base(str(given.corpus / "base" / row["base"]) if given.base else "none")
                question = question_of(
                    None if id_ in PEFT else frozenset((id_,)), row.get("adapter_name", "default"), base, None
                )
                reports.append(examine(str(given.corpus / "adapters" / name), question, repairs=False))
            for name, proof in zip(some, proofs(reports, id_, python), strict=True):
                real, error = real_loads[name][id_]
                if real not in ("accepts", "rejects", "misloads"):
                    continue
                told = "unanswered" if proof.verdict == "unknown" else "right" if proof.verdict == real else "wrong"
                counts[told] += 1
                if told == "unanswered":
                    reasons[proof.why[:70]] += 1
                elif told == "wrong":
                    marks = [mark for mark in ("only_the_base_tells", "files_do_not_tell") if truth[name].get(mark)]
                    said = f"{proof.verdict} ({proof.why[:150]}), really {real} {error[:120]}"
                    print(f"{name} in {id_}: {said}; predicted {proof.predicted} {' '.join(marks)}")
    for reason, count in reasons.most_common(25):
        print(f"{count} × {reason}")
    print(dict(counts))
    return int(bool(counts["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
