"""The load in SGLang: srt/lora/lora.py, lora_manager.py, mem_pool.py, utils.py; the server takes `all` modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...names import as_number, numbered
from ..architectures import line
from ..record import MISLOADS, REJECTS, UNKNOWN, Server
from .load import Fate, Load, plain, several
from .sizes import compared, differs

NORMALISED = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj", "vocab_emb": "embed_tokens", "embeddings": "embed_tokens",
    "word_embeddings": "embed_tokens", "output": "lm_head", "unembed_tokens": "lm_head",
    "q_a_proj": "fused_qkv_a_proj_with_mqa", "kv_a_proj_with_mqa": "fused_qkv_a_proj_with_mqa",
    "wq_b": "indexer.wq_b", "wk": "indexer.wk", "weights_proj": "indexer.weights_proj",
}  # fmt: skip
"""Names of modules → those of the pool (utils.py: get_normalized_target_modules)."""
KNOWN = frozenset((
    "qkv_proj", "qkvr", "o_proj", "wo_ud", "out_proj", "in_proj", "in_proj_qkvz", "up_proj", "gate_up_proj",
    "down_proj", "fc1_latent_proj", "fc2_latent_proj", "embed_tokens", "lm_head", "fused_qkv_a_proj_with_mqa",
    "q_b_proj", "kv_b_proj",
))  # fmt: skip
"""utils.py: _KNOWN_LORA_TARGET_MODULES."""
SIZED = frozenset((
    "qkv_proj", "o_proj", "gate_up_proj", "down_proj", "fused_qkv_a_proj_with_mqa", "q_b_proj", "kv_b_proj",
    "embed_tokens", "lm_head",
))  # fmt: skip
"""Those whose sizes are known where a class does not tell them (utils.py: get_default_hidden_dim)."""
CHOICES = frozenset((
    "q_proj", "k_proj", "v_proj", "o_proj", "q_a_proj", "kv_a_proj_with_mqa", "q_b_proj", "kv_b_proj", "wq_b", "wk",
    "weights_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj", "embed_tokens", "lm_head", "qkvr",
    "wo_ud",
))  # fmt: skip
"""What --lora-target-modules takes beside `all` (utils/common.py: SUPPORTED_LORA_TARGET_MODULES)."""
MODULES = "--lora-target-modules"
LINEAR = ("qkv", "merged", "column", "row", "replicated", "own")
CUT = {"qkv": "more output", "merged": "more output", "column": "more output", "row": "more input"}
"""Kind of a module → what of a pair is cut to the model's size (layers.py: slice_lora_b_weights of column parallel
layers, slice_lora_a_weights of row parallel ones); all else has to fit (mem_pool.py: load_lora_weight_tensor).
"""
FILLED = {"lm_head": ("less output",)}
"""What of an embedding's pair is filled up by what the slot held before (mem_pool.py: load_lora_weight_to_buffer)."""
REORDERING = {"reshape", "view", "chunk", "repeat_interleave", "permute", "cat", "permute_qk_weight_for_rotary"}
RENAMED = {"Olmo3ForCausalLM": "Olmo2ForCausalLM"}
"""Classes that a config of SGLang's own calls otherwise (configs/olmo3.py: Olmo3Config)."""
REVIEWED = frozenset(("MiniCPM3ForCausalLM",))
"""Classes with one of these in a loader that was looked at."""

SHARING = ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")
"""Classes with a shared expert of which their config says nothing (models/llama4.py: Llama4MoE)."""
DENSE = frozenset(("gate_up_proj", "down_proj"))
"""The modules of experts, and of layers without any."""
BESIDE = frozenset(("first_k_dense_replace", "moe_layer_start_index", "moe_num_shared_experts", "num_dense_layers"))
"""Keys of a config that tell of layers without experts, or of shared ones, where they are above 0."""
_BESIDE = re.compile(r"\blayers\.\d+\..*\b(?:gate|up|gate_up|down)_proj$")
UNPLANNED = frozenset(("GlmForCausalLM",))
"""Classes that run as transformers has them, of whose plan SGLang does not know each style (models/transformers.py:
_normalize_tp_style).
"""


