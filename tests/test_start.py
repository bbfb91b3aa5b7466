"""The options that a server has to be started with for several adapters, and which forces each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from test_servers import QV, base, lora  # noqa: F401 - base is a fixture


def test_one_rank_for_all_and_who_forces_it(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    lora(tmp_path / "all" / "a", QV)
    lora(tmp_path / "all" / "b", dict.fromkeys(QV, 20), r=20)
    lora(tmp_path / "all" / "rejected", dict.fromkeys(QV, 64), r=64, use_dora=True)
    out = run("scan", tmp_path / "all", "--for", "vllm", "--base", base, "--max-rank", 16).stdout
    assert "vllm for 2 of them: --enable-lora --max-lora-rank 32\n" in out
    assert f"--max-lora-rank 32: {tmp_path / 'all' / 'b'}" in " ".join(out.split())


def test_the_json_has_the_same(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    lora(tmp_path / "a", QV)
    report = json.loads(run("scan", tmp_path / "a", "--for", "vllm", "--base", base, "--format", "json").stdout)
    assert report["start"]["vllm"]["line"] == "--enable-lora --max-lora-rank 8"
    assert report["start"]["vllm"]["options"][0]["forced_by"] == str(tmp_path / "a")


def test_sglang_is_told_the_modules(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    lora(tmp_path / "all" / "a", QV)
    lora(tmp_path / "all" / "b", {"0.mlp.down_proj": 4})
    out = " ".join(run("scan", tmp_path / "all", "--for", "sglang", "--base", base).stdout.split())
    assert "--enable-lora --max-lora-rank 4 --lora-target-modules" in out
    assert f"--lora-target-modules down_proj: {tmp_path / 'all' / 'b'}" in out


def test_no_server_no_line(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    lora(tmp_path / "all" / "a", QV)
    lora(tmp_path / "all" / "b", QV)
    assert base.exists()
    assert "--enable-lora" not in run("scan", tmp_path / "all").stdout
