"""What a server has no place for, left out where that is asked for: said, and what is left is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_experts import HIDDEN, delta, model, pair, saved
from test_fused import model as plain_model


def mixed(folder: Path, **values: Any) -> Path:
    """An adapter of a Mistral, with its head, which vLLM's class does not serve."""
    tensors = pair("0.self_attn.q_proj", 16, HIDDEN) | {
        f"base_model.model.lm_head.{key.rpartition('q_proj.')[2]}": value
        for key, value in pair("9.q_proj", 32, HIDDEN).items()
    }
    return saved(folder, tensors, target_modules=["q_proj", "lm_head"], **values)


def test_nothing_is_dropped_unasked(run: Any, tmp_path: Path) -> None:
    base = plain_model(tmp_path / "base", "MistralForCausalLM", "mistral")
    result = run("fix", mixed(tmp_path / "a"), tmp_path / "out", "--for", "vllm", "--base", base)
    assert result.exit_code == 1
    assert "--drop" in result.output
    assert not (tmp_path / "out").exists()


def test_what_is_dropped_is_said(run: Any, tmp_path: Path) -> None:
    base, out = plain_model(tmp_path / "base", "MistralForCausalLM", "mistral"), tmp_path / "out"
    source = mixed(tmp_path / "a")
    result = run("fix", source, out, "--for", "vllm", "--base", base, "--drop")
    assert result.exit_code == 0, result.output
    assert "not the same function: 1 layer dropped: lm_head" in result.output
    record = json.loads((out / "ckpt-doctor.json").read_text())
    assert record["dropped"] == ["lm_head"]
    assert record["proof"]["verdict"] == "different"
    assert "lm_head" in record["proof"]["reason"]
    old, new = (load_file(folder / "adapter_model.safetensors") for folder in (source, out))
    assert new.keys() == {key for key in old if "lm_head" not in key}
    q = "0.self_attn.q_proj"
    np.testing.assert_array_equal(delta(new, q, 1.0), delta(old, q, 1.0))
    assert json.loads((out / "adapter_config.json").read_text())["target_modules"] == ["q_proj"]
    report = json.loads(run("scan", out, "--for", "vllm", "--base", base, "--format", "json").stdout)["reports"][0]
    assert report["verdicts"]["vllm==0.33.0"] == "accepts"


def test_json_names_what_is_dropped(run: Any, tmp_path: Path) -> None:
    base = plain_model(tmp_path / "base", "MistralForCausalLM", "mistral")
    options = ("--for", "vllm", "--base", base, "--drop", "--dry-run", "--format", "json")
    result = run("fix", mixed(tmp_path / "a"), tmp_path / "out", *options)
    assert json.loads(result.stdout)["results"][0]["dropped"] == ["lm_head"]


def test_repairs_go_on_after_a_drop(run: Any, tmp_path: Path) -> None:
    """What is left is repaired as ever: here experts that are parameters, beside a layer past the last."""
    from test_experts import as_parameters, same_experts, written

    base, out = model(tmp_path / "base", "qwen3_moe"), tmp_path / "out"
    tensors = as_parameters() | pair("7.self_attn.q_proj", 16, HIDDEN)
    named = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    source = saved(tmp_path / "a", tensors, target_modules=["q_proj"], target_parameters=named)
    result = run("fix", source, out, "--for", "llama.cpp", "--base", base, "--drop")
    assert result.exit_code == 0, result.output
    new, config = written(out)
    assert not any(".7." in key.partition("self_attn")[0] for key in new)
    same_experts(tensors, new, "qwen3_moe", 1.5, config["lora_alpha"] / config["r"])


@pytest.mark.parametrize("fault", ["no server", "nothing left"])
def test_what_is_not_dropped(run: Any, tmp_path: Path, fault: str) -> None:
    base, out = plain_model(tmp_path / "base", "MistralForCausalLM", "mistral"), tmp_path / "out"
    source = mixed(tmp_path / "a")
    if fault == "nothing left":
        head = {k: v for k, v in load_file(source / "adapter_model.safetensors").items() if "lm_head" in k}
        source = saved(tmp_path / "b", head, target_modules=["lm_head"])
    server = "peft" if fault == "no server" else "vllm"
    result = run("fix", source, out, "--for", server, "--base", base, "--drop")
    assert result.exit_code == (2 if fault == "no server" else 1), result.output
    assert not out.exists()


