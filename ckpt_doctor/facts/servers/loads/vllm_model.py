"""The class that vLLM builds for a model, and how it renames what a file holds."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ...names import as_number, numbered
from ..architectures import causal, line
from ..record import REJECTS, UNKNOWN, Server
from .load import Fate, Load
from .names import absent

REORDERED: dict[str, tuple[str, ...]] = {
    "Llama4ForCausalLM": ("q_proj", "k_proj"), "Llama4ForConditionalGeneration": ("q_proj", "k_proj"),
}  # fmt: skip
"""Class → projections whose rows its loader reorders, and a factor's not (llama4.py: permute_qk_weight_for_rotary)."""
UNREVIEWED = (
    "AliceAIForCausalLM", "BagelForConditionalGeneration", "DeepseekV4ForCausalLM", "InklingForCausalLM",
    "InklingForConditionalGeneration", "K2HorizonForCausalLM", "MuseSparkForConditionalGeneration", "HYV4ForCausalLM",
    "PanguEmbeddedForCausalLM", "PanguProMoEV2ForCausalLM", "PanguUltraMoEForCausalLM", "TeleChat2ForCausalLM",
    "Step5ForCausalLM", "MiniCPMOcrForConditionalGeneration", "MiniCPMV4_6ForConditionalGeneration",
    "MiniCPMV4_7ForConditionalGeneration", "LongcatFlashNgramForCausalLM", "Fairseq2LlamaForCausalLM",
    "EagleLlama4ForCausalLM",
)  # fmt: skip
"""Classes whose loader may reorder rows ("loader" in the table), and was not looked at."""
PACKED_WHOLE = {"GPTBigCodeForCausalLM": ("c_attn",)}
"""On the Transformers backend, projections that are fused in the file, and that no layer with LoRA can replace
(transformers/fusers/packed_qkv.py)."""
FUSED_AS_RUN = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""On the Transformers backend, projections that become one module where all are there (transformers/fusers/qkv.py:
QKVFuser, glu.py: GLUFuser), run with twelve classes.
"""
USUAL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "router"}
"""Projections, and the embedding, of a decoder like Llama's or Mixtral's."""
UNSURE = r"(?:^|\.)(?:shared_(?:experts?|mlp)\.\w+|gate(?:\.\w+)?|router)$"
"""What the Transformers backend may fuse with the experts, and then not replace (transformers/fusers/moe.py:
MoEBlockFuser): Dots1's gate, DeepSeek's shared experts and HunYuan's were dropped, Phimoe's router was not.
"""
LINEAR = ("qkv", "merged", "column", "row", "replicated", "own", "absorbed", "experts")
"""Kinds of modules that a layer with LoRA replaces (lora/utils.py: from_layer)."""
CLASSIFIES = ("ForSequenceClassification", "ForTokenClassification")
"""Ends of classes that vLLM makes from the one that generates."""


class Model(NamedTuple):
    """A class as vLLM builds it: path → kinds of module, and what its table says; `way` is the release's."""

    name: str
    modules: dict[str, str]
    packed: dict[str, list[str]]
    embeddings: frozenset[str]
    entry: dict[str, Any]
    backend: bool
    way: frozenset[str]

    @property
    def leaves(self) -> dict[str, str]:
        """The last parts of the projections."""
        kinds = LINEAR if "experts" in self.way else LINEAR[:-1]
        return {path.rpartition(".")[2]: kind for path, kind in self.modules.items() if _any(kind, kinds)}

    @property
    def expected(self) -> frozenset[str]:
        """The names that a file may have, beside those of experts (worker_manager.py: _load_adapter)."""
        names = set(self.embeddings)
        for leaf in self.leaves:
            names |= set(self.packed.get(leaf, [leaf]))
        return frozenset(names)

    def part(self, path: str, leaf: str) -> bool:
        """Whether a module, `leaf` in a file, is one part of several that become one module."""
        parent = numbered(path).rpartition(".")[0]
        if self.backend:
            groups = (names for names in FUSED_AS_RUN if leaf in names)
            return any(all(self.modules.get(f"{parent}.{name}") == "column" for name in names) for names in groups)
        return any(leaf in names for names in self.packed.values() if len(names) > 1)

    def expert(self, name: str, count: int | None) -> bool:
        """Whether `experts.0.w1` is the name of an expert's part."""
        known, parts = self.entry.get("experts") if "experts" in self.way else None, name.split(".")
        if not isinstance(known, list) or len(parts) != 3 or not parts[1].isdecimal() or parts[0] != "experts":
            return False
        return parts[2] in known and (count is None or as_number(parts[1]) < count)


def _any(kind: str, kinds: tuple[str, ...]) -> bool:
    return any(part.startswith(kinds) for part in kind.split("|"))


