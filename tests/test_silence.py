"""A fix for one server leads no other from a rejection to a silent difference, also where that was not asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_experts import EXPERTS, HIDDEN, INNER, PARTS, pair, saved
from test_fused import model

RUN = ("vllm==0.33.0", "sglang==0.5.23", "llama.cpp==0.3.36", "transformers==5.16.1")


def verdicts(run: Any, folder: Path, base: Path) -> dict[str, str]:
    """What the servers make of an adapter."""
    report = json.loads(run("scan", folder, "--for", "servers", "--base", base, "--format", "json").stdout)["reports"][
        0
    ]
    return {id_: report["verdicts"][id_] for id_ in RUN}


@pytest.mark.parametrize("projection", ["q_proj", "v_proj"])
def test_a_name_that_one_rejects_stays_where_it_would_read_the_rows_otherwise(
    run: Any, tmp_path: Path, projection: str
) -> None:
    """The adapter's name in a key stops vLLM, which would reorder the rows of Llama-4's q_proj, and of the LoRA not."""
    base, out = model(tmp_path / "base", "Llama4ForCausalLM", "llama4_text"), tmp_path / "out"
    rows = 16 if projection == "q_proj" else 8
    tensors = pair(f"0.self_attn.{projection}", rows, HIDDEN) | pair(f"1.self_attn.{projection}", rows, HIDDEN)
    named = {key.replace(".weight", ".default.weight"): value for key, value in tensors.items()}
    source = saved(tmp_path / "a", named, target_modules=[projection])
    assert verdicts(run, source, base)["vllm==0.33.0"] == "rejects"
    result = run("fix", source, out, "--for", "llama.cpp", "--base", base)
    if projection == "v_proj":
        assert result.exit_code == 0, result.output
        assert verdicts(run, out, base)["vllm==0.33.0"] == "accepts"
    else:
        assert result.exit_code == 1, result.output
        assert "vllm 0.33.0 would then load it and compute something else, in silence" in " ".join(
            result.output.split()
        )
        assert not out.exists()


@pytest.mark.parametrize("server", ["vllm", "llama.cpp"])
def test_who_was_asked_for_is_told_what_it_would_meet(run: Any, tmp_path: Path, server: str) -> None:
    """Names that PEFT does not have hide that vLLM reorders the rows, which is why no other name helps it."""
    base, out = model(tmp_path / "base", "Llama4ForCausalLM", "llama4_text"), tmp_path / "out"
    tensors = pair("0.self_attn.q_proj", 16, HIDDEN) | pair("1.self_attn.q_proj", 16, HIDDEN)
    named = {key.replace(".weight", ".default.weight"): value for key, value in tensors.items()}
    source = saved(tmp_path / "a", named, target_modules=["q_proj"])
    result = run("fix", source, out, "--for", server, "--base", base)
    assert result.exit_code == 1, result.output
    text = " ".join(result.output.split())
    assert "refused name the tensors as PEFT does" in text
    assert "vLLM's Llama4ForCausalLM reorders the rows of these weights" in text


def test_what_transformers_would_drop_it_is_told_to_reject(run: Any, tmp_path: Path) -> None:
    """AdaLoRA on experts of Qwen2-MoE: as LoRA vLLM computes them, and transformers would drop them without a word."""
    base, out = model(tmp_path / "base", "Qwen2MoeForCausalLM", "qwen2_moe"), tmp_path / "out"
    config = json.loads(base.read_text())
    sizes = {"num_experts": EXPERTS, "moe_intermediate_size": INNER, "shared_expert_intermediate_size": INNER}
    base.write_text(json.dumps({**config, **sizes}))
    tensors: dict[str, Any] = {}
    for number in range(EXPERTS):
        for name in PARTS["qwen3_moe"]:
            shape = (HIDDEN, INNER) if name == "down_proj" else (INNER, HIDDEN)
            module = f"0.mlp.experts.{number}.{name}"
            tensors |= {key.removesuffix(".weight"): value for key, value in pair(module, *shape).items()}
            key = f"base_model.model.model.layers.{module}.lora_E"
            tensors[key] = np.ones((4, 1), np.float32)
    adalora = {"peft_type": "ADALORA", "init_r": 4, "target_r": 4, "total_step": 10, "rank_pattern": None}
    source = saved(tmp_path / "a", tensors, target_modules=[*PARTS["qwen3_moe"]], **adalora)
    before = verdicts(run, source, base)
    result = run("fix", source, out, "--for", "vllm", "--base", base)
    assert result.exit_code == 0, result.output
    after = verdicts(run, out, base)
    assert after["vllm==0.33.0"] == "accepts"
    assert not [id_ for id_ in RUN if after[id_] == "misloads" and before[id_] != "misloads"]
    assert len(load_file(out / "adapter_model.safetensors")) == 2 * EXPERTS * 3


def test_an_older_release_that_would_drop_the_result_is_named(run: Any, tmp_path: Path) -> None:
    """What vLLM wants, experts one by one, its releases up to 0.11 drop without a word: they have no LoRA on them."""
    from test_experts import as_parameters
    from test_experts import model as experts_model

    base, out = experts_model(tmp_path / "base", "qwen3_moe"), tmp_path / "out"
    named = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    source = saved(tmp_path / "a", as_parameters(), target_modules=["q_proj"], target_parameters=named)
    result = run("fix", source, out, "--for", "vllm", "--base", base)
    assert result.exit_code == 0, result.output
    assert "not for vllm 0.11.0 (by its source, not run)" in " ".join(result.output.split())
    assert json.loads((out / "ckpt-doctor.json").read_text())["silent"] == ["vllm==0.11.0"]
    plain = saved(tmp_path / "b", pair("0.self_attn.q_proj", 16, HIDDEN), target_modules=["q_proj"], lora_bias=False)
    document = json.loads(run("fix", plain, tmp_path / "c", "--for", "vllm", "--base", base, "--format", "json").stdout)
    assert document["results"][0]["silent"] == []
