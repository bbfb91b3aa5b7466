"""AdaLoRAs of a tiny model, trained by transformers' Trainer in any environment that has PEFT.

usage: python trainings.py FOLDER HOW...        Saves what each way of HOW gives in FOLDER/HOW.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from ckpt_doctor.integrations.transformers import RankMonitor

SCHEDULE = {"init_r": 4, "target_r": 1, "tinit": 2, "tfinal": 4, "deltaT": 2, "total_step": 20}
LAYERS = 6
BUDGET = LAYERS * SCHEDULE["target_r"]
LLAMA = transformers.LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
)


class ByCallback(transformers.TrainerCallback):
    """As one does it by hand, where PEFT's documentation has it."""

    def on_optimizer_step(self, _: Any, state: Any, *__: Any, **kwargs: Any) -> None:
        kwargs["model"].base_model.update_and_allocate(state.global_step + 1)


class BySubclass(transformers.Trainer):
    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(model, *args, **kwargs)
        model.base_model.update_and_allocate(self.state.global_step + 1)
        return loss


def base() -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(LLAMA)


def adapted(**schedule: int) -> Any:
    """The model with an AdaLoRA, each time with the same numbers."""
    model = base()
    targets = ["q_proj", "v_proj", "down_proj"]
    return peft.get_peft_model(
        model, peft.AdaLoraConfig(task_type="CAUSAL_LM", target_modules=targets, **{**SCHEDULE, **schedule})
    )


def trainer(model: Any, folder: Path | str, kind: Any = transformers.Trainer, **arguments: Any) -> Any:
    """A Trainer that has the model count; `arguments` are those of TrainingArguments, and `callbacks`."""
    torch.set_num_threads(1)  # others would wait for each other
    callbacks = arguments.pop("callbacks", [])
    numbers = [(torch.arange(8) + first) % LLAMA.vocab_size for first in range(32)]
    given: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": 20, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
        "logging_steps": 2, "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
        **arguments,
    }  # fmt: skip
    return kind(
        model=model,
        args=transformers.TrainingArguments(**given),
        train_dataset=[{"input_ids": row, "labels": row} for row in numbers],
        callbacks=callbacks,
    )


def train(how: str, folder: Path) -> Any:
    """Train in one of the ways that there are; saves the adapter in the folder, and returns the Trainer."""
    model = adapted()
    found = trainer(model, folder, BySubclass if how == "monitored subclass" else transformers.Trainer)
    if how.startswith("monitored"):
        RankMonitor().attach(found)
    if "callback" in how:
        found.add_callback(ByCallback())
    found.train()
    model.save_pretrained(str(folder))
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.basicConfig()
    for way in sys.argv[2:]:
        state = train(way, Path(sys.argv[1], way)).state
        Path(sys.argv[1], way, "log.json").write_text(json.dumps(state.log_history))
