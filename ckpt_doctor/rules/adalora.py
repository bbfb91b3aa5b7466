"""Rules about AdaLoRA's own options and schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..adapter.codes import ADALORA_OPTION, ADALORA_SCHEDULE, ADALORA_UNSUPPORTED
from ..adapter.findings import Finding
from ..adapter.runtimes import between, since, upto
from ..facts.layers import number
from ..facts.subject import Subject
from .declared import rule


@rule
def adalora_unsupported(subject: Subject) -> Iterator[Finding]:
    """0.3 and 0.4: lora_dropout_layer is no Module where lora_dropout is 0; AdaLoraModel.forward, which a class for a
    task calls, reads trainable_adapter_name, which a load never sets.
    """
    if subject.method == "ADALORA" and subject.adapter.config:
        dropout, task = subject.adapter.config.get("lora_dropout", 0), subject.adapter.config.get("task_type")
        old = upto("0.2") if dropout else upto("0.4")
        message = "PEFT 0.2 has no AdaLoRA" + ("" if dropout else ", and 0.3 and 0.4 need a lora_dropout above 0")
        if task is not None:
            message += ("" if dropout else ",") + " and 0.3 and 0.4 cannot run it with a task_type"
            # 0.3 has no class for the others, and takes the one without a task
            old |= between("0.4" if task in ("QUESTION_ANS", "FEATURE_EXTRACTION") else "0.3", "0.4")
        yield ADALORA_UNSUPPORTED(message, keys=("peft_type",), rejects=old)


@rule
def schedule(subject: Subject) -> Iterator[Finding]:
    """tuners/adalora/config.py: __post_init__."""
    config = subject.config
    if subject.method != "ADALORA":
        return
    total, first, last = (config.get(key, 0) for key in ("total_step", "tinit", "tfinal"))
    steps, start, end = map(number, (total, first, last))
    numbers = steps is not None and start is not None and end is not None
    if steps is None or start is None or end is None or steps <= 0 or start >= steps - end:
        message = f"total_step is {json.dumps(total)[:20]}: PEFT 0.15 and newer want a number above tinit + tfinal"
        if numbers and total:
            message += f" ({first} + {last})"
        keys = ("total_step", "tinit", "tfinal")
        yield ADALORA_SCHEDULE(message, keys=keys, rejects=since("0.15"))


@rule
def adalora_and_lora_options(subject: Subject) -> Iterator[Finding]:
    """AdaLoraConfig.__post_init__, from 0.11 on."""
    config = subject.config
    if subject.method == "ADALORA":
        if config.get("use_dora"):
            message = "use_dora is set, which AdaLoRA does not have"
            yield ADALORA_OPTION(message, keys=("use_dora",), rejects=since("0.11"))
        if config.get("loftq_config"):
            message = "loftq_config is set, which AdaLoRA does not have"
            yield ADALORA_OPTION(message, keys=("loftq_config",), rejects=between("0.11", "0.13"))
