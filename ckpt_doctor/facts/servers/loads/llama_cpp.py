"""The load in llama.cpp: convert_lora_to_gguf.py and conversion/, then src/llama-adapter.cpp and src/models/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...names import as_number
from ..architectures import line
from ..record import MISLOADS, REJECTS, UNKNOWN, Outcome, Server
from .load import Fate, Load, Pair, plain, several
from .names import Known
from .sizes import compared

PASSES = frozenset(("permute", "reshape", "stack", "contiguous"))
"""Steps of a converter that a pair of factors takes part in (convert_lora_to_gguf.py: LoraTorchTensor)."""
REVIEWED = frozenset((
    "DeepseekV2Model", "GraniteMoeModel", "GPTNeoXModel", "BloomModel", "FalconModel", "Ernie4_5Model", "Llama4Model",
    "DbrxModel", "LFM2Model", "MambaModel", "GptOssModel", "Gemma3NModel", "Qwen3NextModel", "XLMRobertaModel",
    "Glm4MoeLiteModel", "DeepseekV32Model", "GlmMoeDsaModel", "GraniteHybridModel",
    "FalconH1Model", "JambaModel",
))  # fmt: skip
"""Converters whose other steps were looked at: on which modules, REFUSED and the rules below say."""
REFUSED: dict[str, tuple[tuple[str, Outcome, str], ...]] = {
    "DeepseekV2Model": ((r"\.kv_b_proj$", REJECTS, "its converter splits them (NotImplementedError)"),),
    "GraniteMoeModel": ((r"block_sparse_moe\.(input|output)_linear$", REJECTS, "its converter splits them"),),
    "GptOssModel": ((r"\.experts", REJECTS, "its converter cannot map them"),),
    "Llama4Model": ((r"\.experts", REJECTS, "its converter cannot map them"),),
    "BitnetModel": ((r"_proj$", REJECTS, "its converter quantises them (AttributeError)"),),
    "Gemma3NModel": (
        (r"altup_(?:unembed_)?projections\.", REJECTS, "its converter stacks them (AttributeError)"),
        (r"embed_tokens", REJECTS, "its converter pads them (AttributeError)"),
        (r"per_layer_model_projection$", MISLOADS, "its graph multiplies them without LoRA"),
    ),
    "Qwen3NextModel": (
        (r"in_proj_(?:qkvz|ba|qkv|z)$", REJECTS, "its converter reorders them (NotImplementedError)"),
        (r"linear_attn", UNKNOWN, "its converter reorders them"),
    ),
    "DbrxModel": ((r"experts", REJECTS, "its converter cannot map them"),),
    "GraniteHybridModel": ((r"mamba|experts", UNKNOWN, "its converter splits them"),),
    "FalconH1Model": (
        (r"mamba\.in_proj$", REJECTS, "its converter scales some of their rows (TypeError)"),
        (r"conv1d", UNKNOWN, "its converter reshapes them"),
    ),
    "MambaModel": ((r"conv1d|dt_proj", UNKNOWN, "its converter reshapes them"),),
    "JambaModel": ((r"conv1d", UNKNOWN, "its converter reshapes them"),),
    "LFM2Model": ((r"conv\.conv", UNKNOWN, "its converter reshapes them"),),
}  # fmt: skip
"""Converter → modules (a regex), what becomes of a LoRA on them, and why."""
NUMBERED = frozenset((
    "LlamaModel", "ArcticModel", "LFM2MoeModel", "MiniMaxText01Model", "MiniMaxM2Model", "MiniMaxM3Model",
    "PhiMoeModel",
))  # fmt: skip
"""Converters to which the parts of an expert are w1, w2, w3; to others they are gate_proj, up_proj, down_proj."""
ALSO_NUMBERED = frozenset(("GrokModel", "KimiLinearModel", "KimiK3Model"))
"""Those that know both."""
CONV1D = ("GPT2Model", "JaisModel")
"""Converters that transpose the weights of Conv1D, and not the factors."""
TOWERS = re.compile(
    r"(?:^|\.)(?:visual|vision_tower|vision_model|multi_modal_projector|audio_tower|embed_vision|embed_audio)\."
)


class Model(NamedTuple):
    """How an architecture is converted: its class, its graph's tensors by the names that the converter knows."""

    name: str
    steps: tuple[str, ...]
    names: dict[str, str]
    unheard: frozenset[str]


