"""Experts for servers: parameters as modules one by one, and zero pairs for those that are missing; the same deltas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

Tensors = dict[str, Any]
RANDOM = np.random.default_rng(0)
HIDDEN, INNER, EXPERTS, RANK = 16, 12, 3, 4
P = "base_model.model.model.layers."
CONFIGS = {
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"], "num_experts": EXPERTS, "moe_intermediate_size": INNER,
        "transformers_version": "5.0.0",
    },
    "mixtral": {"architectures": ["MixtralForCausalLM"], "num_local_experts": EXPERTS, "intermediate_size": INNER},
}  # fmt: skip
PARTS = {"qwen3_moe": ("gate_proj", "up_proj", "down_proj"), "mixtral": ("w1", "w3", "w2")}
INSIDE = {"qwen3_moe": "mlp", "mixtral": "block_sparse_moe"}


def model(folder: Path, kind: str) -> Path:
    """A model's config.json alone, of two layers."""
    sizes = {"hidden_size": HIDDEN, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    rest = {"num_hidden_layers": 2, "vocab_size": 32, "tie_word_embeddings": False, "model_type": kind}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**sizes, **rest, "intermediate_size": 24, **CONFIGS[kind]}))
    return folder / "config.json"


def saved(folder: Path, tensors: Tensors, **values: Any) -> Path:
    """An adapter of these tensors."""
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "task_type": "CAUSAL_LM", "peft_version": "0.21.2"}
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**config, **values}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def pair(module: str, out: int, inner: int, rank: int = RANK) -> Tensors:
    """The factors of a module."""
    a, b = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((rank, inner), (out, rank)))
    return {f"{P}{module}.lora_A.weight": a, f"{P}{module}.lora_B.weight": b}


def as_parameters(rank: int = RANK) -> Tensors:
    """Attention, and experts as PEFT names two parameters of one module."""
    tensors: Tensors = {}
    for layer in range(2):
        tensors |= pair(f"{layer}.self_attn.q_proj", 16, HIDDEN)
        tensors |= pair(f"{layer}.mlp.experts.base_layer", 2 * INNER, HIDDEN, rank * EXPERTS)
        tensors |= pair(f"{layer}.mlp.experts", HIDDEN, INNER, RANK * EXPERTS)
    return tensors


def delta(tensors: Tensors, module: str, scale: float) -> Any:
    """What a module computes."""
    return scale * tensors[f"{P}{module}.lora_B.weight"] @ tensors[f"{P}{module}.lora_A.weight"]


def of_experts(tensors: Tensors, module: str, scale: float) -> Any:
    """What a parameter computes, as PEFT does (tuners/lora/layer.py: ParamWrapper.get_delta_weight)."""
    a, b = tensors[f"{P}{module}.lora_A.weight"], tensors[f"{P}{module}.lora_B.weight"]
    a, b = a.reshape(EXPERTS, -1, a.shape[-1]), b.reshape(b.shape[0], -1, EXPERTS)
    return scale * np.einsum("ore,eri->eoi", b, a)


def written(out: Path) -> tuple[Tensors, dict[str, Any]]:
    """What a fix wrote."""
    return load_file(out / "adapter_model.safetensors"), json.loads((out / "adapter_config.json").read_text())


