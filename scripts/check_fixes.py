"""Fix every LoRA and AdaLoRA of a corpus for releases, and load what was written in all of them.

usage: python scripts/check_fixes.py CORPUS FOLDER [--venvs .venvs] [--releases 0.6.2 0.9.0 ...] [--plain]
CORPUS holds adapters/, truth.json (name → {"base", "made", "peft": {release: [verdict, error]}}), base/, base_full/ and
load.py, which loads ARCH:ADAPTER... in the PEFT that runs it and prints a JSON line each. FOLDER takes what is written.

A fix is right if the release that was asked for gives the expected output, and no release that accepted or rejected the
original misloads the result. Prints what is not, and how many were reached; exits with 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.api import fix

HEADS = ("none", "base", "base_full")


def written(corpus: Path, folder: Path, releases: list[str], truth: dict[str, Any]) -> dict[tuple[str, str, str], Any]:
    """Each fix that was tried, by adapter, base and release: the folder that it wrote, or why it did not."""
    fixes: dict[tuple[str, str, str], Any] = {}
    for name, row in truth.items():
        config = json.loads((corpus / "adapters" / name / "adapter_config.json").read_text())
        if config.get("peft_type") not in ("LORA", "ADALORA") or row.get("made") != "peft":
            continue
        for base in HEADS:
            model = corpus / base / row["base"]
            if base != "none" and not model.is_dir():
                continue
            for release in releases:
                out = folder / base / release / name
                asked = None if release == "plain" else f"peft=={release}"
                try:
                    result = fix(
                        corpus / "adapters" / name, out, asked, base=None if base == "none" else model, force=True
                    )
                except AdapterError as error:
                    fixes[name, base, release] = f"failed: {error}"
                    continue
                why = "; ".join(str(step.reason) for step in result.refused) or "; ".join(
                    f.message
                    for f in result.remaining
                    if asked is None or f"peft=={release}" in f.undecided_for | f.rejected_by | f.misloaded_by
                )
                fixes[name, base, release] = out if result.out else f"refused: {why}"
    return fixes


def digest(folder: Path) -> str:
    """What an adapter is, apart from its record."""
    names = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
    return hashlib.sha256(b"".join((folder / n).read_bytes() for n in names if (folder / n).exists())).hexdigest()


def loaded(corpus: Path, python: Path, wanted: dict[str, str], cache: Path) -> dict[str, dict[str, Any]]:
    """The row that load.py prints for each ARCH:ADAPTER of `wanted`, by its digest."""
    rows = json.loads(cache.read_text()) if cache.exists() else {}
    new = {key: job for key, job in wanted.items() if key not in rows}
    jobs = list(new.items())
    for at in range(0, len(jobs), 60):
        some = jobs[at : at + 60]
        command = [str(python), "-W", "ignore", str(corpus / "load.py"), *(job for _, job in some)]
        out = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in out.stdout.splitlines()]
        if len(lines) != len(some):
            raise SystemExit(f"{python}: {out.stderr[-2000:]}")
        rows.update({key: line for (key, _), line in zip(some, lines, strict=True)})
        cache.write_text(json.dumps(rows))
    return {key: rows[key] for key in wanted}


def faults(release: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is wrong with a fix for a release, given the verdicts of releases on the original and on what was written."""
    lines = [f"{release} {after[release]} it"] if after.get(release, "accepts") != "accepts" else []
    loud = [of for of, verdict in after.items() if verdict == "misloads" and before.get(of) in ("accepts", "rejects")]
    return lines + [f"{of} {before[of]} the original and misloads it" for of in loud]


def main(corpus: Path, folder: Path, venvs: Path, releases: list[str], plain: bool) -> int:
    """Fix, load, and tell."""
    truth = json.loads((corpus / "truth.json").read_text())
    fixes = written(corpus, folder, [*releases, *(["plain"] if plain else [])], truth)
    outs = {key: out for key, out in fixes.items() if isinstance(out, Path)}
    digests = {key: digest(out) for key, out in outs.items()}
    jobs = {digests[key]: f"{truth[key[0]]['base']}:{out.resolve()}" for key, out in outs.items()}
    rows = {
        release: loaded(corpus, venvs / f"peft-{release}/bin/python", jobs, folder / f"loaded-{release}.json")
        for release in releases
    }
    reached: Counter[tuple[str, str]] = Counter()
    reasons: dict[str, list[str]] = defaultdict(list)
    failures = []
    for (name, base, release), out in fixes.items():
        before = truth[name]["peft"]
        if not isinstance(out, Path):
            reasons[out].append(f"{name} {base} {release}")
            if release != "plain" and before.get(release, ("",))[0] == "accepts":
                failures.append(f"{name} ({base}) for {release}: refused, though {release} accepts the original: {out}")
            continue
        after = {of: rows[of][digests[name, base, release]]["verdict"] for of in releases}
        after = {of: verdict for of, verdict in after.items() if not verdict.startswith("no such")}
        lines = faults(release, {of: verdict for of, (verdict, _) in before.items()}, after)
        failures += [f"{name} ({base}) for {release}: {fault}" for fault in lines]
        reached[base, release] += not lines
    for reason, where in sorted(reasons.items(), key=lambda item: -len(item[1])):
        print(f"{len(where)} × {reason[:300]}\n      {', '.join(where[:6])}")
    print(*failures, sep="\n")
    for (base, release), count in sorted(reached.items()):
        of = sum(1 for _, b, r in fixes if (b, r) == (base, release))
        print(f"{base} {release}: {count} of {of} reached")
    print(f"{len(failures)} wrong")
    return int(bool(failures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--venvs", type=Path, default=Path(".venvs"))
    parser.add_argument("--releases", nargs="+", default=["0.6.2", "0.9.0", "0.13.2", "0.21.2"])
    parser.add_argument("--plain", action="store_true", help="also without naming a release")
    given = parser.parse_args()
    sys.exit(main(given.corpus, given.folder, given.venvs, given.releases, given.plain))