def follow(_: Server, load: Load) -> Iterator[Fate]:
    """What becomes of an adapter's factors."""
    model = _model(load)
    if isinstance(model, Fate):
        yield model
        return
    known = Known(load)
    fates: dict[tuple[Outcome, str, str], list[str]] = {}
    experts: dict[str, set[tuple[int, str]]] = {}
    for module, pair in load.pairs.items():
        match = re.match(r"(.*\.experts)\.(\d+)\.(\w+)$", module)
        if match and not _refused(model, module):
            experts.setdefault(match[1], set()).add((as_number(match[2]), match[3]))
            continue
        reason = _module(load, model, known, module, pair)
        if reason:
            fates.setdefault(reason, []).append(module)
        else:
            yield from compared(load, "llama.cpp", module, pair)
    for (outcome, about, message), modules in fates.items():
        yield Fate(outcome, about, f"{message}: {several(modules)}", tuple(modules))
    yield from _experts(load, model, experts)
    beside = tuple(key for key in load.others if TOWERS.search(key))
    if beside and load.text is load.model:
        yield Fate(REJECTS, "tensor", f"llama.cpp's {model.name} has no tower for {several(beside)}", beside)
    elif beside:
        message = f"llama.cpp drops what is no part of {model.name}'s language model: {several(map(plain, beside))}"
        yield Fate(MISLOADS, "tensor", message, beside)


def _model(load: Load) -> Model | Fate:
    name = load.architecture
    if name is None:
        return Fate(
            UNKNOWN, "model", "the model's config names no class", needs="`architectures` in the model's config"
        )
    name = {"GPT2Model": "GPT2LMHeadModel"}.get(name, name)
    entry = line("llama_cpp", name)
    if entry is None:
        return Fate(REJECTS, "model", f'llama.cpp does not convert {name} ("Model {name} is not supported")')
    steps = tuple(entry.get("steps", ()))
    if "Mistral3Model" in steps:
        return Fate(REJECTS, "model", f"llama.cpp's converter for {name} writes the model again, and no adapter "
                    '(it says "expect general.type to be \'adapter\'")')  # fmt: skip
    fate = _mtp(load, name, steps)
    if fate:
        return fate
    graph = line("llama_cpp", f":{entry.get('graph')}") if entry.get("graph") else None
    looked_at = set(entry.get("does", ())) <= PASSES or bool({*REVIEWED, *CONV1D, "BitnetModel"} & set(steps))
    if graph is None or not looked_at or "MmprojModel" in steps:
        return Fate(UNKNOWN, "model", f"llama.cpp's converter for {name} was not looked at")
    tensors = set(graph["tensors"])
    every = {**(line("llama_cpp", "names") or {}), **graph.get("names", {})}
    names = {key: tensor for tensor, keys in every.items() if tensor in tensors for key in keys}
    return Model(name, steps, names, frozenset(graph.get("no_lora", ())))


def _mtp(load: Load, name: str, steps: tuple[str, ...]) -> Fate | None:
    """qwen.py: _QwenMtpMixin asserts that there is a layer for more tokens, in the config or the weights."""
    if "_QwenMtpMixin" not in steps or load.text.get("mtp_num_hidden_layers"):
        return None
    if not load.base.weights:
        return Fate(UNKNOWN, "model", f"whether llama.cpp converts {name} shows only with the model's weights",
                    needs="the model's weights (--base)")  # fmt: skip
    if any(weight.startswith("mtp.") for weight in load.base.weights):
        return None
    return Fate(REJECTS, "model", f"llama.cpp does not convert {name} without tensors called mtp (AssertionError)")


Reason = tuple[Outcome, str, str]


