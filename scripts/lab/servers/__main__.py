"""The lab of servers: LoRAs of models that people serve, as saved and as people break them, loaded in real servers.

usage: python scripts/lab/servers SERVER==VERSION... [--count N] [--seed SEED]
Environments are those of scripts/make_server_envs.sh; vLLM's makes the adapters, so one is needed. In OUT are adapters/,
base/, meanings/ and truth.json afterwards. What the verdicts get wrong is printed, with what the server said and what is
said of it. A version that the facts do not know is judged as the one that they do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(HERE.parent)]

import edits
from running import Environments, Outcome
from tabulate import tabulate

from ckpt_doctor.adapter import Base, Question
from ckpt_doctor.adapter.runtimes import RAN
from ckpt_doctor.files.base import load_base
from ckpt_doctor.verbs.scan import examine

OUTCOMES = ("accepts", "rejects", "misloads", "unknown")
MAX_RANK = 16
"""What the scripts start servers with."""


def made(environments: Environments, maker: str, out: Path, seed: str, count: int) -> dict[str, dict[str, Any]]:
    """Adapters in the folder, and their edited copies: what was drawn, by name."""
    (out / "adapters").mkdir(parents=True)
    rows = {row["name"]: {**row, "edit": ""} for row in environments.save(maker, out, seed, count)}
    return rows | edits.edited(out / "adapters", seed, rows)


def loaded(
    environments: Environments, servers: list[str], maker: str, out: Path, rows: dict[str, Any]
) -> dict[str, Any]:
    """The content of truth.json, which is written after each model."""
    truth: dict[str, Any] = {}
    for base in sorted({row["base"] for row in rows.values()}):
        names = [name for name, row in rows.items() if row["base"] == base]
        folder, paths = out / "base" / base, {name: out / "adapters" / name for name in names}
        environments.meanings(maker, folder, out / "meanings", paths.values())
        jobs = {path: out / f"meanings/{name}.safetensors" for name, path in paths.items()}
        runtimes: dict[str, dict[Path, Outcome]] = {of: environments.load(of, folder, jobs) for of in servers}
        for name in names:
            unsaid = edits.UNSAID.get(rows[name]["edit"])
            truth[name] = {
                "base": base, "drawn": rows[name]["drawn"], "saved_by": rows[name]["saved_by"],
                "group": rows[name]["edit"] or "as saved", "runtimes": {of: runtimes[of][paths[name]] for of in servers},
                "files_do_not_tell": unsaid == "always", "only_the_base_tells": unsaid == "base",
            }  # fmt: skip
        (out / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")
    return truth


def tell(out: Path, truth: dict[str, Any], servers: list[str]) -> None:
    """Print what the verdicts get wrong, with the model named."""
    known = {of: RAN[of.partition("==")[0]] for of in servers}
    bases: dict[str, Base] = {}
    counts: dict[str, Counter[tuple[str, str]]] = {of: Counter() for of in servers}
    right, false = Counter[str](), Counter[str]()
    for name, row in sorted(truth.items(), key=lambda item: item[1]["base"]):
        base = bases.setdefault(row["base"], load_base(str(out / "base" / row["base"])))
        question = Question(frozenset(known.values()), "default", base, max_rank=MAX_RANK)
        report = examine(str(out / "adapters" / name), question, repairs=False)
        for of in servers:
            real, why = row["runtimes"][of]
            if real not in OUTCOMES:
                continue
            ours = report.verdicts[known[of]]
            counts[of][real, ours] += 1
            fits = ours == real or (row["files_do_not_tell"] and real == "misloads" and ours in ("accepts", "unknown"))
            right[of] += fits
            false[of] += not fits and ours == "accepts"
            if not fits:
                print(f"{of}: {name}: {real}, judged {ours}\n    real: {why}")
                for finding in report.findings:
                    if known[of] in finding.rejected_by | finding.misloaded_by | finding.undecided_for:
                        print(f"    says so: {finding.code}: {finding.message}")
    for of in servers:
        print(f"\n{of}: {right[of]} of {counts[of].total()} right, {false[of]} false accepts")
        table = [(real, *(counts[of][real, ours] for ours in OUTCOMES)) for real in OUTCOMES[:3]]
        print(tabulate(table, ("real, ours", *OUTCOMES)))


def main() -> None:
    """Make, load, judge, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", help="where adapters are loaded")
    parser.add_argument("--count", type=int, default=100, help="adapters that are saved")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--environments", type=Path, default=ROOT / ".servers")
    parser.add_argument("--out", type=Path, default=None, help="build/served-SEED where it is not said")
    asked = parser.parse_args()
    if asked.out is None:
        asked.out = ROOT / f"build/served-{asked.seed}"
        shutil.rmtree(asked.out, ignore_errors=True)
    elif asked.out.exists():
        parser.error(f"{asked.out} exists")
    maker = next((of for of in asked.servers if of.startswith("vllm==")), RAN["vllm"])
    environments, out = Environments(asked.environments), asked.out.resolve()
    rows = made(environments, maker, out, asked.seed, asked.count)
    truth = loaded(environments, asked.servers, maker, out, rows)
    tell(out, truth, asked.servers)


if __name__ == "__main__":
    main()