def same_experts(old: Tensors, new: Tensors, kind: str, up: float, scale: float) -> None:
    """That each expert computes what its part of the parameters does, at the new scale."""
    gate, up_, down = PARTS[kind]
    for layer in range(2):
        fused = of_experts(old, f"{layer}.mlp.experts.base_layer", up)
        lower = of_experts(old, f"{layer}.mlp.experts", 6 / RANK)
        for number in range(EXPERTS):
            at = f"{layer}.{INSIDE[kind]}.experts.{number}"
            halves = [delta(new, f"{at}.{gate}", scale), delta(new, f"{at}.{up_}", scale)]
            np.testing.assert_allclose(np.concatenate(halves), fused[number], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(delta(new, f"{at}.{down}", scale), lower[number], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("server", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
def test_parameters_become_modules_one_by_one(run: Any, tmp_path: Path, kind: str, server: str) -> None:
    base, tensors, out = model(tmp_path / "base", kind), as_parameters(), tmp_path / "out"
    named = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    source = saved(tmp_path / "a", tensors, target_modules=["q_proj"], target_parameters=named)
    result = run("fix", source, out, "--for", server, "--base", base)
    assert result.exit_code == 0, result.output
    new, config = written(out)
    assert not config.get("target_parameters")
    same_experts(tensors, new, kind, 6 / RANK, config["lora_alpha"] / config["r"])
    q = "0.self_attn.q_proj"
    np.testing.assert_array_equal(delta(new, q, 1.5), delta(tensors, q, 1.5))


def test_the_rank_that_all_linear_doubles_becomes_that_of_all(run: Any, tmp_path: Path) -> None:
    """PEFT doubles rank and alpha of gate_up_proj, by a pattern that llama.cpp would read otherwise."""
    base, tensors, out = model(tmp_path / "base", "qwen3_moe"), as_parameters(2 * RANK), tmp_path / "out"
    source = saved(
        tmp_path / "a", tensors, target_modules=["q_proj"], target_parameters=["gate_up_proj", "down_proj"],
        rank_pattern={r".*\.gate_up_proj": 2 * RANK}, alpha_pattern={r".*\.gate_up_proj": 12},
    )  # fmt: skip
    result = run("fix", source, out, "--for", "llama.cpp", "--base", base)
    assert result.exit_code == 0, result.output
    new, config = written(out)
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (8, 12, {})
    same_experts(tensors, new, "qwen3_moe", 12 / 8, 12 / 8)


def test_what_sglang_would_drop_it_is_told_to_reject(run: Any, tmp_path: Path) -> None:
    """SGLang rejects experts as parameters, and would drop single ones without a word: a regex of targets stops it."""
    base, out = model(tmp_path / "base", "qwen3_moe"), tmp_path / "out"
    named = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    source = saved(tmp_path / "a", as_parameters(), target_modules=["q_proj", "v_proj"], target_parameters=named)
    assert run("fix", source, out, "--for", "vllm", "--base", base).exit_code == 0
    report = json.loads(run("scan", out, "--for", "servers", "--base", base, "--format", "json").stdout)["reports"][0]
    assert report["verdicts"]["vllm==0.33.0"] == "accepts"
    assert report["verdicts"]["sglang==0.5.23"] != "misloads"


DATA = Path(__file__).parent / "data/experts"


def one_by_one(deltas: Tensors) -> Tensors:
    """Deltas of a model's file, in which Llama-4's experts are parameters, input by output, gate before up
    (transformers' modeling_llama4.py: Llama4TextExperts.forward).
    """
    found: Tensors = {}
    for name, value in deltas.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight":
            found[name] = value
            continue
        for number, matrix in enumerate(value):
            parts = {"down_proj": matrix} if leaf == "down_proj" else {
                "gate_proj": matrix[:, :INNER], "up_proj": matrix[:, INNER:]
            }  # fmt: skip
            found |= {f"{layer}.{number}.{part}.weight": turned.T for part, turned in parts.items()}
    return found


MERGED = [
    (kind, server)
    for kind in ("qwen3_moe", "qwen3_moe-0.18.1", "mixtral", "deepseek_v3", "llama4_text", "llama4_text-0.18.1")
    for server in ("vllm", "llama.cpp")
    if (kind[:6], server) != ("llama4", "llama.cpp")  # whose converter maps no experts of it
]


@pytest.mark.parametrize(("kind", "server"), MERGED)
def test_each_expert_computes_what_peft_adds_to_the_model(run: Any, tmp_path: Path, kind: str, server: str) -> None:
    """Against what PEFT 0.21.2, or the release named, on transformers 5.16.1 merges into the model's file
    (fixtures/make_experts.py).
    """
    out = tmp_path / "out"
    result = run("fix", DATA / kind, out, "--for", server, "--base", DATA / kind / "config.json")
    assert result.exit_code == 0, result.output
    new, config = written(out)
    assert not any(config.get(key) for key in ("use_rslora", "rank_pattern", "alpha_pattern"))
    meant = one_by_one(load_file(DATA / kind / "deltas.safetensors"))
    prefix = "base_model.model."
    modules = {key.rpartition(".lora_")[0] for key in new}
    assert {module.removeprefix(prefix) + ".weight" for module in modules} == meant.keys()
    for module in modules:
        b, a = new[f"{module}.lora_B.weight"], new[f"{module}.lora_A.weight"]
        computed = config["lora_alpha"] / config["r"] * b @ a
        np.testing.assert_allclose(computed, meant[module.removeprefix(prefix) + ".weight"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("release", ["0.18.1", "0.21.2"])
def test_where_sides_are_alike_the_release_tells_which_is_which(run: Any, tmp_path: Path, release: str) -> None:
    """Gate and up together as large as the model: PEFT 0.19 turned the factors (ParamWrapper)."""
    base, out, half = model(tmp_path / "base", "qwen3_moe"), tmp_path / "out", HIDDEN // 2
    base.write_text(json.dumps({**json.loads(base.read_text()), "moe_intermediate_size": half}))
    tensors = pair("0.mlp.experts", HIDDEN, HIDDEN, RANK * EXPERTS)
    named = {"target_parameters": ["mlp.experts.gate_up_proj"], "peft_version": release}
    source = saved(tmp_path / "a", tensors, target_modules=["o_proj"], **named)
    result = run("fix", source, out, "--for", "vllm", "--base", base)
    assert result.exit_code == 0, result.output
    new, config = written(out)
    for number, matrix in enumerate(of_experts(tensors, "0.mlp.experts", 1.5)):
        meant = matrix.T if release == "0.18.1" else matrix
        at, scale = f"0.mlp.experts.{number}", config["lora_alpha"] / config["r"]
        parts = [delta(new, f"{at}.{part}", scale) for part in ("gate_proj", "up_proj")]
        np.testing.assert_allclose(np.concatenate(parts), meant, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lost", ["expert", "part", "all but down", "all but down of all-linear"])
def test_missing_experts_become_zero(run: Any, tmp_path: Path, lost: str) -> None:
    base, out = model(tmp_path / "base", "qwen3_moe"), tmp_path / "out"
    tensors: Tensors = {}
    for layer in range(2):
        for number in range(EXPERTS):
            for name in PARTS["qwen3_moe"]:
                sizes = (HIDDEN, INNER) if name == "down_proj" else (INNER, HIDDEN)
                tensors |= pair(f"{layer}.mlp.experts.{number}.{name}", *sizes)
    gone = {"expert": (".experts.1.",), "part": (".experts.1.up_proj.",)}.get(lost, ("gate_proj", "up_proj"))
    left = {key: value for key, value in tensors.items() if not any(part in key for part in gone)}
    targets = {"all but down": ["down_proj"], "all but down of all-linear": "all-linear"}.get(lost, PARTS["qwen3_moe"])
    source = saved(tmp_path / "a", left, target_modules=targets)
    result = run("fix", source, out, "--for", "vllm", "--base", base)
    assert result.exit_code == 0, result.output
    new, config = written(out)
    assert sorted(config["target_modules"]) == sorted(PARTS["qwen3_moe"])
    assert new.keys() == tensors.keys()
    for key, value in new.items():
        np.testing.assert_array_equal(value, left.get(key, np.zeros_like(tensors[key])))


@pytest.mark.parametrize("fault", ["DoRA", "size", "no base", "gpt-oss"])
def test_what_is_not_exact_is_refused(run: Any, tmp_path: Path, fault: str) -> None:
    base, out, tensors = model(tmp_path / "base", "qwen3_moe"), tmp_path / "out", as_parameters()
    if fault == "size":
        tensors |= pair("0.mlp.experts", HIDDEN, INNER + 1, RANK * EXPERTS)
    if fault == "gpt-oss":  # gate and up lie by turns
        values = json.loads(base.read_text())
        base.write_text(json.dumps({**values, "model_type": "gpt_oss"}))
    named = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    source = saved(
        tmp_path / "a", tensors, target_modules=["o_proj"], target_parameters=named, use_dora=fault == "DoRA"
    )
    options = [] if fault == "no base" else ["--base", base]
    assert run("fix", source, out, "--for", "vllm", *options).exit_code != 0
    assert not out.exists()


@pytest.mark.parametrize("complete", [True, False])
def test_single_experts_of_a_class_that_wants_parameters(run: Any, tmp_path: Path, complete: bool) -> None:
    """An option makes vLLM take them, as run with Qwen3-VL-MoE; which is said only where all parts are there."""
    text = {
        "model_type": "qwen3_vl_moe_text", "hidden_size": HIDDEN, "num_experts": EXPERTS,
        "moe_intermediate_size": INNER,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 32,
    }  # fmt: skip
    config = {
        "architectures": ["Qwen3VLMoeForConditionalGeneration"],
        "model_type": "qwen3_vl_moe",
        "text_config": text,
    }
    base = tmp_path / "config.json"
    base.write_text(json.dumps(config))
    tensors: Tensors = {}
    for number in range(EXPERTS if complete else 1):
        for name in PARTS["qwen3_moe"]:
            sizes = (HIDDEN, INNER) if name == "down_proj" else (INNER, HIDDEN)
            tensors |= pair(f"0.mlp.experts.{number}.{name}", *sizes)
    tensors = {key.replace("model.layers", "model.language_model.layers"): value for key, value in tensors.items()}
    source = saved(tmp_path / "a", tensors, target_modules=[*PARTS["qwen3_moe"]])
    result = run("scan", source, "--for", "vllm", "--base", base, "--format", "json")
    document = json.loads(result.stdout)
    assert document["reports"][0]["verdicts"]["vllm==0.33.0"] == "rejects"
    line = document["start"]["vllm"]["line"] if document["start"] else ""
    assert ("--enable-mixed-moe-lora-format" in line) is complete
