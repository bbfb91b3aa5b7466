"""Projections in one and in parts for servers: the same deltas, in the form that the model's class has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_experts import HIDDEN, RANK, delta, pair, saved, written

INNER = 12


def model(folder: Path, class_: str = "Glm4ForCausalLM", type_: str = "glm4") -> Path:
    """A model's config.json alone, GLM-4's."""
    sizes = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": 4, "num_key_value_heads": 2}
    kind = {"architectures": [class_], "model_type": type_, "num_hidden_layers": 2, "head_dim": 4}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**sizes, **kind, "vocab_size": 32, "tie_word_embeddings": False}))
    return folder / "config.json"


def test_gate_up_becomes_gate_and_up(run: Any, tmp_path: Path) -> None:
    base, out = model(tmp_path / "base"), tmp_path / "out"
    tensors: dict[str, Any] = {}
    for layer in range(2):
        tensors |= pair(f"{layer}.self_attn.q_proj", 16, HIDDEN) | pair(f"{layer}.mlp.gate_up_proj", 2 * INNER, HIDDEN)
    source = saved(tmp_path / "a", tensors, target_modules=["q_proj", "gate_up_proj"])
    result = run("fix", source, out, "--for", "vllm", "--base", base)
    assert result.exit_code == 0, result.output
    new = load_file(out / "adapter_model.safetensors")
    for layer in range(2):
        parts = [delta(new, f"{layer}.mlp.{part}", 1.5) for part in ("gate_proj", "up_proj")]
        np.testing.assert_allclose(np.concatenate(parts), delta(tensors, f"{layer}.mlp.gate_up_proj", 1.5), rtol=1e-6)
        q = f"{layer}.self_attn.q_proj"
        np.testing.assert_array_equal(delta(new, q, 1.5), delta(tensors, q, 1.5))
    before, after = (
        json.loads(run("scan", folder, "--for", "peft==*", "--base", base, "--format", "json").stdout)["reports"][0]
        for folder in (source, out)
    )
    silent = [id_ for id_, word in after["verdicts"].items() if word == "misloads"]
    assert all(before["verdicts"][id_] == "misloads" for id_ in silent)


@pytest.mark.parametrize("fault", ["DoRA", "size", "pattern"])
def test_what_is_not_exact_is_refused(run: Any, tmp_path: Path, fault: str) -> None:
    base, out = model(tmp_path / "base"), tmp_path / "out"
    tensors = pair("0.mlp.gate_up_proj", 2 * INNER + (2 if fault == "size" else 0), HIDDEN)
    values = {"alpha_pattern": {"gate_up_proj": 12}} if fault == "pattern" else {}
    source = saved(tmp_path / "a", tensors, target_modules=["gate_up_proj"], use_dora=fault == "DoRA", **values)
    assert run("fix", source, out, "--for", "vllm", "--base", base).exit_code != 0
    assert not out.exists()


ROWS = {"q_proj": 16, "k_proj": 8, "v_proj": 8, "gate_proj": INNER, "up_proj": INNER}
WHOLES = {"self_attn.qkv_proj": ("q_proj", "k_proj", "v_proj"), "mlp.gate_up_proj": ("gate_proj", "up_proj")}


def projections(layer: int, gone: str = "") -> dict[str, Any]:
    """A layer's projections by their parts, but for one."""
    tensors: dict[str, Any] = {}
    for whole, parts in WHOLES.items():
        for part in parts:
            if part != gone:
                tensors |= pair(f"{layer}.{whole.partition('.')[0]}.{part}", ROWS[part], HIDDEN)
    return tensors


@pytest.mark.parametrize("server", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("gone", ["", "k_proj", "gate_proj"])
@pytest.mark.parametrize("rooted", [False, True])
def test_parts_become_one(run: Any, tmp_path: Path, server: str, gone: str, rooted: bool) -> None:
    """Phi-3 has qkv_proj and gate_up_proj; the rank is that of all parts, and the scale the same."""
    base, out = model(tmp_path / "base", "Phi3ForCausalLM", "phi3"), tmp_path / "out"
    tensors: dict[str, Any] = {}
    for layer in range(2):
        tensors |= projections(layer, gone) | pair(f"{layer}.self_attn.o_proj", HIDDEN, 16)
    source = saved(tmp_path / "a", tensors, target_modules=[*ROWS, "o_proj"], use_rslora=rooted)
    result = run("fix", source, out, "--for", server, "--base", base)
    assert result.exit_code == 0, result.output
    new, config = written(out)
    root = 0.5 if config.get("use_rslora") else 1
    scale, before = config["lora_alpha"] / config["r"] ** root, 6 / RANK ** (0.5 if rooted else 1)
    assert {value.shape[1 if ".lora_B" in key else 0] for key, value in new.items()} == {config["r"]}
    for layer in range(2):
        for whole, parts in WHOLES.items():
            block = whole.partition(".")[0]
            zero = np.zeros((ROWS[gone or "q_proj"], HIDDEN), np.float32)
            old = [zero if part == gone else delta(tensors, f"{layer}.{block}.{part}", before) for part in parts]
            found = delta(new, f"{layer}.{whole}", scale)
            np.testing.assert_allclose(found, np.concatenate(old), rtol=1e-5, atol=1e-5)
        o = f"{layer}.self_attn.o_proj"
        np.testing.assert_allclose(delta(new, o, scale), delta(tensors, o, before), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("server", ["vllm", "llama.cpp"])
def test_one_becomes_parts(run: Any, tmp_path: Path, server: str) -> None:
    """Mistral has q_proj, k_proj and v_proj."""
    base, out = model(tmp_path / "base", "MistralForCausalLM", "mistral"), tmp_path / "out"
    tensors = pair("0.self_attn.qkv_proj", 32, HIDDEN) | pair("1.mlp.gate_up_proj", 2 * INNER, HIDDEN)
    source = saved(tmp_path / "a", tensors, target_modules=["qkv_proj", "gate_up_proj"])
    result = run("fix", source, out, "--for", server, "--base", base)
    assert result.exit_code == 0, result.output
    new, _ = written(out)
    for layer, (whole, parts) in enumerate(WHOLES.items()):
        found = [delta(new, f"{layer}.{whole.partition('.')[0]}.{part}", 1.5) for part in parts]
        np.testing.assert_allclose(np.concatenate(found), delta(tensors, f"{layer}.{whole}", 1.5), rtol=1e-5)
    report = json.loads(run("scan", out, "--for", "peft", "--base", base, "--format", "json").stdout)["reports"][0]
    assert report["verdicts"]["peft==0.21.2"] == "accepts"


@pytest.mark.parametrize("fault", ["DoRA", "size", "pattern", "interleaved", "Llama-4"])
def test_no_rows_are_guessed(run: Any, tmp_path: Path, fault: str) -> None:
    """In query_key_value heads lie interleaved; vLLM reorders the rows of Llama-4's q_proj and k_proj."""
    class_, type_ = ("Llama4ForCausalLM", "llama4_text") if fault == "Llama-4" else ("MistralForCausalLM", "mistral")
    base, out = model(tmp_path / "base", class_, type_), tmp_path / "out"
    name = "query_key_value" if fault == "interleaved" else "qkv_proj"
    tensors = pair(f"0.self_attn.{name}", 32 + (2 if fault == "size" else 0), HIDDEN)
    values = {"alpha_pattern": {"qkv_proj": 12}} if fault == "pattern" else {}
    source = saved(tmp_path / "a", tensors, target_modules=[name], use_dora=fault == "DoRA", **values)
    assert run("fix", source, out, "--for", "vllm", "--base", base).exit_code != 0
    assert not out.exists()