def model_of(load: Load, server: Server) -> Model | Fate:
    """The class that vLLM builds for the model, or why that is not known or takes no LoRA."""
    name, table, way = load.architecture, server.table, server.way
    if way is None:
        return Fate(UNKNOWN, "model", f"how {server.id} loads was not looked at")
    if name is None:
        return Fate(
            UNKNOWN, "model", "the model's config names no class", needs="`architectures` in the model's config"
        )
    entry, classifies = line(table, name), False
    if entry is None and name.endswith(CLASSIFIES):
        entry = line(table, _generating(name))
        classifies = True
        if entry is not None and "transformers" in entry:
            entry = None
    if entry is None and name.endswith("Model"):  # a bare model is converted from the class that generates
        entry = line(table, name.removesuffix("Model") + "LMHeadModel") or line(
            table, name.removesuffix("Model") + "ForCausalLM"
        )
        if entry is not None and entry.get("lora") is not False:
            entry = None
    if entry is None or entry.get("gone"):  # what left the registry is as if it had never been in it
        backend = _fallback(load, name)
        if backend:
            return _backend(load, name, backend, way)
        if entry is None or line("transformers", name):
            message = f"whether vLLM runs {name}, and as transformers has it, is not known"
            return Fate(UNKNOWN, "model", message, needs=f"a load of a {name} in vLLM")
    if "unread" in entry:
        return Fate(UNKNOWN, "model", f"vLLM's class for {name} is not known", needs=f"a load of a {name} in vLLM")
    if entry.get("lora") is False:
        return Fate(REJECTS, "model", f"vLLM has no LoRA for {name}")
    if entry.get("transformers"):
        return _backend(load, name, str(entry["transformers"]), way)
    if "pooling" not in way and (classifies or pooling(name)):
        return Fate(UNKNOWN, "model", f"how {server.id} serves {name}, which generates nothing, was not looked at")
    if not entry.get("modules"):
        return Fate(UNKNOWN, "model", f"which modules vLLM's {name} has is not known")
    if "?" in entry.get("renames", {}) or "?" in entry.get("towers", {}) or name in UNREVIEWED:
        return Fate(UNKNOWN, "model", f"vLLM's {name} has a loader of its own, which was not looked at")
    modules = _flat(entry, "")
    packed, embeddings = dict(entry.get("packed", {})), set(entry.get("embeddings", ()))
    if "inner embeddings" in way:
        embeddings |= set(entry.get("inner_embeddings", ()))
    for path, kind in list(modules.items()):
        if kind.startswith("@"):
            inner = _inner(load, table, kind)
            if inner is None:
                return Fate(UNKNOWN, "model", f"which class {path} of vLLM's {name} is, is not known")
            del modules[path]
            modules.update(_flat(inner, f"{path}."))
            if "inner embeddings" in way:
                embeddings |= set(inner.get("embeddings", ()))
            if not entry.get("packed") and "inner packed" in way:
                packed.update(inner.get("packed", {}))
            if "experts" in inner and "experts" not in entry:
                entry = {**entry, "experts": inner["experts"]}
            if "?" in inner.get("renames", {}):
                return Fate(UNKNOWN, "model", f"what vLLM's {name} renames is not known")
    packed.pop("?", None)
    if classifies:
        modules["score"] = "replicated"
    model = Model(name, modules, packed, frozenset(embeddings), entry, False, way)
    return _starts(load, server, model) or model


def _starts(load: Load, server: Server, model: Model) -> Fate | None:
    """What keeps a server with LoRA from starting on a model: a head with too many tokens (lora/layers:
    LogitsProcessorWithLoRA.create_lora_weights), or, in older releases, a module with a name of a projection that no
    layer with LoRA replaces (lora/models.py: register_module asserts it, but in models with towers).
    """
    vocabulary, most = load.text.get("vocab_size"), server.largest_vocabulary
    if most is not None and isinstance(vocabulary, int) and vocabulary > most and "lm_head" in model.embeddings:
        message = f"{server.id} has no LoRA for the head of {model.name} with {vocabulary} tokens, and does not start"
        return Fate(REJECTS, "model", message)
    if "any module" in model.way or model.entry.get("towers"):
        return None
    names = model.leaves.keys() | model.embeddings
    odd = [path for path, kind in model.modules.items() if path.rpartition(".")[2] in names
           and not all(replaced(model, path.rpartition(".")[2], one) for one in kind.split("|"))]  # fmt: skip
    if not odd:
        return None
    return Fate(UNKNOWN, "model", f"whether {server.id} starts with LoRA on {model.name} was not looked at")


def replaced(model: Model, name: str, kind: str) -> bool:
    """Whether an older release has a layer with LoRA for a kind of module (lora/layers: can_replace_layer)."""
    parts = len(model.packed.get(name, ()))
    if kind in ("qkv", "merged"):
        return parts in ((1, 3) if kind == "qkv" else (1, 2))
    return kind in ("column", "row", "replicated", "head", "absorbed") or (kind == "embedding" and name != "lm_head")


def pooling(architecture: str | None) -> bool:
    """Whether a class classifies or embeds, and generates nothing."""
    return bool(architecture) and not str(architecture).endswith(
        ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
    )


