"""The load in vLLM: lora/lora_model.py, lora/worker_manager.py, lora/model_manager.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..architectures import causal, line
from ..record import MISLOADS, REJECTS, UNKNOWN, Outcome
from .load import Fate, Load, Pair, numbered, plain, several
from .sizes import compared

REORDERED: dict[str, tuple[str, ...]] = {
    "Llama4ForCausalLM": ("q_proj", "k_proj"), "Llama4ForConditionalGeneration": ("q_proj", "k_proj"),
}  # fmt: skip
"""Class → projections whose rows its loader reorders, and a factor's not (llama4.py: permute_qk_weight_for_rotary)."""
UNREVIEWED = (
    "AliceAIForCausalLM", "BagelForConditionalGeneration", "DeepseekV4ForCausalLM", "InklingForCausalLM",
    "InklingForConditionalGeneration", "K2HorizonForCausalLM", "MuseSparkForConditionalGeneration", "HYV4ForCausalLM",
    "PanguEmbeddedForCausalLM", "PanguProMoEV2ForCausalLM", "PanguUltraMoEForCausalLM", "TeleChat2ForCausalLM",
    "Step5ForCausalLM", "MiniCPMOcrForConditionalGeneration", "MiniCPMV4_6ForConditionalGeneration",
    "MiniCPMV4_7ForConditionalGeneration", "LongcatFlashNgramForCausalLM",
)  # fmt: skip
"""Classes whose loader may reorder rows ("loader" in the table), and was not looked at."""
PACKED_WHOLE = {"GPTBigCodeForCausalLM": ("c_attn",)}
"""On the Transformers backend, projections that are fused in the file, and that no layer with LoRA can replace
(transformers/fusers/packed_qkv.py)."""
LINEAR = ("qkv", "merged", "column", "row", "replicated", "own", "absorbed", "experts")


CLASSIFIES = ("ForSequenceClassification", "ForTokenClassification")


class Model(NamedTuple):
    """A class as vLLM builds it: path → kinds of module, and what its table says."""

    name: str
    modules: dict[str, str]
    packed: dict[str, list[str]]
    embeddings: frozenset[str]
    entry: dict[str, Any]
    backend: bool = False

    @property
    def leaves(self) -> dict[str, str]:
        """The last parts of the projections."""
        return {path.rpartition(".")[2]: kind for path, kind in self.modules.items() if _any(kind, LINEAR)}

    @property
    def expected(self) -> frozenset[str]:
        """The names that a file may have, beside those of experts (worker_manager.py: _load_adapter)."""
        names = set(self.embeddings)
        for leaf in self.leaves:
            names |= set(self.packed.get(leaf, [leaf]))
        return frozenset(names)

    def expert(self, name: str, count: int | None) -> bool:
        """Whether `experts.0.w1` is the name of an expert's part."""
        known, parts = self.entry.get("experts"), name.split(".")
        if not isinstance(known, list) or len(parts) != 3 or not parts[1].isdecimal() or parts[0] != "experts":
            return False
        return parts[2] in known and (count is None or int(parts[1]) < count)


def _any(kind: str, kinds: tuple[str, ...]) -> bool:
    return any(part.startswith(kinds) for part in kind.split("|"))


def follow(load: Load) -> Iterator[Fate]:
    """What becomes of an adapter's factors."""
    model = _model(load)
    if isinstance(model, Fate):
        yield model
        return
    found: dict[str, str] = {}
    yield from _names(load, model, found)
    yield from _halves(load, model, found)
    yield from _heads(load, model)
    yield from _experts(load, model, found)
    yield from _sizes(load, found)


