"""Adaption prompt: tuners/adaption_prompt."""

from __future__ import annotations

from ...adapter.codes import METHOD_BY_RELEASE, UNCLEAR_TARGET
from ...adapter.runtimes import NONE, PEFT, between, upto
from ..record import Method, Row
from ..subject import Subject
from . import COUNTED, REVIEWED


def is_any(subject: Subject) -> bool:  # noqa: ARG001
    """Whatever the adapter is."""
    return True


def shares_heads(subject: Subject) -> bool:
    """Heads of queries share those of keys (`num_key_value_heads` of the base model, where it has fewer)."""
    config = subject.base.config if subject.base else {}
    heads, keys = config.get("num_attention_heads"), config.get("num_key_value_heads")
    return isinstance(heads, int) and isinstance(keys, int) and heads != keys


def may_share_heads(subject: Subject) -> bool:
    """Whether they do is not told: no base model was named, or one without its config."""
    return subject.base is None or "num_attention_heads" not in subject.base.config


def counts_otherwise(subject: Subject) -> bool:
    """adapter_layers is not the number of layers in the file."""
    return bool(subject.config.get("adapter_layers") != len(subject.layers))


def names_no_layer(subject: Subject) -> bool:
    """target_modules is not the end of the names of the layers in the file."""
    target = subject.config.get("target_modules")
    return target is not None and not all(module.endswith(str(target)) for module in subject.layers)


ADAPTION_PROMPT = Method(
    "ADAPTION_PROMPT", REVIEWED,
    tensors=("adaption_prompt[1 adapter_len *] adaption_gate[1]",),
    kinds={"adapter_layers": (int,), "adapter_len": (int,)},
    targets=COUNTED,
    takes_default=NONE,
    rows=(
        Row(  # by the rotary embedding of transformers 4.34 and older
            METHOD_BY_RELEASE, is_any, "AdaptionPrompt up to PEFT 0.8 runs with the transformers of its time only",
            "tuners/adaption_prompt/utils.py: llama_compute_query_states", rejects=upto("0.8"),
        ),
        Row(
            METHOD_BY_RELEASE, shares_heads, "AdaptionPrompt up to 0.9 wants as many heads of keys as of queries",
            "tuners/adaption_prompt/layer.py: AdaptedAttention.forward", rejects=upto("0.9"),
        ),
        Row(
            METHOD_BY_RELEASE, may_share_heads, "AdaptionPrompt up to 0.9 wants as many heads of keys as of queries",
            "tuners/adaption_prompt/layer.py: AdaptedAttention.forward", undecided=between("0.9", "0.9"),
        ),
        Row(
            METHOD_BY_RELEASE, counts_otherwise, "adapter_layers is not the number of layers in the file",
            "tuners/adaption_prompt/model.py: AdaptionPromptModel.add_adapter", undecided=PEFT,
            keys=("adapter_layers",),
        ),
        Row(
            UNCLEAR_TARGET, names_no_layer, "target_modules is not the end of the names of the layers in the file",
            "tuners/adaption_prompt/model.py: AdaptionPromptModel.add_adapter", undecided=PEFT,
            keys=("target_modules",),
            read=True,
        ),
    ),
)  # fmt: skip
