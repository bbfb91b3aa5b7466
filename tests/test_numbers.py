"""Numbers in names and in a model's config: none is a count to work through, however large."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ckpt_doctor.facts.names import as_number
from ckpt_doctor.facts.targets import gaps_beside, holes

SERVERS = ("vllm", "llama.cpp", "sglang", "transformers")
LAYERS = 200


def adapter(folder: Path, modules: list[str]) -> Path:
    """A LoRA of rank 1 on these modules."""
    tensors = {}
    for module in modules:
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.zeros((1, 2), np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.zeros((2, 1), np.float32)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "task_type": "CAUSAL_LM"}
    folder.mkdir()
    targets = ["gate_proj", "up_proj", "down_proj", "q_proj"]
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": targets}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The config of a model that says it has a million experts."""
    sizes = dict.fromkeys(("hidden_size", "moe_intermediate_size", "intermediate_size", "head_dim"), 2)
    counts = {"num_experts": 10**6, "num_hidden_layers": LAYERS, "num_attention_heads": 1, "num_key_value_heads": 1}
    kind = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 4}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**sizes, **counts, **kind}))
    return path


@pytest.fixture
def _little_memory() -> Any:
    """What works through such numbers does not fit here."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("server", SERVERS)
def test_a_million_experts_are_none_to_count(run: Any, tmp_path: Path, model: Path, server: str) -> None:
    folder = adapter(tmp_path / "a", [f"model.layers.{i}.mlp.experts.0.gate_proj" for i in range(LAYERS)])
    report = json.loads(run("scan", folder, "--for", server, "--base", model, "--format", "json").stdout)["reports"][0]
    assert report["error"] is None
    assert "accepts" not in {verdict for name, verdict in report["verdicts"].items() if name.startswith(server)}
    done = run("fix", folder, tmp_path / "out", "--for", server, "--base", model)
    assert done.exit_code == 1, done.output
    assert not (tmp_path / "out").exists()


def test_holes_end_where_no_model_has_so_many() -> None:
    modules = [f"layers.99999.block{i}x.q_proj" for i in range(100)]
    for config in ({"target_modules": ["q_proj"]}, {"target_modules": r".*\.\d+\..*"}):
        assert len(holes(gaps_beside(modules), config, (0, 21))) < 20_000
        assert holes(gaps_beside(modules[:1]), config, (0, 21))


@pytest.mark.parametrize("server", SERVERS)
def test_a_number_longer_than_python_reads(run: Any, tmp_path: Path, model: Path, server: str) -> None:
    digits = "9" * 200  # names are bounded, too
    names = [f"model.layers.{digits}.mlp.experts.{digits}.gate_proj", f"model.layers.{digits}.self_attn.q_proj"]
    folder = adapter(tmp_path / "a", names)
    report = json.loads(run("scan", folder, "--for", server, "--base", model, "--format", "json").stdout)["reports"][0]
    assert report["error"] is None
    assert as_number("41") == 41 < as_number("9" * 5000)