def _model(load: Load) -> Model | Fate:
    name = load.architecture
    if name is None:
        return Fate(
            UNKNOWN, "model", "the model's config names no class", needs="`architectures` in the model's config"
        )
    entry, classifies = line("vllm", name), False
    if entry is None and name.endswith(CLASSIFIES):
        entry = line("vllm", _generating(name))
        classifies = True
        if entry is not None and "transformers" in entry:
            entry = None
    if entry is None and name.endswith("Model"):  # a bare model is converted from the class that generates
        entry = line("vllm", name.removesuffix("Model") + "LMHeadModel") or line(
            "vllm", name.removesuffix("Model") + "ForCausalLM"
        )
        if entry is not None and entry.get("lora") is not False:
            entry = None
    if entry is None or "unread" in entry:
        return Fate(UNKNOWN, "model", f"vLLM's class for {name} is not known", needs=f"a load of a {name} in vLLM")
    if entry.get("lora") is False:
        return Fate(REJECTS, "model", f"vLLM has no LoRA for {name}")
    if entry.get("transformers"):
        return _backend(name, str(entry["transformers"]))
    if not entry.get("modules"):
        return Fate(UNKNOWN, "model", f"which modules vLLM's {name} has is not known")
    if "?" in entry.get("renames", {}) or "?" in entry.get("towers", {}) or name in UNREVIEWED:
        return Fate(UNKNOWN, "model", f"vLLM's {name} has a loader of its own, which was not looked at")
    modules = _flat(entry, "")
    packed, embeddings = dict(entry.get("packed", {})), set(entry.get("embeddings", ()))
    for path, kind in list(modules.items()):
        if kind.startswith("@"):
            inner = _inner(load, kind)
            if inner is None:
                return Fate(UNKNOWN, "model", f"which class {path} of vLLM's {name} is, is not known")
            del modules[path]
            modules.update(_flat(inner, f"{path}."))
            embeddings |= set(inner.get("embeddings", ()))
            if not entry.get("packed"):
                packed.update(inner.get("packed", {}))
            if "experts" in inner and "experts" not in entry:
                entry = {**entry, "experts": inner["experts"]}
            if "?" in inner.get("renames", {}):
                return Fate(UNKNOWN, "model", f"what vLLM's {name} renames is not known")
    packed.pop("?", None)
    if classifies:
        modules["score"] = "replicated"
    return Model(name, modules, packed, frozenset(embeddings), entry)


def _generating(name: str) -> str:
    """The class that a classifier is made from (config/model.py: try_match_architecture_defaults, adapters.py)."""
    for suffix in CLASSIFIES:
        name = name.replace(suffix, "ForCausalLM") if name.endswith(suffix) else name
    return name


def _inner(load: Load, kind: str) -> dict[str, Any] | None:
    """The class of a language model within another."""
    names = kind[1:].split(",") if len(kind) > 1 else [causal(load.text) or ""]
    entries = [line("vllm", name) for name in names]
    entry = entries[0] if len(entries) == 1 else None
    return entry if entry and entry.get("modules") and entry.get("lora") is not False else None


def _flat(entry: dict[str, Any], prefix: str) -> dict[str, str]:
    return {
        f"{prefix}{parent}.{leaf}" if parent else f"{prefix}{leaf}": kind
        for parent, leaves in entry["modules"].items() for leaf, kind in leaves.items()
    }  # fmt: skip


def _backend(name: str, cls: str) -> Model | Fate:
    """A model that runs as transformers has it: every projection keeps its name, or is fused of parts that do."""
    head = line("transformers", name)
    if head is None or "MultiModal" in cls:
        return Fate(UNKNOWN, "model", f"vLLM runs {name} as {cls}, whose modules are not known")
    inner = next((kind[1:] for kind in head["modules"].get("", {}).values() if kind.startswith("@")), None)
    entry = line("transformers", inner) if inner else None
    if entry is None:
        return Fate(UNKNOWN, "model", f"vLLM runs {name} as {cls}, whose modules are not known")
    modules = {}
    for path, kind in _flat(entry, "model.").items():
        whole = path.rpartition(".")[2] in PACKED_WHOLE.get(name, ())
        kinds = {"linear": "own qkv" if whole else "column", "conv1d": "conv1d", "table": "embedding"}
        modules[path] = kinds.get(kind, kind)
        if path.endswith("experts.gate_up_proj"):
            modules[path.rpartition(".")[0]] = "experts"
    modules["lm_head"] = "head"
    renames = {"prefix": str(head.get("prefix", "model"))}
    return Model(name, modules, {}, frozenset({"embed_tokens"}), {"base": renames, "moe": "MoE" in cls}, True)


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


