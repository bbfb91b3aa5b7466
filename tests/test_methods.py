"""Every PEFT method but LoRA's: small handmade adapters, whose verdicts real loads in each release gave.

The base of those loads has `blocks.N.attn.q_proj` and the like with 16 features in and out, and `up` with 32 out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ckpt_doctor.adapter.findings import ERROR, WARNING, verdict
from ckpt_doctor.adapter.runtimes import PEFT, peft
from ckpt_doctor.verbs.scan import examine

Shapes = dict[str, tuple[int, ...]]
QV = ["q_proj", "v_proj"]
LAYERS = [f"blocks.{number}.attn.{name}" for number in (0, 1) for name in QV]


def each(**factors: tuple[int, ...]) -> Shapes:
    """The factors in each of four layers; `__` in a name stands for a dot."""
    return {f"base_model.model.{layer}.{f.replace('__', '.')}": s for layer in LAYERS for f, s in factors.items()}


LOHA = each(hada_w1_a=(16, 4), hada_w1_b=(4, 16), hada_w2_a=(16, 4), hada_w2_b=(4, 16))
LOKR = each(lokr_w1=(2, 2), lokr_w2_a=(8, 2), lokr_w2_b=(2, 8))
VERA = {"base_model.vera_A": (4, 16), "base_model.vera_B": (16, 4)}
VERA_LAYERS = each(vera_lambda_b=(16,), vera_lambda_d=(4,))
IA3 = each(ia3_l=(16, 1))
IA3_CONFIG = {"feedforward_modules": []}
PROMPT = {"prompt_embeddings": (4, 16)}
PROMPT_CONFIG = {
    "target_modules": None, "task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "token_dim": 16, "num_layers": 2,
    "num_attention_heads": 2, "num_transformer_submodules": 1,
}  # fmt: skip
LOKR_OLD = {
    "r": 2, "alpha": 8, "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": None,
    "decompose_both": True, "decompose_factor": 2, "inference_mode": True, "init_weights": True,
    "layers_pattern": None, "layers_to_transform": None, "module_dropout": 0.0, "modules_to_save": None,
    "rank_dropout": 0.0, "rank_pattern": {}, "revision": None, "task_type": None, "use_effective_conv2d": False,
}  # fmt: skip
OFT_NEW = each(oft_R__weight=(4, 6))
OFT_CONFIG = {"r": 4, "oft_block_size": 0, "use_cayley_neumann": True, "num_cayley_neumann_terms": 5}
MINI = {"r": 4, "init_weights": "mini", "mini_r": 2}


def write(folder: Path, method: str, config: dict[str, Any], shapes: Shapes) -> Path:
    """An adapter of zeros. The config gets target_modules unless it says otherwise; None takes a key away."""
    whole = {"peft_type": method, "target_modules": QV, **config}
    kept = {key: value for key, value in whole.items() if key != "target_modules" or value is not None}
    (folder / "adapter_config.json").write_text(json.dumps(kept))
    tensors = {key: np.zeros(shape, "float32") for key, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def without(shapes: Shapes, end: str) -> Shapes:
    return {key: shape for key, shape in shapes.items() if not key.endswith(end)}


def renamed(shapes: Shapes, old: str, new: str) -> Shapes:
    return {key.replace(old, new): shape for key, shape in shapes.items()}


NONE = frozenset[str]()
CASES: dict[str, tuple[str, dict[str, Any], Shapes, frozenset[str], frozenset[str]]] = {
    # name: method, config, tensors, who accepts, who misloads; all others reject
    "loha": ("LOHA", {"r": 4}, LOHA, peft("0.6"), NONE),
    "loha-since-0.14": ("LOHA", {"r": 4, "exclude_modules": None}, LOHA, peft("0.14"), NONE),
    "loha-rank-pattern": ("LOHA", {"r": 4, "rank_pattern": {"q_proj": 2}}, LOHA, NONE, NONE),
    "loha-other-rank": ("LOHA", {"r": 8}, LOHA, NONE, NONE),
    "loha-rank-0": ("LOHA", {"r": 0}, LOHA, NONE, NONE),
    "loha-r-null": ("LOHA", {"r": None}, LOHA, NONE, NONE),
    "loha-r-word": ("LOHA", {"r": "4"}, LOHA, NONE, NONE),
    "loha-without-a-factor": ("LOHA", {"r": 4}, without(LOHA, "blocks.0.attn.q_proj.hada_w1_a"), NONE, peft("0.6")),
    "loha-no-prefix": ("LOHA", {"r": 4}, renamed(LOHA, "base_model.model.", ""), NONE, peft("0.6")),
    "loha-orig-mod": ("LOHA", {"r": 4}, renamed(LOHA, "model.blocks", "model._orig_mod.blocks"), NONE, peft("0.6")),
    "loha-no-target": ("LOHA", {"r": 4, "target_modules": ["nosuch"]}, LOHA, NONE, NONE),
    "loha-lower-case": ("loha", {"r": 4}, LOHA, NONE, NONE),
    "no-such-method": ("NOSUCH", {"r": 4}, LOHA, NONE, NONE),
    "loha-task": ("LOHA", {"r": 4, "task_type": "NOSUCH"}, LOHA, peft("0.6", "0.13"), NONE),
    "randlora-task": (
        "RANDLORA", {"r": 4, "task_type": "NOSUCH"}, each(randlora_lambda=(4, 4), randlora_gamma=(4, 16)),
        peft("0.16", "0.19"), NONE,
    ),
    "loha-named": (
        "LOHA", {"r": 4}, {key + ".default": s for key, s in LOHA.items()}, peft("0.21"), peft("0.6", "0.20")
    ),
    "glora-constant": (
        "GLORA", {"r": 4, "config_A_B": "constant", "config_C": "vector", "config_D_E": "constant"},
        each(glora_A__X=(1,), glora_B__X=(1,), glora_C__X=(16, 1), glora_D__X=(1,), glora_E__X=(1,)),
        peft("0.20"), NONE,
    ),
    "lokr-by-0.12": ("LOKR", LOKR_OLD, LOKR, peft("0.6", "0.13"), peft("0.14")),
    "lokr-by-0.14": (
        "LOKR", {**LOKR_OLD, "exclude_modules": None, "rank_dropout_scale": False}, LOKR, peft("0.14"), NONE
    ),
    "lokr-alpha-is-r": ("LOKR", {**LOKR_OLD, "alpha": 2}, LOKR, peft("0.6"), NONE),
    "vera": ("VERA", {"r": 4}, {**VERA, **VERA_LAYERS}, peft("0.11"), NONE),
    "vera-no-projection": ("VERA", {"r": 4, "save_projection": False}, VERA_LAYERS, peft("0.11"), NONE),
    "vera-lost-projection": ("VERA", {"r": 4}, VERA_LAYERS, NONE, NONE),
    "vera-of-two-shapes": (
        "VERA", {"r": 4, "save_projection": False, "target_modules": ["q_proj", "up"]},
        {key.replace("attn.v_proj", "up"): (32,) if "v_proj.vera_lambda_b" in key else shape
         for key, shape in VERA_LAYERS.items()}, peft("0.12"), NONE,
    ),
    "oft-by-0.12": ("OFT", {"r": 4}, each(oft_r=(4, 4, 4)), peft("0.7", "0.13"), NONE),
    "oft-by-0.14": (
        "OFT", {"r": 4, "oft_block_size": 0, "bias": "none"}, each(oft_r=(4, 4, 4), oft_s=(16, 1)),
        peft("0.14", "0.15"), peft("0.21"),
    ),
    "oft-by-0.21": (
        "OFT", {**OFT_CONFIG, "peft_version": "0.21.2"}, OFT_NEW, peft("0.18"), peft("0.14", "0.17")
    ),
    "oft-no-neumann": (
        "OFT", {**OFT_CONFIG, "use_cayley_neumann": False, "peft_version": "0.21.2"}, OFT_NEW,
        peft("0.16"), peft("0.14", "0.15"),
    ),
    "boft": ("BOFT", {"boft_block_size": 4}, each(boft_R=(1, 4, 4, 4), boft_s=(16, 1)), peft("0.11"), NONE),
    "boft-no-size": ("BOFT", {"boft_block_size": 0, "boft_block_num": 0}, each(boft_R=(1, 4, 4, 4), boft_s=(16, 1)),
                     NONE, NONE),
    "bone": ("BONE", {"r": 4}, each(bone_block=(4, 16)), peft("0.14", "0.18"), NONE),
    "bone-bat": ("BONE", {"r": 4, "init_weights": "bat"}, each(bone_block=(4, 4, 4)), peft("0.14", "0.18"), NONE),
    "miss-mini": ("MISS", MINI, each(miss_block=(4, 2)), peft("0.17"), NONE),
    "hra-unsaved-bias": (  # a layer of BERT's has a bias
        "HRA", {"r": 4, "bias": "all", "target_modules": [*QV, "dense"]},
        {**each(hra_u=(16, 4)), "base_model.model.encoder.layer.0.output.dense.hra_u": (16, 4)}, NONE, peft("0.12"),
    ),
    "ia3": ("IA3", IA3_CONFIG, IA3, peft("0.4"), NONE),
    "ia3-newer-key": ("IA3", {**IA3_CONFIG, "exclude_modules": None}, IA3, peft("0.4", "0.5") | peft("0.14"), NONE),
    "ia3-feedforward": ("IA3", {"feedforward_modules": QV}, IA3, NONE, NONE),
    "prompt": ("PROMPT_TUNING", PROMPT_CONFIG, PROMPT, peft("0.4"), NONE),
    "prompt-newer-key": (
        "PROMPT_TUNING", {**PROMPT_CONFIG, "tokenizer_kwargs": None}, PROMPT, peft("0.4", "0.5") | peft("0.7"), NONE
    ),
    "prompt-other-length": ("PROMPT_TUNING", {**PROMPT_CONFIG, "num_virtual_tokens": 8}, PROMPT, NONE, NONE),
    "prompt-lost": ("PROMPT_TUNING", PROMPT_CONFIG, {"other": (4, 16)}, NONE, NONE),
    "prefix": ("PREFIX_TUNING", PROMPT_CONFIG, {"prompt_embeddings": (4, 64)}, peft("0.4"), NONE),
    "trainable-tokens": (
        "TRAINABLE_TOKENS", {"target_modules": ["emb"], "token_indices": [1, 2, 5]},
        {"base_model.model.emb.trainable_tokens_delta": (3, 16)}, peft("0.15"), NONE,
    ),
    "road-group": (
        "ROAD", {"group_size": 5}, each(road_theta=(8,), road_alpha=(8,)), NONE, NONE,
    ),
    "tinylora": (
        "TINYLORA", {"r": 2, "u": 8},
        {**each(tinylora_A=(2, 16), tinylora_B=(16, 2), tinylora_P=(8, 2, 2)),
         **{f"base_model.tinylora_v.{number}": (8,) for number in range(4)}}, peft("0.19"), NONE,
    ),
    "psoft-lowrank": (
        "PSOFT", {"r": 4, "psoft_svd": "lowrank", "random_seed": 0, "peft_version": "0.20.0"},
        each(psoft_R__weight=(6,), psoft_R__vector_a=(4,), psoft_R__vector_b=(4,)), peft("0.20"), peft("0.19", "0.19"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdicts_are_those_of_real_loads(tmp_path: Path, name: str) -> None:
    method, config, shapes, accepts, misloads = CASES[name]
    findings = examine(str(write(tmp_path, method, config, shapes))).findings
    verdicts = {id_: verdict(id_, findings) for id_ in PEFT}
    assert {id_ for id_ in PEFT if verdicts[id_] == "accepts"} == accepts
    assert {id_ for id_ in PEFT if verdicts[id_] == "misloads"} == misloads
    assert {id_ for id_ in PEFT if verdicts[id_] == "rejects"} == PEFT - accepts - misloads


@pytest.mark.parametrize(
    "name", ["loha", "lokr-by-0.12", "vera", "oft-by-0.12", "oft-by-0.21", "bone", "ia3", "prompt", "prefix"]
)
def test_a_healthy_adapter_has_notes_only(tmp_path: Path, name: str) -> None:
    method, config, shapes, _, _ = CASES[name]
    findings = examine(str(write(tmp_path, method, config, shapes))).findings
    assert [finding for finding in findings if finding.severity in (ERROR, WARNING)] == []


@pytest.mark.parametrize(
    ("method", "config", "shapes"),
    [
        ("LOKR", {"r": 2, "decompose_both": True}, LOKR),  # keys were removed: nothing says which release saved it
        ("LOHA", {"r": 4, "target_modules": ["q_proj"]}, LOHA),  # some layers are not named
        ("LOHA", {"r": 4}, without(LOHA, "0.attn.q_proj.hada_w1_a") | {"base_model.model.head.weight": (8, 16)}),
        ("LOHA", {"r": 4, "init_weights": False}, {k: s for k, s in LOHA.items() if "0.attn.q_proj" not in k}),  # lost
        ("XLORA", {}, {"x": (1,)}),
        ("SHADOW", {}, {"x": (1,)}),
    ],
)
def test_what_is_not_known_is_never_accepted(
    tmp_path: Path, method: str, config: dict[str, Any], shapes: Shapes
) -> None:
    findings = examine(str(write(tmp_path, method, config, shapes))).findings
    assert "accepts" not in {verdict(id_, findings) for id_ in PEFT}


RANKS: dict[str, tuple[str, dict[str, Any], Shapes, int | None, float | None]] = {
    "loha": ("LOHA", {"r": 4, "alpha": 8}, LOHA, 4, 2.0),
    "loha-conv": (
        "LOHA", {"r": 4, "alpha": 8, "target_modules": ["conv"]},
        {f"base_model.model.conv.hada_{name}": shape for name, shape in {
            "t1": (4, 4, 3, 3), "w1_a": (4, 6), "w1_b": (4, 1), "t2": (4, 4, 3, 3), "w2_a": (4, 6), "w2_b": (4, 1),
        }.items()}, 4, 2.0,
    ),
    "lokr": ("LOKR", {"r": 2, "alpha": 8}, LOKR, 2, 4.0),
    "lokr-whole": ("LOKR", {"r": 8, "alpha": 8}, each(lokr_w1=(4, 4), lokr_w2=(4, 4)), None, 1.0),
    "vera": ("VERA", {"r": 4}, {**VERA, **VERA_LAYERS}, 4, None),
    "pvera": ("PVERA", {"r": 4}, each(pvera_lambda_b=(16,), pvera_lambda_d=(8,)), 4, None),
    "gralora": (
        "GRALORA", {"r": 4, "alpha": 64, "gralora_k": 2, "hybrid_r": 2},
        each(gralora_A=(2, 8, 4), gralora_B=(2, 4, 8), gralora_A_general__weight=(2, 16),
             gralora_B_general__weight=(16, 2)), 4, 64 / 6,
    ),
    "psoft": ("PSOFT", {"r": 4, "psoft_alpha": 32}, each(psoft_R__weight=(6,)), 4, 8.0),
    "randlora": (
        "RANDLORA", {"r": 4, "randlora_alpha": 640}, each(randlora_lambda=(4, 4), randlora_gamma=(4, 16)), 4, 160.0
    ),
    "lily": ("LILY", {"r": 4, "scaling": 2.0}, each(lily_A__weight=(4, 16), lily_B__weight=(8, 16)), 4, 2.0),
    "poly": ("POLY", {"r": 4}, each(poly_lora_A=(2, 2, 8, 4), poly_lora_B=(2, 2, 4, 8)), 4, None),
    "vblora": ("VBLORA", {"r": 2}, each(vblora_logits_A=(2, 4, 8), vblora_logits_B=(4, 2, 8)), 2, None),
    "rank-0": ("DELORA", {"r": 4}, each(delora_A=(0, 16), delora_B=(16, 0)), 0, None),
    "lora-conv2d": (
        "LORA", {"r": 4, "lora_alpha": 8, "target_modules": ["conv"]},
        {"base_model.model.conv.lora_A.weight": (4, 3, 3, 3), "base_model.model.conv.lora_B.weight": (8, 4, 1, 1)},
        4, 2.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RANKS)
def test_ranks_and_scales(tmp_path: Path, name: str) -> None:
    method, config, shapes, rank, scaling = RANKS[name]
    layers = examine(str(write(tmp_path, method, config, shapes))).layers
    assert layers
    assert {layer.rank for layer in layers.values()} == {rank}
    for layer in layers.values():
        assert layer.scaling == (None if scaling is None else pytest.approx(scaling))
