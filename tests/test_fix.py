"""`ckpt-doctor fix`: what it writes, refuses and leaves alone; judged by the newest PEFT."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ADAPTERS, FIXTURES


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def load(python: str, folders: list[Path]) -> list[dict[str, Any]]:
    """What a PEFT makes of adapters, one row each."""
    rows = []
    for base in ("net", "gpt2"):
        of_base = [str(folder) for folder in folders if ("gpt2" in folder.name) == (base == "gpt2")]
        command = [python, "-W", "ignore", str(FIXTURES / "load.py"), base, *of_base]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows += [json.loads(line) for line in out.splitlines()]
    return rows


def fixed(run: Any, tmp_path: Path, *options: str) -> list[Path]:
    folders = []
    for name in ADAPTERS:
        if "prune" in options and "all-rank0" in name:
            continue
        result = run("fix", FIXTURES / name, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        folders.append(tmp_path / name)
    return folders


@pytest.mark.parametrize("how", ["pad", "prune"])
def test_the_newest_peft_computes_the_same(run: Any, tmp_path: Path, how: str) -> None:
    rows = load(sys.executable, fixed(run, tmp_path, "--rank-zero", how))
    assert rows
    assert {row["folder"]: row["verdict"] for row in rows if row["verdict"] != "accepts"} == {}


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_input_stays_and_a_second_fix_changes_nothing(run: Any, tmp_path: Path, name: str) -> None:
    before = tree(FIXTURES / name)
    assert run("fix", FIXTURES / name, tmp_path / "a").exit_code == 0
    assert run("fix", tmp_path / "a", tmp_path / "b").exit_code == 0
    assert tree(FIXTURES / name) == before
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_refusals(run: Any, tmp_path: Path) -> None:
    source = FIXTURES / "adalora-all-rank0-0.9.0"
    assert run("fix", source, tmp_path / "a", "--rank-zero", "prune").exit_code == 1
    assert not (tmp_path / "a").exists()
    assert run("fix", source, source).exit_code == 2
    assert run("fix", source, tmp_path / "a", "--dry-run").exit_code == 0
    assert not (tmp_path / "a").exists()
    assert run("fix", source, tmp_path / "a").exit_code == 0
    assert run("fix", source, tmp_path / "a").exit_code == 2
    assert run("fix", source, tmp_path / "a", "--force").exit_code == 0


def test_a_pissa_adapter_keeps_its_keys(run: Any, tmp_path: Path) -> None:
    """Without them PEFT 0.6 would load it and compute something else."""
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "in")
    path = tmp_path / "in/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init_lora_weights": "pissa"}))
    result = run("fix", tmp_path / "in", tmp_path / "out")
    assert "refused" in result.output
    assert json.loads((tmp_path / "out/adapter_config.json").read_text()) == json.loads(path.read_text())


def test_bin_in_safetensors_out_and_back(run: Any, tmp_path: Path) -> None:
    source = FIXTURES / "adalora-rank0-bin-0.12.0"
    assert run("fix", source, tmp_path / "a").exit_code == 0
    assert (tmp_path / "a/adapter_model.safetensors").exists()
    assert run("fix", source, tmp_path / "b", "--weights", "same").exit_code == 0
    assert (tmp_path / "b/adapter_model.bin").exists()
    assert not (tmp_path / "b/adapter_model.safetensors").exists()
