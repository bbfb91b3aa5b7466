"""Rules about tensors: their names and types, and parts that are not there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter import Layer
from ..adapter.codes import (
    ADAPTER_NAME,
    ADAPTER_NAME_IN_KEY,
    FACTOR_DTYPE,
    FOREIGN_PREFIX,
    MANGLED_KEY,
    MEGATRON_NAMES,
    MISSING_FACTOR,
    OTHER_SIZE,
    STRANGE_TENSOR,
    WEIGHT_SUFFIX,
)
from ..adapter.findings import THE_BASE, Finding, counted, several
from ..adapter.runtimes import PEFT, since
from ..facts.embeddings import ADAPTED
from ..facts.methods import LORAS
from ..facts.names import PREFIX
from ..facts.subject import Subject
from .declared import rule

WRAPPERS_OF = {
    "_orig_mod.": "the name of torch.compile's wrapper",
    "_fsdp_wrapped_module.": "an FSDP wrapper's name",
    "_checkpoint_wrapped_module.": "the name of a checkpointing wrapper",
}
"""What stands in a key where a wrapper was not taken off before it was saved."""
FACTORS = {
    "LORA": ({"lora_A", "lora_B"}, {"lora_embedding_A", "lora_embedding_B"}),
    "ADALORA": ({"lora_A", "lora_B", "lora_E"},),
}


@rule
def foreign_prefix(subject: Subject) -> Iterator[Finding]:
    """Keys that PEFT does not look for are ignored (utils/save_and_load.py: set_peft_model_state_dict)."""
    lost = [key for key in subject.lookup.foreign if not (subject.method == "ADALORA" and subject.is_empty(key))]
    copies = [key for key in lost if key.endswith(ADAPTED)]
    foreign = [key for key in lost if key not in copies]
    if foreign:
        message = f"{_misnamed(foreign[0])} {counted(len(foreign), 'key')}, ignored in silence ({foreign[0]})"
        yield FOREIGN_PREFIX(message, tensors=foreign, misloads=PEFT, remedy=_named_right(foreign[0]))
    elif copies:
        message = f"{copies[0]} does not start as PEFT names it, so that the base model's own weight is left"
        yield FOREIGN_PREFIX(message, tensors=copies, undecided=PEFT, needs="whether that weight was trained")


def _misnamed(key: str) -> str:
    """What is wrong with the beginning of a key, up to how many have it."""
    for name, what in WRAPPERS_OF.items():
        if name in key:
            return f"{what} ({name.strip('.')}) stands inside"
    if key.startswith((PREFIX + "module.", "module.")):
        return "DataParallel's prefix (module) stands before"
    if key.startswith(PREFIX + PREFIX):
        return f"the prefix {PREFIX.rstrip('.')} stands twice before"
    return f"the prefix {PREFIX.rstrip('.')} is missing before"


def _named_right(key: str) -> str:
    """What to do with keys that begin as this one does."""
    for name in WRAPPERS_OF:
        if name in key:
            return f"take {name} out of each key"
    if key.startswith((f"{PREFIX}module.", "module.base_model.")):
        return "take module. out of each key"
    if key.startswith("module."):
        return f"put {PREFIX} for module. in each key"
    if key.startswith(PREFIX + PREFIX):
        return f"take one {PREFIX} off each key"
    return f"put {PREFIX} before each key"


@rule
def adapter_name_in_key(subject: Subject) -> Iterator[Finding]:
    """0.21 takes `.lora_A.default.weight` (utils/save_and_load.py: set_peft_model_state_dict)."""
    named = subject.lookup.named
    if named:
        message = (
            f"an adapter's name stands inside {counted(len(named), 'key')} ({next(iter(named))}): PEFT up to 0.20 "
            "ignores them in silence"
        )
        yield ADAPTER_NAME_IN_KEY(message, tensors=named, misloads=frozenset[str]().union(*named.values()))


@rule
def missing_factor(subject: Subject) -> Iterator[Finding]:
    """A factor that is missing stays as initialised, often at random (LoraLayer.reset_lora_parameters)."""
    whole = FACTORS.get(subject.method or "")
    if not whole:
        return
    stray = {"lora_E"} if subject.method == "LORA" else set()  # ignored

    def is_partial(layer: Layer) -> bool:
        pruned = layer.module in subject.pruned and all(map(subject.is_empty, layer.factors.values()))
        return set(layer.factors) - stray not in whole and not pruned

    partial = subject.layers_where(is_partial)
    if partial:
        keys = tuple(key for module in partial for key in subject.layers[module].factors.values())
        has = set(subject.layers[partial[0]].factors)
        lacking = max(whole, key=lambda names: len(names & has)) - has
        message = (
            f"{partial[0]} lacks {' and '.join(sorted(lacking)) or 'a factor'} "
            f"({counted(len(partial), 'layer')} of {len(subject.layers)}): it stays as it was initialised"
        )
        remedy = ""
        if is_called_adalora(subject):
            message = "peft_type is ADALORA, and no layer has lora_E: the tensors are those of LORA"
            remedy = 'set peft_type to "LORA" in adapter_config.json'
        yield MISSING_FACTOR(message, tensors=keys, misloads=PEFT, remedy=remedy)


def is_called_adalora(subject: Subject) -> bool:
    """Whether the config says AdaLoRA of what are the tensors of a LoRA."""
    factors = [layer.factors for layer in subject.layers.values()]
    return subject.method == "ADALORA" and bool(factors) and all(
        names.keys() == {"lora_A", "lora_B"} and all(key.endswith(".weight") for key in names.values())
        for names in factors
    )  # fmt: skip


@rule
def weight_suffix(subject: Subject) -> Iterator[Finding]:
    """LoRA's factors are modules with a `.weight`, an Embedding's and AdaLoRA's are bare; others are ignored."""
    misnamed = subject.lookup.unending
    if misnamed and not is_called_adalora(subject):  # CD403 says so
        first = next(iter(misnamed))
        end = f".lora_{first.rpartition('.lora_')[2]}"
        right = end.removesuffix(".weight") if end.endswith(".weight") else f"{end}.weight"
        count = counted(len(misnamed), "key")
        message = f"{count} end in {end}, and PEFT looks for {right}: ignored in silence ({first})"
        yield WEIGHT_SUFFIX(message, tensors=misnamed, misloads=PEFT, remedy=f"rename them to end in {right}")