class Model(NamedTuple):
    """A class as SGLang builds it, and the modules that its pool has room for."""

    name: str
    modules: dict[str, str]
    targets: frozenset[str]
    entry: dict[str, Any]

    def wrapped(self, layer: str, target: str) -> bool:
        """Whether a layer has a module that the pool's buffer is for."""
        return any(self._kinds(layer, target))

    def cut(self, layer: str, target: str) -> set[str]:
        """What a layer cuts of a pair."""
        return {CUT[part] for kind in self._kinds(layer, target) for part in kind.split("|") if part in CUT}

    def _kinds(self, layer: str, target: str) -> Iterator[str]:
        """The kinds of a layer's modules that the pool's buffer is for."""
        only = self.entry.get("only")
        for path, kind in self.modules.items():
            if not re.search(r"layers\.#\.", path) or (only and not re.match(only, path.replace("#", layer))):
                continue
            leaf = path.rpartition(".")[2]
            if (leaf == target and _linear(kind)) or (target.endswith("_moe") and kind == "experts"):
                yield kind


def _linear(kind: str) -> bool:
    return any(part.startswith(LINEAR) for part in kind.split("|"))


def follow(_: Server, load: Load) -> Iterator[Fate]:
    """What becomes of an adapter's factors."""
    load = _read(load)
    model = _class(load)
    if isinstance(model, Fate):
        yield model
        return
    stopped = _start(load, model)
    if stopped is None:
        yield from _followed(load, model)
        return
    smaller = model._replace(targets=_wanted(load, model))
    names = _typed(smaller.targets)
    if names != ["all"] and _start(load, smaller) is None and not list(_followed(load, smaller)):
        option = f"{MODULES} {' '.join(names)}"
        stopped = stopped._replace(message=f"{stopped.message}: serve with {option}", option=option)
    yield stopped


def modules(load: Load) -> list[str]:
    """The names to give to --lora-target-modules for an adapter that SGLang takes when it is started with all: as they
    are typed, and `all` where one of them cannot be.
    """
    load = _read(load)
    model = _class(load)
    return [] if isinstance(model, Fate) else _typed(_wanted(load, model))


def _wanted(load: Load, model: Model) -> frozenset[str]:
    """The modules of the pool that an adapter needs: those of its config, and those that its tensors are put into.

    Experts are wrapped where both of their modules are there (lora_manager.py: init_lora_modules).
    """
    targets = load.config.get("target_modules")
    found = (
        {NORMALISED.get(_leaf(str(name)), _leaf(str(name))) for name in targets} if isinstance(targets, list) else set()
    )
    names = {numbered(name) for name in load.pairs}
    found |= {target for name in names if (target := _target(_fused(name, names), model.targets))}
    moe = load.experts is not None or "experts" in model.modules.values()
    return frozenset(found | DENSE if moe and found & DENSE else found)


def _typed(targets: frozenset[str]) -> list[str]:
    """Modules of the pool as --lora-target-modules takes them; `all`, where it has no name for one."""
    names = {target: target for target in targets & CHOICES}
    for name in sorted(CHOICES & NORMALISED.keys()):
        names.setdefault(NORMALISED[name], name)
    return sorted(names[target] for target in targets) if targets <= names.keys() and targets else ["all"]


def _followed(load: Load, model: Model) -> Iterator[Fate]:
    """What becomes of the factors in a class that was started with the model's targets."""
    yield from _targets(load, model)
    layers: dict[int, list[str]] = {}
    for key in load.tensors:
        match = re.search(r"layers\.(\d+)\.", key)
        if match:
            layers.setdefault(as_number(match[1]), []).append(key)
    if load.layers is not None and any(number >= load.layers for number in layers):
        number = max(layers)
        yield Fate(REJECTS, "place", f"SGLang rejects layer {number}, of which the model has none: index out of range")
        return
    yield from _embeddings(load, model)
    yield from _outside(load)
    reasons: dict[tuple[Any, str, str], list[str]] = {}
    for number, keys in layers.items():
        for outcome, about, message, module in _layer(load, model, str(number), keys):
            reasons.setdefault((outcome, about, message), []).append(module)
    for (outcome, about, message), modules in reasons.items():
        yield Fate(outcome, about, f"{message}: {several(modules)}", tuple(modules))


def _read(load: Load) -> Load:
    """As SGLang reads the names of factors: what stands behind `lora_A` is not looked at (mem_pool.py)."""
    tensors = {re.sub(r"(\.lora_[AB])\.\w+(?=\.weight$)", r"\1", key): shape for key, shape in load.tensors.items()}
    return Load(load.config, tensors, load.base)


def model_of(load: Load) -> Model | Fate:
    """What SGLang's pool has for the model's class when it is started with all modules, or why that is not known."""
    model = _class(load)
    return model if isinstance(model, Fate) else _start(load, model) or model


