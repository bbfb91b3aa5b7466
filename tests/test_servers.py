"""Servers: verdicts as their own loading code gave them, and the one form of LoRA that all of them compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from conftest import FIXTURES
from safetensors.numpy import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from ckpt_doctor.rules.servers.ranks import needed_flag

VLLM, SGLANG, LLAMA, TRANSFORMERS = "vllm==0.33.0", "sglang==0.5.23", "llama.cpp==0.3.36", "transformers==5.16.1"
P = "base_model.model.model.layers."
RANDOM = np.random.default_rng(0)


def model() -> Any:
    """A Llama of two layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


SIZES = {
    "self_attn.q_proj": (16, 16), "self_attn.k_proj": (8, 16), "self_attn.v_proj": (8, 16),
    "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (32, 16), "mlp.up_proj": (32, 16), "mlp.down_proj": (16, 32),
}  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Its folder: config.json and model.safetensors."""
    model().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def lora(folder: Path, modules: dict[str, int], **values: Any) -> Path:
    """A LoRA adapter on modules of the Llama, each with a rank."""
    ends = sorted({module.rpartition(".")[2] for module in modules})
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ends, "task_type": "CAUSAL_LM", **values}
    tensors = {}
    for module, rank in modules.items():
        out, inner = SIZES[module.split(".", 1)[1]]
        tensors[f"{P}{module}.lora_A.weight"] = RANDOM.standard_normal((rank, inner)).astype(np.float32)
        tensors[f"{P}{module}.lora_B.weight"] = RANDOM.standard_normal((out, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


ALL = {f"{layer}.{module}": 4 for layer in (0, 1) for module in SIZES}
QV = {module: 4 for module in ALL if module.endswith(("q_proj", "v_proj"))}
Q = {module: 4 for module in ALL if module.endswith("q_proj")}


def verdicts(run: Any, folder: Path, *options: object) -> dict[str, str]:
    out = run("scan", folder, "--format", "json", "--for", "servers", *options).stdout
    by_id: dict[str, str] = json.loads(out)["reports"][0]["verdicts"]
    return {id_: by_id[id_] for id_ in (VLLM, SGLANG, LLAMA, TRANSFORMERS)}


def expected(word: str) -> dict[str, str]:
    kinds = {"a": "accepts", "r": "rejects", "m": "misloads", "u": "unknown"}
    return dict(zip((VLLM, SGLANG, LLAMA, TRANSFORMERS), (kinds[letter] for letter in word), strict=True))


SEEN = {
    "plain": (ALL, {}, "aaaa"),
    "q and v": (QV, {}, "aaaa"),
    "q alone": (Q, {}, "araa"),
    "rsLoRA": (ALL, {"use_rslora": True}, "amma"),
    "alpha pattern": (ALL, {"alpha_pattern": {"q_proj": 32}}, "amma"),
    "DoRA": (ALL, {"use_dora": True}, "rrum"),
    "bias": (ALL, {"bias": "all"}, "raaa"),
    "modules to save, without them": (ALL, {"modules_to_save": ["lm_head"]}, "raar"),
    "pissa": (ALL, {"init_lora_weights": "pissa", "peft_version": "0.21.2"}, "rmma"),
    "aLoRA": (ALL, {"alora_invocation_tokens": [1], "peft_version": "0.21.2"}, "rmma"),
    "a regex": (ALL, {"target_modules": ".*_proj"}, "araa"),
}


@pytest.mark.parametrize("name", SEEN)
def test_verdicts_are_what_the_servers_did(run: Any, tmp_path: Path, base: Path, name: str) -> None:
    modules, values, word = SEEN[name]
    assert verdicts(run, lora(tmp_path / "a", modules, **values), "--base", base) == expected(word)


def test_without_the_base_nothing_is_accepted(run: Any, tmp_path: Path) -> None:
    assert verdicts(run, lora(tmp_path / "a", ALL)) == expected("uuuu")


def test_adalora_is_refused_by_all(run: Any) -> None:
    assert verdicts(run, FIXTURES / "adalora-rank0-0.21.2") == expected("rrrr")


def test_a_rank_limit(run: Any, tmp_path: Path, base: Path) -> None:
    folder = lora(tmp_path / "a", dict.fromkeys(ALL, 17), r=17)
    assert verdicts(run, folder, "--base", base)[VLLM] == "accepts"
    assert verdicts(run, folder, "--base", base, "--max-rank", 16)[VLLM] == "rejects"
    assert "serve with --max-lora-rank 32" in run("scan", folder, "--for", "vllm", "--base", base).output
    assert [needed_flag(rank, VLLM) for rank in (1, 8, 9, 513)] == [1, 8, 16, None]
    assert needed_flag(1, "vllm==0.11.0") == 8


def logits(loaded: Any) -> Any:
    with torch.no_grad():
        return loaded(torch.arange(12).reshape(2, 6)).logits


UNPORTABLE = {
    "rsLoRA": (ALL, {"use_rslora": True}),
    "patterns": (
        {**ALL, "0.self_attn.q_proj": 2},
        {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"mlp.up_proj": 3}},
    ),
    "q alone": (Q, {}),
    "up alone": ({module: 4 for module in ALL if "up_proj" in module}, {}),
    "a regex": (QV, {"target_modules": r".*\.(q|v)_proj"}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNPORTABLE)
def test_the_portable_form_computes_the_same(run: Any, tmp_path: Path, base: Path, name: str) -> None:
    """In real PEFT and in transformers' own loader."""
    modules, values = UNPORTABLE[name]
    source = lora(tmp_path / "a", modules, **values)
    result = run("fix", source, tmp_path / "out", "--for", "servers", "--for", "peft", "--base", base)
    assert result.exit_code == 0, result.output
    assert verdicts(run, tmp_path / "out", "--base", base) == expected("aaaa")
    meant = logits(peft.PeftModel.from_pretrained(model(), source))
    assert float((meant - logits(model())).abs().max()) > 1e-2
    assert float((meant - logits(peft.PeftModel.from_pretrained(model(), tmp_path / "out"))).abs().max()) < 1e-5
    served = model()
    served.load_adapter(str(tmp_path / "out"))
    assert float((meant - logits(served)).abs().max()) < 1e-5
    assert run("compare", source, tmp_path / "out").exit_code == 0


