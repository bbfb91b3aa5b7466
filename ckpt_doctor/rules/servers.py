"""Rules about what serving runtimes make of an adapter. Imported only where one is asked for.

Those in `runtimes.RAN` were run (their own loading code, on a tiny Llama, compared with PEFT 0.21.2); those in `READ`
were read. transformers loads with PEFT 0.21.2 inside: what stops that stops it, too (`doctor.judge`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter import Adapter
from ..findings import NOTE, Finding
from ..layers import Layer
from ..runtimes import RAN, READ, SERVERS
from .rank import has_zero_factor, keys_of, names

VLLM, SGLANG, LLAMA, TRANSFORMERS = RAN.values()
TGI, LORAX, TENSORRT, OLLAMA = READ.values()
NONE = frozenset[str]()
SINGLE = frozenset((SGLANG, LLAMA, TGI, LORAX, TENSORRT, OLLAMA))
"""Servers with one scale for all layers that come from config and rank alone."""

SGLANG_TARGETS = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj",
    "embed_tokens", "lm_head",
}  # fmt: skip
PACKED = {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
"""Modules that servers fuse into one (qkv_proj, gate_up_proj)."""
FUSED = {"q_proj": ("v_proj",), "k_proj": ("q_proj", "v_proj"), "v_proj": ("q_proj",), "up_proj": ("gate_proj",)}
"""What SGLang needs beside a module in the same layer."""
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's --max-lora-rank (config/lora.py)."""

_WRAPPED = re.compile(r"(?:^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|^module\.")
_FACTOR = re.compile(r"\.lora_(?:[AB]\.weight|embedding_[AB](?:\.weight)?)$")
_COPY = re.compile(r"(?:embed_tokens|lm_head)\.base_layer\.weight$")


def _finding(
    code: str, name: str, message: str, rejected: frozenset[str] = NONE, misloaded: frozenset[str] = NONE,
    undecided: frozenset[str] = NONE, keys: tuple[str, ...] = (), tensors: tuple[str, ...] = (),
    needs: str | None = None,
) -> Finding:  # fmt: skip
    return Finding(code, name, NOTE, message, tensors, keys, rejected, misloaded, undecided, needs)