def _class(load: Load) -> Model | Fate:
    """The class with all modules in its pool, or why that is not known."""
    name = load.architecture
    if name is None:
        return Fate(
            UNKNOWN, "model", "the model's config names no class", needs="`architectures` in the model's config"
        )
    name = RENAMED.get(name, name)
    entry = line("sglang", name)
    if entry is None:
        return _backend(name)
    if "unread" in entry or not entry.get("modules") or entry.get("only") == "?":
        return Fate(UNKNOWN, "model", f"SGLang's class for {name} was not read", needs=f"a load of a {name} in SGLang")
    if REORDERING & set(entry.get("loader", ())) and name not in REVIEWED:
        return Fate(UNKNOWN, "model", f"SGLang's {name} has a loader of its own, which was not looked at")
    modules = _flat(entry)
    return Model(name, modules, _pool(modules, frozenset(entry.get("supported", ()))), entry)


def _start(load: Load, model: Model) -> Fate | None:
    """Why SGLang does not start with the modules of its pool, None where it does."""
    strange = ", ".join(sorted(model.targets - SIZED))
    if strange and not model.entry.get("own_sizes"):
        message = f"SGLang does not start with all modules of {model.name}, of which {strange} has no size"
        return Fate(UNKNOWN, "model", message, needs=f"a load with {MODULES}")
    if model.targets & DENSE and _roomless(load, model):
        message = f"SGLang does not start with {' and '.join(sorted(DENSE))} of {model.name} among its modules"
        return Fate(UNKNOWN, "model", message, needs=f"a load with {MODULES}")
    embedding = model.modules.get("model.embed_tokens", "")
    if load.tied and "table" in embedding and "lm_head" in model.modules and "lm_head" in model.targets:
        message = f"SGLang does not start with the head of {model.name} among its modules"
        return Fate(UNKNOWN, "model", message, needs=f"a load with {MODULES}")
    return None


def _roomless(load: Load, model: Model) -> bool:
    """Whether a model of experts has others of their modules, for which the pool has no buffers: it makes those only
    where the config tells of shared experts (mem_pool.py: init_buffers; a KeyError in lora_manager.py:
    update_lora_info).
    """
    count = {key: value for key, value in load.text.items() if type(value) is int and value > 0}
    if load.experts is None or {"shared_expert_intermediate_size", "n_shared_experts"} & count.keys():
        return False
    if load.base.weights:
        return any(_BESIDE.search(name) and ".experts." not in name for name in load.base.weights)
    dense = load.text.get("mlp_only_layers") or count.get("decoder_sparse_step", 1) > 1
    return bool(dense) or bool(BESIDE & count.keys()) or model.name in SHARING


def _flat(entry: dict[str, Any]) -> dict[str, str]:
    return {
        (f"{parent}.{leaf}" if parent else leaf).replace("#.#", "#"): kind
        for parent, leaves in entry["modules"].items() for leaf, kind in leaves.items()
    }  # fmt: skip


def _pool(modules: dict[str, str], supported: frozenset[str]) -> frozenset[str]:
    """The modules of the pool (utils.py: auto_detect_lora_target_modules, lora_manager.py: init_lora_shapes)."""
    names = {path.rpartition(".")[2] for path, kind in modules.items() if _linear(kind)}
    if "experts" in modules.values():
        names |= {"gate_up_proj", "down_proj"}
    normalised = {NORMALISED.get(name, name) for name in names}
    return frozenset(((normalised | supported) & KNOWN) | {"embed_tokens", "lm_head"})


def _backend(name: str) -> Model | Fate:
    """A class that SGLang has not runs as transformers has it, each projection under its own name."""
    head = line("transformers", name)
    inner = next(
        (kind[1:] for kind in (head or {}).get("modules", {}).get("", {}).values() if kind.startswith("@")), ""
    )
    entry = line("transformers", inner)
    if entry is None or not entry.get("modules"):
        return Fate(UNKNOWN, "model", f"SGLang's class for {name} is not known", needs=f"a load of a {name} in SGLang")
    if name in UNPLANNED:
        message = f'SGLang does not start on {name} (it says "Unsupported TP style")'
        return Fate(UNKNOWN, "model", message, needs=f"a load of a {name} in SGLang")
    kinds = {"linear": "column", "table": "embedding"}
    modules = {f"model.{path}": kinds.get(kind, kind) for path, kind in _flat(entry).items()}
    if any("experts" in path or kind == "conv1d" for path, kind in modules.items()):
        return Fate(UNKNOWN, "model", f"SGLang runs {name} as transformers has it, which was not run")
    return Model(name, {**modules, "lm_head": "embedding|head"}, _pool(modules, frozenset()), {})


