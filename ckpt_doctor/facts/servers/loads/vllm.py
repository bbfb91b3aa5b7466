"""The load in vLLM: lora/lora_model.py, lora/worker_manager.py, lora/model_manager.py (until 0.11 lora/models.py).

What not every release has, by the names in `Server.way`:

- heads: a score or classifier that was saved whole
- base copies: a copy of the base's embedding is skipped, as PEFT saves it beside a LoRA on it
- experts: LoRA on experts; without, only the last part of a name is looked at (check_unexpected_modules)
- towers: LoRA on towers, by an option
- language names: names of a language model alone, where it is within another
- bare names: names without PEFT's prefix are renamed, too
- inner embeddings, inner packed: what the class of a language model within another says of its modules counts
- any module: what no layer with LoRA replaces is left; without, it keeps the server from starting
- shared modules: what two modules hold was looked at: projections that MLA has again, an embedding within another model
- one vocabulary: a LoRA on the embedding has the model's number of tokens, and no more
- backend, pooling: classes that run as transformers has them, or generate nothing, were looked at
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...names import PREFIX, as_number, numbered
from ..record import MISLOADS, REJECTS, UNKNOWN, Outcome, Server
from .load import Fate, Load, plain, several
from .sizes import compared
from .vllm_experts import experts, of_whole, one_of_whole
from .vllm_model import CLASSIFIES, REORDERED, Model, model_of, name_of, pooling, replaced

COPIES = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
"""Ends of the names of copies of the base (lora/utils.py: is_base_embedding_weights)."""
LEADS = {"in_proj_z": "in_proj_qkv"}
"""Part of a fused module → that which is split into several and has to be there, too (lora/layers:
MergedColumnParallelLinearVariableSliceWithLoRA.expand_packed_lora).
"""
ROUTING = 'it says "token_classify requires a token-routed classification head"'
TOWERS = "--enable-tower-connector-lora"


def follow(server: Server, load: Load) -> Iterator[Fate]:
    """What becomes of an adapter's factors."""
    model = model_of(load, server)
    if isinstance(model, Fate):
        yield model
        return
    found: dict[str, str] = {}
    yield from _names(load, model, found)
    yield from _halves(load, model, found)
    yield from _heads(load, model)
    yield from experts(load, model, found)
    yield from _sizes(load, model, found)


def _names(load: Load, model: Model, found: dict[str, str]) -> Iterator[Fate]:
    """Names, one by one: what no module is called is rejected, what stands elsewhere dropped without a word."""
    expected = model.expected
    strange: list[str] = []
    single: list[str] = []
    lost: list[str] = []
    towers: list[str] = []
    unsure: list[str] = []
    fates: dict[tuple[Outcome, str], list[str]] = {}
    for module, pair in load.pairs.items():
        if any(part in f".{module}." for part in (f".{skip}" for skip in model.entry.get("skip", ()))):
            lost.append(module)
            continue
        name = name_of(model, module)
        whole = ".experts" in name and "experts" in model.way
        leaf = name[name.find(".experts") + 1 :] if whole else name.rpartition(".")[2]
        leaf = "#" if leaf.isdecimal() else leaf
        if "experts" not in model.way:
            known = leaf in expected
        else:
            known = leaf in expected or leaf == "experts" or model.expert(leaf, load.experts) or "base_layer" in module
            known = known and not (leaf == "experts" and "experts" not in model.leaves)
        if not known:
            (single if one_of_whole(model, leaf, load.experts) else strange).append(module)
            continue
        if "bare names" not in model.way and name != module and not pair.keys[0].startswith(PREFIX):
            unsure.append(module)
            continue
        path = _path(load, model, name)
        if path is None and module in load.beyond:
            continue
        if path is None:
            lost.append(module)
            continue
        found[module] = path
        if not _served(model, path):
            dropped = "towers" in model.way or any(path.startswith(tower) for tower in _towers(model))
            (towers if dropped else unsure).append(module)
        else:
            verdict = _kind(model, path, leaf)
            if verdict:
                fates.setdefault(verdict, []).append(module)
    if unsure:
        message = f"what {model.name} of this release makes of {several(unsure)} was not looked at"
        yield Fate(UNKNOWN, "place", message, tuple(unsure))
    if strange:
        yield Fate(
            REJECTS, "module", f"vLLM's {model.name} serves no LoRA on {several(strange)} "
            '(it says "expected target modules in {...} but received [...]")', tuple(strange),
        )  # fmt: skip
    yield from of_whole(load, model, single)
    if lost:
        message = f"vLLM's {model.name} has no module under the path of {several(lost)}, and drops it without a word"
        yield Fate(MISLOADS, "place", message, tuple(lost))
    if towers:
        option = TOWERS if model.entry.get("tower_lora") and "towers" in model.way else ""
        serve = f": serve with {option}" if option else ""
        message = f"vLLM drops {several(towers)} of {model.name}'s towers without a word{serve}"
        yield Fate(MISLOADS, "module", message, tuple(towers), option=option)
    for (outcome, message), modules in fates.items():
        yield Fate(outcome, "module", f"{message}: {several(modules)}", tuple(modules))


