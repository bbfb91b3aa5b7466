"""Rules about PEFT's methods: which release has which, and all that is judged of those that are not LoRA's.

What a layer of a method has in a file is in `layers.FORMS`; here is what PEFT does where a file differs from that, and
where releases compute differently from the same file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..adapter import Adapter
from ..findings import ERROR, NOTE, WARNING, Finding, rule
from ..layers import FORMS, Group, Layer, divide, fits, groups, module_of, nearest, parse, pattern_value
from ..runtimes import PEFT, peft
from .config import targets as names_module
from .keys import knows, savers, table
from .rank import names

NONE = frozenset[str]()
LORAS = ("LORA", "ADALORA")

SHARED: dict[str, tuple[str, ...]] = {
    "CARTRIDGE": ("prompt_embeddings[num_virtual_tokens *]",),
    "CPT": ("prompt_embeddings[#cpt_token_ids *]",),
    "MULTITASK_PROMPT_TUNING": (
        "prompt_embeddings[num_virtual_tokens*num_transformer_submodules token_dim]"
        " prefix_task_cols[num_tasks num_virtual_tokens num_ranks] prefix_task_rows[num_tasks num_ranks token_dim]",
    ),
    "PREFIX_TUNING": ("prompt_embeddings[num_virtual_tokens num_layers*2*token_dim]",),
    "PROMPT_TUNING": ("prompt_embeddings[num_virtual_tokens*num_transformer_submodules token_dim]",),
    "PVERA": ("save_projection=true: base_model.pvera_A[2*r *] base_model.pvera_B[* r]?",),
    "P_TUNING": ("prompt_embeddings[num_virtual_tokens*num_transformer_submodules token_dim]",),
    "UNILORA": ("base_model.unilora_theta_d[theta_d_length]",),
    "VBLORA": ("base_model.vblora_vector_bank[num_vectors vector_length]",),
    "VERA": ("save_projection=true: base_model.vera_A[r *] base_model.vera_B[* r]?",),
}
"""The tensors of a method that belong to no layer, as in `layers.FORMS`; the sizes of VeRA's are read from 0.21 on."""

DEMANDED = ("prompt_embeddings", "base_model.vera_A", "base_model.pvera_A")
"""Tensors without which a load raises; without others it goes on with what they are initialised to."""

PROMPTS = frozenset(method for method, lines in SHARED.items() if lines[0].startswith("prompt_embeddings"))
"""Prompt learning: nothing is adapted, virtual tokens are put before the input."""

JUDGED = (FORMS.keys() - {"ADAMSS"}) | SHARED.keys()
"""The methods that the rules of this file understand; any other is unknown, never accepted."""

PATTERNS = {"r": "rank_pattern", "n_frequency": "n_frequency_pattern", "block_size": "block_size_pattern"}
"""Config keys that another one gives single layers other values of."""

RANDOM = ("C3A", "FOURIERFT", "TINYLORA", "TRAINABLE_TOKENS", "VBLORA")
"""Methods whose layers change the model as soon as they are there, before anything is loaded into them."""

TASKS = frozenset({
    "SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION",
})  # fmt: skip
"""PEFT's task types (utils/peft_types.py: TaskType), the same in every release that checks them."""

TASKS_CHECKED = {"CPT": "0.18", "C3A": "0.18", "RANDLORA": "0.20", "TRAINABLE_TOKENS": "0.18"}
"""The first release whose config of a method calls PeftConfigMixin.__post_init__, where that is not 0.14."""

NULLABLE = {
    "boft_n_butterfly_factor", "eps", "effective_rank", "init_scale", "init_v_bound", "mask_type", "mini_r",
    "psoft_svd_lowrank_niter", "random_seed", "num_cayley_neumann_terms", "cayley_neumann_eps", "proj_seed",
    "module_dropout", "rank_dropout", "prompt_tuning_init", "prompt_tuning_init_task", "encoder_dropout",
    "encoder_num_layers", "encoder_reparameterization_type", "poly_type",
    "opt_weighted_loss_type", "opt_loss_decay_factor", "opt_projection_epsilon", "opt_projection_format_epsilon",
}  # fmt: skip
"""Keys with a default other than null that not every method or release computes with when an adapter is loaded."""