def _targets(load: Load, model: Model) -> Iterator[Fate]:
    """target_modules against the pool (mem_pool.py: can_support)."""
    targets = load.config.get("target_modules")
    if not isinstance(targets, list):
        return
    names = [name for name in map(str, targets) if NORMALISED.get(_leaf(name), _leaf(name)) not in model.targets]
    if names:
        message = f"SGLang's {model.name} has no LoRA on {', '.join(sorted(names))}"
        yield Fate(REJECTS, "targets", f'{message} (it says "incompatible with the current LoRA memory pool")')


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _embeddings(load: Load, model: Model) -> Iterator[Fate]:
    """The pairs of the embedding and the head (lora.py: _process_weight)."""
    targets = load.config.get("target_modules")
    named = {NORMALISED.get(_leaf(str(n)), _leaf(str(n))) for n in targets} if isinstance(targets, list) else None
    for module, pair in load.pairs.items():
        name = next((n for n in ("embed_tokens", "lm_head") if n in module.replace("unembed_tokens", "lm_head")), None)
        if name is None or re.search(r"layers\.\d+\.", module):
            continue
        if named is not None and name not in named:
            yield Fate(MISLOADS, "module", f"SGLang skips {module}, which target_modules does not name", (module,))
            continue
        kind = next((kind for path, kind in model.modules.items() if _leaf(path) == name), "")
        if name == "embed_tokens" and "embedding" not in kind:
            yield Fate(UNKNOWN, "module", f"whether SGLang's {model.name} has LoRA on {module} is not known", (module,))
        if name == "lm_head":
            parts = set(kind.split("|"))
            if not kind or (load.tied and "embedding" not in parts and model.name in REVIEWED):
                message = f"SGLang's {model.name} has no head of its own where it is tied, and rejects LoRA on {module}"
                yield Fate(REJECTS, "module", message, (module,))
            elif load.tied and "embedding" not in parts:
                yield Fate(UNKNOWN, "module", f"whether SGLang's {model.name} has a head that is tied is not known")
        yield from compared(load, "SGLang", module, pair, FILLED.get(name, ()))


def _outside(load: Load) -> Iterator[Fate]:
    """Pairs outside the numbered layers, which are passed over."""
    names = [
        m for m in load.pairs if not re.search(r"layers\.\d+\.", m) and "embed_tokens" not in m and "lm_head" not in m
    ]
    if names:
        yield Fate(
            MISLOADS, "place", f"SGLang drops what is in no layer without a word: {several(names)}", tuple(names)
        )


Reason = tuple[Any, str, str, str]


def _layer(load: Load, model: Model, number: str, keys: list[str]) -> Iterator[Reason]:
    """The factors of a layer: put together as the pool has them, looked up by a part of their name, compared."""
    rank = load.config.get("r")
    halves = [{plain(key).partition(".lora_")[0] for key in keys if half in key} for half in (".lora_A", ".lora_B")]
    names = halves[0] | halves[1]
    biases = [key for key in keys if key.endswith(".bias") and ".lora_" not in key]
    biased = {plain(key).removesuffix(".bias").removesuffix(".base_layer") for key in biases}
    yield from _biases(model, number, names, biased)
    missing: set[str] = set()
    for half in (*halves, biased):
        for name in half:
            if name.endswith(".q_proj"):
                keyed = any("k_proj" in other for other in names | biased)
                wanted = ["v_proj", "k_proj"] if keyed else ["v_proj"]
                missing |= {name for other in wanted if name.replace("q_proj", other) not in half}
            elif name.endswith((".k_proj", ".v_proj")) and f"{name.rpartition('.')[0]}.q_proj" not in half:
                missing.add(name)
    for name in sorted(missing):
        yield REJECTS, "group", "SGLang wants q_proj and v_proj (and k_proj, where a layer has one) together", name
    for name in sorted(names):
        fused = _fused(name, names)
        target = _target(fused, model.targets)
        if target is None:
            about = "group" if name.endswith((".up_proj", ".k_proj", ".v_proj")) else "module"
            yield REJECTS, about, f"SGLang's {model.name} cannot find a target module for these", name
            continue
        pair = load.pairs.get(name)
        if any(part in name for part in ("vision", "visual", "audio")):
            yield from _tower(load, model, name, model.cut(number, target))
            continue
        expert = re.search(r"experts\.(\d+)\.", name)
        if expert:
            target += "_moe"
            if load.experts is None:
                yield UNKNOWN, "experts", f"how many experts {model.name} has is not known", name
                continue
            if as_number(expert[1]) >= load.experts:
                message = "SGLang rejects experts of which the model has none: index out of bounds"
                yield REJECTS, "experts", message, name
                continue
        if pair is None:
            continue
        if not model.wrapped(number, target):
            yield (
                MISLOADS,
                "module",
                f"SGLang's {model.name} drops these without a word, having no such fused module",
                name,
            )
            continue
        if pair.b is None:
            yield REJECTS, "factor", "SGLang finds no B for these", name
        elif pair.a is None:
            yield MISLOADS, "factor", "SGLang drops these, which have no A", name
        elif type(rank) is int and len(pair.a) == 2 and pair.a[0] != rank:
            yield REJECTS, "factor", f"SGLang wants r ({rank}) rows in every A", name
        for fate in compared(load, "SGLang", name, pair, model.cut(number, target)):
            yield fate.outcome, fate.about, fate.message, name