def test_a_family_that_a_server_was_not_run_on_stops_no_fix(run: Any, tmp_path: Path, base: Path) -> None:
    config = json.loads((base / "config.json").read_text()) | {"model_type": "qwen2"}
    (base / "config.json").write_text(json.dumps(config))
    source = lora(tmp_path / "a", dict.fromkeys(ALL, 8), r=8)
    result = run("fix", source, tmp_path / "out", "--for", "tgi", "--base", base)
    assert result.exit_code == 0, result.output
    assert "was not run on a model of that family: load it once and compare" in result.output
    assert run("compare", source, tmp_path / "out").exit_code == 0
    config |= {"model_type": "falcon", "architectures": ["FalconForCausalLM"]}
    (base / "config.json").write_text(json.dumps(config))
    assert run("fix", source, tmp_path / "vllm", "--for", "vllm", "--base", base).exit_code == 1
    assert not (tmp_path / "vllm").exists()


def test_to_lora_names_no_runtime(run: Any, tmp_path: Path) -> None:
    for name in ("adalora-rank0-0.21.2", "adalora-rank0-gpt2-0.12.0"):
        source = FIXTURES / name
        assert run("fix", source, tmp_path / name, "--to", "lora").exit_code == 0
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert (config["peft_type"], config["lora_alpha"]) == ("LORA", config["r"])
        assert run("compare", source, tmp_path / name).exit_code == 0


def test_trim_fits_a_limit(run: Any, tmp_path: Path) -> None:
    source = lora(tmp_path / "a", ALL)
    tensors = load_file(source / "adapter_model.safetensors")
    for key in tensors:
        if "lora_A" in key:
            tensors[key][2:] = 0
        else:
            tensors[key][:, 2:] = 0
    save_file(tensors, source / "adapter_model.safetensors")
    assert run("fix", source, tmp_path / "out", "--trim").exit_code == 0
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["r"] == 2
    assert run("compare", source, tmp_path / "out").exit_code == 0


def test_a_small_dtype_needs_a_tolerance_and_says_its_error(run: Any, tmp_path: Path) -> None:
    source = lora(tmp_path / "a", ALL, use_rslora=True)
    options = ("--to", "lora", "--dtype", "bf16")
    assert run("fix", source, tmp_path / "out", *options).exit_code == 1
    assert not (tmp_path / "out").exists()
    result = run("fix", source, tmp_path / "out", *options, "--tolerance", "0.01")
    assert result.exit_code == 0
    assert "same function: within " in result.output
    proof = json.loads((tmp_path / "out/ckpt-doctor.json").read_text())["proof"]
    assert 1e-4 < proof["largest_relative_difference"] < 0.01


def test_compare_says_same_different_and_cannot_tell(run: Any, tmp_path: Path) -> None:
    one, other = lora(tmp_path / "a", ALL), lora(tmp_path / "b", ALL)
    shutil.copytree(one, tmp_path / "c")
    assert run("compare", one, tmp_path / "c").exit_code == 0
    result = run("compare", one, other)
    assert (result.exit_code, result.output.split(":")[0]) == (1, "different")
    assert run("compare", one, tmp_path / "none").exit_code == 2
    document = json.loads(run("compare", one, other, "--format", "json").stdout)
    assert document["verdict"] == "different"
    assert len(document["layers"]) == len(ALL)
