"""Tensors → adapted layers: the rank inference. Parses leniently, so that one fault does not hide another."""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from typing import Any, NamedTuple

from .adapter import Adapter

_KEY = re.compile(r"(?P<module>.+?)\.(?P<factor>lora_(?:embedding_)?[ABE])(?:\.(?!weight$)[^.]+)?(?:\.weight)?")
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_PREFIXES = ("base_model.model.", "module.")

RANK_AXIS = {"lora_A": 0, "lora_B": 1, "lora_E": 0, "lora_embedding_A": 0, "lora_embedding_B": 1}
"""The axis of a factor that counts the rank: A `[r, in]`, B `[out, r]`, E `[r, 1]`, an embedding's A `[r, V]`."""


FORMS: dict[str, tuple[str, ...]] = {
    "ADAMSS": ("adamss_A.0[r *] adamss_newB[...]?",),
    "ADAPTION_PROMPT": ("adaption_prompt[1 adapter_len *] adaption_gate[1]",),
    "BEFT": ("beft_bias[1 out]",),
    "BOFT": ("boft_R[* boft_block_num~ boft_block_size~ boft_block_size~] boft_s[* *]",),
    "BONE": ("init_weights=bat: bone_block[n r r]", "init_weights!=bat: bone_block[r out]"),
    "C3A": ("c3a_kernel[m n block_size]",),
    "DEFT": ("deft_P[out r]", "para=false: deft_R[r in]"),
    "DELORA": ("delora_A[r in] delora_B[out r] delora_lambda[1] delora_w_norm[in]?",),
    "FOURIERFT": ("fourierft_spectrum[n_frequency]",),
    "FROD": ("frod_lambda_l[n] frod_lambda_s_values[*]",),
    "GLORA": (
        "config_A_B=lora: glora_A.Xd[out r] glora_A.Xu[r in] glora_B.Xd[out r] glora_B.Xu[r in]",
        "config_A_B=vector: glora_A.X[out 1] glora_B.X[out 1]",
        "config_A_B=constant: glora_A.X[1] glora_B.X[1]",
        "config_A_B=none: glora_A.zeros[out in] glora_B.zeros[out in]",
        "config_C=lora: glora_C.Xd[in r] glora_C.Xu[r 1]",
        "config_C=vector: glora_C.X[in 1]",
        "config_C=none: glora_C.zeros[in 1]",
        "config_D_E=vector: glora_D.X[out] glora_E.X[out]",
        "config_D_E=constant: glora_D.X[1] glora_E.X[1]",
        "config_D_E=none: glora_D.zeros[out] glora_E.zeros[out]",
    ),
    "GRALORA": (
        "gralora_A[gralora_k m r] gralora_B[gralora_k r n]",
        "hybrid_r!=0: gralora_A_general.weight[hybrid_r in] gralora_B_general.weight[out hybrid_r]",
    ),
    "HIRA": ("hira_A[r in ...] hira_B[out r ...] | hira_embedding_A[r in] hira_embedding_B[out r]",),
    "HRA": ("hra_u[in r]",),
    "IA3": ("ia3_l[...]",),
    "LILY": ("lily_A.weight[r in] lily_B.weight[num_B*r out] lily_router.weight[num_B r]",),
    "LN_TUNING": ("ln_tuning_layers.weight[...] ln_tuning_layers.bias[...]?",),
    "LOHA": (
        "hada_w1_a[out r] hada_w1_b[r in] hada_w2_a[out r] hada_w2_b[r in]"
        " | hada_t1[r r k l] hada_w1_a[r out] hada_w1_b[r in] hada_t2[r r k l] hada_w2_a[r out] hada_w2_b[r in]",
    ),
    "LOKR": (
        "lokr_w1[a b] | lokr_w1_a[a r] lokr_w1_b[r b]",
        "lokr_w2[c d ...] | lokr_w2_a[c r] lokr_w2_b[r d] | lokr_t2[r r k l] lokr_w2_a[r c] lokr_w2_b[r d]",
    ),
    "MISS": (
        "init_weights=bat: miss_block[n r r]",
        "init_weights=mini: miss_block[r mini_r]",
        "init_weights!=bat,mini: miss_block[r out]",
    ),
    "OFT": (
        "block_share=false: oft_r[r~ n n] oft_s[out 1]? | oft_R.weight[r~ tri(oft_block_size)~]",
        "block_share=true: oft_r[1 n n] oft_s[out 1]? | oft_R.weight[1 tri(oft_block_size)~]",
    ),
    "OSF": ("osf_svd_params.U_low[out n] osf_svd_params.S_low[n] osf_svd_params.V_low[n in]",),
    "PEANUT": (
        "peanut_A.weight[r in] peanut_B.weight[out r] peanut_encoders.#depth.weight[r r]"
        " peanut_decoders.#depth.weight[r r]",
    ),
    "POLY": (
        "poly_lora_A[n_splits n_skills m r] poly_lora_B[n_splits n_skills r n]"
        " poly_router.module_logits[n_tasks n_splits*n_skills]",
    ),
    "PSOFT": (
        "psoft_orth=true: psoft_R.weight[tri(r)]",
        "psoft_orth=false: psoft_R.weight[r r]",
        "psoft_mag_a=true: psoft_R.vector_a[r]",
        "psoft_mag_b=true: psoft_R.vector_b[r]",
    ),
    "PVERA": ("pvera_lambda_b[out] pvera_lambda_d[2*r]",),
    "RANDLORA": ("randlora_lambda[r n] randlora_gamma[n *] randlora_A[...]? randlora_B[...]?",),
    "ROAD": ("road_theta[n] road_alpha[n]",),
    "SHIRA": ("shira_weight[n] shira_indices[2 n]?",),
    "SUPERTUNING": (
        "supertuning_values[n] supertuning_indices[n]?",
        "r!=none: supertuning_lora_A.weight[r in] supertuning_lora_B.weight[out r]",
    ),
    "TINYLORA": ("tinylora_A[r in]? tinylora_B[out r]? tinylora_P[u r r]?",),
    "TRAINABLE_TOKENS": ("trainable_tokens_delta[#token_indices *]",),
    "UNILORA": (
        "save_indices=true: unilora_indices_A[r in] unilora_indices_B[out r]"
        " unilora_scales_A[r in] unilora_scales_B[out r]",
    ),
    "VBLORA": (
        "vblora_logits_A[r m num_vectors] vblora_logits_B[n r num_vectors]"
        " | vblora_logits_A_topk_indices[r m topk] vblora_logits_B_topk_indices[n r topk]"
        " vblora_logits_A_topk_weights[r m topk-1] vblora_logits_B_topk_weights[n r topk-1]",
    ),
    "VERA": ("vera_lambda_b[out] vera_lambda_d[r]",),
    "WAVEFT": (
        "proportional_parameters=false: waveft_spectrum[n_frequency]",
        "proportional_parameters=true: waveft_spectrum[n]",
    ),
}
"""The tensors of one layer, for every method that is not LoRA's, as PEFT 0.21 and its older forms save them.

A layer has the tensors of every group whose condition on the config holds (`key=value,value:`), in one of the ways
that `|` divides; `?` marks one that may be left out. In brackets is the shape: a size is a number, a config key (`r`
and others with a pattern for single layers), an expression of these, or, where the config has no such key, a letter
that must agree within the layer; `~` says that 0 in the config means "whatever fits", `*` and `...` are any size and
any sizes. `#key` stands for each of 0, 1 … key - 1 in a name and for the length of a list in a shape.
"""

