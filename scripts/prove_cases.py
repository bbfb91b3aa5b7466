"""Give each case in tests/cases random weights, load it on a skeleton in real PEFT releases, and hold its verdicts
against what they do.

usage: python scripts/prove_cases.py RELEASE... [--venvs .venvs] [--only PART]
Cases that have no config, name no safetensors or are of a folder's bytes are left out, and those too large. Prints
where a release does otherwise, and exits with 1; what a skeleton cannot stand for is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import casefile  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from ckpt_doctor.verbs.prove import proofs  # noqa: E402
from ckpt_doctor.verbs.report import Report  # noqa: E402
from ckpt_doctor.verbs.scan import examine  # noqa: E402

MOST = 1 << 24
"""Numbers that one case may have."""
AT_ONCE = 40
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def main() -> int:
    """Write the cases, load them, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="+")
    parser.add_argument("--venvs", type=Path, default=Path(".venvs"))
    parser.add_argument("--only", default="", help="a part of the names of cases")
    given = parser.parse_args()
    counts, reasons = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        reports = {}
        (Path(folder) / "bytes").mkdir()
        for path in casefile.PATHS:
            if given.only in path.stem:
                report = written(path, Path(folder))
                counts["adapters"] += report is not None
                if report is not None:
                    reports[path.stem] = report
        names = list(reports)
        for release in given.releases:
            python = str(given.venvs / f"peft-{release}/bin/python")
            for at in range(0, len(names), AT_ONCE):
                some = names[at : at + AT_ONCE]
                found = proofs([reports[name] for name in some], f"peft=={release}", python)
                for name, proof in zip(some, found, strict=True):
                    told = proof.verdict != "unknown"
                    counts[("right" if proof.agrees else "wrong") if told else "unanswered"] += 1
                    if not told:
                        reasons[proof.why[:70]] += 1
                    if not proof.agrees:
                        said = f"{proof.verdict} ({proof.why[:200]}), predicted {proof.predicted}"
                        print(f"{name} in {release}: {said}", flush=True)
    for reason, count in reasons.most_common(12):
        print(f"{count} × {reason}")
    print(dict(counts))
    return int(bool(counts["wrong"]))


def written(path: Path, folder: Path) -> Report | None:
    """The report on a case, of which an adapter with random weights was written to the folder."""
    subject = casefile.read(path, folder / "bytes").adapter
    adapter = subject.adapter
    if "[bytes]" in path.read_text(encoding="utf-8") or adapter.config is None or adapter.format != "safetensors":
        return None
    if any(info.dtype not in DTYPES for info in adapter.tensors.values()) or "base_model.vera_A" in adapter.tensors:
        return None  # VeRA's projections are those of a seed, which 0.13 and older take in their place
    if sum(_count(info.shape) for info in adapter.tensors.values()) > MOST:
        return None
    place = folder / path.stem
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps(adapter.config))
    made = {key: _random(key, info) for key, info in adapter.tensors.items()}
    save_file(made, place / "adapter_model.safetensors", metadata={"format": "pt"})
    return examine(str(place), subject.question, repairs=False)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _random(key: str, info: Any) -> torch.Tensor:
    """Numbers of its own for each tensor; the same under both names of a bias."""
    torch.manual_seed(zlib.crc32(key.replace(".base_layer", "").encode()))
    made = torch.randn(info.shape)
    return (made * (0.1 if DTYPES[info.dtype].is_floating_point else 10)).to(DTYPES[info.dtype])


if __name__ == "__main__":
    sys.exit(main())
