"""The options that a server has to be started with for several adapters, and which forces each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from safetensors.numpy import save_file
from test_servers import QV, base, lora  # noqa: F401 - base is a fixture

ATTENTION = {f"model.layers.{layer}.self_attn.{name}_proj": (4, 16, 16) for layer in (0, 1) for name in "qv"}
EMBEDDING = {"model.embed_tokens": (4, 32, 16)}
HEAD = {"lm_head": (4, 16, 32)}


def model(folder: Path, architecture: str, kind: str, **values: Any) -> Path:
    """A model's folder with its config alone."""
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False}
    folder.mkdir(parents=True)
    config = {"architectures": [architecture], "model_type": kind, **sizes, **heads, **values}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def adapter(folder: Path, modules: dict[str, tuple[int, int, int]], **values: Any) -> Path:
    """A LoRA on modules of a model, each with the rank, and what goes in and out."""
    tensors = {}
    for module, (rank, inner, out) in modules.items():
        table = module.endswith("embed_tokens")
        first, second = ("lora_embedding_A", "lora_embedding_B") if table else ("lora_A.weight", "lora_B.weight")
        tensors[f"base_model.model.{module}.{first}"] = np.ones((rank, inner), np.float32)
        tensors[f"base_model.model.{module}.{second}"] = np.ones((out, rank), np.float32)
    targets = sorted({module.rpartition(".")[2] for module in modules} - {"experts", "base_layer"})
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        **values,
    }
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def starts(run: Any, place: Path, *options: object) -> dict[str, Any]:
    """What the JSON has under `start`."""
    found: dict[str, Any] = json.loads(run("scan", place, "--format", "json", *options).stdout)["start"]
    return found