SCALES: dict[str, tuple[str, float | None, tuple[str, ...]]] = {
    "DEFT": ("alpha", None, ("r",)),
    "FOURIERFT": ("scaling", 150.0, ()),
    "GRALORA": ("alpha", 64, ("r", "hybrid_r")),
    "LILY": ("scaling", 1.0, ()),
    "LOHA": ("alpha", 8, ("r",)),
    "LOKR": ("alpha", 8, ("r",)),
    "PEANUT": ("scaling", 1.0, ()),
    "PSOFT": ("psoft_alpha", 32, ("r",)),
    "RANDLORA": ("randlora_alpha", 640, ("r",)),
    "SUPERTUNING": ("lora_alpha", None, ("r",)),
    "WAVEFT": ("scaling", 25.0, ()),
}
"""How a layer's scaling follows from the config (update_layer of each method): a key, its default, and the keys by
whose sum it is divided. The methods that are not here have no scaling, or learn it."""

RANKS: dict[str, Callable[[int], int | None]] = {
    "r": lambda size: size,
    "2*r": lambda size: size // 2,
    "tri(r)": lambda size: round((1 + (1 + 8 * size) ** 0.5) / 2),
}
"""The sizes in `FORMS` that tell the rank, and how: a triangle of `r` has r * (r - 1) / 2 elements."""

