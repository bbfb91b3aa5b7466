"""Run the shell examples of README.md as they are written, with the ckpt-doctor that this Python has.

usage: python scripts/run_readme.py        Needs bash, and nothing installed but the package.
Sections Scan, Fix, In CI, In code and Shell completion run in a folder of their own, in this order; each block must exit as it should.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECTIONS = ("Scan", "Fix", "In CI", "In code", "Shell completion")
FINDINGS = "scan"
"""What may end with 1: its job is to find."""


def blocks(readme: str) -> dict[str, list[str]]:
    """The blocks marked `sh` of each section that is run."""
    by_section = {}
    for section in SECTIONS:
        text = readme.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        by_section[section] = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if not by_section[section]:
            sys.exit(f"the section {section} has no example")
    return by_section


def commands(block: str) -> list[str]:
    """The lines of a block, one command each."""
    return [line for line in block.splitlines() if line.strip()]


def prepare(folder: Path) -> None:
    """What the examples speak of: adapter/, adapters/, loras/, mlx/, and model/ with the shapes that the adapters were
    trained on.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from ckpt_doctor import load

    healthy, zero = ROOT / "fixtures/lora-plain-0.21.2", ROOT / "fixtures/adalora-rank0-0.17.1"
    shutil.copytree(zero, folder / "adapter")
    shutil.copytree(zero, folder / "adapters/legacy/zero")
    shutil.copytree(healthy, folder / "adapters/healthy")
    for name in ("a", "b"):
        shutil.copytree(healthy, folder / "loras" / name)
    shutil.copytree(ROOT / "tests/data/conversions/mlx/lora", folder / "mlx")
    (folder / "model").mkdir()
    tensors = load(zero).tensors
    factors = {key.rpartition(".lora_A")[0]: info.shape[1] for key, info in tensors.items() if ".lora_A" in key}
    shapes = {module: (tensors[f"{module}.lora_B"].shape[0], width) for module, width in factors.items()}
    weights = {
        f"{key.removeprefix('base_model.model.')}.weight": np.zeros(shape, "float32") for key, shape in shapes.items()
    }
    save_file(weights, folder / "model/model.safetensors")


def main() -> None:
    """Run all blocks; exit with 1 at the first command that fails otherwise than it may."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        section = readme.partition("```toml\n")[2].partition("```")[0]
        environ = {**os.environ, "HOME": name, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        (folder / ".cache/ckpt-doctor").mkdir(parents=True)
        for title, examples in blocks(readme).items():
            for command in (line for block in examples for line in commands(block)):
                run = subprocess.run(["bash", "-c", command], cwd=folder, env=environ, capture_output=True, text=True)
                allowed = (0, 1) if f"ckpt-doctor {FINDINGS}" in command else (0,)
                print(f"{title}: {command}\n    exit {run.returncode}")
                if run.returncode not in allowed or "Traceback" in run.stderr:
                    sys.exit(run.stdout + run.stderr)
        (folder / "pyproject.toml").write_text(section)
        run = subprocess.run(
            ["ckpt-doctor", "scan", "adapters"], cwd=folder, env=environ, capture_output=True, text=True
        )
        if run.returncode == 2:
            sys.exit(run.stderr)
    print(f"every example of README.md runs under Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
