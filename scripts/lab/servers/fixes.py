"""Fix every adapter of a corpus for servers, and load what was written in all of them.

usage: python scripts/lab/servers/fixes.py CORPUS FOLDER [--environments .servers] [--servers vllm==0.33.0 ...]
CORPUS holds adapters/, base/ and truth.json (name → {"base": a folder of base/}), as scripts/lab/servers leaves them.
FOLDER takes what is written; what was loaded is not loaded again.

As in check_fixes.py, a fix is right if the server that was asked for then computes what the original means, and no server
that accepted or rejected the original misloads the result. Prints what is not, and why others were refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from check_fixes import digest, faults
from running import Environments, Outcome

from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.api import fix

MAX_RANK = 16
"""What scripts/lab/servers starts servers with."""


def written(corpus: Path, folder: Path, servers: list[str], truth: dict[str, Any]) -> dict[tuple[str, str], Path | str]:
    """Each fix, by adapter and server: the folder that it wrote, or why it did not."""
    fixes: dict[tuple[str, str], Path | str] = {}
    for name, row in truth.items():
        for server in servers:
            out = folder / "fixed" / server / name
            try:
                result = fix(
                    corpus / "adapters" / name, out, server, base=corpus / "base" / row["base"], max_rank=MAX_RANK, force=True
                )  # fmt: skip
            except AdapterError as error:
                fixes[name, server] = f"failed: {error}"
                continue
            reasons = [str(step.reason) for step in result.refused] or [
                finding.message
                for finding in result.remaining
                if server in finding.undecided_for | finding.rejected_by | finding.misloaded_by
            ]
            fixes[name, server] = out if result.out else "; ".join(reasons)
    return fixes


def loaded(
    environments: Environments, folder: Path, base: Path, server: str, adapters: dict[Path, str]
) -> dict[str, Outcome]:
    """What a server makes of adapters, by digest; each comes with the name of the original."""
    cache = folder / f"loaded-{server}-{base.name}.json"
    rows = {key: Outcome(*row) for key, row in json.loads(cache.read_text()).items()} if cache.exists() else {}
    by_digest = {digest(path): path for path in adapters}
    new = {
        path: folder / f"meanings/{adapters[path]}.safetensors" for key, path in by_digest.items() if key not in rows
    }
    if new:
        outcomes = environments.load(server, base, new)
        rows |= {key: outcomes[path] for key, path in by_digest.items() if path in outcomes}
        cache.write_text(json.dumps(rows))
    return rows


def main(corpus: Path, folder: Path, environments: Environments, servers: list[str]) -> int:
    """Fix, load, and tell."""
    truth = json.loads((corpus / "truth.json").read_text())
    fixes = written(corpus, folder, servers, truth)
    reasons: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, Counter[str]] = {server: Counter() for server in servers}
    failures = []
    for base in sorted({row["base"] for row in truth.values()}):
        names = [name for name, row in truth.items() if row["base"] == base]
        originals = {name: corpus / "adapters" / name for name in names}
        unsaid = [path for name, path in originals.items() if not (folder / f"meanings/{name}.safetensors").exists()]
        environments.meanings(servers[0], corpus / "base" / base, folder / "meanings", unsaid)
        results = {(n, s): out for (n, s), out in fixes.items() if n in originals and isinstance(out, Path)}
        adapters = {path: name for name, path in originals.items()} | {out: name for (name, _), out in results.items()}
        rows = {server: loaded(environments, folder, corpus / "base" / base, server, adapters) for server in servers}
        for name in names:
            before = {server: rows[server][digest(originals[name])].verdict for server in servers}
            for server in servers:
                out = fixes[name, server]
                if not isinstance(out, Path):
                    reasons[f"{server}: {out}"].append(name)
                    counts[server]["refused"] += 1
                    if before[server] == "accepts":
                        failures.append(f"{name} for {server}: refused, though it accepts the original: {out}")
                    continue
                after = {of: rows[of][digest(out)].verdict for of in servers}
                known = {of: verdict for of, verdict in after.items() if verdict not in ("absent", "loads")}
                lines = faults(server, before, known)
                kind = "wrong" if lines else "reached" if after[server] == "accepts" else f"not known ({after[server]})"
                counts[server][kind] += 1
                failures += [f"{name} for {server}: {line}: {rows[line.split()[0]][digest(out)].why}" for line in lines]
    for reason, where in sorted(reasons.items(), key=lambda item: -len(item[1])):
        print(f"{len(where)} × {reason[:400]}\n      {', '.join(where[:6])}")
    print(*failures, sep="\n")
    for server in servers:
        print(f"{server}: {', '.join(f'{count} {kind}' for kind, count in sorted(counts[server].items()))}")
    return int(bool(failures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--environments", type=Path, default=ROOT / ".servers")
    parser.add_argument("--servers", nargs="+", default=["vllm==0.33.0", "sglang==0.5.23", "llama.cpp==0.3.36"])
    given = parser.parse_args()
    sys.exit(main(given.corpus, given.folder.resolve(), Environments(given.environments), given.servers))