@rule
def method_unknown(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """peft_type is none that a release knows: KeyError from its PEFT_TYPE_TO_CONFIG_MAPPING, in every release.

    The name is in upper case; "lora" is no method. BONE was removed in PEFT 0.19, where MiSS took its place.
    """
    if adapter.config is None:
        return
    method = adapter.config.get("peft_type")
    if not isinstance(method, str) or not table(method):
        if method is None:
            said = "the config has no peft_type"
        elif isinstance(method, str) and table(method.upper()):
            said = f"peft_type is {method!r}, which is a method only in upper case"
        else:
            said = f"peft_type is {str(method)[:60]!r}, which is no method of PEFT"
        yield Finding("CD501", "unknown-method", ERROR, said, (), ("peft_type",), PEFT)
    elif method != "ADALORA":  # whose first releases have faults of their own: CD301
        missing = PEFT - knows(method, "peft_type")
        if missing:
            message = f"not every PEFT release has {method}"
            yield Finding("CD502", "method-of-other-releases", NOTE, message, (), ("peft_type",), missing)


@rule
def task_type(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """task_type is none that PEFT knows: "Invalid task type" from 0.14 on (PeftConfigMixin.__post_init__)."""
    config, method = adapter.config or {}, adapter.peft_type or ""
    task = config.get("task_type")
    if task is not None and task not in TASKS:
        message = f"task_type is {str(task)[:60]!r}, which is no task of PEFT"
        rejected = peft(TASKS_CHECKED.get(method, "0.14"))
        yield Finding("CD503", "unknown-task", ERROR, message, (), ("task_type",), rejected)
    if method == "CPT" and task != "CAUSAL_LM":
        message = "CPT is for CAUSAL_LM only"
        yield Finding("CD504", "task-of-prompt", ERROR, message, (), ("task_type",), peft("0.18"))
    elif method in PROMPTS and task not in ("CAUSAL_LM", "FEATURE_EXTRACTION"):
        # PeftModel itself does not put a prompt before the input, only its classes for tasks do; what these need
        # of the base model is not in the files.
        message = f"with the task_type {task} it depends on the base model whether the prompt is used"
        needs = "the base model"
        yield Finding("CD504", "task-of-prompt", NOTE, message, (), ("task_type",), undecided_for=PEFT, needs=needs)


@rule
def not_judged_method(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """A method that this version does not judge: where a release knows it, nothing is said."""
    method = adapter.peft_type
    if method and table(method) and method not in JUDGED and method not in LORAS:
        message = f"the method {method} is not judged by this version"
        yield Finding("CD901", "not-judged", NOTE, message, undecided_for=PEFT, needs="a newer ckpt-doctor")


def judged(adapter: Adapter) -> str | None:
    """The method, where the rules below are to judge it."""
    return adapter.peft_type if adapter.peft_type in JUDGED and adapter.config is not None else None


def value(config: Mapping[str, Any], method: str, key: str) -> Any:
    """A config value as the newest release that knows the key reads it."""
    return config[key] if key in config else table(method).get(key, (None, None, None))[2]


def active(config: Mapping[str, Any], method: str, group: Group) -> bool:
    """Whether the config says that a layer has the tensors of a group."""
    if not group.values:
        return True
    said = value(config, method, group.key)
    if said is None and isinstance(table(method).get(group.key, (None, None, None))[2], bool):
        said = False
    return (str(said).lower() in group.values) is group.is_among


class UnknownSize(Exception):  # noqa: N818 - it never leaves this file
    """A config value is not one that tells a size."""


def size_of(token: str, config: Mapping[str, Any], method: str, module: str) -> int | str | None:
    """A size of `layers.FORMS`: a number, None for any size, or a letter to be bound. Raises UnknownSize."""
    if token.isdecimal():
        return int(token)
    if token == "*":  # noqa: S105 - not a password
        return None
    if token.startswith("#"):
        listed = value(config, method, token[1:])
        if not isinstance(listed, list):
            raise UnknownSize(token)
        return len(listed)
    triangle = re.fullmatch(r"tri\((\w+)\)(~?)", token)
    if triangle:
        side = size_of(triangle[1] + triangle[2], config, method, module)
        return side * (side - 1) // 2 if isinstance(side, int) else side
    if "*" in token:
        product = 1
        for part in token.split("*"):
            size = size_of(part, config, method, module)
            if not isinstance(size, int):
                return None
            product *= size
        return product
    key, minus, less = token.rstrip("~").partition("-")
    if key not in table(method):
        return token
    said = value(config, method, key)
    pattern = config.get(PATTERNS.get(key, ""))
    # HiRA's layers take the config's r all the same, and so do OFT's from 0.14 on
    if pattern and method != "HIRA" and not (method == "OFT" and "oft_block_size" in config):
        said = pattern_value(pattern, module, said)
    if said is None and key in ("num_layers", "token_dim", "num_transformer_submodules"):
        return None  # PEFT takes it from the base model
    if type(said) is not int:
        raise UnknownSize(key)
    if token.endswith("~") and said == 0:
        return None
    return said - int(less) if minus else said


def mismatch(
    way: dict[str, tuple[tuple[str, ...], bool]],
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any],
    method: str,
    module: str,
    bound: dict[str, int],
) -> list[str]:
    """The factors whose shape is not what PEFT builds from the config. Raises UnknownSize."""
    wrong = []
    for factor, (sizes, _) in way.items():
        shape = shapes.get(factor)
        if shape is None:
            continue
        right = fits(sizes, shape)
        for wording, size in zip(sizes, shape, strict=False):
            if wording != "..." and right:
                wanted = size_of(wording, config, method, module)
                if isinstance(wanted, str):
                    wanted = bound.setdefault(wanted, size)
                right = wanted is None or wanted == size
        if not right or 0 in shape:
            wrong.append(factor)
    return wrong


def spread(way: dict[str, tuple[tuple[str, ...], bool]], config: Mapping[str, Any], method: str) -> Any:
    """A way with a factor for each number that `#key` in its name stands for."""
    if not any("#" in factor for factor in way):
        return way
    whole = {}
    for factor, form in way.items():
        counted = re.search(r"#(\w+)", factor)
        count = value(config, method, counted[1]) if counted else 1
        for number in range(count if type(count) is int else 0):
            whole[re.sub(r"#\w+", str(number), factor)] = form
    return whole


def targeted(config: Mapping[str, Any], method: str, layers: dict[str, Layer]) -> dict[str, Layer]:
    """The layers that target_modules names; all, where it names none or PEFT reads it in another way."""
    target = config.get("target_modules")
    if method == "ADAPTION_PROMPT" or not isinstance(target, (str, list)) or str(target).lower() == "all-linear":
        return layers
    return {module: layer for module, layer in layers.items() if names_module(target, module)} or layers


@rule
def form(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """A layer's tensors are not those that PEFT builds from the config.

    A shape that differs raises "size mismatch" in every release (load_state_dict); a tensor that is missing leaves
    what its layer was initialised with, in silence up to 0.13; one that has no place is ignored.
    """
    method, config = judged(adapter), adapter.config or {}
    if method is None or method not in FORMS:
        return
    # Up to 0.14 one key serves both patterns of LyCORIS methods, and no group is put around it
    # (tuners/lycoris_utils.py, tuners/loha/model.py: _create_and_replace).
    old_pattern = config.get("rank_pattern") or config.get("alpha_pattern") if method in ("LOHA", "LOKR") else None
    wrong: dict[str, list[str]] = {"new": [], "old": [], "missing": [], "extra": [], "strange": []}
    patterned = any(config.get(pattern) for pattern in PATTERNS.values())
    fine: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()  # most layers have the shapes of another one
    for module, layer in targeted(config, method, layers).items():
        shapes = {factor: adapter.tensors[key].shape for factor, key in layer.factors.items()}
        alike = tuple(shapes.items())
        if alike in fine:
            continue
        faults = sum(map(len, wrong.values()))
        bound: dict[str, int] = {}
        old_bound: dict[str, int] = {}
        left = set(shapes)
        for group in groups(method):
            if not active(config, method, group):
                continue
            way = spread(nearest(group, shapes), config, method)
            left -= way.keys()
            if any(factor not in shapes and not optional for factor, (_, optional) in way.items()):
                wrong["missing"].append(module)
            try:
                if mismatch(way, shapes, config, method, module, bound):
                    wrong["new"].append(module)
                if old_pattern and mismatch(way, shapes, old_config(config, module), method, module, old_bound):
                    wrong["old"].append(module)
            except UnknownSize:
                wrong["strange"].append(module)
        if left:
            wrong["extra"].append(module)
        if not patterned and not old_pattern and faults == sum(map(len, wrong.values())):
            fine.add(alike)
    wrong = {what: list(dict.fromkeys(modules)) for what, modules in wrong.items()}
    new, old = (peft("0.15"), peft("0.2", "0.14")) if old_pattern else (PEFT, NONE)
    if wrong["new"] or wrong["old"]:
        where = wrong["new"] or wrong["old"]
        rejected = (new if wrong["new"] else NONE) | (old if wrong["old"] else NONE)
        message = f"the shapes of the tensors are not what the config says for {names(where)}"
        severity = ERROR if wrong["new"] else NOTE
        yield Finding("CD505", "shape-mismatch", severity, message, _keys(layers, where), (), rejected)
    if wrong["missing"]:
        message = f"{len(wrong['missing'])} layers lack a tensor ({names(wrong['missing'])}): it stays as initialised"
        yield Finding("CD506", "missing-tensor", ERROR, message, _keys(layers, wrong["missing"]), misloaded_by=PEFT)
    if wrong["extra"]:
        message = f"the config has no place for tensors of {names(wrong['extra'])}: they are ignored"
        yield Finding("CD507", "tensor-without-place", ERROR, message, _keys(layers, wrong["extra"]), misloaded_by=PEFT)
    if wrong["strange"]:
        message = "the config has a word or null where PEFT wants the size of a layer"
        yield Finding("CD508", "unknown-size", ERROR, message, rejected_by=PEFT)


def _keys(layers: dict[str, Layer], modules: list[str]) -> tuple[str, ...]:
    return tuple(key for module in modules for key in layers[module].factors.values())


def old_config(config: Mapping[str, Any], module: str) -> dict[str, Any]:
    """The config with the rank and alpha that LoHa and LoKr give a layer up to PEFT 0.14.

    tuners/loha/model.py, _create_and_replace: the first key of both patterns together that matches serves both.
    """
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    for key in [*ranks, *alphas]:
        try:
            if re.match(rf"(.*\.)?{key}$", module):
                break
        except re.error:
            continue
    else:
        key = module.rpartition(".")[2]
    said = {"r": ranks.get(key, config.get("r", 8)), "alpha": alphas.get(key, config.get("alpha", 8))}
    return {**config, **said, "rank_pattern": {}, "alpha_pattern": {}}


@rule
def shared_tensors(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """The tensors that belong to no layer: an embedded prompt, VeRA's projection, the vector bank of VB-LoRA …"""
    method, config = judged(adapter), adapter.config or {}
    if method is None:
        return
    shapes = {key: info.shape for key, info in adapter.tensors.items()}
    missing, wrong, strange = [], [], False
    for group in parse(SHARED.get(method, ())):
        if active(config, method, group):
            way = group.ways[0]
            missing += [key for key, (_, optional) in way.items() if key not in shapes and not optional]
            try:
                wrong += mismatch(way, shapes, config, method, "", {})
            except UnknownSize:
                strange = True
    if method == "TINYLORA":
        vectors = _tiny_vectors(config, len(layers))
        missing += [key for key in vectors if key not in shapes]
        wrong += [key for key in vectors if key in shapes and shapes[key] != (value(config, method, "u"),)]
    if method == "FROD":
        demanded = active(config, method, parse(("save_projection=true: x[*]",))[0])
        if demanded and not any(key.startswith("base_model.frod_") for key in shapes):
            yield Finding("CD506", "missing-tensor", ERROR, "the projections are missing", rejected_by=PEFT)
        # a square, pairs of numbers, and the sides of a square, for each kind of layer
        for key, shape in shapes.items():
            kind = key.split(".")[1] if key.startswith("base_model.frod_") else ""
            square = len(shape) == 2 and shape[0] == shape[1] > 0
            fine = {"frod_V": square, "frod_s_indices": len(shape) == 2 == shape[0], "frod_s_size": shape == (2,)}
            if not fine.get(kind, True):
                wrong.append(key)
    if method in ("VERA", "PVERA"):
        outs = [shapes[key][0] for layer in layers.values() for factor, key in layer.factors.items()
                if factor.endswith("vera_lambda_b") and len(shapes[key]) == 1]  # fmt: skip
        shape = shapes.get(f"base_model.{method.lower()}_B", ())
        if outs and len(shape) == 2 and shape[0] != max(outs) and value(config, method, "save_projection"):
            wrong.append(f"base_model.{method.lower()}_B")
    if missing:
        rejected = any(key in DEMANDED for key in missing)
        message = f"{missing[0]} is missing"
        ids = (PEFT, NONE) if rejected else (NONE, PEFT)
        yield Finding("CD506", "missing-tensor", ERROR, message, (), (), *ids)
    if wrong:
        # The projections of VeRA and PVeRA are made anew from projection_prng_key up to 0.20.
        rejected_by = peft("0.21") if method in ("VERA", "PVERA") else PEFT
        message = f"the shape of {wrong[0]} is not what the config says"
        yield Finding("CD505", "shape-mismatch", ERROR, message, tuple(wrong), rejected_by=rejected_by)
    if strange:
        message = "the config does not tell the size of the prompt or of what the layers share"
        needs = "a config with numbers"
        yield Finding("CD508", "unknown-size", WARNING, message, undecided_for=PEFT, needs=needs)
    if method not in PROMPTS and method in FORMS and not layers and method != "UNILORA" and not adapter.faults:
        message = f"no tensor is one of {method}: nothing is adapted"
        yield Finding("CD510", "method-without-layers", ERROR, message, misloaded_by=PEFT)


def _tiny_vectors(config: Mapping[str, Any], count: int) -> list[str]:
    """TinyLoRA's trained vectors; weight_tying says how many layers share one (tinylora/model.py)."""
    tying = value(config, "TINYLORA", "weight_tying")
    total = max(1, round(count * (1.0 - tying))) if isinstance(tying, (int, float)) else 1
    return [f"base_model.tinylora_v.{number}" for number in range(total)]


@rule
def odd_value(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """A config value of another kind than its default: null where PEFT computes with a number, a word for a number."""
    method, config = judged(adapter), adapter.config or {}
    if method is None:
        return
    for key, (_, _, default) in table(method).items():
        if key not in config or default is None or default is False or key == "runtime_config":
            continue
        if method == "OSF" and key == "init_weights":  # null in a config of 0.18 and 0.19; no layer reads it
            continue
        said = config[key]
        if default is True:
            if type(said) is not bool and key != "progressbar" and said not in WORDS.get(key, ()):
                yield _doubtful(key, said, knows(method, key))
        elif said is None and key not in NULLABLE:
            yield Finding("CD511", "null-value", ERROR, f"{key} is null", (), (key,), knows(method, key))
        elif isinstance(default, (int, float)):
            kinds = (int, float) if isinstance(default, float) or key.endswith(("alpha", "lambda")) else (int,)
            share = key.endswith(("dropout", "_rate")) or key == "sparsity"
            if type(said) not in kinds or (share and not 0 <= said <= 1):
                yield _doubtful(key, said, knows(method, key))
        elif (isinstance(default, str) and said not in (default, *WORDS.get(key, ()))) or (
            isinstance(default, (dict, list)) and type(said) is not type(default)
        ):
            yield _doubtful(key, said, knows(method, key))
    r = value(config, method, "r")
    if type(r) is int and r <= 0 and not (method == "OFT" and "oft_block_size" in config):
        message = f"the config says r: {r}, so no layer has a rank"
        yield Finding("CD512", "rank-zero", ERROR, message, (), ("r",), PEFT)
    for first, second in ONE_OF.get(method, ()):
        sizes = value(config, method, first), value(config, method, second)
        if second in config and all(type(size) is int for size in sizes) and (sizes[0] != 0) is (sizes[1] != 0):
            message = f"just one of {first} and {second} may be other than 0, and they are {sizes[0]} and {sizes[1]}"
            yield Finding("CD519", "contradicting-sizes", ERROR, message, (), (first, second), PEFT)


ONE_OF = {
    "BOFT": (("boft_block_num", "boft_block_size"),),
    "OFT": (("r", "oft_block_size"),),
}
"""Two ways to say the same (BOFTConfig.__post_init__, OFTConfig.__post_init__)."""

WORDS = {
    "init_weights": (
        True,
        False,
        "bat",
        "mini",
        "lycoris",
        "gaussian",
        "kaiming_uniform",
        "xavier_uniform",
        "xavier_normal",
        "orthogonal",
    ),
    "bias": ("all", "lora_only", "boft_only", "oft_only", "hra_only", "vera_only"),
    "act_fn": ("gelu", "silu", "tanh", "sigmoid", "linear"),
    "ab_svd_init": ("pissa_init",),
    "psoft_svd": ("lowrank",),
    "config_A_B": ("vector", "constant", "none"),
    "config_C": ("vector", "none"),
    "config_D_E": ("vector", "none"),
    "decomposition_method": ("qr",),
    "encoder_reparameterization_type": ("LSTM",),
    "opt_weighted_loss_type": ("decay",),
    "prompt_tuning_init": ("TEXT", "SAMPLE_VOCAB", "AVERAGE_SOURCE_TASKS", "EXACT_SOURCE_TASK", "ONLY_SOURCE_SHARED"),
    "variant": ("road_2", "road_4"),
    "wavelet_family": ("db2", "db3", "db4", "haar", "sym2", "sym3", "sym4", "coif1"),
}
"""Words that a config value may be beside its default."""


def _doubtful(key: str, said: object, ids: frozenset[str]) -> Finding:
    message = f"{key} is {str(said)[:60]!r}, and what a release makes of that is not known"
    return Finding("CD513", "odd-value", WARNING, message, (), (key,), undecided_for=ids, needs="a load")


@rule
def key_names(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Keys with an adapter's name in them (`.lily_A.default.weight`): ignored up to PEFT 0.20.

    0.21 takes them under the name "default", save where a method's keys are remapped in another way.
    """
    method = judged(adapter)
    if method is None or method not in FORMS:
        return
    found = {key: divide(method, key) for layer in layers.values() for key in layer.factors.values()}
    named = {key: parts[2] for key, parts in found.items() if parts and parts[2]}
    if named:
        other = ("ADAPTION_PROMPT", "BONE", "GLORA", "OSF", "PSOFT", "TINYLORA")
        taken = set(named.values()) == {"default"} and method not in other
        message = f"{len(named)} keys have an adapter's name in them ({next(iter(named))}): they are ignored"
        ids = peft("0.2", "0.20") if taken else PEFT
        yield Finding("CD514", "adapter-name-in-method-key", ERROR, message, tuple(named), misloaded_by=ids)


@rule
def targets(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """target_modules, or what narrows it, leaves out layers that have tensors, or says too little to tell."""
    method, config = judged(adapter), adapter.config or {}
    if method is None or method not in FORMS or method == "ADAPTION_PROMPT":
        return
    target = config.get("target_modules")
    if target is None or (isinstance(target, str) and target.lower() == "all-linear"):
        if method in ("TRAINABLE_TOKENS", "OSF") and target is None:
            return
        message = f"target_modules is {target}: which layers are adapted is up to the base model"
        yield _unclear("target_modules", message)
    elif not isinstance(target, (str, list)):
        yield _unclear("target_modules", "target_modules is neither a list nor a pattern")
    elif not target:
        yield Finding("CD309", "no-target", ERROR, "target_modules is empty", (), ("target_modules",), PEFT)
    else:
        left = [module for module in layers if not names_module(target, module)]
        if left and len(left) < len(layers):
            message = f"target_modules does not name {names(left)}, though the file has tensors of them"
            yield _unclear("target_modules", message)
        excluded = config.get("exclude_modules")
        if excluded and any(names_module(excluded, module) for module in layers):
            yield _unclear("exclude_modules", "exclude_modules leaves out layers that the file has tensors of")
        if isinstance(target, list) and method in RANDOM and not left:
            fresh = [name for name in target if not any(names_module([name], module) for module in layers)]
            if fresh:
                message = f"no tensor is of {names(fresh)}, and a layer of it would be adapted at random"
                yield _unclear("target_modules", message)
    chosen = config.get("layers_to_transform")
    if chosen is not None:
        numbers = {str(number) for number in (chosen if isinstance(chosen, list) else [chosen])}
        if not all(numbers & set(module.split(".")) for module in layers):
            yield _unclear("layers_to_transform", "layers_to_transform leaves out layers that the file has tensors of")
        message = "layers_to_transform numbers the layers, which releases read in different ways"
        yield _unclear("layers_to_transform", message, PEFT - savers(adapter))
    elif config.get("layers_pattern"):
        yield _unclear("layers_pattern", "layers_pattern is set without layers_to_transform")


def _unclear(key: str, message: str, ids: frozenset[str] = PEFT) -> Finding:
    needs = "the base model"
    return Finding("CD515", "unclear-target", NOTE, message, (), (key,), undecided_for=ids, needs=needs)


@rule
def siblings(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """A layer is missing, or a tensor of one, that others of its name have: it would stay as it was initialised.

    A base model may well be so (a hybrid of two kinds of blocks), so this is a doubt, not a fault.
    """
    method, config = judged(adapter), adapter.config or {}
    if method is None or method not in FORMS or len(layers) < 2:
        return
    stacks: dict[str, dict[str, set[str]]] = {}
    kinds: dict[str, set[frozenset[str]]] = {}
    for module, layer in layers.items():
        kinds.setdefault(module.rpartition(".")[2], set()).add(frozenset(layer.factors))
        numbered = re.fullmatch(r"(.*?)\.(\d+)\.(.*)", f".{module}")
        if numbered:
            stacks.setdefault(numbered[1], {}).setdefault(numbered[3], set()).add(numbered[2])
    chosen = isinstance(config.get("target_modules"), str) or any(
        config.get(key) is not None for key in ("layers_to_transform", "exclude_modules")
    )
    names_full = isinstance(config.get("target_modules"), list) and any(
        "." in str(name) for name in config["target_modules"]
    )
    uneven = [
        stack for stack, rows in stacks.items() if len({frozenset(numbers) for numbers in rows.values()}) > 1
    ]  # fmt: skip
    partial = method != "LOKR" and any(len(kind) > 1 for kind in kinds.values())
    patterned = any(config.get(pattern) for pattern in PATTERNS.values())
    partial = partial or (not patterned and _odd_one_out(adapter, layers))
    for stack, rows in stacks.items():  # a stack that misses its first layers, or some between
        numbers = {int(number) for found in rows.values() for number in found}
        if numbers != set(range(len(numbers))):
            uneven.append(stack)
    if partial or (uneven and not chosen and not names_full):
        where = f"in {uneven[0].lstrip('.')}" if uneven else "of one name"
        message = f"layers {where} do not all have the same tensors: some may be missing"
        yield Finding("CD516", "uneven-layers", NOTE, message, undecided_for=PEFT, needs="the base model")


def _odd_one_out(adapter: Adapter, layers: dict[str, Layer]) -> bool:
    """Whether just one of three or more layers of a name has other shapes than the rest, which are all alike."""
    kinds: dict[str, list[tuple[tuple[int, ...], ...]]] = {}
    for module, layer in layers.items():
        shapes = tuple(adapter.tensors[key].shape for _, key in sorted(layer.factors.items()))
        kinds.setdefault(module.rpartition(".")[2], []).append(shapes)
    return any(len(kind) > 2 and len(set(kind)) == 2 and min(kind.count(s) for s in set(kind)) == 1
               for kind in kinds.values())  # fmt: skip


@rule
def saved_beside(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """What the config says was trained beside the method, and is not in the file: modules_to_save, biases.

    Up to 0.20 most methods train their biases and do not save them (BaseTuner._get_learnable_bias_state_dict is of
    0.21): such an adapter computes something else in the very release that saved it.
    """
    method, config = judged(adapter), adapter.config or {}
    if method is None:
        return
    bias = config.get("bias", "none")
    has_bias = any(key.endswith(".bias") for key in adapter.tensors)
    if bias not in ("none", None) and knows(method, "bias") and not has_bias:
        message = f"bias is {bias!r}, and no bias is in the file"
        yield Finding("CD517", "unsaved-bias", WARNING, message, (), ("bias",), misloaded_by=PEFT)
    modules = config.get("modules_to_save")
    if isinstance(modules, list) and modules:
        # a KeyError from 0.15 on (save_and_load.py: set_peft_model_state_dict), a fresh module before
        known = knows(method, "modules_to_save")
        paths = [f".{module_of(key)}" for key in adapter.tensors]
        lost = [name for name in modules if not any(f".{name}." in path for path in paths)]
        lost += [path[1:] for path in (path[: -len(".bias")] for path in paths if path.endswith(".bias"))
                 if f"{path}.weight" not in paths and path.endswith(tuple(f".{name}" for name in modules))]  # fmt: skip
        if lost:
            message = f"modules_to_save names {', '.join(map(str, lost))}, which the file does not have whole"
            keys = ("modules_to_save",)
            yield Finding(
                "CD518", "unsaved-module", ERROR, message, (), keys, known & peft("0.15"), known - peft("0.15")
            )


@rule
def strange_tensors(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Tensors that are not the method's, nor of what the config says was trained beside it.

    One that names a parameter of the base model overwrites it; any other is ignored (load_state_dict, not strict).
    """
    method, config = judged(adapter), adapter.config or {}
    if method is None:
        return
    beside = [f".{name}." for name in config.get("modules_to_save") or () if isinstance(name, str)]
    own = {key for layer in layers.values() for key in layer.factors.values()}
    strange = [
        key for key in adapter.tensors
        if key not in own and not OWN.match(key) and not EMBEDDING.search(key)
        and not any(name in f".{key}" for name in beside)
        and not (key.endswith(".bias") and config.get("bias", "none") != "none")
    ]  # fmt: skip
    if strange:
        message = f"{len(strange)} tensors are none of {method}'s ({strange[0]}): what they do is up to the base model"
        yield Finding(
            "CD520", "strange-tensor", NOTE, message, tuple(strange), undecided_for=PEFT, needs="the base model"
        )


OWN = re.compile(
    r"prompt_embeddings$|prefix_task_(?:cols|rows)$|base_model\.(?:p?vera_[AB]|randlora_[AB]|frod_\w+|tinylora_v|"
    r"unilora_theta_d|vblora_vector_bank)(?:\.|$)|.*\.(?:boft_P|unilora_\w+)$"
)
"""What a method saves for all layers, and buffers that its older releases saved."""

EMBEDDING = re.compile(r"embed|lm_head|\bwte\b|\bwpe\b")
"""Embeddings, which PEFT saves with any adapter when the vocabulary was resized (save_embedding_layers)."""


@rule
def oft_generations(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """OFT was written anew twice: its files are of 0.7 – 0.13, of 0.14 – 0.15, or of 0.16 and newer.

    0.14 and newer want `oft_block_size` in the config (OFTConfig.check_kwargs); 0.16 – 0.20 reject the older
    `oft_r` ("Trying to load old OFT checkpoint"), 0.21 loads it and ignores it. The Cayley-Neumann series was cut off
    by another rule in 0.18 (tuners/oft/layer.py: _cayley_batch).
    """
    method, config = judged(adapter), adapter.config or {}
    if method != "OFT":
        return
    factors = {factor for layer in layers.values() for factor in layer.factors}
    rejected = misloaded = undecided = NONE
    if "oft_block_size" not in config:
        rejected |= peft("0.14")
    if "oft_R.weight" in factors:
        misloaded |= peft("0.2", "0.15")
        series, terms = config.get("use_cayley_neumann", True), config.get("num_cayley_neumann_terms", 5)
        # Constrained to `eps`, the rotation is so small that the terms in question vanish.
        tiny = config.get("coft") and isinstance(config.get("eps", 6e-5), float) and config.get("eps", 6e-5) <= 0.01
        if series and not tiny and not (type(terms) is int and terms <= 2):
            before, after, by = peft("0.16", "0.17"), peft("0.18"), savers(adapter) & peft("0.16")
            misloaded |= after if by and by <= before else before if by and by <= after else NONE
            undecided |= NONE if by and (by <= before or by <= after) else before | after
    elif "oft_r" in factors:
        rejected |= peft("0.16", "0.20")
        misloaded |= peft("0.21")
        if any("oft_s" in layer.factors for layer in layers.values()) or "oft_block_size" in config:
            misloaded |= peft("0.2", "0.13")
    if rejected or misloaded or undecided:
        message = "OFT computes in other ways in older and newer releases, and reads other tensors"
        needs = "the release that saved it" if undecided else None
        yield Finding(
            "CD521", "oft-generation", NOTE, message, (), ("oft_block_size",), rejected, misloaded, undecided, needs
        )


@rule
def scale_by_release(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """LoKr and LoHa whose layers older releases scale in another way.

    Up to 0.13 LoKr leaves out alpha / r (tuners/lokr/layer.py: get_delta_weight); up to 0.14 both match rank_pattern
    and alpha_pattern by one key for both.
    """
    method, config = judged(adapter), adapter.config or {}
    if method not in ("LOHA", "LOKR"):
        return
    plain, joint, apart = [], [], []
    for module in layers:
        old = old_config(config, module)
        rank = pattern_value(config.get("rank_pattern"), module, config.get("r", 8))
        alpha = pattern_value(config.get("alpha_pattern"), module, config.get("alpha", 8))
        joint.append(_ratio(old["alpha"], old["r"]))
        apart.append(_ratio(alpha, rank))
        plain.append(1.0)
    first = plain if method == "LOKR" else joint
    bands = ((peft("0.2", "0.13"), first), (peft("0.14", "0.14"), joint), (peft("0.15"), apart))
    known = knows(method, "peft_type")
    by = savers(adapter)
    meant = [scales for ids, scales in bands if ids & by]
    if any(None in scales for _, scales in bands) or all(scales == first for _, scales in bands):
        return
    alike = bool(meant) and all(scales == meant[0] for scales in meant)
    other = NONE.union(*(ids & known for ids, scales in bands if not alike or scales != meant[0]))
    message = "releases scale the layers by different numbers"
    ids = (other, NONE) if alike else (NONE, other)
    needs = None if alike else "the release that saved it"
    yield Finding("CD522", "scale-by-release", NOTE, message, (), ("alpha", "r"), NONE, *ids, needs)


def _ratio(alpha: object, rank: object) -> float | None:
    if not isinstance(alpha, (int, float)) or not isinstance(rank, (int, float)) or not rank:
        return None
    return alpha / rank


@rule
def lokr_decomposition(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """LoKr decomposes its second matrix where r is below half of its larger side (lokr/layer.py: update_layer).

    A file that has it the other way has lost the r it was saved with: the tensors that it has are ignored.
    """
    method, config = judged(adapter), adapter.config or {}
    if method != "LOKR":
        return
    wrong = []
    for module, layer in layers.items():
        r = pattern_value(config.get("rank_pattern"), module, config.get("r", 8))
        shapes = {factor: adapter.tensors[key].shape for factor, key in layer.factors.items()}
        if type(r) is not int or r < 1:
            continue
        whole, first, second = shapes.get("lokr_w2"), shapes.get("lokr_w2_a"), shapes.get("lokr_w2_b")
        if whole and len(whole) >= 2 and r < max(whole[:2]) / 2:
            wrong.append(module)
        # of a convolution's flattened kernel only the output side shows
        flat = first and second and "lokr_t2" not in shapes and len(first) == len(second) == 2
        if not whole and flat and first and second and r >= max(first[0], second[1]) / 2:
            wrong.append(module)
    if wrong:
        message = f"r is not the one that decides on the matrices of {names(wrong)}: they are ignored"
        yield Finding("CD523", "lokr-decomposition", ERROR, message, _keys(layers, wrong), ("r",), misloaded_by=PEFT)


@rule
def convolutions(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Convolutions that a release does not adapt, or adapts in another way.

    IA3: 2d from 0.6, 3d from 0.14. LoHa and LoKr: 1d from 0.18. BOFT's changed in 0.14 (boft_s was not transposed).
    """
    method = judged(adapter)
    if method not in ("IA3", "LOHA", "LOKR", "BOFT"):
        return
    rejected = misloaded = undecided = NONE
    for module, layer in layers.items():
        shapes = {factor: adapter.tensors[key].shape for factor, key in layer.factors.items()}
        if method == "IA3":
            dimensions = len(shapes.get("ia3_l", ()))
            rejected |= peft("0.2", "0.5") if dimensions == 4 else peft("0.2", "0.13") if dimensions == 5 else NONE
        elif method == "BOFT":
            scale = shapes.get("boft_s", ())
            if len(scale) == 2 and scale[0] == 1 < scale[1]:  # a Linear has it the other way round
                before, after, by = peft("0.2", "0.13"), peft("0.14"), savers(adapter)
                misloaded |= after if by <= before else before if by <= after else NONE
                undecided |= NONE if by <= before or by <= after else PEFT
        else:
            kernel = shapes.get("hada_t1") or shapes.get("lokr_t2")
            if kernel and len(kernel) == 4:
                flat = kernel[3] == 1
                rejected |= peft("0.2", "0.17") if flat and kernel[2] > 1 else NONE
            elif "lokr_w2" in shapes and len(shapes["lokr_w2"]) > 2:
                rejected |= peft("0.2", "0.17") if len(shapes["lokr_w2"]) == 3 else NONE
            elif re.search(r"conv1d|conv_1d", module, re.IGNORECASE):
                undecided |= peft("0.2", "0.17")
    if rejected or misloaded or undecided:
        message = f"{method} of a convolution is not the same in every release"
        needs = "the base model, or the release that saved it" if undecided else None
        yield Finding("CD524", "convolution", NOTE, message, (), (), rejected, misloaded, undecided, needs)


@rule
def feedforward(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """IA3 scales the input of a feed-forward layer and the output of any other (ia3/layer.py: update_layer)."""
    method, config = judged(adapter), adapter.config or {}
    if method != "IA3":
        return
    wrong = []
    said = config.get("feedforward_modules")
    for module, layer in layers.items():
        shape = adapter.tensors[layer.factors["ia3_l"]].shape if "ia3_l" in layer.factors else ()
        is_input = bool(said) and names_module(said, module)
        if len(shape) < 2 or 0 in shape or (len(shape) == 2 and shape[0 if is_input else 1] != 1):
            wrong.append(module)
    if wrong:
        message = f"the shapes of the tensors are not what feedforward_modules says for {names(wrong)}"
        keys = ("feedforward_modules",)
        yield Finding("CD505", "shape-mismatch", ERROR, message, _keys(layers, wrong), keys, PEFT)
    target = config.get("target_modules")
    if isinstance(said, list) and isinstance(target, list) and not set(said) <= set(target):
        message = "feedforward_modules is not a part of target_modules"
        yield Finding("CD525", "feedforward-untargeted", ERROR, message, (), ("feedforward_modules",), peft("0.6"))
    if said is None and "feedforward_modules" in config:
        yield _unclear("feedforward_modules", "feedforward_modules is null: it is up to the base model")


@rule
def derived_sizes(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Sizes that follow from the config and the layer's in and out in a way that `FORMS` cannot say.

    road/layer.py and shira/layer.py: update_layer; osf/layer.py: U_low has the singular vectors beyond effective_rank.
    """
    method, config = judged(adapter), adapter.config or {}
    wrong = []
    for module, layer in layers.items() if method in ("ROAD", "SHIRA", "OSF") else ():
        shapes = {factor: adapter.tensors[key].shape for factor, key in layer.factors.items()}
        sizes = [math.prod(shape) for shape in shapes.values()]
        if method == "ROAD":
            group = value(config, "ROAD", "group_size")
            out = 4 * sizes[0] // {"road_2": 4, "road_4": 8}.get(value(config, "ROAD", "variant"), 2)
            fine = type(group) is not int or (group > 0 and out % group == 0)
        elif method == "SHIRA":
            r = value(config, "SHIRA", "r")
            fine = type(r) is not int or r < 1 or math.prod(shapes.get("shira_weight", (0,))) % r == 0
        else:
            kept = pattern_value(config.get("rank_pattern"), module, config.get("effective_rank"))
            ends = [shapes.get("osf_svd_params.U_low", ())[:1], shapes.get("osf_svd_params.V_low", ())[1:]]
            low = shapes.get("osf_svd_params.S_low", ())
            fine = type(kept) is not int or not all(ends) or not low or min(ends)[0] - kept == low[0]
        if not fine:
            wrong.append(module)
    if wrong:
        message = f"the shapes of the tensors are not what the config says for {names(wrong)}"
        yield Finding("CD505", "shape-mismatch", ERROR, message, _keys(layers, wrong), (), PEFT)


@rule
def by_release(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Smaller differences between releases, one a method; each entry says where it is."""
    method, config = judged(adapter), adapter.config or {}
    if method is None:
        return
    rejected = misloaded = undecided = NONE
    message, keys = "", tuple[str, ...]()
    if method == "VERA":
        # 0.11 wants one shape for all layers (vera/model.py: _find_first_dim, since 0.12 _find_dim)
        outs = {adapter.tensors[key].shape for layer in layers.values() for factor, key in layer.factors.items()
                if factor == "vera_lambda_b"}  # fmt: skip
        leaves = {module.rpartition(".")[2] for module in layers}
        message = "PEFT 0.11 wants the layers of VeRA to have one shape"
        if len(outs) > 1:
            rejected = peft("0.11", "0.11")
        elif len(leaves) > 1 and not leaves <= {"q_proj", "k_proj", "v_proj", "query", "key", "value", "q", "k", "v"}:
            undecided = peft("0.11", "0.11")
    elif method == "PSOFT" and value(config, method, "psoft_svd") == "lowrank":
        # 0.19 draws the test matrix of svd_lowrank anew at each load; random_seed is of 0.20 (psoft/layer.py)
        message, keys = "PEFT 0.19 computes a low-rank decomposition that differs with each load", ("psoft_svd",)
        misloaded, undecided = _wrong_in_0_19(savers(adapter))
    elif method == "TINYLORA" and any("tinylora_P" not in layer.factors for layer in layers.values()):
        # 0.19 seeds each layer by Python's hash of its name, which differs with each run (tinylora/layer.py)
        message, keys = "PEFT 0.19 draws projections that are not saved from another seed", ("save_projection",)
        misloaded, undecided = _wrong_in_0_19(savers(adapter))
    elif method == "PVERA" and value(config, method, "sample_at_inference") is not False:
        message, keys = "sample_at_inference: each forward computes something else", ("sample_at_inference",)
        misloaded, undecided = (PEFT, NONE) if config["sample_at_inference"] else (NONE, PEFT)
    elif method == "UNILORA" and not layers:
        message, undecided = "the file says nothing of the layers: r, target_modules and proj_seed do it all", PEFT
    elif method == "CARTRIDGE":
        sizes = [value(config, method, key) for key in ("num_layers", "token_dim")]
        shape = adapter.tensors["prompt_embeddings"].shape if "prompt_embeddings" in adapter.tensors else ()
        if all(type(size) is int for size in sizes) and shape[1:] != (2 * math.prod(sizes),):
            message, undecided = "num_layers and token_dim are not those of the cartridge", PEFT
    elif method == "ADAPTION_PROMPT":
        # the rotary embedding of transformers 4.34 and older (adaption_prompt/utils.py: llama_compute_query_states)
        message = "AdaptionPrompt up to PEFT 0.8 runs with the transformers of its time only"
        rejected = peft("0.2", "0.8")
        if config.get("adapter_layers") != len(layers):
            undecided = PEFT
            message = "adapter_layers is not the number of layers in the file"
    elif method == "SHIRA" and any("shira_indices" not in layer.factors for layer in layers.values()):
        message, undecided = "the positions of the weights are not in the file", PEFT
    if rejected or misloaded or undecided:
        needs = "the base model" if undecided else None
        yield Finding("CD526", "method-by-release", NOTE, message, (), keys, rejected, misloaded, undecided, needs)


def _wrong_in_0_19(by: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Who misloads, and who may, what 0.19 alone computes in another way, each time."""
    if by and by <= peft("0.20"):
        return peft("0.19", "0.19"), NONE
    return (PEFT, NONE) if by and by <= peft("0.2", "0.19") else (peft("0.19", "0.19"), PEFT)


@rule
def prompt_and_modules(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Prompt learning with modules_to_save: releases that do not know the key overwrite the base weight instead.

    That is the same, but where the base model ties the module to another (peft_model.py: load_adapter).
    """
    method, config = judged(adapter), adapter.config or {}
    if method in PROMPTS and config.get("modules_to_save"):
        ids = knows(method, "peft_type") - knows(method, "modules_to_save")
        message = "modules_to_save goes with a prompt only from PEFT 0.17 on"
        yield Finding(
            "CD527", "modules-beside-prompt", NOTE, message, (), ("modules_to_save",), undecided_for=ids,
            needs="the base model",
        )  # fmt: skip
