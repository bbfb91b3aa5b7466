"""Whether PEFT can merge an adapter into its model so that the model computes the same."""

from __future__ import annotations

from .servers.architectures import architecture, line
from .servers.loads import Load
from .subject import Subject

MERGED = frozenset((
    "LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "VERA", "LN_TUNING", "FOURIERFT",
))  # fmt: skip
"""Methods whose merge_and_unload was run in PEFT 0.21.2, merged and not merged compared."""
NEVER_MERGED = ("layer_replication", "alora_invocation_tokens")
"""Options with which PEFT refuses to merge (tuners/lora/model.py: _check_merge_allowed; tuners/lora/variants.py)."""
TABLES = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llama_cpp"}
GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def model_class(subject: Subject) -> str:
    """The class of transformers that the adapter was trained on: the model's, or of a bare model the one that
    generates; "" where that is not known. It is a name and nothing else, whatever a config says.
    """
    base = subject.question.base
    model = base.config if base else {}
    task = subject.config.get("task_type")
    of_type = line("transformers", f":{model.get('model_type')}") or {}
    name = architecture(model) or ""
    if name == of_type.get("model") and task == "CAUSAL_LM":
        name = str(of_type.get("causal"))
    generates = name.endswith(GENERATING) and task in (None, "CAUSAL_LM") and "auto_map" not in model
    return name if generates and name.isidentifier() else ""


def served(server: str, subject: Subject) -> bool:
    """Whether a server has the model's class, with whatever LoRA."""
    base = subject.question.base
    name = model_class(subject) or (architecture(base.config) if base else None)
    entry = line(TABLES[server], name) if name else None
    return entry is not None and not entry.get("gone") and "unread" not in entry


def unmergeable(subject: Subject) -> str:
    """Why an adapter is not to be merged into its model, "" where it is."""
    config, base = subject.config, subject.question.base
    if subject.method not in MERGED:
        return f"what merging makes of {subject.method} was not run"
    for key in NEVER_MERGED:
        if config.get(key):
            return f"PEFT does not merge with {key}"
    if base is not None and base.config.get("quantization_config"):
        return "the model is quantised, and merged into it the LoRA is rounded: take the one it was made from"
    if not model_class(subject):
        return "which class of transformers the adapter was trained on is not known"
    table = ("embed", "lm_head", "wte", "output", "word_embeddings")
    touched = any(part in key for key in subject.tensors for part in table)
    if base is not None and touched and Load(config, subject.tensor_shapes, base).tied is not False:
        return "the head is the embedding, and merged into one of them both change"
    return ""
