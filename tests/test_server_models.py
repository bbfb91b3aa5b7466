"""Verdicts of servers by the class of the model, as the real ones gave them (scripts/lab/servers)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judging import base
from safetensors.numpy import save_file
from test_experts import HIDDEN, RANK, pair, saved

from ckpt_doctor.facts.servers.loads.sizes import in_files

SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
}


def model(folder: Path, name: str, kind: str, **values: Any) -> Path:
    """A model's config.json alone."""
    folder.mkdir()
    config = {"architectures": [name], "model_type": kind, "num_hidden_layers": 2, "vocab_size": 32, **SIZES, **values}
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


def verdict(run: Any, source: Path, server: str, base: Path) -> str:
    """What is said of a server."""
    result = run("scan", source, "--for", server, "--base", base, "--format", "json")
    (word,) = (word for id_, word in json.loads(result.stdout)["reports"][0]["verdicts"].items() if server in id_)
    return str(word)


@pytest.mark.parametrize("suffix", ["", ".default"])
@pytest.mark.parametrize(("rows", "word"), [(12, "rejects"), (16, "misloads"), (24, "misloads")])
def test_sglang_puts_a_tower_into_the_language_model(
    run: Any, tmp_path: Path, suffix: str, rows: int, word: str
) -> None:
    text = {"model_type": "gemma3_text", "num_hidden_layers": 2, "vocab_size": 32, **SIZES}
    base = model(tmp_path / "base", "Gemma3ForConditionalGeneration", "gemma3", text_config=text)
    tensors: dict[str, Any] = {}
    for name, out in (("language_model", 16), ("vision_tower.encoder", rows)):
        for part, size in (("q_proj", out), ("v_proj", out // 2)):
            found = pair(f"0.self_attn.{part}", size, HIDDEN)
            tensors |= {key.replace("model.layers", f"model.{name}.layers"): tensor for key, tensor in found.items()}
    source = saved(tmp_path / "a", tensors, target_modules=["q_proj", "v_proj"])
    renamed = {
        key.replace(".weight", f"{suffix}.weight"): np.ascontiguousarray(tensor) for key, tensor in tensors.items()
    }
    save_file(renamed, source / "adapter_model.safetensors")
    assert verdict(run, source, "sglang", base) == word


@pytest.mark.parametrize(("rows", "word"), [(24, "rejects"), (32, "misloads"), (48, "misloads")])
def test_sglang_puts_a_tower_s_fused_projection_into_the_language_model(
    run: Any, tmp_path: Path, rows: int, word: str
) -> None:
    text = {"model_type": "gemma3_text", "num_hidden_layers": 2, "vocab_size": 32, **SIZES}
    base = model(tmp_path / "base", "Gemma3ForConditionalGeneration", "gemma3", text_config=text)
    tensors: dict[str, Any] = {}
    for name, out in (("language_model", 32), ("vision_tower.encoder", rows)):
        found = pair("0.self_attn.qkv_proj", out, HIDDEN)
        tensors |= {key.replace("model.layers", f"model.{name}.layers"): tensor for key, tensor in found.items()}
    assert verdict(run, saved(tmp_path / "a", tensors, target_modules=["qkv_proj"]), "sglang", base) == word


@pytest.mark.parametrize(("across", "word"), [(False, "rejects"), (True, "misloads")])
def test_a_decoder_alone_attends_to_no_other_stack(run: Any, tmp_path: Path, across: bool, word: str) -> None:
    """The class of GPT-BigCode has q_attn, which is a target, only where it has crossattention."""
    values = {"n_embd": HIDDEN, "n_head": 4, "n_layer": 2, "multi_query": True, "add_cross_attention": across}
    base = model(tmp_path / "base", "GPTBigCodeForCausalLM", "gpt_bigcode", **values)
    factors = pair("0.attn.q_attn", HIDDEN, HIDDEN)
    tensors = {key.replace("model.layers", "transformer.h"): value for key, value in factors.items()}
    source = saved(tmp_path / "a", tensors, target_modules=["q_attn"])
    assert verdict(run, source, "transformers", base) == word


def test_what_vllm_has_no_more_may_run_as_transformers_has_it(run: Any, tmp_path: Path) -> None:
    source = saved(tmp_path / "a", pair("0.self_attn.q_proj", 16, HIDDEN), target_modules=["q_proj"])
    for name, kind, word in (
        ("Dots1ForCausalLM", "dots1", "accepts"),
        ("HeliumForCausalLM", "helium", "accepts"),
        ("BambaForCausalLM", "bamba", "unknown"),
        ("Phi3SmallForCausalLM", "phi3small", "rejects"),
    ):
        assert verdict(run, source, "vllm", model(tmp_path / kind, name, kind)) == word


@pytest.mark.parametrize(
    ("name", "kind", "module", "word"),
    [
        ("SmolLM3ForCausalLM", "smollm3", "self_attn.k_proj", "misloads"),
        ("SmolLM3ForCausalLM", "smollm3", "self_attn.o_proj", "rejects"),
        ("SmolLM3ForCausalLM", "smollm3", "mlp.up_proj", "misloads"),
        ("ArceeForCausalLM", "arcee", "mlp.up_proj", "rejects"),
    ],
)
def test_the_transformers_backend_fuses_as_it_starts(
    run: Any, tmp_path: Path, name: str, kind: str, module: str, word: str
) -> None:
    """A pair without A is dropped from a fused module, and stops the load elsewhere."""
    tensors = pair(f"0.{module}", HIDDEN, HIDDEN) | pair("1.self_attn.q_proj", HIDDEN, HIDDEN)
    del tensors[next(key for key in tensors if module in key and "lora_A" in key)]
    source = saved(tmp_path / "a", tensors, target_modules=[module.rpartition(".")[2], "q_proj"])
    assert verdict(run, source, "vllm", model(tmp_path / "base", name, kind)) == word


@pytest.mark.parametrize(
    ("module", "word"), [("mlp.experts", "rejects"), ("mlp.gate", "unknown"), ("mlp.shared_experts.up_proj", "unknown")]
)
def test_the_transformers_backend_takes_no_experts(run: Any, tmp_path: Path, module: str, word: str) -> None:
    """Dots1's gate was dropped as its block was fused, and DeepSeek's shared experts were; Phimoe's router was not."""
    values = {"n_routed_experts": 2, "n_shared_experts": 1, "moe_intermediate_size": 12, "first_k_dense_replace": 0}
    base = model(tmp_path / "base", "Dots1ForCausalLM", "dots1", **values)
    rank, out = (8, HIDDEN) if module == "mlp.experts" else (4, 2 if module == "mlp.gate" else 12)
    tensors = pair(f"0.{module}", out, 12 if module == "mlp.experts" else HIDDEN, rank)
    named = {"target_parameters": ["mlp.experts.down_proj"]} if module == "mlp.experts" else {}
    source = saved(tmp_path / "a", tensors, target_modules=[module.rpartition(".")[2]], **named)
    assert verdict(run, source, "vllm", base) == word


@pytest.mark.parametrize(("module", "word"), [("mamba.in_proj", "rejects"), ("self_attn.k_proj", "accepts")])
def test_llama_cpp_scales_falcon_h1(run: Any, tmp_path: Path, module: str, word: str) -> None:
    """Its converter multiplies whole weights, which a pair of factors follows, and some rows of in_proj."""
    base = model(tmp_path / "base", "FalconH1ForCausalLM", "falcon_h1", tie_word_embeddings=False)
    source = saved(tmp_path / "a", pair(f"0.{module}", 8, HIDDEN), target_modules=[module.rpartition(".")[2]])
    assert verdict(run, source, "llama.cpp", base) == word


def test_llama_cpp_takes_no_embedding_but_that_of_tokens(run: Any, tmp_path: Path) -> None:
    values = {"n_positions": 24, "n_embd": HIDDEN, "n_head": 4, "n_layer": 2, "n_inner": 24, "multi_query": True}
    base = model(tmp_path / "base", "GPTBigCodeForCausalLM", "gpt_bigcode", **values)
    factors = {"lora_embedding_A": np.ones((4, 24), np.float32), "lora_embedding_B": np.ones((HIDDEN, 4), np.float32)}
    tensors = {f"base_model.model.transformer.wpe.{name}": factor for name, factor in factors.items()}
    source = saved(tmp_path / "a", tensors, target_modules=["wpe"])
    assert verdict(run, source, "llama.cpp", base) == "rejects"


def test_sglang_rejects_an_expert_that_the_model_has_not(run: Any, tmp_path: Path) -> None:
    base = model(tmp_path / "base", "OlmoeForCausalLM", "olmoe", num_experts=3)
    tensors = pair("0.self_attn.q_proj", 16, HIDDEN) | pair("0.self_attn.v_proj", 8, HIDDEN)
    for part, out, inner in (("gate_proj", 24, HIDDEN), ("up_proj", 24, HIDDEN), ("down_proj", HIDDEN, 24)):
        tensors |= pair(f"0.mlp.experts.9.{part}", out, inner)
    targets = ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    assert verdict(run, saved(tmp_path / "a", tensors, target_modules=targets), "sglang", base) == "rejects"


@pytest.mark.parametrize(
    ("name", "kind", "values", "word"),
    [
        ("Ernie4_5_MoeForCausalLM", "ernie4_5_moe", {"moe_num_experts": 4, "moe_layer_start_index": 1}, "unknown"),
        ("Ernie4_5_MoeForCausalLM", "ernie4_5_moe", {"moe_num_experts": 4, "moe_layer_start_index": 0}, "accepts"),
        ("GlmForCausalLM", "glm", {}, "unknown"),
    ],
)
def test_sglang_does_not_start_on_all_models(
    run: Any, tmp_path: Path, name: str, kind: str, values: dict[str, int], word: str
) -> None:
    """A KeyError of a layer without experts, and a style of the plan that SGLang does not know."""
    source = saved(tmp_path / "a", pair("0.self_attn.o_proj", HIDDEN, HIDDEN), target_modules=["o_proj"])
    assert verdict(run, source, "sglang", model(tmp_path / "base", name, kind, **values)) == word


@pytest.mark.parametrize(("release", "word"), [("0.33.0", "accepts"), ("0.11.0", "rejects")])
def test_what_the_language_model_of_a_vllm_class_embeds_counts(
    run: Any, tmp_path: Path, release: str, word: str
) -> None:
    """Qwen3-VL has its language model's embedding_modules, and Qwen3 had none up to 0.11."""
    text = {"model_type": "qwen3_vl_text", "num_hidden_layers": 2, "vocab_size": 32, **SIZES}
    base = model(tmp_path / "base", "Qwen3VLForConditionalGeneration", "qwen3_vl", text_config=text)
    factors = {
        key.replace("model.layers.0.self_attn.", ""): it for key, it in pair("0.self_attn.lm_head", 32, 16).items()
    }
    source = saved(tmp_path / "a", factors, target_modules=["lm_head"])
    assert verdict(run, source, f"vllm=={release}", base) == word


@pytest.mark.parametrize(
    ("modules", "word"),
    [(("in_proj_z",), "rejects"), (("in_proj_qkv",), "accepts"), (("in_proj_qkv", "in_proj_z"), "accepts")],
)
def test_a_part_of_a_fused_module_wants_the_one_that_leads(
    run: Any, tmp_path: Path, modules: tuple[str, ...], word: str
) -> None:
    """Qwen3.5's in_proj_qkvz is four slices, of which in_proj_qkv has three."""
    linear = {f"linear_{kind}_head_dim": 8 for kind in ("key", "value")} | {
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"],
    }  # fmt: skip
    text = {"model_type": "qwen3_5_text", "num_hidden_layers": 2, "vocab_size": 32, **SIZES, **linear}
    base = model(tmp_path / "base", "Qwen3_5ForConditionalGeneration", "qwen3_5", text_config=text)
    tensors: dict[str, Any] = {}
    for name in modules:
        found = pair(f"0.linear_attn.{name}", 64 if name == "in_proj_qkv" else 32, HIDDEN)
        tensors |= {key.replace("model.layers", "model.language_model.layers"): it for key, it in found.items()}
    source = saved(tmp_path / "a", tensors, target_modules=list(modules))
    assert verdict(run, source, "vllm", base) == word


@pytest.mark.parametrize(
    ("bias", "word"),
    [("vision_tower.encoder.layers.0.mlp.fc1", "misloads"), ("language_model.layers.0.norm", "rejects")],
)
def test_llama_cpp_drops_a_tower_before_it_looks_at_names(run: Any, tmp_path: Path, bias: str, word: str) -> None:
    """A bias is no name that its converter takes, but it leaves out a tower before it looks (filter_tensors)."""
    text = {"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 32, **SIZES}
    base = model(tmp_path / "base", "LlavaForConditionalGeneration", "llava", text_config=text)
    factors = pair("0.self_attn.o_proj", HIDDEN, HIDDEN)
    tensors = {key.replace("model.layers", "model.language_model.layers"): it for key, it in factors.items()}
    tensors[f"base_model.model.model.{bias}.bias"] = np.ones(16, np.float32)
    source = saved(tmp_path / "a", tensors, target_modules=["o_proj"], bias="all")
    assert verdict(run, source, "llama.cpp", base) == word


@pytest.mark.parametrize(
    ("parts", "ranks", "word"),
    [
        (("gate_proj", "up_proj", "down_proj"), (RANK, RANK), "accepts"),
        (("gate_proj", "up_proj", "down_proj"), (RANK, 2), "rejects"),
        (("w1", "w3", "w2"), (RANK, RANK), "rejects"),
    ],
)
def test_llama_cpp_stacks_the_experts_that_its_converter_names(
    run: Any, tmp_path: Path, parts: tuple[str, str, str], ranks: tuple[int, int], word: str
) -> None:
    values = {"num_experts": 2, "moe_intermediate_size": 24, "num_experts_per_tok": 1}
    base = model(tmp_path / "base", "Qwen3MoeForCausalLM", "qwen3_moe", **values)
    tensors: dict[str, Any] = {}
    for number, rank in enumerate(ranks):
        for part in parts:
            sizes = (HIDDEN, 24) if part == parts[-1] else (24, HIDDEN)
            tensors |= pair(f"0.mlp.experts.{number}.{part}", *sizes, rank)
    source = saved(tmp_path / "a", tensors, target_modules=list(parts), rank_pattern={".*experts.1.*": ranks[1]})
    assert verdict(run, source, "llama.cpp", base) == word


@pytest.mark.parametrize(
    ("name", "kind", "layer", "doubled", "word"),
    [
        ("GPTNeoXForCausalLM", "gpt_neox", "gpt_neox.layers.0.attention.dense", False, "accepts"),
        ("GPTNeoXForCausalLM", "gpt_neox", "gpt_neox.layers.0.attention.dense", True, "misloads"),
        ("LlamaForCausalLM", "llama", "model.layers.0.self_attn.o_proj", True, "accepts"),
    ],
)
def test_transformers_takes_a_second_prefix_only_before_model(
    run: Any, tmp_path: Path, name: str, kind: str, layer: str, doubled: bool, word: str
) -> None:
    factors = pair("0.o_proj", HIDDEN, HIDDEN)
    prefix = "base_model.model." * (1 + doubled)
    tensors = {key.replace("base_model.model.model.layers.0.o_proj", prefix + layer): it for key, it in factors.items()}
    source = saved(tmp_path / "a", tensors, target_modules=[layer.rpartition(".")[2]])
    assert verdict(run, source, "transformers", model(tmp_path / "base", name, kind)) == word


def test_a_head_that_is_in_no_file_is_a_target_of_transformers(run: Any, tmp_path: Path) -> None:
    """It is tied to the embedding."""
    base = model(tmp_path / "base", "Starcoder2ForCausalLM", "starcoder2", tie_word_embeddings=True)
    save_file({"model.embed_tokens.weight": np.ones((32, HIDDEN), np.float32)}, base.parent / "model.safetensors")
    factors = {key.replace("model.layers.0.", ""): it for key, it in pair("0.lm_head", 32, HIDDEN).items()}
    source = saved(tmp_path / "a", factors, target_modules=["lm_head"])
    assert verdict(run, source, "transformers", base.parent) == "accepts"


@pytest.mark.parametrize(
    ("bias", "word"),
    [("o_proj.base_layer.bias", "accepts"), ("o_proj.bias", "misloads"), ("k_proj.bias", "unknown")],
)
def test_transformers_finds_the_bias_of_an_adapted_layer_below_it(
    run: Any, tmp_path: Path, bias: str, word: str
) -> None:
    """Loaded with OPT: of the first nothing differs from PEFT, the second is dropped."""
    base = model(tmp_path / "base", "Starcoder2ForCausalLM", "starcoder2", use_bias=True)
    weights = {
        f"model.layers.{n}.self_attn.{name}.weight": (HIDDEN, HIDDEN) for n in (0, 1) for name in ("o_proj", "q_proj")
    }
    weights |= {f"model.layers.{n}.self_attn.k_proj.weight": (HIDDEN // 2, HIDDEN) for n in (0, 1)}
    weights |= {key.replace("weight", "bias"): shape[:1] for key, shape in weights.items()}
    save_file({key: np.ones(shape, np.float32) for key, shape in weights.items()}, base.parent / "model.safetensors")
    tensors = pair("0.self_attn.o_proj", HIDDEN, HIDDEN)
    rows = HIDDEN // 2 if "k_proj" in bias else HIDDEN
    tensors[f"base_model.model.model.layers.0.self_attn.{bias}"] = np.ones(rows, np.float32)
    source = saved(tmp_path / "a", tensors, target_modules=["layers.0.self_attn.o_proj"], bias="all")
    assert verdict(run, source, "transformers", base.parent) == word


def test_the_transformers_backend_may_fuse_a_shared_mlp(run: Any, tmp_path: Path) -> None:
    """HunYuan's was dropped as its block was fused."""
    base = model(tmp_path / "base", "HunYuanMoEV1ForCausalLM", "hunyuan_v1_moe", num_experts=2, moe_topk=1)
    tensors = pair("0.mlp.shared_mlp.up_proj", SIZES["intermediate_size"], HIDDEN)
    assert verdict(run, saved(tmp_path / "a", tensors, target_modules=["up_proj"]), "vllm", base) == "unknown"


@pytest.mark.parametrize(("module", "word"), [("mamba.out_proj", "accepts"), ("mamba.conv1d", "unknown")])
def test_llama_cpp_converts_jamba(run: Any, tmp_path: Path, module: str, word: str) -> None:
    """It reshapes the convolution alone."""
    values = {"mamba_expand": 1, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
    base = model(tmp_path / "base", "JambaForCausalLM", "jamba", **values)
    source = saved(tmp_path / "a", pair(f"0.{module}", HIDDEN, HIDDEN), target_modules=[module.rpartition(".")[2]])
    assert verdict(run, source, "llama.cpp", base) == word


@pytest.mark.parametrize(
    ("module", "there"),
    [
        ("model.language_model.layers.0.q_proj", "model.layers.0.q_proj"),  # Qwen2-VL's class, and its files
        ("model.layers.0.q_proj", "language_model.model.layers.0.q_proj"),
        ("h.0.c_attn", "transformer.h.0.c_attn"),
    ],
)
def test_a_module_is_found_by_the_name_that_files_have(module: str, there: str) -> None:
    model = base({f"{there}.weight": (4, 4), "visual.blocks.0.qkv.weight": (12, 4)}, {})
    assert in_files(model, module) == there
    assert in_files(model, module.replace("q_proj", "k_proj").replace("c_attn", "c_proj")) is None
    assert in_files(base({}, {}), module) is None
