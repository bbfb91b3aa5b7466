"""What is cited of PEFT is looked up: a file, a class or a function that is not there is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "scripts/check_citations.py"


def environment(folder: Path, release: str, files: dict[str, str]) -> Path:
    """An environment with something that is called PEFT."""
    packages = folder / "lib/python3.11/site-packages"
    (packages / f"peft-{release}.dist-info").mkdir(parents=True)
    for name, text in files.items():
        path = packages / "peft" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def missing(*places: Path) -> set[str]:
    made = subprocess.run([sys.executable, SCRIPT, *places], capture_output=True, text=True, check=False)
    assert made.returncode == 1, made.stderr
    return {line.rpartition(" is in ")[0].split(": ", 1)[1] for line in made.stdout.splitlines()[:-1]}


def test_a_class_has_to_be_there_with_its_function(tmp_path: Path) -> None:
    lokr = "tuners/lokr/layer.py"
    bare = environment(tmp_path / "a", "0.21.2", {lokr: "def update_layer(): ..."})
    whole = environment(tmp_path / "b", "0.21.2", {lokr: "class LoKrLayer:\n def update_layer(self): ..."})
    assert f"{lokr}: LoKrLayer.update_layer" in missing(bare)
    assert f"{lokr}: LoKrLayer.update_layer" not in missing(whole)


def test_it_has_to_be_in_a_release_that_the_row_speaks_of(tmp_path: Path) -> None:
    file = {"tuners/vera/model.py": "class VeraModel:\n def _find_first_dim(self): ..."}
    cited = "tuners/vera/model.py: VeraModel._find_first_dim"  # of 0.11 alone
    newer, older = (environment(tmp_path / release, release, {}) for release in ("0.20.0", "0.11.1"))
    assert cited in missing(newer, older)
    assert cited in missing(environment(tmp_path / "newer", "0.20.0", file), older)
    assert cited not in missing(newer, environment(tmp_path / "older", "0.11.1", file))