def _generating(name: str) -> str:
    """The class that a classifier is made from (config/model.py: try_match_architecture_defaults, adapters.py)."""
    for suffix in CLASSIFIES:
        name = name.replace(suffix, "ForCausalLM") if name.endswith(suffix) else name
    return name


def _inner(load: Load, table: str, kind: str) -> dict[str, Any] | None:
    """The class of a language model within another."""
    names = kind[1:].split(",") if len(kind) > 1 else [causal(load.text) or ""]
    entries = [line(table, name) for name in names]
    entry = entries[0] if len(entries) == 1 else None
    return entry if entry and entry.get("modules") and entry.get("lora") is not False else None


def _flat(entry: dict[str, Any], prefix: str) -> dict[str, str]:
    return {
        f"{prefix}{parent}.{leaf}" if parent else f"{prefix}{leaf}": kind
        for parent, leaves in entry["modules"].items() for leaf, kind in leaves.items()
    }  # fmt: skip


def falls_back(name: str) -> bool:
    """Whether the Transformers backend runs a class that is in no registry (models/registry.py:
    _try_resolve_transformers), of a decoder whose projections are the usual ones: run with Helium, Dots1 and Phimoe.
    """
    head = line("transformers", name) or {}
    inner = str(head.get("modules", {}).get("", {}).get("model", "")).removeprefix("@")
    entry = line("transformers", inner) or {}
    kinds = _flat(entry, "") if "modules" in entry else {}
    leaves = {path.rpartition(".")[2] for path, kind in kinds.items() if not kind.startswith("parameter")}
    return bool(leaves) and leaves <= USUAL and head.get("backend") is True and name.endswith("ForCausalLM")


def _fallback(load: Load, name: str) -> str | None:
    """Which backend that is (config/model.py: _get_transformers_backend_cls), None where it is not known."""
    strange = load.text is not load.model or load.text.keys() & {"kv_lora_rank", "quantization_config"}
    if strange or not falls_back(name):
        return None
    return "TransformersMoEForCausalLM" if load.experts else "TransformersForCausalLM"


def _backend(load: Load, name: str, cls: str, way: frozenset[str]) -> Model | Fate:
    """A model that runs as transformers has it: every projection keeps its name, or is fused of parts that do."""
    head = line("transformers", name)
    if head is None or "MultiModal" in cls or "backend" not in way:
        return Fate(UNKNOWN, "model", f"vLLM runs {name} as {cls}, whose modules are not known")
    inner = next((kind[1:] for kind in head["modules"].get("", {}).values() if kind.startswith("@")), None)
    entry = line("transformers", inner) if inner else None
    if entry is None:
        return Fate(UNKNOWN, "model", f"vLLM runs {name} as {cls}, whose modules are not known")
    modules = {}
    for path, kind in _flat(entry, "model.").items():
        if absent(inner or "", load.model, path):
            continue
        whole = path.rpartition(".")[2] in PACKED_WHOLE.get(name, ())
        kinds = {"linear": "own qkv" if whole else "column", "conv1d": "conv1d", "table": "embedding"}
        modules[path] = "own unsure" if "MoE" in cls and re.search(UNSURE, path) else kinds.get(kind, kind)
        if path.endswith("experts.gate_up_proj"):
            modules[path.rpartition(".")[0]] = "experts"
    modules["lm_head"] = "head"
    renames = {"prefix": str(head.get("prefix", "model"))}
    return Model(name, modules, {}, frozenset({"embed_tokens"}), {"base": renames, "moe": "MoE" in cls}, True, way)


def _mapped(model: Model, key: str) -> str:
    """A tensor's name after hf_to_vllm_mapper (models/utils.py: WeightsMapper.map_name)."""
    if model.backend:
        return _repaired(model, key)
    renames = model.entry.get("renames", {})
    for pattern, new in renames.get("regex", {}).items():
        key = re.sub(pattern, new, key)
    for old, new in renames.get("substr", {}).items():
        key = key.replace(old, new, 1)
    for old, new in renames.get("prefix", {}).items():
        if key.startswith(old):
            key = key.replace(old, new, 1)
    for old, new in renames.get("suffix", {}).items():
        if key.endswith(old):
            key = new.join(key.rsplit(old, 1))
    return key


def _repaired(model: Model, key: str) -> str:
    """A name with the base's prefix as the backend has it (transformers/base.py: _create_hf_to_vllm_mapper)."""
    prefix = model.entry["base"]["prefix"]
    children = {path.split(".")[1] for path in model.modules if path.startswith("model.")}
    if prefix and prefix != "model" and key.startswith(f"{prefix}."):
        key = "model." + key[len(prefix) + 1 :]
    if not key.startswith("model.") and key.partition(".")[0] in children:
        key = f"model.{key}"
    if key.startswith("model.") and key.split(".")[1] not in children:
        key = key.removeprefix("model.")
    return key


def name_of(model: Model, module: str) -> str:
    """The name of a module as it is looked up."""
    ending = ".lora_A.weight"
    return _mapped(model, module + ending).removesuffix(ending)
