"""Train a tiny model, then an AdaLoRA and a plain LoRA of as many ranks on it, each with transformers' Trainer.

usage: python train.py OUT        Writes OUT/model, OUT/adalora with its ranks.jsonl, and OUT/lora; beside them
OUT/sentences.npy, which neither was trained on, and what each gives for them: OUT/adalora.npy and OUT/lora.npy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

from ckpt_doctor.integrations.transformers import RankMonitor

STEPS, RANK, SCALE = 80, 2, 8
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WORDS, LENGTH = 64, 16


def sentences(stride: int, count: int) -> list[dict[str, torch.Tensor]]:
    """Rows that count: each word is `stride`, and at every fourth place one more, after the word before it."""
    draw = torch.Generator().manual_seed(stride)
    strides = torch.tensor([stride + (at % 4 == 0) for at in range(LENGTH)])
    found = []
    for first in torch.randint(0, WORDS, (count,), generator=draw):
        row = (first + strides.cumsum(0)) % WORDS
        found.append({"input_ids": row, "labels": row})
    return found


def train(model: Any, out: Path, stride: int, rate: float, *callbacks: RankMonitor) -> None:
    """Teach it to count with this stride."""
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=16,
        learning_rate=rate,
        logging_steps=STEPS // 10,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=sentences(stride, 512))
    trainer.remove_callback(PrinterCallback)
    for callback in callbacks:
        callback.attach(trainer)
    trainer.train()


def base(out: Path) -> None:
    """A model that counts by threes."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, max_position_embeddings=LENGTH, **sizes))
    train(model, out, 3, 5e-3)
    model.save_pretrained(out)


def adapt(config: peft.PeftConfig, out: Path, name: str, words: torch.Tensor, *monitors: RankMonitor) -> None:
    """An adapter that makes it count by fives."""
    torch.manual_seed(0)
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(out / "model"), config)
    train(model, out / name, 5, 1e-2, *monitors)
    model.save_pretrained(out / name)
    with torch.no_grad():
        np.save(out / f"{name}.npy", model.eval()(input_ids=words).logits.numpy())


def main(out: Path) -> None:
    torch.set_num_threads(1)  # enough for what is so small
    base(out / "model")
    words = torch.stack([row["input_ids"] for row in sentences(5, 512 + 64)[512:]])
    np.save(out / "sentences.npy", words.numpy())
    shared: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": TARGETS}
    schedule = {"tinit": STEPS // 8, "tfinal": STEPS // 4, "deltaT": 5, "total_step": STEPS}
    ranks = {"init_r": 2 * RANK, "target_r": RANK, "lora_alpha": SCALE * 2 * RANK}
    adapt(peft.AdaLoraConfig(orth_reg_weight=0.1, **ranks, **schedule, **shared), out, "adalora", words, RankMonitor())
    adapt(peft.LoraConfig(r=RANK, lora_alpha=SCALE * RANK, **shared), out, "lora", words)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