@rule
def mangled_key(subject: Subject) -> Iterator[Finding]:
    """Older releases replace parts of names wherever they occur (facts/lookup.py). The tensors then match nothing."""
    lost = subject.lookup.mangled
    if lost:
        message = f"older releases mangle {counted(len(lost), 'key')} ({next(iter(lost))}), and ignore what comes of it"
        yield MANGLED_KEY(message, tensors=lost, misloads=frozenset[str]().union(*lost.values()))


@rule
def factor_dtype(subject: Subject) -> Iterator[Finding]:
    """load_state_dict copies into floating point (int8 becomes zero); what torch has no name for is undecided."""
    floats = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
    others = subject.factors_where(lambda key: subject.forms[key][0] not in floats)
    if others and subject.method in LORAS:  # others have indices, too
        dtypes = sorted({subject.forms[key][0] for key in others})
        message = (
            f"{counted(len(others), 'factor')} of {', '.join(dtypes)}, which no release computes with ({others[0]})"
        )
        whole = all(dtype[0] in "IUB" for dtype in dtypes)
        if whole:
            yield FACTOR_DTYPE(message, tensors=others, misloads=PEFT)
        else:
            yield FACTOR_DTYPE(message, tensors=others, undecided=PEFT, needs="a load in that release")


@rule
def adapter_name(subject: Subject) -> Iterator[Finding]:
    """PEFT tests `adapter_name in name` as a substring and then takes one part more off the key
    (tuners/adalora/model.py: resize_modules_by_rank_pattern), so the module is not found.
    """
    pattern = subject.config.get("rank_pattern")
    if subject.method != "ADALORA" or not isinstance(pattern, dict):
        return
    name = subject.question.adapter_name
    clashing = [key for key in pattern if key.split(".")[: -2 if name in key else -1][-1:] != _module_end(key)]
    if clashing:
        message = f"loaded under the name {name!r}, {clashing[0]} of rank_pattern is taken for another module"
        yield ADAPTER_NAME(message, keys=("rank_pattern",), rejects=since("0.3"))