def judge(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """All findings about servers."""
    for check in (_files, _config, _method, _options, _scale, _targets, _grouping, _names, _factors, _others, _limits):
        yield from check(adapter, layers)
    yield from _in_base(adapter, layers)


def _raw(key: str) -> str:
    while key.startswith("base_model.model."):
        key = key[len("base_model.model.") :]
    return key


def _leaf(module: str) -> str:
    return module.rpartition(".")[2]


def _files(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """VLLM reads .safetensors, .bin and .pt, SGLang also any other name, llama.cpp .safetensors and .bin, transformers
    and Ollama .safetensors only.
    """
    for fault in adapter.faults:
        if fault.name == "no-tensors":
            silent = frozenset((SGLANG, LLAMA, TRANSFORMERS))
            message = "the file holds no tensor; vLLM stops with StopIteration, others do nothing in silence"
            yield _finding("CD601", "server-files", message, frozenset((VLLM,)), silent, SERVERS - silent - {VLLM})
        elif fault.name == "no-weights":
            other = frozenset(
                (SGLANG,) if any(name.endswith((".safetensors", ".pt", ".bin")) for name in adapter.files) else ()
            ) | frozenset((VLLM,) if "adapter_model.pt" in adapter.files else ())
            needs = "the file under a known name"
            yield _finding("CD601", "server-files", fault.message, SERVERS - other, NONE, other, needs=needs)
        else:
            yield _finding("CD601", "server-files", fault.message, SERVERS)
    if adapter.format == "bin":
        message = "only adapter_model.safetensors is read by transformers (FileNotFoundError) and Ollama"
        yield _finding("CD601", "server-files", message, frozenset((TRANSFORMERS, OLLAMA)))
    elif len(adapter.weights) > 1:
        message = "the weights are in shards, and servers look for one file"
        yield _finding("CD601", "server-files", message, SERVERS - {SGLANG}, NONE, frozenset((SGLANG,)))


def _config(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """What each needs of the config: vLLM says "Missing required configuration fields", SGLang raises a KeyError."""
    config = adapter.config
    if config is None:
        return
    needed = {
        "r": {VLLM, SGLANG, TGI, LORAX},
        "lora_alpha": {VLLM, SGLANG, LLAMA, TGI, LORAX, TENSORRT, OLLAMA},
        "target_modules": {VLLM, SGLANG},
        "peft_type": {SGLANG},
    }
    for key, servers in needed.items():
        if key not in config:
            yield _finding("CD602", "server-config", f"{key} is missing", frozenset(servers), keys=(key,))
    r, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    whole = isinstance(r, (int, float)) and not isinstance(r, bool) and r == int(r) and r > 0
    if not whole:
        yield _finding("CD602", "server-config", f"r is {r!r}", SERVERS - {LLAMA, TENSORRT, OLLAMA}, keys=("r",))
    elif type(r) is float:
        yield _finding("CD602", "server-config", "r is not an integer", frozenset((SGLANG,)), keys=("r",))
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool):
        takes = frozenset((LLAMA,) if isinstance(alpha, str) else ())
        yield _finding("CD602", "server-config", f"lora_alpha is {alpha!r}", SERVERS - takes, keys=("lora_alpha",))
    elif type(alpha) is float and alpha != int(alpha):
        message = "lora_alpha is not a whole number, and Ollama reads it as one"
        yield _finding("CD602", "server-config", message, frozenset((OLLAMA,)), keys=("lora_alpha",))
    if config.get("bias", "none") != "none":
        yield _finding("CD603", "server-bias", "Adapter bias is not supported.", frozenset((VLLM,)), keys=("bias",))
    saved = config.get("modules_to_save")
    if saved and not set(saved) <= {"classifier", "score"}:
        message = "vLLM only supports modules_to_save being either None or classifier and score"
        yield _finding("CD604", "server-modules-to-save", message, frozenset((VLLM,)), keys=("modules_to_save",))
    pattern = config.get("rank_pattern")
    if isinstance(pattern, dict) and any(type(value) is not int or value <= 0 for value in pattern.values()):
        message = "LoRA rank in `rank_pattern` must be a positive integer"
        yield _finding("CD602", "server-config", message, frozenset((VLLM,)), keys=("rank_pattern",))


def _method(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Servers take LoRA only: other tensors are "unsupported LoRA weight", "Not a lora_A or lora_B tensor"."""
    if adapter.config is None or not adapter.tensors:
        return
    lora = all("lora_E" not in layer.factors for layer in layers.values()) and bool(layers)
    if adapter.peft_type == "LORA":
        if not lora:
            message = "there are no factors of LoRA"
            silent = frozenset((SGLANG, TRANSFORMERS))
            yield _finding("CD605", "not-lora", message, SERVERS - silent, silent)
        return
    rejected = {SGLANG, TGI, LORAX} | (set() if lora else SERVERS - {TRANSFORMERS})
    transformers = adapter.peft_type == "ADALORA" and any(
        layer.rank != adapter.config.get("init_r", 12) for layer in layers.values()
    )
    message = f"{adapter.peft_type or 'no method'} is not LoRA"
    doubt = NONE if transformers or lora else frozenset((TRANSFORMERS,))
    yield _finding(
        "CD605", "not-lora", message, frozenset(rejected | ({TRANSFORMERS} if transformers else set())), NONE,
        doubt | (SERVERS - rejected - {TRANSFORMERS}), ("peft_type",), needs="a load in that runtime",
    )  # fmt: skip


def _options(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Options of LoRA that a server refuses ("vLLM does not yet support DoRA.") or ignores in silence."""
    config = adapter.config or {}
    init = str(config.get("init_lora_weights")).lower()
    read = frozenset(READ.values())
    magnitudes = any("lora_magnitude_vector" in key for key in adapter.tensors)
    table: list[tuple[str, bool, set[str], set[str]]] = [
        ("use_dora", bool(config.get("use_dora")), {VLLM, SGLANG} | ({LLAMA} if magnitudes else set()),
         {TRANSFORMERS} if magnitudes else set()),
        ("lora_bias", bool(config.get("lora_bias")), {VLLM, LLAMA}, {SGLANG}),
        ("alora_invocation_tokens", bool(config.get("alora_invocation_tokens")), {VLLM}, {SGLANG, LLAMA}),
        ("layer_replication", bool(config.get("layer_replication")), {VLLM, SGLANG, LLAMA}, set()),
        ("trainable_token_indices", bool(config.get("trainable_token_indices")), {VLLM, LLAMA}, {SGLANG, TRANSFORMERS}),
        ("use_bdlora", bool(config.get("use_bdlora")), {VLLM}, set()),
        ("use_qalora", bool(config.get("use_qalora")), {VLLM}, set()),
        ("init_lora_weights", init.startswith(("pissa", "olora", "corda", "loftq")), {VLLM}, {SGLANG, LLAMA}),
        ("init_lora_weights", init.startswith("lora_ga"), set(), {VLLM, SGLANG, LLAMA}),
    ]  # fmt: skip
    for key, is_set, rejected, misloaded in table:
        if is_set:
            doubt = SERVERS - rejected - misloaded - {TRANSFORMERS} if key.startswith("use_") else read
            yield _finding(
                "CD606", "server-option", f"{key} is set", frozenset(rejected), frozenset(misloaded), doubt, (key,),
                needs="a load in that runtime",
            )  # fmt: skip
    if config.get("target_parameters"):
        message = "target_parameters is set, and its tensors are named otherwise than a layer's"
        stops = frozenset((SGLANG, LLAMA))
        yield _finding(
            "CD606", "server-option", message, stops, NONE, SERVERS - stops, ("target_parameters",),
            needs="a load in that runtime",
        )  # fmt: skip


def _scale(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """The scale that a server takes against the true one: SGLang lora_alpha / r, llama.cpp and TensorRT-LLM lora_alpha
    over the rank of the tensor, TGI and LoRAX as PEFT without patterns. A scale of 0 is 1 to llama.cpp.
    """
    config = adapter.config or {}
    r, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if adapter.peft_type != "LORA" or type(r) is not int or r <= 0 or not isinstance(alpha, (int, float)):
        return
    if not abs(alpha) < 1e300:  # CD306 says so
        return
    root = config.get("use_rslora") is True
    wrong: dict[str, list[str]] = {}
    for module, layer in layers.items():
        if not layer.rank or layer.scaling is None:
            continue
        taken = {
            SGLANG: alpha / r,
            LLAMA: alpha / layer.rank or 1.0,
            OLLAMA: alpha / layer.rank or 1.0,
            TENSORRT: alpha / (layer.rank**0.5 if root else layer.rank),
            TGI: alpha / (r**0.5 if root else r),
            LORAX: alpha / (r**0.5 if root else r),
        }
        for server, scale in taken.items():
            if abs(scale - layer.scaling) > 1e-6 * abs(layer.scaling):
                wrong.setdefault(server, []).append(module)
    if wrong:
        where = max(wrong.values(), key=len)
        keys = tuple(key for key in ("use_rslora", "alpha_pattern", "rank_pattern") if config.get(key))
        message = f"one scale is taken for all layers, which is wrong for {names(where)}"
        yield _finding("CD607", "server-scale", message, NONE, frozenset(wrong), keys=keys)
    uneven = [module for module, layer in layers.items() if layer.rank not in (None, 0, r)]
    if uneven:
        message = f"every tensor must have the config's rank, and {names(uneven)} have another"
        stops = frozenset((SGLANG, TGI, LORAX))
        declared = [m for m in uneven if not isinstance(config.get("rank_pattern"), dict) or not config["rank_pattern"]]
        doubt = frozenset((VLLM, LLAMA)) if declared else NONE
        yield _finding(
            "CD608", "server-uneven-rank", message, stops, NONE, doubt, ("r", "rank_pattern"), keys_of(layers, uneven),
            "what scale was meant",
        )  # fmt: skip


def _targets(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """SGLang takes a list of module names that it knows; "Only 'all' or 'all-linear' can be used as the string"."""
    target = (adapter.config or {}).get("target_modules", [])
    if isinstance(target, str) and target not in ("all", "all-linear"):
        message = "Only 'all' or 'all-linear' can be used as the string for target module"
        yield _finding("CD609", "server-targets", message, frozenset((SGLANG,)), keys=("target_modules",))
    elif isinstance(target, list):
        strange = [name for name in target if _leaf(str(name)) not in SGLANG_TARGETS]
        if strange:
            message = f"{strange[0]} is incompatible with the LoRA memory pool configuration"
            yield _finding("CD609", "server-targets", message, frozenset((SGLANG,)), keys=("target_modules",))
    elif target is None:
        message = "target_modules is null"
        yield _finding("CD609", "server-targets", message, frozenset((SGLANG,)), keys=("target_modules",))


def siblings(layers: dict[str, Layer]) -> dict[str, str]:
    """Modules that are missing beside others of a fused group in their layer, each with the sibling that is there.

    SGLang: q without v is a KeyError, k or v without q and up without gate "Cannot find target module name".
    """
    missing = {}
    for module in layers:
        stem, _, leaf = module.rpartition(".")
        for needed in FUSED.get(leaf, ()):
            if f"{stem}.{needed}" not in layers:
                missing[f"{stem}.{needed}"] = module
    return missing


def _grouping(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Modules that a server fuses, of which one is missing; and kinds of modules that not every layer has."""
    missing = siblings(layers)
    if missing:
        message = f"{names(list(missing))} have no tensors, although others of their fused group have"
        yield _finding("CD610", "server-fused-group", message, frozenset((SGLANG,)))
    kinds: dict[str, set[str]] = {}
    numbers: set[str] = set()
    for module in layers:
        match = re.match(r"(.*?\.\d+)\.(.*)$", module)
        if match:
            numbers.add(match[1])
            kinds.setdefault(match[2], set()).add(match[1])
    partial = [kind for kind, where in kinds.items() if where != numbers]
    if partial:
        message = f"{partial[0]} is adapted in some layers only, and is then dropped in all of them without an error"
        yield _finding("CD611", "server-partial-type", message, NONE, frozenset((TGI, LORAX)))


def _names(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Names of keys: "is unsupported LoRA weight", "Can not map tensor", or a path that nothing is found under."""
    keys = [key for layer in layers.values() for key in layer.factors.values()]
    if adapter.peft_type != "LORA":
        return
    odd = [key for key in keys if not _FACTOR.search(key)]
    if odd:
        rejected = frozenset((VLLM, LLAMA, TGI, LORAX, TENSORRT, OLLAMA))
        silent = frozenset((TRANSFORMERS,))
        yield _finding(
            "CD612", "server-key", f"{odd[0]} is unsupported LoRA weight", rejected, silent, tensors=tuple(odd)
        )
    wrapped = [key for key in keys if _WRAPPED.search(_raw(key))]
    if wrapped:
        message = f"{wrapped[0]} has a wrapper's prefix: nothing is found under it"
        silent = frozenset((VLLM, TRANSFORMERS))
        yield _finding(
            "CD612", "server-key", message, frozenset((LLAMA, OLLAMA)), silent, SERVERS - silent - {LLAMA, OLLAMA},
            tensors=tuple(wrapped), needs="a load in that runtime",
        )  # fmt: skip
    prefix = "base_model.model."
    doubled = [key for key in keys if not key.startswith(prefix) or key.startswith(prefix + "base_model.")]
    if doubled and not wrapped:
        message = f"{doubled[0]} does not start as PEFT names it"
        needs = "the names of the base model"
        yield _finding("CD612", "server-key", message, NONE, NONE, SERVERS, tensors=tuple(doubled), needs=needs)


def _factors(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Factors that are missing, empty, flat, or do not agree."""
    if adapter.peft_type != "LORA":
        return
    for module, layer in layers.items():
        kinds = {name[-1] for name in layer.factors}
        tensors = keys_of(layers, [module])
        shapes = {name[-1]: adapter.tensors[key].shape for name, key in layer.factors.items()}
        if any(len(shape) < 2 for shape in shapes.values()):
            yield _finding("CD613", "server-factor", f"{module} has flat factors", SERVERS, tensors=tensors)
        elif kinds == {"B"}:
            rejected = {LLAMA, OLLAMA, TENSORRT} | (set() if _leaf(module) in PACKED else {VLLM})
            silent = SERVERS - rejected - set(READ.values())
            yield _finding(
                "CD613", "server-factor", f"{module} has no lora_A", frozenset(rejected), silent,
                SERVERS - rejected - silent, tensors=tensors, needs="a load in that runtime",
            )  # fmt: skip
        elif kinds == {"A"}:
            silent = frozenset((TRANSFORMERS,))
            message = f"{module} has no lora_B"
            yield _finding("CD613", "server-factor", message, SERVERS - silent, silent, tensors=tensors)
        elif has_zero_factor(adapter, layer):
            message = f"{module} has factors without a row, which vLLM alone takes for zero"
            vllm = frozenset((VLLM,))
            needs = "a rank above 0"
            yield _finding("CD613", "server-factor", message, SERVERS - vllm, NONE, vllm, tensors=tensors, needs=needs)
        elif layer.rank is None:
            message = f"the factors of {module} do not agree on a rank"
            vllm = frozenset((VLLM,))
            needs = "the rank that was meant"
            yield _finding("CD613", "server-factor", message, SERVERS - vllm, NONE, vllm, tensors=tensors, needs=needs)
    integers = [key for key in keys_of(layers, list(layers)) if adapter.tensors[key].dtype[0] in "IUC"]
    if integers:
        yield _finding("CD613", "server-factor", f"{integers[0]} is not a float", NONE, NONE, SERVERS, needs="floats")


def _others(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Tensors that are no factor: copies of the base are skipped; anything else is refused, ignored or dropped."""
    factors = set(keys_of(layers, list(layers)))
    kinds: dict[str, list[str]] = {}
    saved = (adapter.config or {}).get("modules_to_save") or []
    for key in adapter.tensors:
        if key in factors or _COPY.search(key):
            continue
        raw = _raw(key)
        module, _, part = raw.rpartition(".")
        leaf = _leaf(module)
        if "lora_magnitude_vector" in raw:
            kind = "magnitude"
        elif "trainable_tokens" in raw:
            kind = "trainable tokens"
        elif part == "bias" and ".lora_" in raw:
            continue  # lora_bias
        elif part == "bias":
            kind = "bias"
        elif part == "weight" and ("norm" in leaf or "ln_" in leaf):
            kind = "norm in a layer" if re.search(r"\.\d+\.", raw) else "norm"
        elif part == "weight" and leaf in ("lm_head", "embed_tokens"):
            kind = "embedding or head"
        elif ".lora_" in raw and re.search(r"lora_(?:down|up)", raw):
            kind = "factor of another tool"
        else:
            kind = "other tensor"
        kinds.setdefault(kind, []).append(key)
    named = frozenset((VLLM, LLAMA, TGI, LORAX, OLLAMA, TENSORRT))
    for kind, keys in kinds.items():
        rejected, misloaded, doubt = named, frozenset((SGLANG,)), NONE
        if kind == "magnitude":
            rejected, misloaded = named | {SGLANG}, NONE
        elif kind == "bias":
            misloaded, doubt = NONE, frozenset((SGLANG,))
            if adapter.base is not None:
                biased = [_raw(key).rpartition(".")[0].removesuffix(".base_layer") for key in keys]
                has = not adapter.base.biases.isdisjoint(biased)
                misloaded, doubt = (frozenset((SGLANG,)) if has else NONE), NONE
        elif kind == "norm in a layer":
            rejected, misloaded = (named | {SGLANG}) - {LLAMA, OLLAMA}, frozenset((LLAMA, OLLAMA))
        elif kind == "norm":
            rejected, misloaded = named - {LLAMA, OLLAMA}, frozenset((SGLANG, LLAMA, OLLAMA))
        elif kind == "factor of another tool":
            misloaded = frozenset((SGLANG, TRANSFORMERS))
        elif kind == "other tensor":
            rejected, misloaded = named | ({SGLANG} if any(re.search(r"\.\d+\.", key) for key in keys) else set()), NONE
            doubt = frozenset((SGLANG,)) - rejected
        if kind in ("embedding or head", "other tensor", "bias", "norm") and any(
            _leaf(_raw(key).rpartition(".")[0]) in saved for key in keys
        ):
            misloaded |= {TRANSFORMERS}
        if kind == "trainable tokens":
            misloaded |= {TRANSFORMERS}
        yield _finding(
            "CD614", "server-tensor", f"{keys[0]} ({kind}) is unsupported LoRA weight", frozenset(rejected),
            frozenset(misloaded), doubt, tensors=tuple(keys), needs="the base model" if doubt else None,
        )  # fmt: skip


def largest_rank(adapter: Adapter, layers: dict[str, Layer]) -> int:
    """The rank that a server has to make room for: the tensors' and the config's."""
    pattern = (adapter.config or {}).get("rank_pattern")
    told = [(adapter.config or {}).get("r"), *(pattern.values() if isinstance(pattern, dict) else [])]
    return max([0, *(layer.rank or 0 for layer in layers.values()), *(value for value in told if type(value) is int)])


def needed_flag(rank: int) -> int | None:
    """The smallest --max-lora-rank of vLLM that takes a rank; None where none does."""
    return next((value for value in VLLM_RANKS if value >= rank), None)


def _limits(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """LoRA rank 32 is greater than max_lora_rank 16; without a limit none is assumed."""
    rank = largest_rank(adapter, layers)
    if adapter.max_rank is not None and rank > adapter.max_rank:
        message = f"LoRA rank {rank} is greater than max_lora_rank {adapter.max_rank}"
        flag = needed_flag(rank)
        message += f": serve with --max-lora-rank {flag}" if flag else ""
        yield _finding("CD615", "server-rank-limit", message, frozenset((VLLM, SGLANG)), keys=("r",))


def _in_base(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Names and sizes against the base model; without it nothing shows whether they fit."""
    base = adapter.base
    if base is None:
        message = "whether the names and sizes of the layers fit the model shows only with it"
        yield _finding("CD690", "base-unseen", message, NONE, NONE, SERVERS, needs="the base model (--base)")
        return
    if base.config.get("model_type", "llama") not in ("llama", "gemma2"):
        yield _finding("CD616", "server-model", "Ollama takes adapters of llama and gemma2", frozenset((OLLAMA,)))
    leaves = {_leaf(module) for module in base.weights}
    firsts = {module: next(iter(layer.factors.values())) for module, layer in layers.items()}
    paths = {module: _raw(key).rpartition(".lora_")[0] for module, key in firsts.items()}
    strange = [module for module, path in paths.items() if path not in base.weights]
    unknown = [module for module in strange if _leaf(module) not in leaves]
    if unknown:
        message = f"expected target modules of the model but received {_leaf(unknown[0])}"
        yield _finding("CD617", "server-not-in-base", message, frozenset((VLLM, LLAMA, OLLAMA, TENSORRT)))
    elsewhere = [module for module in strange if module not in unknown and not _WRAPPED.search(paths[module])]
    if elsewhere:
        message = f"the model has no {elsewhere[0]}: what is loaded for it is ignored in silence"
        indexed = frozenset((SGLANG,) if _beyond(elsewhere, base.weights) else ())
        whole = len(elsewhere) == len(layers)
        rejected = frozenset((LLAMA, OLLAMA, TENSORRT)) | indexed
        silent = frozenset((VLLM,)) if whole else NONE
        doubt = SERVERS - rejected - silent if whole else NONE
        needs = "a load in that runtime"
        yield _finding("CD617", "server-not-in-base", message, rejected, silent, doubt, needs=needs)
    for module, layer in layers.items():
        weight = base.weights.get(module)
        if weight is None or len(weight) != 2 or layer.rank is None:
            continue
        a = next((adapter.tensors[key].shape for name, key in layer.factors.items() if name.endswith("_A")), None)
        b = next((adapter.tensors[key].shape for name, key in layer.factors.items() if name.endswith("_B")), None)
        if a is None or b is None or len(a) != 2 or len(b) != 2:
            continue
        out, inner = weight if "lora_embedding_A" not in layer.factors else weight[::-1]
        if (b[0], a[1]) != (out, inner):
            larger = b[0] > out or a[1] > inner
            stops = frozenset((LLAMA, OLLAMA, TRANSFORMERS, TENSORRT, *([VLLM] if larger else [])))
            stops |= frozenset((SGLANG,) if b[0] != out else ())
            message = f"{module} is [{b[0]}, {a[1]}], and [{out}, {inner}] in the model"
            yield _finding(
                "CD618", "server-size", message, stops, NONE, SERVERS - stops,
                tensors=keys_of(layers, [module]), needs="a load in that runtime",
            )  # fmt: skip


def _beyond(modules: list[str], weights: dict[str, tuple[int, ...]]) -> bool:
    """Whether a module's layer number is beyond the model's."""
    pattern = re.compile(r"\.(\d+)\.")
    numbers = [int(match[1]) for match in map(pattern.search, weights) if match]
    return any(int(match[1]) > max(numbers, default=0) for match in map(pattern.search, modules) if match)