def _name(model: Model, module: str) -> str:
    """The name of a module as it is looked up."""
    ending = ".lora_A.weight"
    return _mapped(model, module + ending).removesuffix(ending)


def _names(load: Load, model: Model, found: dict[str, str]) -> Iterator[Fate]:
    """Names, one by one: what no module is called is rejected, what stands elsewhere dropped without a word."""
    expected = model.expected
    strange: list[str] = []
    lost: list[str] = []
    towers: list[str] = []
    fates: dict[tuple[Outcome, str], list[str]] = {}
    for module in load.pairs:
        if any(part in f".{module}." for part in (f".{skip}" for skip in model.entry.get("skip", ()))):
            lost.append(module)
            continue
        name = _name(model, module)
        leaf = name[name.find(".experts") + 1 :] if ".experts" in name else name.rpartition(".")[2]
        leaf = "#" if leaf.isdecimal() else leaf
        known = leaf in expected or leaf == "experts" or model.expert(leaf, load.experts)
        if not known and "base_layer" not in module:
            strange.append(module)
            continue
        if leaf == "experts" and "experts" not in model.leaves:
            strange.append(module)
            continue
        path = _path(load, model, name)
        if path is None:
            lost.append(module)
            continue
        found[module] = path
        if not _served(model, path):
            towers.append(module)
        else:
            verdict = _kind(model, path, leaf)
            if verdict:
                fates.setdefault(verdict, []).append(module)
    if strange:
        yield Fate(
            REJECTS, "module", f"vLLM's {model.name} serves no LoRA on {several(strange)} "
            '(it says "expected target modules in {...} but received [...]")', tuple(strange),
        )  # fmt: skip
    if lost:
        message = f"vLLM's {model.name} has no module under the path of {several(lost)}, and drops it without a word"
        yield Fate(MISLOADS, "place", message, tuple(lost))
    if towers:
        option = ": serve with --enable-tower-connector-lora" if model.entry.get("tower_lora") else ""
        message = f"vLLM drops {several(towers)} of {model.name}'s towers without a word{option}"
        yield Fate(MISLOADS, "module", message, tuple(towers))
    for (outcome, message), modules in fates.items():
        yield Fate(outcome, "module", f"{message}: {several(modules)}", tuple(modules))


def _path(load: Load, model: Model, name: str) -> str | None:
    """The path of the module that a name comes to, in a fused one as its part; None where there is none."""
    candidates = [name]
    prefix = (model.entry.get("towers", {}).get("language_model") or [""])[0].rstrip(".")
    if prefix:
        bare = name.removeprefix("model.")
        candidates.append(f"{prefix}.{name}")
        if not bare.startswith(("model.", "lm_head")):
            candidates.append(f"{prefix}.{bare}")
    if pooling(load.architecture):
        candidates.append(f"model.{name}")
    return next((path for path in candidates if _exists(load, model, path)), None)


def _exists(load: Load, model: Model, path: str) -> bool:
    numbers = re.search(r"\blayers\.(\d+)\.", path)
    vision = any(path.startswith(tower) for tower in _towers(model))
    if numbers and not vision and load.layers is not None and int(numbers[1]) >= load.layers:
        return False
    if ".experts" in path:
        return numbered(path[: path.find(".experts")] + ".experts") in model.modules
    plain_path = numbered(path)
    if plain_path in model.modules:
        parent, _, leaf = plain_path.rpartition(".")
        return model.modules[plain_path] != "parameter" and leaf in model.packed.get(leaf, [leaf])
    parent, _, leaf = plain_path.rpartition(".")
    parts = [fused for fused, names in model.packed.items() if leaf in names]
    return any((f"{parent}.{fused}" if parent else fused) in model.modules for fused in parts)


def _towers(model: Model) -> list[str]:
    towers = model.entry.get("towers", {})
    return [*towers.get("tower_model", ()), *towers.get("connector", ())]


def _served(model: Model, path: str) -> bool:
    """Whether a module is of the language model, the only one that has LoRA unless an option says otherwise."""
    language = model.entry.get("towers", {}).get("language_model")
    return not language or path.startswith(tuple(language))