def test_a_way_is_named_where_one_that_was_not_asked_for_stands_in_it(run: Any, tmp_path: Path) -> None:
    """DeepSeek-V3: vLLM never uses a LoRA on kv_b_proj; one by one as it wants the experts, llama.cpp would load the
    rest as well, and drop q_a_proj without a word. An option of vLLM's is another way.
    """
    from test_experts import DATA

    base = DATA / "deepseek_v3/config.json"
    tensors = load_file(DATA / "deepseek_v3/adapter_model.safetensors")
    tensors |= pair("0.self_attn.kv_b_proj", 32, 8) | pair("0.self_attn.q_a_proj", 8, HIDDEN)
    config = json.loads((DATA / "deepseek_v3/adapter_config.json").read_text())
    config["target_modules"] += ["kv_b_proj", "q_a_proj"]
    source, out = saved(tmp_path / "a", tensors, **config), tmp_path / "out"
    options = ("--base", base, "--drop", "--for", "vllm")
    result = run("fix", source, out, *options)
    text = " ".join(result.output.split())
    assert result.exit_code == 1, result.output
    assert "add --for llama.cpp" in text
    assert "--enable-mixed-moe-lora-format" in text
    assert "--best-effort writes it" in text
    run("fix", source, tmp_path / "mixed", *options, "--best-effort")
    assert json.loads((tmp_path / "mixed/ckpt-doctor.json").read_text())["dropped"] == [
        "model.layers.0.self_attn.kv_b_proj"
    ]
    assert run("fix", source, out, *options, "--for", "llama.cpp").exit_code == 0
    dropped = json.loads((out / "ckpt-doctor.json").read_text())["dropped"]
    assert sorted(dropped) == ["model.layers.0.self_attn.kv_b_proj", "model.layers.0.self_attn.q_a_proj"]


def test_what_has_a_place_under_another_name_is_not_dropped(run: Any, tmp_path: Path) -> None:
    """A name that is wrong throughout hides that one layer alone is past the last."""
    base, out = plain_model(tmp_path / "base", "MistralForCausalLM", "mistral").parent, tmp_path / "out"
    names = [f"model.layers.{number}.self_attn.q_proj.weight" for number in range(2)]
    save_file({name: np.zeros((16, HIDDEN), np.float32) for name in names}, base / "model.safetensors")
    tensors = pair("0.self_attn.q_proj", 16, HIDDEN) | pair("1.self_attn.q_proj", 16, HIDDEN)
    tensors |= pair("7.self_attn.q_proj", 16, HIDDEN)
    tensors = {key.replace("model.layers", "layers"): value for key, value in tensors.items()}
    source = saved(tmp_path / "a", tensors, target_modules=["q_proj"])
    result = run("fix", source, out, "--for", "vllm", "--base", base, "--drop")
    assert result.exit_code == 0, result.output
    assert "1 layer dropped" in result.output
    assert len(load_file(out / "adapter_model.safetensors")) == 4


def test_a_scan_ends_where_another_method_stands_under_other_names(tmp_path: Path) -> None:
    """Of what a server has no place for nothing was dropped, again and again: the names of IA3 have no `.lora_`."""
    base = plain_model(tmp_path / "base", "MistralForCausalLM", "mistral").parent
    weights = {f"model.layers.{at}.self_attn.q_proj.weight": np.ones((16, HIDDEN), np.float32) for at in range(2)}
    save_file(weights, base / "model.safetensors")
    values = {"peft_type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": []}
    key = "base_model.model.transformer.layers.0.self_attn.q_proj.ia3_l"
    source = saved(tmp_path / "a", {key: np.ones((16, 1), np.float32)}, **values)
    command = [sys.executable, "-m", "ckpt_doctor", "scan", source, "--for", "tgi", "--base", base]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "servers take LoRA alone" in " ".join(done.stdout.split())