def test_one_rank_for_all_and_who_forces_it(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    lora(tmp_path / "all" / "a", QV)
    lora(tmp_path / "all" / "b", dict.fromkeys(QV, 20), r=20)
    lora(tmp_path / "all" / "rejected", dict.fromkeys(QV, 64), r=64, use_dora=True)
    out = run("scan", tmp_path / "all", "--for", "vllm", "--base", base, "--max-rank", 16).stdout
    assert "vllm for 2 of them: --enable-lora --max-lora-rank 32\n" in out
    assert f"--max-lora-rank 32: {tmp_path / 'all' / 'b'}" in " ".join(out.split())


def test_the_json_has_the_same(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    lora(tmp_path / "a", QV)
    report = json.loads(run("scan", tmp_path / "a", "--for", "vllm", "--base", base, "--format", "json").stdout)
    assert report["start"]["vllm"]["line"] == "--enable-lora --max-lora-rank 8"
    assert report["start"]["vllm"]["options"][0]["forced_by"] == str(tmp_path / "a")


def test_sglang_is_told_the_modules(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    lora(tmp_path / "all" / "a", QV)
    lora(tmp_path / "all" / "b", {"0.mlp.down_proj": 4})
    out = " ".join(run("scan", tmp_path / "all", "--for", "sglang", "--base", base).stdout.split())
    assert "--enable-lora --max-lora-rank 4 --lora-target-modules down_proj qkv_proj" in out
    assert f"--lora-target-modules down_proj: {tmp_path / 'all' / 'b'}" in out


def test_no_server_no_line(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    lora(tmp_path / "all" / "a", QV)
    lora(tmp_path / "all" / "b", QV)
    assert base.exists()
    assert "--enable-lora" not in run("scan", tmp_path / "all").stdout


def test_what_is_unknown_is_not_among_them(run: Any, tmp_path: Path) -> None:
    """Without the model nothing is known to be taken, whatever the options are."""
    lora(tmp_path / "a", QV)
    assert starts(run, tmp_path / "a", "--for", "vllm") == {}


MOE = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
UP, DOWN = (8, 16, 16), (8, 8, 16)
PARAMETERS = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}


def test_experts_as_parameters_need_both_for_the_mixed_format(run: Any, tmp_path: Path) -> None:
    of = model(tmp_path / "base", "Qwen3MoeForCausalLM", "qwen3_moe", **MOE)
    experts = "model.layers.0.mlp.experts"
    adapter(tmp_path / "all" / "both", {f"{experts}.base_layer": UP, experts: DOWN}, **PARAMETERS)
    adapter(tmp_path / "all" / "one", {experts: DOWN}, **PARAMETERS)
    adapter(tmp_path / "all" / "wide", {f"{experts}.base_layer": (8, 16, 32), experts: DOWN}, **PARAMETERS)
    adapter(tmp_path / "all" / "plain", ATTENTION)
    vllm = starts(run, tmp_path / "all", "--for", "vllm", "--base", of)["vllm"]
    assert vllm["adapters"] == 2
    assert vllm["line"] == "--enable-lora --max-lora-rank 8 --enable-mixed-moe-lora-format"
    (beside,) = vllm["together"]
    assert beside.startswith(str(tmp_path / "all" / "both"))
    assert "is_3d_lora_weight" in beside
    both, one = (run("scan", tmp_path / "all" / name, "--for", "vllm", "--base", of).stdout for name in ("both", "one"))
    assert "--enable-mixed-moe-lora-format" in both
    assert "--enable-mixed-moe-lora-format" not in one


def test_sglang_wraps_experts_where_both_modules_are_there(run: Any, tmp_path: Path) -> None:
    of = model(tmp_path / "base", "OlmoeForCausalLM", "olmoe", num_experts=2)
    adapter(tmp_path / "a", {f"model.layers.0.mlp.experts.{n}.down_proj": (4, 32, 16) for n in (0, 1)})
    line = starts(run, tmp_path / "a", "--for", "sglang", "--base", of)["sglang"]["line"]
    assert line == "--enable-lora --max-lora-rank 4 --lora-target-modules down_proj gate_up_proj"


def test_sglang_names_an_expert_that_is_not_there(run: Any, tmp_path: Path) -> None:
    of = model(tmp_path / "base", "OlmoeForCausalLM", "olmoe", num_experts=2)
    adapter(tmp_path / "a", {"model.layers.0.mlp.experts.2.down_proj": (4, 32, 16)})
    out = run("scan", tmp_path / "a", "--for", "sglang", "--base", of).stdout
    assert "rejects experts of which the model has none" in " ".join(out.split())


def test_a_model_that_does_not_start_with_all_modules_starts_with_those_needed(run: Any, tmp_path: Path) -> None:
    """Run: Llama-4's attention is exact with these modules, and with all of them SGLang ends with a KeyError."""
    of = model(tmp_path / "base", "Llama4ForCausalLM", "llama4_text", num_local_experts=2, head_dim=8)
    adapter(tmp_path / "all" / "attention", ATTENTION)
    adapter(tmp_path / "all" / "shared", {"model.layers.0.feed_forward.shared_expert.down_proj": (4, 32, 16)})
    scan = json.loads(run("scan", tmp_path / "all", "--for", "sglang", "--base", of, "--format", "json").stdout)
    attention, shared = (report["findings"] for report in scan["reports"])
    option = "--lora-target-modules qkv_proj"
    assert [f["option"] for f in attention if "sglang==0.5.23" in f["undecided_for"]] == [option]
    assert [f["option"] for f in shared if "sglang==0.5.23" in f["undecided_for"]] == [""]
    assert [report["verdicts"]["sglang==0.5.23"] for report in scan["reports"]] == ["unknown", "unknown"]
    assert scan["start"]["sglang"]["line"] == f"--enable-lora --max-lora-rank 4 {option}"
    assert scan["start"]["sglang"]["adapters"] == 1


def test_together_a_slot_keeps_what_another_left(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    """Where all adapters have LoRA on both or neither, none is left in a slot."""
    del base
    of = model(tmp_path / "model", "LlamaForCausalLM", "llama")
    adapter(tmp_path / "all" / "embedding", {**ATTENTION, **EMBEDDING})
    adapter(tmp_path / "all" / "head", {**ATTENTION, **HEAD})
    adapter(tmp_path / "all" / "plain", ATTENTION)
    sglang = starts(run, tmp_path / "all", "--for", "sglang", "--base", of)["sglang"]
    assert sglang["adapters"] == 3
    embedding, head = sglang["together"]
    assert embedding.startswith(str(tmp_path / "all" / "embedding") + " has LoRA on embed_tokens and not on lm_head")
    assert head.startswith(str(tmp_path / "all" / "head") + " has LoRA on lm_head and not on embed_tokens")
    assert "--max-loras-per-batch 4" in head
    assert starts(run, tmp_path / "all" / "head", "--for", "sglang", "--base", of)["sglang"]["together"] == []


def test_models_that_differ_are_started_apart(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    for name in ("one", "two"):
        commit = name.encode().hex().ljust(40, "0")
        model(cache / f"models--o--{name}" / "snapshots" / commit, "LlamaForCausalLM", "llama")
        (cache / f"models--o--{name}" / "refs").mkdir()
        (cache / f"models--o--{name}" / "refs" / "main").write_text(commit)
        adapter(tmp_path / "all" / name, ATTENTION, base_model_name_or_path=f"o/{name}")
    assert set(starts(run, tmp_path / "all", "--for", "vllm")) == {"vllm of o/one", "vllm of o/two"}


def test_every_format_says_how_servers_are_started(run: Any, tmp_path: Path, base: Path, monkeypatch: Any) -> None:  # noqa: F811
    lora(tmp_path / "all" / "a", QV)
    lora(tmp_path / "all" / "b", dict.fromkeys(QV, 20), r=20)
    line = "--enable-lora --max-lora-rank 32"
    forced = f"--max-lora-rank 32: {tmp_path / 'all' / 'b'}"

    def scan(format_: str) -> str:
        text: str = run("scan", tmp_path / "all", "--for", "vllm", "--base", base, "--format", format_).stdout
        return text

    markdown = scan("markdown")
    assert f"`{line}`" in markdown
    assert "vllm" in markdown
    assert str(tmp_path / "all" / "b") in markdown
    notes = json.loads(scan("sarif"))["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    (note,) = (n["message"]["text"] for n in notes if n["level"] == "note")
    assert line in note
    assert forced in note
    suite = ET.fromstring(scan("junit"))[0]  # noqa: S314 - our own
    assert [p.attrib for p in suite.iter("property")] == [{"name": "vllm", "value": line}]
    assert forced in (suite.findtext("system-out") or "")
    summary = tmp_path / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    scan("github")
    assert f"`{line}`" in summary.read_text()
    assert not re.search("enable-lora", scan("jsonl"))
