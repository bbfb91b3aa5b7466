"""Fused projections for servers: GLM-4's gate_up_proj, which vLLM's class names by its parts; the same deltas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_experts import HIDDEN, delta, pair, saved

INNER = 12


def model(folder: Path) -> Path:
    """GLM-4's config.json alone."""
    sizes = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": 4, "num_key_value_heads": 2}
    kind = {"architectures": ["Glm4ForCausalLM"], "model_type": "glm4", "num_hidden_layers": 2, "head_dim": 4}
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
