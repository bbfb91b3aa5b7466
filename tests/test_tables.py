"""The tables by architecture: read line by line, whole, and on the page that is made from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_doctor.facts.servers.architectures import line
from ckpt_doctor.facts.servers.loads import FOLLOWED

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "ckpt_doctor/facts/servers"


@pytest.mark.parametrize("table", FOLLOWED.values())
def test_each_line_is_one_architecture(table: str) -> None:
    whole = json.loads((FOLDER / f"{table}.json").read_text())
    assert whole.pop("version")
    assert all(line(table, name) == entry for name, entry in whole.items())
    assert line(table, "NoSuchForCausalLM") is None


def test_the_classes_that_were_run_are_in_the_tables() -> None:
    run = json.loads((FOLDER / "run.json").read_text())
    assert run.keys() <= set(FOLLOWED.values())
    assert [name for name in run["llama_cpp"] if line("llama_cpp", name) is None] == ["OPTForCausalLM"]


def test_the_page_of_servers_is_made_from_the_tables(tmp_path: Path) -> None:
    paths = [str(ROOT / "scripts"), str(ROOT)]
    program = f"import sys; sys.path[:0] = {paths!r}; import server_page; print(server_page.page(), end='')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (ROOT / "docs/servers.md").read_text() == done.stdout, "run python scripts/server_page.py"


REGISTRY = """
_TEXT_GENERATION_MODELS = {"SmallForCausalLM": ("small", "SmallForCausalLM"), "PlainForCausalLM": ("small", "Plain")}
"""
SMALL = """
from vllm.layers import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear, SupportsLoRA
from vllm.layers import ParallelLMHead, VocabParallelEmbedding, FusedMoE, make_layers

class MLP(nn.Module):
    def __init__(self, config, prefix=""):
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(1, [1] * 2)
        self.down_proj = RowParallelLinear(1, 1)

class Layer(nn.Module):
    def __init__(self, config, prefix=""):
        self.self_attn = NormedAttention(config)
        if config.experts:
            self.mlp = Sparse(config)
        else:
            self.mlp = MLP(config)

class Sparse(nn.Module):
    def __init__(self, config):
        self.experts = FusedMoE(num_experts=config.experts)
        self.chosen = get_moe_impl_class(config.quant)(num_experts=config.experts)

class NormedAttention(nn.Module):
    embedding_modules = {"embed_tokens": "input_embeddings", "lm_head": "output_embeddings"}

    def __init__(self, config):
        self.make(QKVParallelLinear)
        raise SystemExit("this is never run")

    def make(self, cls):
        self.qkv_proj = cls(1, 1)

class Plain(nn.Module):
    pass

class SmallForCausalLM(nn.Module, SupportsLoRA):
    packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
    embedding_modules = {"lm_head": "output_embeddings"}

    def __init__(self, config):
        self.embed_tokens = VocabParallelEmbedding(1, 1)
        _, _, self.layers = make_layers(2, lambda prefix: Layer(config, prefix=prefix))
        self.lm_head = ParallelLMHead(1, 1)

    def load_weights(self, weights):
        return weights.permute(0, 1)
"""


def test_a_table_is_what_the_source_says_either_way_at_each_condition(tmp_path: Path) -> None:
    models = tmp_path / "vllm/model_executor/models"
    models.mkdir(parents=True)
    for name, text in (("registry", REGISTRY), ("small", SMALL), ("__init__", "")):
        (models / f"{name}.py").write_text(text)
    (tmp_path / "vllm/layers.py").write_text(
        "\n".join(f"class {name}: pass" for name in (
            "MergedColumnParallelLinear", "QKVParallelLinear", "RowParallelLinear", "SupportsLoRA", "ParallelLMHead",
            "VocabParallelEmbedding", "FusedMoE",
        ))
    )  # fmt: skip
    import server_tables

    assert server_tables.vllm(str(tmp_path)) == {
        "PlainForCausalLM": {"class": "Plain", "lora": False},
        "SmallForCausalLM": {
            "modules": {
                "": {"embed_tokens": "embedding", "lm_head": "head"},
                "layers.#.self_attn": {"qkv_proj": "qkv"},
                "layers.#.mlp": {
                    "experts": "experts",
                    "chosen": "experts",
                    "gate_up_proj": "merged",
                    "down_proj": "row",
                },
            },
            "packed": {"qkv_proj": ["q_proj", "k_proj", "v_proj"]},
            "embeddings": ["lm_head"],
            "inner_embeddings": ["embed_tokens"],
            "experts": ["gate_proj", "down_proj", "up_proj"],
            "loader": ["permute"],
        },
    }