def _path(load: Load, model: Model, name: str) -> str | None:
    """The path of the module that a name comes to, in a fused one as its part; None where there is none."""
    candidates = [name]
    prefix = (model.entry.get("towers", {}).get("language_model") or [""])[0].rstrip(".")
    if prefix and "language names" in model.way:
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
    if numbers and not vision and load.layers is not None and as_number(numbers[1]) >= load.layers:
        return False
    if ".experts" in path and "experts" in model.way:
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
    if "own unsure" in kinds:
        return UNKNOWN, f"whether vLLM's Transformers backend fuses these of {model.name} with the experts is not known"
    dropped = f"vLLM's {model.name} has no layer with LoRA for these, and drops them without a word"
    if "shared modules" not in model.way:
        beside = {kind for path, kind in model.modules.items() if path.rpartition(".")[0] == parent}
        inner = kinds & {"embedding", "head"} and model.entry.get("towers")
        if inner or any("absorbed" in kind for kind in beside):
            return UNKNOWN, f"whether this release of vLLM applies LoRA on these of {model.name} was not looked at"
    if "any module" not in model.way:
        fits = all(replaced(model, fused or path.rpartition(".")[2], one) for one in kinds)
        return None if fits else (MISLOADS, dropped)
    if kinds and kinds <= {"own qkv", "own row", "own column", "own", "linear", "conv", "table"}:
        return MISLOADS, dropped
    parts = len(model.packed.get(fused or path.rpartition(".")[2], ()))
    if kinds == {"qkv"} and parts not in (1, 3):
        return MISLOADS, dropped
    if kinds <= {"merged", "own merged"} and kinds and parts == 0 and fused is None:
        return UNKNOWN, f"whether vLLM's {model.name} has LoRA for these depends on how many parts they have"
    return None


def _halves(load: Load, model: Model, found: dict[str, str]) -> Iterator[Fate]:
    """Factors without their other half, and parts without the one that leads."""
    leading = {(path.rpartition(".")[0], module.rpartition(".")[2]) for module, path in found.items()}
    for module, pair in load.pairs.items():
        first = LEADS.get(module.rpartition(".")[2])
        parent = found.get(module, "").rpartition(".")[0]
        packed = module in found and any(first in names for names in model.packed.values())
        if packed and (parent, first) not in leading:
            message = f'vLLM rejects {module} without {first} (it says "Cannot determine how to split lora_b")'
            yield Fate(REJECTS, "group", message, (module,))
        if pair.b is None:
            yield Fate(REJECTS, "factor", f"vLLM rejects {module}, which has no B", (module,))
        elif pair.a is None and module in found:
            if model.part(found[module], name_of(model, module).rpartition(".")[2]):
                yield Fate(MISLOADS, "factor", f"vLLM drops {module}, which has no A", (module,))
            else:
                yield Fate(REJECTS, "factor", f"vLLM rejects {module}, which has no A", (module,))


def _sizes(load: Load, model: Model, found: dict[str, str]) -> Iterator[Fate]:
    """Sizes against the model's: what is larger is rejected, what is smaller filled up with zeros. Releases with room
    for added tokens take an embedding or a head that has more than the model.
    """
    vocabulary = load.text.get("vocab_size")
    for module, path in found.items():
        pair = load.pairs[module]
        head = path.endswith("lm_head") and pair.b
        tokens = pair.a[-1] if pair.embedding and pair.a else head[0] if head else vocabulary
        if (pair.embedding or "one vocabulary" not in model.way) and isinstance(vocabulary, int) and (
            tokens != vocabulary
        ):  # fmt: skip
            message = f"{module} is for {tokens} tokens, and the model has {vocabulary}"
            yield Fate(REJECTS if "one vocabulary" in model.way else UNKNOWN, "size", message, (module,))
        else:
            yield from compared(load, "vLLM", module, pair, ("less output", "less input"), path)


def _heads(load: Load, model: Model) -> Iterator[Fate]:
    """Heads that are saved whole: a single layer called score or classifier is taken where the class classifies and the
    config saves it (model_manager.py: _validate_classification_head_lora, utils.py: parse_fine_tuned_lora_name). Where
    a class that generates is made into one that classifies tokens, its head is none of tokens (adapters.py:
    as_seq_cls_model), and takes neither LoRA nor another head.
    """
    tokens = model.name.endswith("ForTokenClassification")
    told = f"vLLM's {model.name} takes no LoRA on its head, and no other head"
    if tokens and "score" in load.pairs:
        yield Fate(REJECTS, "module", f"{told}: score ({ROUTING})", ("score",))
    for key in load.others:
        name = head(key)
        if key.endswith(COPIES) and "base copies" not in model.way:
            yield Fate(REJECTS, "tensor", f"vLLM rejects {key}, a copy of the base's", (key,))
        if name is None:
            continue
        if "heads" not in model.way:
            yield Fate(REJECTS, "tensor", f"this release of vLLM rejects {key}", (key,))
        elif name not in load.named("modules_to_save"):
            yield Fate(REJECTS, "tensor", f"vLLM rejects {key}, which modules_to_save does not name", (key,))
        elif tokens and name == "score":
            yield Fate(REJECTS, "tensor", f"{told}: {key} ({ROUTING})", (key,))
        elif not model.name.endswith(CLASSIFIES) or name not in model.modules:
            yield Fate(REJECTS, "tensor", f"vLLM's {model.name} has no {name} that an adapter can replace", (key,))


def head(key: str) -> str | None:
    """The name of a classification head, of a tensor of it that vLLM knows."""
    parts = plain(key).split(".")
    known = len(parts) >= 2 and parts[-2] in ("score", "classifier") and parts[-1] in ("weight", "bias")
    return parts[-2] if known else None
