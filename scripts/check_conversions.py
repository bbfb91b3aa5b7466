"""Hold conversions against the libraries that they are for: random LoRAs of tiny models, written by PEFT, in MLX.

usage: python scripts/check_conversions.py [--seed N] [--count N]
Needs an environment with this package, mlx, mlx_lm, torch, transformers and PEFT (made with mlx-lm 0.32.2, transformers
5.24 and PEFT 0.21.2). Each adapter is saved by PEFT, written for MLX by `fix --to mlx`, loaded there by mlx_lm's own
load_adapters on the same weights, and has to give the same logits; then it goes back to PEFT, to the same bits.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from click.testing import CliRunner
from mlx_lm.tuner.utils import load_adapters
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from ckpt_doctor.cli import main as ckpt_doctor

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "num_attention_heads": 4, "vocab_size": 32,
    "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "rope_theta": 10000.0,
}  # fmt: skip
MODELS = ("llama", "qwen2", "qwen3", "phi3", "starcoder2", "olmo2")
TOKENS = [[3, 14, 15, 9, 2, 6, 5, 30]]
MOST = 1e-5
"""The difference of two logits that rounding makes, in float32."""


def drawn(chance: random.Random, modules: list[str]) -> LoraConfig:
    """A LoRA, now and then with what MLX has in another way, or not at all."""
    targets = sorted({name.rpartition(".")[2] for name in modules} - {"lm_head", "embed_tokens"})
    chosen = chance.sample(targets, chance.randint(1, len(targets)))
    more: dict[str, Any] = {}
    if chance.random() < 0.3:
        more["rank_pattern"] = {chosen[0]: chance.randint(1, 9)}
    if chance.random() < 0.3:
        more["alpha_pattern"] = {chosen[-1]: chance.randint(1, 40)}
    if chance.random() < 0.3:
        more["layers_to_transform"] = [chance.randint(0, 1)]
    if not more and chance.random() < 0.4:
        more["use_dora"] = True
    if chance.random() < 0.2:
        chosen.append("lm_head")
    alpha = chance.choice((8, 16, 20, 3.5))
    rslora = chance.random() < 0.3
    return LoraConfig(r=chance.randint(1, 8), lora_alpha=alpha, use_rslora=rslora, target_modules=chosen, **more)


def one(kind: str, chance: random.Random, folder: Path) -> str:
    """What became of one adapter: "same", or what went wrong."""
    torch.manual_seed(chance.randint(0, 1 << 30))
    more = {"hidden_act": "gelu"} if kind == "starcoder2" else {}  # as mlx_lm's
    config = AutoConfig.for_model(kind, **{**SIZES, **more})
    base = AutoModelForCausalLM.from_config(config)
    base.save_pretrained(folder / "model")
    modules = [name for name, x in base.named_modules() if isinstance(x, torch.nn.Linear)]
    lora = drawn(chance, modules)
    model = get_peft_model(base, lora).eval()
    for name, x in model.named_parameters():
        if ".lora_" in name:
            x.data = torch.randn(x.shape) * 0.2 if "magnitude" not in name else x.data * 1.1
    model.save_pretrained(folder / "peft", save_embedding_layers=False)
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS)).logits.numpy()
    for start, end, *more in (("peft", "mlx", "--to", "mlx"), ("mlx", "back"), ("back", "again", "--to", "mlx")):
        arguments = ["fix", str(folder / start), str(folder / end), "--base", str(folder / "model"), *more]
        result = CliRunner().invoke(ckpt_doctor, arguments)
        if result.exit_code:
            return f"refused: {' '.join(result.output.split())}"
    values = {**config.to_dict(), "rope_theta": SIZES["rope_theta"]}
    module = import_module(f"mlx_lm.models.{kind}")
    mlx = module.Model(module.ModelArgs.from_dict(values))
    weights = {name: mx.array(x) for name, x in load_file(folder / "model/model.safetensors").items()}
    weights = mlx.sanitize(weights) if hasattr(mlx, "sanitize") else weights
    mlx.load_weights([*weights.items()])
    plain = np.array(mlx(mx.array(TOKENS)))
    found = np.array(load_adapters(mlx, str(folder / "mlx"))(mx.array(TOKENS)))
    first, second = (load_file(folder / name / "adapters.safetensors") for name in ("mlx", "again"))
    if any(first[name].tobytes() != second[name].tobytes() for name in {*first, *second}):
        return "not the same bits after there and back"
    difference = np.abs(found - expected).max()
    moved = np.abs(plain - expected).max()
    moves = f"differs by {difference:.2g}, where the adapter moves by {moved:.2g}"
    return "same" if difference < MOST < moved else moves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    given = parser.parse_args()
    wrong = 0
    for number in range(given.count):
        chance = random.Random(f"{given.seed} {number}")
        kind = MODELS[number % len(MODELS)]
        with tempfile.TemporaryDirectory() as folder:
            outcome = one(kind, chance, Path(folder))
            if outcome != "same":
                config = json.loads((Path(folder) / "peft/adapter_config.json").read_text())
                shown = {key: config[key] for key in ("r", "lora_alpha", "target_modules", "use_dora", "use_rslora")}
                print(number, kind, outcome, shown)
                wrong += not outcome.startswith("refused")
    print(f"{given.count} adapters, {wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