def _biases(model: Model, number: str, names: set[str], biased: set[str]) -> Iterator[Reason]:
    """Biases of a layer, which are taken for a B: that of a module which has one comes behind its bias, and is what
    counts (mem_pool.py: load_lora_weight_to_buffer).
    """
    adapted = {_target(_fused(name, names), model.targets) for name in names}
    for name in sorted(biased):
        target = _target(_fused(name, biased), model.targets)
        if target is None:
            yield REJECTS, "tensor", f"SGLang's {model.name} cannot find a target module for the bias of these", name
        elif target not in adapted and model.wrapped(number, target):
            yield REJECTS, "tensor", "SGLang takes the bias of these, which have no LoRA, for a B", name


def _fused(name: str, names: set[str]) -> str:
    """The name after q, k, v and gate, up were put together; what has no partner keeps its own."""
    for first, others, whole in (
        ("q_proj", ("k_proj", "v_proj"), "qkv_proj"), ("gate_proj", ("up_proj",), "gate_up_proj"),
        ("q_a_proj", ("kv_a_proj_with_mqa",), "fused_qkv_a_proj_with_mqa"),
    ):  # fmt: skip
        if whole in name:
            return name
        if name.endswith(f".{first}"):
            return name.replace(first, whole)
        for other in others:
            if name.endswith(f".{other}") and name.replace(other, first) in names:
                return name.replace(other, whole)
    for old, new in ((".w1", ".gate_up_proj"), (".w3", ".gate_up_proj"), (".w2", ".down_proj")):
        if ".experts." in name and name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _target(name: str, targets: frozenset[str]) -> str | None:
    """The longest name of the pool that is a part of a tensor's name (utils.py: get_target_module_name)."""
    return max((target for target in targets if target in name), key=len, default=None)


def _tower(load: Load, model: Model, name: str, cut: set[str]) -> Iterator[Reason]:
    """A tower's layer N goes into the language model's layer N, by its number and a part of its name, if it fits or is
    cut to its size.
    """
    fits, pair = _sizes(load).get(_leaf(name)), load.pairs.get(name)
    message = f"SGLang puts a tower's layers of {model.name} into the language model's"
    if pair is None:
        yield UNKNOWN, "module", f"what SGLang makes of a tower's layers of {model.name} under such names", name
    elif fits and pair.sizes and not differs(pair.sizes, fits) <= cut:
        yield REJECTS, "module", f"{message}, which differ", name
    else:
        yield MISLOADS, "module", message, name


def _sizes(load: Load) -> dict[str, tuple[int, int]]:
    """Output and input of the language model's projections, as far as its config tells them."""
    keys = ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")
    hidden, heads, groups, size, inner = (
        value if type(value := load.text.get(key)) is int and value > 0 else None for key in keys
    )
    if hidden is None or heads is None:
        return {}
    query, key = (count * (size or hidden // heads) for count in (heads, groups or heads))
    sizes = {"q_proj": (query, hidden), "k_proj": (key, hidden), "v_proj": (key, hidden), "o_proj": (hidden, query)}
    sizes["qkv_proj"] = (query + 2 * key, hidden)
    if inner is not None:
        sizes |= {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
        sizes["gate_up_proj"] = (2 * inner, hidden)
    return sizes