def _kind(model: Model, path: str, leaf: str) -> tuple[Outcome, str] | None:
    """What speaks against a module that is there: a layer that none with LoRA replaces, or rows in another order."""
    if leaf in REORDERED.get(model.name, ()):
        return MISLOADS, f"vLLM's {model.name} reorders the rows of these weights, and of the LoRA not"
    parent = numbered(path).rpartition(".")[0]
    fused = next((f for f, names in model.packed.items() if leaf in names and f"{parent}.{f}" in model.modules), None)
    kind = model.modules.get(f"{parent}.{fused}" if fused else numbered(path), "")
    kinds = set(kind.split("|"))
    if "absorbed" in kinds:
        return MISLOADS, f"vLLM's {model.name} absorbs these into its attention, and the LoRA is never used"
    dropped = f"vLLM's {model.name} has no layer with LoRA for these, and drops them without a word"
    if kinds and kinds <= {"own qkv", "own row", "own column", "own", "linear", "conv", "table"}:
        return MISLOADS, dropped
    parts = len(model.packed.get(fused or path.rpartition(".")[2], ()))
    if kinds == {"qkv"} and parts not in (1, 3):
        return MISLOADS, dropped
    if kinds <= {"merged", "own merged"} and kinds and parts == 0 and fused is None:
        return UNKNOWN, f"whether vLLM's {model.name} has LoRA for these depends on how many parts they have"
    return None


def _halves(load: Load, model: Model, found: dict[str, str]) -> Iterator[Fate]:
    """Factors without their other half."""
    parts = {part for names in model.packed.values() if len(names) > 1 for part in names}
    for module, pair in load.pairs.items():
        if pair.b is None:
            yield Fate(REJECTS, "factor", f"vLLM rejects {module}, which has no B", (module,))
        elif pair.a is None and module in found:
            leaf = _name(model, module).rpartition(".")[2]
            if leaf in parts:
                yield Fate(MISLOADS, "factor", f"vLLM drops {module}, which has no A", (module,))
            else:
                yield Fate(REJECTS, "factor", f"vLLM rejects {module}, which has no A", (module,))


_ONE = re.compile(r"(?P<layer>.*\.experts)\.(?P<number>\d+)\.(?P<name>\w+)$")


def _experts(load: Load, model: Model, found: dict[str, str]) -> Iterator[Fate]:
    """Experts: one by one with all their parts, or as parameters, as the class wants them."""
    whole = [m for m in load.pairs if numbered(_name(model, m)).endswith((".experts", ".experts.base_layer"))]
    single: dict[str, dict[tuple[int, str], Pair]] = {}
    for module, path in found.items():
        match = _ONE.match(path)
        if match and ".experts" in path:
            single.setdefault(match["layer"], {})[int(match["number"]), match["name"]] = load.pairs[module]
    whole = [module for module in whole if module in found]
    if not whole and not single:
        return
    if model.backend:
        if single:
            yield Fate(
                REJECTS, "experts", f"vLLM runs {model.name} on its Transformers backend, which takes no experts"
            )
        else:
            yield Fate(UNKNOWN, "experts", f"what vLLM's Transformers backend makes of the experts of {model.name}")
        return
    names = model.entry.get("experts")
    if names == "3d":
        yield from _as_parameters(load, model, whole, found)
        return
    ends = {module for module in whole if numbered(_name(model, module)).endswith(".experts")}
    if ends:
        yield Fate(
            REJECTS, "experts", f"vLLM's {model.name} wants its experts one by one, and they are parameters here: "
            "serve with --enable-mixed-moe-lora-format", tuple(ends),
        )  # fmt: skip
    elif whole:
        yield Fate(MISLOADS, "experts", f"vLLM's {model.name} drops the experts without a word", tuple(whole))
    for layer, pairs in single.items():
        yield from _one_by_one(load, layer, pairs, names if isinstance(names, list) else [])


