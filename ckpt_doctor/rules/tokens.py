"""Rules about tokens that are trained by themselves, of a table of words and of a head."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter.codes import LAYER_KIND, MISSING_SAVED, UNPROVEN_OPTION
from ..adapter.findings import THE_BASE, Finding
from ..adapter.runtimes import between, since
from ..facts.embeddings import HEADS
from ..facts.layers import module_of
from ..facts.methods import LORAS
from ..facts.subject import Subject
from .declared import rule

DELTA = ".trainable_tokens_delta"
"""What is trained of some rows of a weight (tuners/trainable_tokens/layer.py: TrainableTokensLayer)."""


@rule
def tokens_of_heads(subject: Subject) -> Iterator[Finding]:
    """Trained tokens of a head, and of a head beside the table of words, which a model may tie. 0.16 and 0.17 ask the
    module for an attribute that a Linear has not (huggingface/peft#2863). 0.19 and newer have one delta for both where
    the model ties them and the tokens are the same, and LoRA then saves it once (utils/other.py:
    set_additional_trainable_modules; huggingface/peft#2870). Loaded in 0.15.2, 0.16.0, 0.17.1, 0.18.1, 0.19.1, 0.20.0
    and 0.21.2 on a Llama, tied and not, with LoRA and without.
    """
    named = _tokens(subject)
    heads = [name for name in named if name.rpartition(".")[2] in HEADS]
    if not heads:
        return
    of_lora = subject.method in LORAS
    keys = ("trainable_token_indices" if of_lora else "target_modules",)
    found = subject.tensors_where(lambda key: DELTA in key)
    message = f"tokens of {heads[0]} are trained, which is no embedding"
    yield LAYER_KIND(message, tensors=found, keys=keys, rejects=between("0.16", "0.17"))
    modules = [module_of(key).partition(DELTA)[0].removesuffix(".token_adapter") for key in found]
    there = {name for name in named if any(module.endswith(name) for module in modules)}
    lost = [name for name in named if name not in there]
    tables = [name for name in named if name in there and name not in heads]
    shared = [head for head in heads if any(named[head] == named[table] for table in tables)]
    tied = _is_tied(subject, heads)
    if lost and found and of_lora:
        message = f"trainable_token_indices names {lost[0]}, which the file has no tensors for"
        is_once = {*lost} <= {*shared} and tied is not False
        yield MISSING_SAVED(message, keys=keys, rejects=between("0.15", "0.18") if is_once else since("0.15"))
    elif shared and tied is not False and not (subject.saved_by and subject.saved_by <= since("0.19")):
        if tied:
            message = f"the model ties {shared[0]} to its table of words, and both have one delta from PEFT 0.19 on"
            remedy = "use PEFT 0.18 or older, as it was trained with"
            yield UNPROVEN_OPTION(message, tensors=found, keys=keys, misloads=since("0.19"), remedy=remedy)
        else:
            message = f"where the model ties {shared[0]} to its table of words, both have one delta from PEFT 0.19 on"
            yield UNPROVEN_OPTION(message, tensors=found, keys=keys, undecided=since("0.19"), needs=THE_BASE)


def _is_tied(subject: Subject, heads: list[str]) -> bool | None:
    """Whether the base model ties a head to its table of words, None where nothing tells; one that is tied has no
    weight of its own in the files.
    """
    if subject.base is None:
        return None
    tied = subject.base.config.get("tie_word_embeddings")
    if isinstance(tied, bool):
        return tied
    return False if any(module.endswith(tuple(heads)) for module in subject.base.weights) else None


def _tokens(subject: Subject) -> dict[str, object]:
    """The modules of which tokens are trained, each with those."""
    if subject.method in LORAS:
        indices = subject.config.get("trainable_token_indices")
        return dict(indices) if isinstance(indices, dict) else {}
    target = subject.config.get("target_modules") if subject.method == "TRAINABLE_TOKENS" else None
    return dict.fromkeys(map(str, target if isinstance(target, list) else [target]))
