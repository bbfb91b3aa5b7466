"""A config that makes PEFT import a module is never accepted by a release that does, and fix takes the module away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ckpt_doctor.adapter.runtimes import peft

HARM = {"megatron_config": {"a": 1}, "megatron_core": "a_module_of_the_test"}
LOAD = """
import sys, torch
from peft import PeftModel
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q = torch.nn.Linear(4, 4)
try:
    PeftModel.from_pretrained(Net(), sys.argv[1])
except BaseException as error:
    print(type(error).__name__)
"""
RELEASES = sorted(Path(os.environ.get("PEFT_VENVS", ".venvs")).glob("peft-*"))


def adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "lora_dropout": 0.1, "target_modules": ["q"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, **config}))
    shapes = {"A": (2, 4), "B": (4, 2)}
    state = {f"base_model.model.q.lora_{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    torch.save(state, folder / "adapter_model.bin")
    return folder


def loaded(python: str, folder: Path, tmp_path: Path, module: str) -> tuple[bool, str]:
    """Whether a real PEFT ran the module, and the name of what it raised."""
    mark = tmp_path / "mark"
    (tmp_path / "a_module_of_the_test.py").write_text(f"open({str(mark)!r}, 'w').close()\n{module}")
    done = subprocess.run(
        [python, "-c", LOAD, str(folder)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    ran = mark.exists()
    mark.unlink(missing_ok=True)
    return ran, done.stdout.strip()


def by_code(report: dict[str, Any], code: str) -> dict[str, Any]:
    (finding,) = (finding for finding in report["findings"] if finding["code"] == code)
    assert isinstance(finding, dict)
    return finding


def verdicts(report: dict[str, Any], ids: frozenset[str]) -> set[str]:
    return {report["verdicts"][id_] for id_ in ids}


def test_a_config_that_imports_a_module_is_an_error(run: Any, scan: Any, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", **HARM)
    assert run("scan", folder).exit_code == 1
    for id_ in ("peft==0.13.2", "peft==0.21.2"):
        assert run("scan", "--for", id_, folder).exit_code == 1
    report = scan(folder)
    finding = by_code(report, "CD016")
    assert (finding["severity"], finding["fixable"]) == ("error", True)
    assert "megatron_core" in finding["message"]
    assert "a_module_of_the_test" in finding["message"]
    assert verdicts(report, peft("0.7", "0.19")) == {"misloads"}
    assert verdicts(report, peft("0.6", "0.6") | peft("0.20")) == {"rejects"}
    assert verdicts(report, peft("0.4", "0.5")) == {"accepts"}


@pytest.mark.parametrize("options", [(), ("--for", "peft==0.13.2"), ("--for", "peft==*"), ("--for", "peft==0.21.2")])
def test_a_fix_takes_the_module_away(run: Any, scan: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
    folder, out = adapter(tmp_path / "a", **HARM), tmp_path / "out"
    assert run("fix", *options, folder, out).exit_code == 0
    config = json.loads((out / "adapter_config.json").read_text())
    assert not config.keys() & HARM.keys()
    assert verdicts(scan(out), peft("0.4")) == {"accepts"}
    assert loaded(sys.executable, out, tmp_path, "") == (False, "")


@pytest.mark.parametrize("core", ["megatron.other", "megatron.core.other"])
def test_what_newer_releases_let_through_is_imported_by_them(scan: Any, tmp_path: Path, core: str) -> None:
    report = scan(adapter(tmp_path / "a", megatron_config={"a": 1}, megatron_core=core))
    assert by_code(report, "CD016")["severity"] == "error"
    assert verdicts(report, peft("0.7")) == {"misloads"}


@pytest.mark.parametrize("core", ["megatron", "megatronx.core"])
def test_what_only_begins_alike_is_refused_by_them(scan: Any, tmp_path: Path, core: str) -> None:
    report = scan(adapter(tmp_path / "a", megatron_config={"a": 1}, megatron_core=core))
    assert verdicts(report, peft("0.7", "0.19")) == {"misloads"}
    assert verdicts(report, peft("0.20")) == {"rejects"}


@pytest.mark.parametrize("core", [{}, {"megatron_core": "megatron.core"}], ids=["absent", "default"])
def test_megatron_itself_is_a_question_of_what_is_installed(scan: Any, tmp_path: Path, core: dict[str, Any]) -> None:
    report = scan(adapter(tmp_path / "a", megatron_config={"a": 1}, **core))
    assert by_code(report, "CD017")["severity"] == "note"
    assert verdicts(report, peft("0.7")) == {"unknown"}


@pytest.mark.parametrize("core", [None, 3, ["a"], "", ".x"])
def test_what_is_no_module_is_rejected(scan: Any, tmp_path: Path, core: object) -> None:
    report = scan(adapter(tmp_path / "a", megatron_config={"a": 1}, megatron_core=core))
    assert by_code(report, "CD017")["severity"] == "error"
    assert verdicts(report, peft("0.7")) == {"rejects"}


def test_beside_dora_it_is_rejected(scan: Any, tmp_path: Path) -> None:
    report = scan(adapter(tmp_path / "a", **HARM, use_dora=True))
    assert verdicts(report, peft("0.7")) == {"rejects"}


HARMLESS = [
    {"megatron_config": None, "megatron_core": "any.module"},
    {"megatron_config": {}, "megatron_core": "any.module"},
    {"megatron_core": "any.module"},
    {"auto_mapping": {"base_model_class": "Net", "parent_library": "__main__"}},
    {"auto_mapping": {"base_model_class": "Net", "parent_library": "net"}, "task_type": "CAUSAL_LM"},
    {"auto_mapping": {"base_model_class": "M", "parent_library": "transformers.models.llama.modeling_llama"}},
]


@pytest.mark.parametrize("config", HARMLESS)
def test_what_imports_nothing_is_not_told(scan: Any, tmp_path: Path, config: dict[str, Any]) -> None:
    report = scan(adapter(tmp_path / "a", **config))
    assert not {finding["code"] for finding in report["findings"]} & {"CD016", "CD017", "CD018"}
    assert report["verdicts"]["peft==0.21.2"] == "accepts"


@pytest.mark.parametrize("library", ["net", "transformers_modules.a.b", "transformersx"])
def test_what_only_auto_peft_model_imports_is_a_note(scan: Any, tmp_path: Path, library: str) -> None:
    report = scan(adapter(tmp_path / "a", auto_mapping={"base_model_class": "Net", "parent_library": library}))
    finding = by_code(report, "CD018")
    assert finding["severity"] == "note"
    assert library in finding["message"]
    assert report["verdicts"]["peft==0.21.2"] == "accepts"


def test_adalora_imports_nothing(scan: Any, tmp_path: Path) -> None:
    report = scan(adapter(tmp_path / "a", **HARM, peft_type="ADALORA"))
    assert "CD016" not in {finding["code"] for finding in report["findings"]}


def test_the_peft_here_refuses_it(tmp_path: Path) -> None:
    assert loaded(sys.executable, adapter(tmp_path / "a", **HARM), tmp_path, "") == (False, "ValueError")


@pytest.mark.compat
@pytest.mark.parametrize("venv", RELEASES, ids=lambda venv: venv.name)
def test_a_release_runs_it_as_the_findings_say(scan: Any, tmp_path: Path, venv: Path) -> None:
    release, python, folder = venv.name.replace("-", "=="), str(venv / "bin/python"), adapter(tmp_path / "a", **HARM)
    verdict = scan(folder)["verdicts"][release]
    classes = "class tensor_parallel:\n    ColumnParallelLinear = RowParallelLinear = ()\n"
    ran, error = loaded(python, folder, tmp_path, classes)
    assert ran == (verdict == "misloads")
    if release in peft("0.4"):  # older ones want more of a model than this one has
        assert (error == "") == (verdict != "rejects")
    if ran:
        absent = adapter(tmp_path / "b", **{**HARM, "megatron_core": "no_such_module"})
        assert loaded(python, absent, tmp_path, "") == (False, "ModuleNotFoundError")
