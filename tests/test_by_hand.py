"""What is proposed to be done by hand is one sentence for one cause, and leads to what the newest PEFT accepts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES
from safetensors.numpy import load_file, save_file

from ckpt_doctor import fix, scan
from ckpt_doctor.adapter.findings import ERROR
from ckpt_doctor.adapter.runtimes import NEWEST

HEALTHY = FIXTURES / "lora-plain-0.21.2"


def changed(folder: Path, **values: Any) -> Path:
    """A copy of a healthy LoRA with other values in its config; what is ... is not there."""
    shutil.copytree(HEALTHY, folder)
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return folder


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"r": "4"}, "CD306"),
        ({"r": None}, "CD306"),
        ({"r": ...}, "CD105"),
        ({"r": 2}, "CD105"),
        ({"r": -1}, "CD102"),
        ({"lora_alpha": "8"}, "CD306"),
        ({"rank_pattern": None, "alpha_pattern": None}, "CD306"),
        ({"rank_pattern": {"blocks.0.q": 0}}, "CD102"),
        ({"target_modules": []}, "CD316"),
        ({"target_modules": ["query"]}, "CD309"),
        ({"peft_type": "ADALORA"}, "CD403"),
        ({"peft_type": ...}, "CD501"),
        ({"peft_type": "lora"}, "CD501"),
    ],
)
def test_a_value_that_is_set_as_proposed(tmp_path: Path, values: dict[str, Any], code: str) -> None:
    folder = changed(tmp_path / "in", **values)
    errors = [finding for finding in scan(folder).findings if finding.severity == ERROR]
    found = [finding for finding in errors if finding.code != "CD302"]  # AdaLoRA's, which this one is not
    assert [finding.code for finding in found] == [code]
    remedy = found[0].remedy
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    if remedy.startswith("take what is 0 out of rank_pattern"):
        config["rank_pattern"] = {key: rank for key, rank in config["rank_pattern"].items() if rank}
    else:
        words = re.match(r'set (\w+)(?: and (\w+))? to (\[.*?\]|\{\}|"\w+"|\d+)', remedy)
        assert words, remedy
        config.update({key: json.loads(words[3]) for key in words.groups()[:2] if key})
    path.write_text(json.dumps(config))
    assert scan(folder).verdicts[NEWEST] == "accepts"


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        ("base_model.model.", "", "put base_model.model. before each key"),
        ("base_model.model.", "module.", "put base_model.model. for module. in each key"),
        ("base_model.model.", "base_model.model.base_model.model.", "take one base_model.model. off each key"),
        ("base_model.model.", "base_model.model.module.", "take module. out of each key"),
        ("base_model.model.", "base_model.model._orig_mod.", "take _orig_mod. out of each key"),
        (".weight", "", "rename them to end in .lora_A.weight"),
    ],
)
def test_keys_that_are_named_as_proposed(tmp_path: Path, old: str, new: str, remedy: str) -> None:
    folder = changed(tmp_path / "in")
    weights = folder / "adapter_model.safetensors"
    save_file({key.replace(old, new): value for key, value in load_file(weights).items()}, weights)
    (error,) = [finding for finding in scan(folder).findings if finding.severity == ERROR]
    assert error.remedy == remedy


def test_another_method_is_told_a_server_once() -> None:
    found = scan(FIXTURES / "adalora-rank0-0.9.0", "vllm").findings
    (error,) = [finding for finding in found if finding.severity == ERROR]
    assert error.code == "CD605"
    assert error.message.startswith("peft_type is ADALORA")


def test_a_refused_fix_names_the_release_for_which_it_is_not(run: Any, tmp_path: Path) -> None:
    folder = changed(tmp_path / "in")
    weights = folder / "adapter_model.safetensors"
    keys = {key.replace("base_model.model.", "base_model.model._orig_mod."): key for key in load_file(weights)}
    save_file({new: load_file(weights)[old] for new, old in keys.items()}, weights)
    refused = run("fix", folder, tmp_path / "out")
    assert refused.exit_code == 1
    assert "cannot be repaired" not in refused.output
    (option,) = re.findall(r"--for (\S+)", refused.output)
    assert fix(folder, tmp_path / "out", option)
    result = run("fix", folder, tmp_path / "again", "--for", option, "--format", "json")
    (entry,) = json.loads(result.stdout)["results"]
    assert [finding["code"] for finding in entry["in_the_way"]] == ["CD401"]
    assert entry["in_the_way"][0]["severity"] == ERROR


def test_factors_that_are_turned_are_not_told_to_be_of_another_rank(tmp_path: Path) -> None:
    folder = changed(tmp_path / "in")
    path = folder / "adapter_model.safetensors"
    save_file({name: np.ascontiguousarray(tensor.T) for name, tensor in load_file(path).items()}, path)
    (found,) = [finding for finding in scan(folder).findings if finding.severity == ERROR]
    assert found.code == "CD105"
    assert "turned" in found.message
    assert found.remedy.startswith("turn each factor")


def test_layers_of_an_adapter_on_another_are_not_blamed_on_the_config(tmp_path: Path) -> None:
    folder = changed(tmp_path / "in")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    nested = {name.replace(".lora_", ".base_layer.lora_"): tensor for name, tensor in tensors.items()}
    save_file(tensors | nested, path)
    (found,) = [finding for finding in scan(folder).findings if finding.severity == ERROR]
    assert found.code == "CD324"
    assert "before another is put on" in found.remedy