def _module(load: Load, model: Model, known: Known, module: str, pair: Pair) -> Reason | None:
    """What speaks against a module, None for nothing."""
    if pair.a is None or pair.b is None:
        return REJECTS, "factor", "llama.cpp wants both factors of every module"
    name = module.replace("language_model.", "")
    if TOWERS.search(module) and load.text is not load.model:
        return MISLOADS, "module", f"llama.cpp drops what is no part of {model.name}'s language model"
    if "BertModel" in model.steps:
        name = re.sub(r"^(?:bert|roberta)\.", "", name)
        if name.startswith(("pooler", "cls.", "classifier", "lm_head")):
            return MISLOADS, "module", f"llama.cpp's converter leaves these out of {model.name}"
    layer = re.search(r"\.(?:layers|h|blocks|layer)\.(\d+)\.", f".{name}")
    if layer and load.layers is not None and as_number(layer[1]) >= load.layers:
        if "DeepseekV2Model" in model.steps:
            return MISLOADS, "place", "llama.cpp drops layers that the model has not, without a word"
        return REJECTS, "place", 'llama.cpp finds no such layer (it says "Can not map tensor")'
    stack = re.match(r"(?:model\.)?(altup_(?:unembed_)?projections)\.\d+$", name)
    if stack and sum(stack[1] in other for other in load.pairs) < load.text.get("altup_num_inputs", 4) - 1:
        return MISLOADS, "module", f"llama.cpp's converter of {model.name} keeps these for a stack that is never full"
    refused = _refused(model, name)
    if refused:
        return refused
    if module.endswith((".experts", ".experts.base_layer")):
        return REJECTS, "experts", 'llama.cpp takes no experts as parameters (it says "Can not map tensor")'
    tensor = model.names.get(re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "#", name))
    if tensor is None:
        return REJECTS, "place", f'llama.cpp finds no place for these in {model.name} (it says "Can not map tensor")'
    if tensor in ("TOKEN_EMBD", "OUTPUT"):
        return _tied(load, model, tensor)
    if pair.embedding and not tensor.endswith("TOKEN_EMBD"):  # convert_lora_to_gguf.py turns token_embd alone
        if pair.sizes and pair.sizes[0] == pair.sizes[1]:
            return MISLOADS, "module", f"llama.cpp looks these up in {model.name} without LoRA"
        return (
            REJECTS,
            "module",
            'llama.cpp takes no other embedding than that of tokens (it says "has incorrect shape")',
        )
    if tensor in model.unheard:
        return MISLOADS, "module", f"llama.cpp's graph of {model.name} multiplies these without LoRA"
    there = known.has(module)
    if there is False:
        message = f'llama.cpp finds no weight for these in {model.name} (it says "does not exist in base model")'
        return REJECTS, "place", message
    if there is None:
        return UNKNOWN, "place", f"whether {model.name} has these shows only with its weights"
    if set(CONV1D) & set(model.steps):
        sizes = pair.sizes
        if sizes and sizes[0] == sizes[1]:
            return MISLOADS, "module", f"llama.cpp transposes the weights of {model.name}, and not the LoRA"
        return REJECTS, "module", f'llama.cpp transposes the weights of {model.name} (it says "has incorrect shape")'
    if "FalconModel" in model.steps and "query_key_value" in name and _old_falcon(load):
        return REJECTS, "module", f"llama.cpp cannot tell the heads of {model.name} without num_kv_heads"
    return None


def _refused(model: Model, name: str) -> Reason | None:
    """What the converter's own steps make of a module, None where they leave it alone."""
    for steps in model.steps:
        for pattern, outcome, why in REFUSED.get(steps, ()):
            if re.search(pattern, name):
                return outcome, "module", f"llama.cpp's {model.name}: {why}"
    return None


def _old_falcon(load: Load) -> bool:
    text = load.text
    return bool(text.get("multi_query")) and not text.get("new_decoder_architecture") and "num_kv_heads" not in text


def _tied(load: Load, model: Model, tensor: str) -> Reason | None:
    """The embedding and the head: both are served where the head is a weight of its own."""
    tied = load.tied
    if tensor == "OUTPUT" and {"GemmaModel", "Gemma2Model"} & set(model.steps):
        return MISLOADS, "module", f"llama.cpp's converter leaves the head out of {model.name} without a word"
    if tied is None:
        return UNKNOWN, "module", f"whether the head of {model.name} is tied shows only with its weights"
    if tied and tensor == "OUTPUT":
        return REJECTS, "module", f"llama.cpp has no head in {model.name}, which is tied to the embedding"
    if tied:
        return REJECTS, "module", f"llama.cpp aborts at the first token with LoRA on the embedding of {model.name}"
    if tensor in model.unheard:
        return MISLOADS, "module", f"llama.cpp's graph of {model.name} multiplies these without LoRA"
    return None


def _experts(load: Load, model: Model, layers: dict[str, set[tuple[int, str]]]) -> Iterator[Fate]:
    """Experts one by one, of which each layer wants all or none, as its converter names them (modify_tensors), and
    stacks those of a name.
    """
    count = load.experts
    for layer, experts in layers.items():
        also = ALSO_NUMBERED & set(model.steps) and any(name == "w1" for _, name in experts)
        numbered = bool(also or NUMBERED & set(model.steps))
        names = ("w1", "w2", "w3") if numbered else ("gate_proj", "up_proj", "down_proj")
        ranks = {
            (name, pair.a[0])
            for number, name in experts
            if (pair := load.pairs.get(f"{layer}.{number}.{name}")) and pair.a
        }
        if count is None:
            yield Fate(UNKNOWN, "experts", "how many experts a layer has is not known")
        elif not all((number, name) in experts for number in range(count) for name in names) or (
            len(experts) != count * len(names)
        ):
            message = (
                f'llama.cpp wants all parts of all experts of {layer} (it says "Unprocessed experts", or KeyError)'
            )
            yield Fate(REJECTS, "experts", message)
        elif len(ranks) > len(names):
            message = f'llama.cpp wants one rank for all experts of {layer} (it says "stack expects each tensor")'
            yield Fate(REJECTS, "experts", message)
        elif "Gemma4Model" in model.steps:
            yield Fate(UNKNOWN, "experts", "what llama.cpp makes of these experts")
