"""`ckpt-doctor scan`: what it finds, says and exits with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ADAPTERS, FIXTURES

from ckpt_doctor.reports import FORMATS

ZERO_RANK = [name for name in ADAPTERS if "rank0" in name and "no-rank0" not in name]


def codes(report: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in report["findings"]}


@pytest.mark.parametrize("name", ADAPTERS)
def test_rank_zero_is_reported_where_it_is_and_nowhere_else(scan: Any, name: str) -> None:
    report = scan(FIXTURES / name)
    assert ("CD101" in codes(report)) == (name in ZERO_RANK)
    assert (0 in {layer["rank"] for layer in report["layers"]}) == (name in ZERO_RANK)


def test_exit_codes(run: Any, tmp_path: Path) -> None:
    assert run("scan", FIXTURES / "lora-plain-0.21.2").exit_code == 0
    assert run("scan", FIXTURES / "adalora-rank0-0.9.0").exit_code == 1
    assert run("scan", FIXTURES / "adalora-rank0-0.9.0", "--fail-on", "never").exit_code == 0
    assert run("scan", tmp_path).exit_code == 2
    assert run("scan", tmp_path / "nothing").exit_code == 2


def test_the_way_out_counts_every_finding(run: Any) -> None:
    """Its rank-0 layers need 0.10, its keys 0.14."""
    assert "PEFT ≥ 0.14.0" in run("scan", FIXTURES / "adalora-rank0-0.17.1").output
    assert "PEFT ≥ 0.10.0" in run("scan", FIXTURES / "adalora-rank0-0.9.0").output


DAMAGED = {
    "CD004": ("adapter_model.safetensors", b""),
    "CD005": ("adapter_model.safetensors", b"\x00\x10\x00\x00\x00\x00\x00\x00{"),
    "CD006": ("adapter_model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "CD007": ("adapter_model.safetensors", b"<!DOCTYPE html><html></html>"),
    "CD008": ("adapter_model.safetensors", b"PK\x03\x04" + bytes(60)),
    "CD011": ("adapter_model.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00[]"),
    "CD013": ("adapter_model.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"),
    "CD003": ("adapter_config.json", b"{"),
}


@pytest.mark.parametrize("code", DAMAGED)
def test_damaged_files_are_findings(run: Any, scan: Any, tmp_path: Path, code: str) -> None:
    name, content = DAMAGED[code]
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a")
    (tmp_path / "a" / name).write_bytes(content)
    assert code in codes(scan(tmp_path / "a"))
    assert run("scan", tmp_path / "a").exit_code == 1


def test_a_fifo_does_not_hang(scan: Any, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a")
    (tmp_path / "a/adapter_model.safetensors").unlink()
    os.mkfifo(tmp_path / "a/adapter_model.safetensors")
    assert "CD009" in codes(scan(tmp_path / "a"))


def test_a_pickle_with_code_is_not_run(scan: Any, tmp_path: Path) -> None:
    import torch

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a")
    (tmp_path / "a/adapter_model.safetensors").unlink()
    torch.save({"x": Evil()}, tmp_path / "a/adapter_model.bin")
    assert "CD010" in codes(scan(tmp_path / "a"))
    assert not (tmp_path / "ran").exists()


def imported(*arguments: object) -> set[str]:
    """The modules that a command imports."""
    code = "import sys; from ckpt_doctor.cli import main; main(sys.argv[1:], standalone_mode=False)"
    watch = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
    command = [sys.executable, "-c", watch, *map(str, arguments)]
    return set(subprocess.run(command, capture_output=True, text=True, check=False).stderr.split())


def test_a_scan_imports_no_torch_and_no_numpy() -> None:
    modules = imported("scan", FIXTURES / "adalora-rank0-0.9.0")
    assert "click" in modules
    assert not modules & {"torch", "numpy", "tabulate", "packaging", "safetensors", "regex"}


UNUSED = (
    "api", "facts.methods.", "facts.servers", "files.base", "files.formats.torch", "files.numbers", "files.streams",
    "files.values", "files.writer", "repairs.lora", "repairs.servers", "rules.methods", "rules.servers",
    "rules.weights", "verbs.compare", "verbs.fix", "verbs.plan", "verbs.preload", "cli.baseline", "cli.fix",
    "verbs.ranks", "facts.budget", "conversions", "files.remote", "files.place", "files.stores", "cli.fleet",
)  # fmt: skip
"""Modules of this package, or what their names begin with, that a healthy LoRA needs none of."""


@pytest.mark.parametrize("format_", FORMATS)
def test_a_scan_imports_what_it_uses(format_: str) -> None:
    modules = imported("scan", "--format", format_, FIXTURES / "lora-plain-0.21.2")
    ours = {name.removeprefix("ckpt_doctor.") for name in modules if name.startswith("ckpt_doctor.")}
    assert "verbs.scan" in ours
    assert {name for name in ours if name.startswith(UNUSED)} == set()
    assert {name.removeprefix("reports.") for name in ours} & {*FORMATS} <= {format_, "json", "markdown"}


def test_several_paths_into_one_folder_are_one_adapter(run: Any) -> None:
    folder = FIXTURES / "lora-plain-0.21.2"
    result = run(
        "scan", "--format", "json", folder, folder / "adapter_config.json", folder / "adapter_model.safetensors"
    )
    assert len(json.loads(result.stdout)["reports"]) == 1


SHAPE = {
    "path": str, "error": (str, type(None)), "peft_type": (str, type(None)), "peft_version": (str, type(None)),
    "layers": list, "adalora": (dict, type(None)), "values": (dict, type(None)), "findings": list, "verdicts": dict,
    "read_not_run": list,
    "base": (dict, type(None)), "commands": list, "next": list, "proofs": list,
}  # fmt: skip
FINDING = {
    "code": str, "name": str, "severity": str, "message": str, "tensors": list, "config_keys": list,
    "rejected_by": list, "misloaded_by": list, "undecided_for": list, "needs": (str, type(None)), "fixable": bool,
    "option": str, "remedy": str,
}  # fmt: skip
LAYER = {"module": str, "rank": (int, type(None)), "alpha": (float, type(None)), "scaling": (float, type(None))}


def has_shape(value: dict[str, Any], shape: dict[str, Any]) -> bool:
    return value.keys() == shape.keys() and all(isinstance(value[key], shape[key]) for key in shape)


def test_the_json_has_the_shape_that_is_promised(run: Any, tmp_path: Path) -> None:
    document = json.loads(run("scan", "--format", "json", FIXTURES, tmp_path / "none").stdout)
    assert document.keys() == {"schema_version", "tool", "reports", "start", "summary"}
    assert document["schema_version"] == 1
    assert document["tool"].keys() == {"name", "version"}
    for report in document["reports"]:
        assert has_shape(report, SHAPE)
        if not report["error"]:
            assert len(report["verdicts"]) == 35
            assert set(report["verdicts"].values()) <= {"accepts", "rejects", "misloads", "unknown"}
        assert all(has_shape(layer, LAYER) for layer in report["layers"])
        assert all(has_shape(finding, FINDING) for finding in report["findings"])
        assert all(finding["severity"] in ("error", "warning", "note") for finding in report["findings"])
    assert [report["path"] for report in document["reports"] if report["error"]] == [str(tmp_path / "none")]


def test_the_rank_table(run: Any) -> None:
    lines = run("scan", FIXTURES / "adalora-rank0-0.9.0", "--layers").output.splitlines()
    (row,) = [line.split() for line in lines if line.startswith("  side.blocks.0 ")]
    assert row[1:] == ["0", "0", "0", "0"]
    assert "  all: alpha 8, scaling 2" in lines


def test_a_file_that_may_not_be_read_is_an_error(
    run: Any, scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def denied(path: Any, *rest: Any, **named: Any) -> int:
        if str(path).endswith("adapter_model.safetensors"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", denied)
    shutil.copytree(FIXTURES / "lora-plain-0.6.2", tmp_path / "b")
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a", copy_function=shutil.copyfile)
    assert "Permission denied" in scan(tmp_path / "a")["error"]
    result = run("scan", tmp_path)
    assert result.exit_code == 2
    assert "LORA" in result.output  # the other one is examined all the same


def test_what_no_release_takes_is_an_error_also_by_several_causes(run: Any, tmp_path: Path) -> None:
    """0.2 and 0.3 do not know layers_to_transform, and want a .bin."""
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a")
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    (tmp_path / "a/adapter_config.json").write_text(json.dumps({**config, "layers_to_transform": [9]}))
    result = run("scan", tmp_path / "a")
    assert result.exit_code == 1
    assert "target_modules (['q', 'v']) in layers_to_transform ([9]) matches none of the layers" in result.output
    assert run("fix", tmp_path / "a", tmp_path / "b").exit_code == 1