Form = dict[str, tuple[tuple[str, ...], bool]]
"""Factor → (its shape, whether it may be left out)."""


class Group(NamedTuple):
    """Tensors that a layer has in one of several ways, if the config value of `key` is, or is not, among `values`."""

    key: str
    is_among: bool
    values: tuple[str, ...]
    ways: tuple[Form, ...]


_FACTOR = re.compile(r"(\S+?)\[([^\]]*)\](\??)")
_forms: dict[str, tuple[Group, ...]] = {}
_names: dict[str, tuple[set[str], set[str]]] = {}


def groups(method: str) -> tuple[Group, ...]:
    """The parsed `FORMS` of a method; none for LoRA's and for methods without layers."""
    if method not in _forms:
        _forms[method] = parse(FORMS.get(method, ()))
    return _forms[method]


def parse(lines: tuple[str, ...]) -> tuple[Group, ...]:
    """The groups that lines as those of `FORMS` say."""
    parsed = []
    for line in lines:
        condition, colon, rest = line.rpartition(": ")
        key, _, values = condition.partition("=")
        ways = tuple(
            {name: (tuple(shape.split()), bool(optional)) for name, shape, optional in _FACTOR.findall(way)}
            for way in rest.split(" | ")
        )
        among = not key.endswith("!")
        parsed.append(Group(key.rstrip("!"), among, tuple(values.split(",")) if colon else (), ways))
    return tuple(parsed)


def nearest(group: Group, present: Container[str]) -> Form:
    """The way of a group that a layer's tensors are, or are nearest to."""
    return max(group.ways, key=lambda way: (sum(1 if name in present else -1 for name in way), len(way)))


def fits(sizes: tuple[str, ...], shape: tuple[int, ...]) -> bool:
    """Whether a shape has as many dimensions as `FORMS` says."""
    return len(shape) >= len(sizes) - 1 if sizes[-1] == "..." else len(shape) == len(sizes)


def divide(method: str, key: str) -> tuple[str, str, str | None] | None:
    """A key of a method in `FORMS` → module, factor, and an adapter's name where one stands in it.

    `m.lily_A.weight` → (m, lily_A.weight, None), `m.lily_A.default.weight` → (m, lily_A.weight, default).
    """
    if method not in _names:
        names = {re.sub(r"#\w+", "0", name) for group in groups(method) for way in group.ways for name in way}
        _names[method] = {name.partition(".")[0] for name in names}, names
    heads, names = _names[method]
    parts = key.split(".")
    for at in range(len(parts) - 1, 0, -1):
        if parts[at] in heads:
            tail = parts[at + 1 :]
            plain = ["0" if part.isdecimal() else part for part in tail]
            named = bool(tail) and ".".join([parts[at], *plain]) not in names
            named = named and ".".join([parts[at], *plain[1:]]) in names
            factor = ".".join([parts[at], *(tail[1:] if named else tail)])
            return ".".join(parts[:at]), factor, tail[0] if named else None
    return None


class Layer(NamedTuple):
    """An adapted module.

    `factors` maps a factor's name to its key in the adapter; `rank` is None where the shapes do not tell it
    (a flattened tensor, factors that disagree); `alpha` and `scaling` are None where the config does not tell them.
    """

    module: str
    factors: dict[str, str]
    rank: int | None
    alpha: float | None
    scaling: float | None


def module_of(key: str) -> str:
    """The name of the module within the base model: without PEFT's, torch's and the launchers' prefixes."""
    for wrapper in WRAPPERS:
        key = key.replace(wrapper, "")
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                key, stripped = key[len(prefix) :], True
    return key