def _module_end(key: str) -> list[str]:
    return key.partition(".lora_E")[0].split(".")[-1:]


@rule
def megatron_names(subject: Subject) -> Iterator[Finding]:
    """Megatron Core's attention has a linear_qkv (megatron/core/transformer/attention.py: SelfAttention), no model of
    transformers 5 has one. The base decides.
    """
    if subject.base is None:
        layers = subject.layers_where(lambda layer: layer.module.endswith(".linear_qkv"))
        if layers:
            message = f"{layers[0][:120]} is a name of Megatron's, and no model of transformers has a linear_qkv"
            from ..files.foreign import EXPORT  # whose patterns most scans do without

            remedy = EXPORT.replace("{place}", "CHECKPOINT")
            yield MEGATRON_NAMES(message, keys=("target_modules",), undecided=PEFT, needs=THE_BASE, remedy=remedy)


_PART = (
    r"(?:.+\.)?(?:weight|bias|base_layer\..+|lora_magnitude_vector(?:\.weight)?|lora_B\.bias|ranknum(?:\.[^.]+)?"
    r"|(?:token_adapter\.)?trainable_tokens_(?:delta|original)(?:\.[^.]+)?)"
)
"""What an adapter may hold beside factors: parameters by their own names, and parts that options add."""


@rule
def strange_tensor(subject: Subject) -> Iterator[Finding]:
    """Every tensor is a factor, a part that an option adds, or a parameter of the model by its own name; what releases
    make of any other nobody looked at: most ignore it in silence.
    """
    if subject.method not in LORAS:
        return
    foreign = list(subject.lookup.others)
    if foreign:
        tails = sorted({name for key in foreign for name in re.findall(r"lora_[A-Za-z]+|linear_(?:in|out)", key)[-1:]})
        packed = ", as factors of a quantised model" if any(".weight_packed" in key for key in foreign) else ""
        from ..files.foreign import of_another

        form = of_another(foreign)
        named = f"these are the names of {form.what}" if form else f"these are another tool's names{packed}"
        count = counted(len(foreign), "tensor")
        message = f"{named}: {several(tails)} ({count}, {foreign[0][:120]}); they are ignored in silence"
        remedy = form.way if form else "convert it to PEFT's names with the tool that wrote it"
        yield STRANGE_TENSOR(message, tensors=foreign, misloads=PEFT, remedy=remedy)
    parts = subject.others if subject.layers else []
    own = subject.base.parameters if subject.base is not None else {}
    all_biases = subject.config.get("bias") == "all"  # whatever has the word in its name
    strange = [
        key for key in parts
        if not re.fullmatch(_PART, key) and key not in foreign and key.removeprefix(PREFIX) not in own
        and not (all_biases and "bias" in key)
    ]  # fmt: skip
    if strange:
        message = f"{counted(len(strange), 'tensor')} that PEFT gives no LoRA ({strange[0][:120]})"
        yield STRANGE_TENSOR(message, tensors=strange, undecided=PEFT, needs="the tool that wrote them")


@rule
def dimensions(subject: Subject) -> Iterator[Finding]:
    """Factors of which one has the dimensions of a Linear and the other those of a convolution: "size mismatch"."""
    if subject.method not in LORAS:
        return

    def is_apart(layer: Layer) -> bool:
        counts = {len(subject.forms[key][1]) for name, key in layer.factors.items() if name.endswith(("A", "B"))}
        return len(counts) > 1 and min(counts) > 1  # what has one was lost in saving, which CD103 says

    apart = subject.layers_where(is_apart)
    if apart:
        message = f"the factors of {several(apart)} have not as many dimensions as each other"
        yield OTHER_SIZE(message, tensors=subject.keys_of(apart), rejects=PEFT)
