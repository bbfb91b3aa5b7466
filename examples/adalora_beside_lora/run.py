"""AdaLoRA beside LoRA: trained, watched, looked at, repaired for an old PEFT, and served.

usage: python run.py OUT OLD        OLD is a Python that has PEFT 0.9.0 (scripts/make_peft_venvs.sh); OUT is made anew.

Exit code 1 where anything came out otherwise than the summary is to say.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ckpt_doctor

HERE = Path(__file__).parent
CLOSE = 1e-4
"""The largest difference between logits of one function, which two releases of torch's companions compute."""


def doctor(*arguments: str, code: int = 0) -> None:
    """Run ckpt-doctor as one would type it. Ends the program where its exit code is another."""
    print(f"\n$ ckpt-doctor {' '.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, "-m", "ckpt_doctor", *arguments], check=False).returncode != code:
        sys.exit(f"that was to end with {code}")


def loaded(python: str, how: str, *pairs: str) -> list[dict[str, Any]]:
    """What load.py prints of adapters, in any environment."""
    command = [python, str(HERE / "load.py"), how, *pairs]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def said(outcome: dict[str, Any]) -> str:
    """An outcome in words."""
    return outcome.get("error") or f"loads, and logits differ by {outcome['difference']:.1g}"


def main(out: Path, old: str) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    os.chdir(out)
    print("training a model, an AdaLoRA and a LoRA", flush=True)
    subprocess.run([sys.executable, "-W", "ignore", str(HERE / "train.py"), "."], check=True)
    doctor("ranks", "adalora/ranks.jsonl")
    doctor("ranks", "adalora", "lora", "--values")
    doctor("scan", "adalora", "--for", "peft==0.9.0", code=1)
    doctor("fix", "adalora", "for-0.9.0", "--for", "peft==0.9.0")
    doctor("fix", "adalora", "portable", "--to", "lora")
    doctor("compare", "adalora", "portable")
    before, after = loaded(old, "peft", "adalora=adalora.npy", "for-0.9.0=adalora.npy")
    served, lora = loaded(sys.executable, "transformers", "portable=adalora.npy", "lora=lora.npy")
    report = ckpt_doctor.scan("adalora")
    ranks = [layer.rank for layer in report.layers.values()]
    plain = [layer.rank for layer in ckpt_doctor.scan("lora").layers.values()]
    budget = report.budget
    print(f"""
summary
  AdaLoRA         {len(ranks)} layers: {budget.init_r * len(ranks)} triplets → {budget.rank_sum}, {budget.state}
                  rank {min(ranks)} – {max(ranks)}, {ranks.count(0)} layers at 0
  LoRA            {len(plain)} layers: {sum(plain)} ranks
  loss            AdaLoRA {served.get("loss", math.nan):.3f}, LoRA {lora.get("loss", math.nan):.3f}
  PEFT 0.9.0      as saved: {said(before)}
                  repaired: {said(after)}
  transformers    as LoRA: {said(served)}""")
    close = all(one.get("difference", 1) < CLOSE for one in (after, served, lora))
    sys.exit(0 if close and "error" in before and budget.rank_sum == budget.budget else 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), os.path.abspath(sys.argv[2]))