def layers(adapter: Adapter) -> dict[str, Layer]:
    """The adapted layers of an adapter, in the order of their tensors, by module."""
    found: dict[str, dict[str, str]] = {}
    method = adapter.peft_type
    if method not in FORMS or method is None:
        for key in adapter.tensors:
            match = _KEY.fullmatch(key)
            if match:
                found.setdefault(module_of(match["module"]), {})[match["factor"]] = key
        return {module: _layer(adapter, module, factors) for module, factors in found.items()}
    for key in adapter.tensors:
        divided = divide(method, key)
        if divided:
            found.setdefault(module_of(divided[0]), {})[divided[1]] = key
    found.pop("base_model", None)  # what VeRA and others share between the layers, by the names of factors
    return {module: _other_layer(adapter, method, module, factors) for module, factors in found.items()}


def _other_layer(adapter: Adapter, method: str, module: str, factors: dict[str, str]) -> Layer:
    """A layer of a method other than LoRA's, read as `FORMS` says."""
    config = adapter.config or {}
    shapes = {factor: adapter.tensors[key].shape for factor, key in factors.items()}
    ranks: set[int | None] = set()
    for group in groups(method):
        for factor, (sizes, _) in nearest(group, shapes).items():
            if factor in shapes and fits(sizes, shapes[factor]):
                ranks.update(RANKS[size](n) for size, n in zip(sizes, shapes[factor], strict=False) if size in RANKS)
    rank = ranks.pop() if len(ranks) == 1 else None
    key, default, divisors = SCALES.get(method, ("", None, ()))
    alpha = _number(pattern_value(config.get("alpha_pattern"), module, config.get(key, default))) if key else None
    parts = [rank if part == "r" and rank else _number(config.get(part, 0)) for part in divisors]
    below = sum(part for part in parts if part) if divisors else 1.0
    scaling = None if alpha is None or not below else alpha / below
    if method == "DEFT" and not alpha:  # PEFT 0.20, tuners/deft/layer.py: update_layer
        scaling = 1.0
    return Layer(module, factors, rank, alpha, scaling)


def _layer(adapter: Adapter, module: str, factors: dict[str, str]) -> Layer:
    config = adapter.config or {}
    ranks = set()
    for factor, key in factors.items():
        shape = adapter.tensors[key].shape
        ranks.add(shape[RANK_AXIS[factor]] if len(shape) >= 2 else None)
    rank = ranks.pop() if len(ranks) == 1 else None
    if ranks and groups_of(adapter, factors) > 1:
        rank = adapter.tensors[factors["lora_A"]].shape[0]
    if adapter.peft_type == "ADALORA":
        alpha = _number(config.get("lora_alpha", 8))
        init_r = _number(config.get("init_r", 12))
        if alpha is None or init_r is None or rank is None:
            return Layer(module, factors, rank, alpha, None)
        # PEFT, tuners/adalora/layer.py: update_layer and forward (ranknum stays init_r after a load)
        return Layer(module, factors, rank, alpha, (alpha if alpha > 0 else float(rank)) / (init_r + 1e-5))
    alpha = _number(pattern_value(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    if alpha is None or not rank:
        return Layer(module, factors, rank, alpha, None)
    return Layer(module, factors, rank, alpha, alpha / (rank**0.5 if config.get("use_rslora") is True else rank))


def groups_of(adapter: Adapter, factors: dict[str, str]) -> int:
    """The groups of a convolution that the shapes of its factors tell: B is `[out, r / groups, 1, 1]` from PEFT 0.16 on
    (tuners/lora/layer.py: _ConvNd.update_layer), `[out, r, 1, 1]` before.
    """
    if factors.keys() != {"lora_A", "lora_B"}:
        return 1
    a, b = (adapter.tensors[factors[name]].shape for name in ("lora_A", "lora_B"))
    if not 2 < len(a) == len(b) or not b[1] or a[0] % b[1] or any(size != 1 for size in b[2:]):
        return 1
    return a[0] // b[1]


def pattern_value(pattern: Any, module: str, default: Any) -> Any:
    """The value of a rank or alpha pattern for a module, as PEFT 0.15 and newer match it (get_pattern_key)."""
    if isinstance(pattern, dict):
        for key, value in pattern.items():
            try:
                if re.match(rf"(.*\.)?({key})$", module):
                    return value
            except re.error:
                continue
    return default


def pattern_module(key: str) -> str:
    """`blocks.0.up.lora_E` (or with an adapter's name behind it) of an AdaLoRA rank_pattern → `blocks.0.up`."""
    head, mark, _ = key.rpartition(".lora_E")
    return head if mark else key


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    except OverflowError:  # beyond 1.8e308
        return None