def _one_by_one(load: Load, layer: str, pairs: dict[tuple[int, str], Pair], names: list[str]) -> Iterator[Fate]:
    count = load.experts
    if count is None:
        yield Fate(UNKNOWN, "experts", "how many experts a layer has is not known")
        return
    missing = [(number, name) for number in range(count) for name in names if (number, name) not in pairs]
    if missing:
        number, name = missing[0]
        yield Fate(REJECTS, "experts", f"vLLM wants all parts of all experts, and {layer}.{number}.{name} is missing")
    for name in names:
        ranks = {pair.a[0] for (_, part), pair in pairs.items() if part == name and pair.a}
        if len(ranks) > 1:
            yield Fate(REJECTS, "experts", f"vLLM wants one rank for {name} of all experts of {layer}")


def _as_parameters(load: Load, model: Model, whole: list[str], found: dict[str, str]) -> Iterator[Fate]:
    layers: dict[str, dict[str, Pair]] = {}
    for module in whole:
        path = found[module]
        layers.setdefault(path.removesuffix(".base_layer"), {})["up" if path.endswith("base_layer") else "down"] = (
            load.pairs[module]
        )
    for layer, pairs in layers.items():
        if pairs.keys() == {"down"}:
            yield Fate(REJECTS, "experts", f"vLLM wants gate_up_proj and down_proj of {layer} together")
        elif pairs.keys() == {"up"}:
            yield Fate(MISLOADS, "experts", f"vLLM drops the experts of {layer}, of which only one kind is there")
        count, hidden = load.experts, load.text.get("hidden_size")
        inner = load.text.get("moe_intermediate_size") or load.text.get("intermediate_size")
        for name, pair in pairs.items():
            if not (pair.a and pair.b and count and isinstance(hidden, int) and isinstance(inner, int)):
                yield Fate(UNKNOWN, "experts", f"whether the experts of {layer} fit is not known")
                continue
            sizes = (2 * inner, hidden) if name == "up" else (hidden, inner)
            ours = (pair.b[0], pair.a[-1])
            if pair.a[0] % count:
                yield Fate(REJECTS, "experts", f"the rank of the experts of {layer} is no multiple of {count}")
            elif ours != sizes:
                larger = any(mine > size for mine, size in zip(ours, sizes, strict=True))
                yield Fate(
                    REJECTS if larger else UNKNOWN, "experts",
                    f"{layer} is {list(ours)}, and vLLM's {model.name} wants {list(sizes)}",
                )  # fmt: skip


def _sizes(load: Load, found: dict[str, str]) -> Iterator[Fate]:
    """Sizes against the model's: what is larger is rejected, what is smaller filled up with zeros."""
    vocabulary = load.text.get("vocab_size")
    for module, path in found.items():
        pair = load.pairs[module]
        if pair.embedding and isinstance(vocabulary, int) and pair.a and pair.a[-1] != vocabulary:
            message = f"{module} is for {pair.a[-1]} tokens, and the model has {vocabulary}"
            yield Fate(REJECTS, "size", message, (module,))
        else:
            yield from compared(load, "vLLM", module, pair, UNKNOWN, path)


def pooling(architecture: str | None) -> bool:
    """Whether a class classifies or embeds, and generates nothing."""
    return bool(architecture) and not str(architecture).endswith(
        ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
    )


def _heads(load: Load, model: Model) -> Iterator[Fate]:
    """Heads that are saved whole: a single layer called score or classifier is taken where the class classifies and the
    config saves it (model_manager.py: _validate_classification_head_lora, utils.py: parse_fine_tuned_lora_name).
    """
    for key in load.others:
        name = head(key)
        if name is None:
            continue
        if name not in load.named("modules_to_save"):
            yield Fate(REJECTS, "tensor", f"vLLM rejects {key}, which modules_to_save does not name", (key,))
        elif not model.name.endswith(CLASSIFIES) or name not in model.modules:
            yield Fate(REJECTS, "tensor", f"vLLM's {model.name} has no {name} that an adapter can replace", (key,))


def head(key: str) -> str | None:
    """The name of a classification head, of a tensor of it that vLLM knows."""
    parts = plain(key).split(".")
    known = len(parts) >= 2 and parts[-2] in ("score", "classifier") and parts[-1] in ("weight", "bias")
    return parts[-2] if known else None
