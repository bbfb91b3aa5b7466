"""What nobody looked at is never accepted: for each method one key, value, type, tensor and release that is not known.

The adapters are made of the methods' own records, at the defaults of the newest release.
"""

from __future__ import annotations

from typing import Any

import judging
import pytest

METHODS = tuple(name for name in judging.methods_with_record() if name != "ADAMSS")
"""ADAMSS is judged in no release."""

LAYER = "blocks.0.attn.proj"
SMALL: dict[str, dict[str, Any]] = {
    "ADAPTION_PROMPT": {"adapter_layers": 1, "adapter_len": 4, "target_modules": "proj"},
    "C3A": {"block_size": 4},
    "CARTRIDGE": {"num_virtual_tokens": 4, "num_layers": 2, "token_dim": 4, "num_transformer_submodules": 1},
    "CPT": {"cpt_token_ids": [1, 2], "num_virtual_tokens": 2, "token_dim": 16},
    "FOURIERFT": {"n_frequency": 20},
    "IA3": {"feedforward_modules": []},
    "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 4, "token_dim": 16, "num_transformer_submodules": 1},
    "OSF": {"effective_rank": 8},
    "PREFIX_TUNING": {"num_virtual_tokens": 4, "num_layers": 2, "token_dim": 16},
    "PROMPT_TUNING": {"num_virtual_tokens": 4, "token_dim": 16, "num_transformer_submodules": 1},
    "P_TUNING": {"num_virtual_tokens": 4, "token_dim": 16, "num_transformer_submodules": 1},
    "ROAD": {"group_size": 4},
    "TRAINABLE_TOKENS": {"token_indices": [1, 2]},
    "TINYLORA": {"u": 8},
    "VBLORA": {"num_vectors": 8, "vector_length": 4},
    "WAVEFT": {"n_frequency": 20},
}
TENSORS: dict[str, dict[str, str]] = {
    "FROD": {"base_model.frod_V.proj": "F32 16 16"},
    "IA3": {f"base_model.model.{LAYER}.ia3_l": "F32 16 1"},
    "LOKR": {
        f"base_model.model.{LAYER}.lokr_w1": "F32 4 4", f"base_model.model.{LAYER}.lokr_w2": "F32 4 4",
    },
    "OSF": {f"base_model.model.{LAYER}.osf_svd_params.S_low": "F32 8",
            f"base_model.model.{LAYER}.osf_svd_params.U_low": "F32 16 8",
            f"base_model.model.{LAYER}.osf_svd_params.V_low": "F32 8 16"},
    "TINYLORA": {"base_model.tinylora_v.0": "F32 8"},
}  # fmt: skip
"""What the grammar does not tell."""

UNTOLD = {"UNILORA"}
"""Methods whose files never tell enough."""


def healthy(method: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A config and tensors as a release saves them."""
    keys = judging.config_keys(method, newest(method))
    config = {**keys, "r": 4} if type(keys.get("r")) is int and method != "OFT" else dict(keys)
    config |= {"peft_type": method, "inference_mode": True, "peft_version": newest(method).removeprefix("peft==")}
    config |= {"target_modules": ["proj"]} if "target_modules" in keys else {"task_type": "CAUSAL_LM"}
    config |= SMALL.get(method, {})
    prefix = f"base_model.model.{LAYER}."
    made = judging.tensors_of(method, config, prefix)
    return config, {key: form for key, form in {**made, **TENSORS.get(method, {})}.items() if form}


def newest(method: str) -> str:
    return "peft==0.18.1" if method == "BONE" else "peft==0.21.2"


def verdict(method: str, config: dict[str, Any], tensors: dict[str, str]) -> str:
    adapter = judging.adapter(config, tensors)
    return judging.verdicts([newest(method)], judging.judge(adapter))[newest(method)]


@pytest.mark.parametrize("method", METHODS)
def test_a_healthy_adapter_is_accepted(method: str) -> None:
    config, tensors = healthy(method)
    assert verdict(method, config, tensors) == ("unknown" if method in UNTOLD else "accepts")


@pytest.mark.parametrize("method", METHODS)
def test_a_key_that_no_release_has(method: str) -> None:
    config, tensors = healthy(method)
    assert verdict(method, {**config, "an_invented_key": 1}, tensors) != "accepts"


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_no_stage_takes(method: str) -> None:
    config, tensors = healthy(method)
    assert verdict(method, config, {**tensors, "base_model.model.an_invented_tensor": "F32 4"}) != "accepts"


@pytest.mark.parametrize("method", METHODS)
def test_a_release_in_which_the_method_was_not_reviewed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, tensors = healthy(method)
    judging.forget_review(monkeypatch, method, newest(method))
    assert verdict(method, config, tensors) == "unknown"


OTHER: dict[str, Any] = {
    "bias": "all", "exclude_modules": ".*proj", "feedforward_modules": ["proj"], "layers_pattern": "blocks",
    "layers_to_transform": [7], "modules_to_save": ["head"], "target_modules": ["other"], "task_type": "NOSUCH",
}  # fmt: skip
"""Values of what rules follow, each of which stops a release."""


def other_values(method: str, key: str, default: Any) -> list[Any]:
    """Values of a key's type that are not its default."""
    if key in OTHER:
        return [OTHER[key]]
    known = [word for word in judging.words(method, key) if word != default and word is not None]
    if known:
        return known
    if default is None:
        of_kind = {int: 3, float: 0.5, str: "other", list: ["other"], dict: {"proj": 3}, bool: True}
        return [of_kind[kind] for kind in judging.kinds(method, key)] or [3]
    of_type = {
        bool: not default, int: default + 1 if isinstance(default, int) else 1, str: "other",
        float: default / 2 or 0.5 if isinstance(default, float) else 0.5, dict: {"proj": 3}, list: [7, 8, 9],
    }  # fmt: skip
    return [of_type[type(default)]]


ODD: tuple[Any, ...] = ("4", 7, 0.25, {"a": 1}, [1.5], True)


def odd_values(method: str, key: str, default: Any) -> list[Any]:
    """One value of each type that is not a key's."""
    kinds = judging.kinds(method, key) if default is None else (type(default),)
    kinds = (*kinds, int, float) if float in kinds or key.endswith(("alpha", "lambda")) else kinds
    return [value for value in ODD if type(value) not in kinds and value not in judging.words(method, key)]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in UNTOLD])
def test_a_value_that_nobody_looked_at(method: str) -> None:
    config, tensors = healthy(method)
    reasons = judging.reasons(method)
    assert all(reasons.values())
    accepted = [
        (key, value) for key, default in judging.config_keys(method, newest(method)).items() if key != "runtime_config"
        for value in other_values(method, key, default)
        if value != config[key] and verdict(method, {**config, key: value}, tensors) == "accepts"
    ]  # fmt: skip
    assert {key for key, _ in accepted} <= reasons.keys(), accepted


@pytest.mark.parametrize("method", [name for name in METHODS if name not in UNTOLD])
def test_a_value_of_another_type(method: str) -> None:
    config, tensors = healthy(method)
    accepted = [
        (key, value) for key, default in judging.config_keys(method, newest(method)).items() if key != "runtime_config"
        for value in odd_values(method, key, default)
        if verdict(method, {**config, key: value}, tensors) == "accepts"
    ]  # fmt: skip
    assert not accepted


@pytest.mark.parametrize("method", METHODS)
def test_no_list_names_a_key_that_the_method_does_not_have(method: str) -> None:
    named = {*judging.reasons(method), *judging.row_keys(method)} - judging.common_keys()
    assert named <= judging.all_keys(method)


HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 10**9, 10**400, 1e308, float("nan"), float("inf"), -1e9, "", "x", [], [None], [{}], {},
    {"a": None}, {"(": 1},
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_no_value_makes_a_rule_fail(method: str) -> None:
    config, tensors = healthy(method)
    for key in config:
        for value in HOSTILE:
            verdict(method, {**config, key: value}, tensors)
    for form in ("F32", "F32 0", "F32 1 1", "F32 3 3 3 3 3"):
        for key in tensors:
            verdict(method, config, {**tensors, key: form})


LORAS = ("LORA", "ADALORA")


def lora(method: str, **values: Any) -> dict[str, str]:
    """What all releases make of a healthy adapter with other config values."""
    keys = {**judging.config_keys(method, "peft==0.21.2"), "peft_version": "0.21.2", "lora_alpha": 8}
    config: dict[str, Any] = {**keys, "peft_type": method, "target_modules": ["proj"], "r": 4, "lora_dropout": 0.1}
    shapes = {"lora_A.weight": "4 16", "lora_B.weight": "16 4"}
    if method == "ADALORA":
        config |= {"init_r": 4, "target_r": 2, "total_step": 9, "rank_pattern": None, "orth_reg_weight": 0.5}
        shapes = {"lora_A": "4 16", "lora_B": "16 4", "lora_E": "4 1"}
    del config["runtime_config"]
    tensors = {f"base_model.model.{LAYER}.{name}": f"F32 {shape}" for name, shape in shapes.items()}
    extra = values.pop("tensor", None)
    tensors |= {f"base_model.model.{extra}": "F32 4"} if extra else {}
    findings = judging.judge(judging.adapter({**config, **values}, tensors))
    return judging.verdicts(judging.PEFT, findings)


@pytest.mark.parametrize("method", LORAS)
def test_a_healthy_lora_is_accepted(method: str) -> None:
    assert lora(method)["peft==0.21.2"] == "accepts"


INVENTED = [
    "a_new_option", "use_magic", "lora_beta", "rank", "scaling", "use_rslora2", "dora", "lora_magnitude", "init",
    "target", "r_max", "gamma", "quantize", "experts_to_adapt", "merge", "adapter_scale", "lora_gamma", "x", "fused",
    "target_layers",
]  # fmt: skip


@pytest.mark.parametrize("key", INVENTED)
@pytest.mark.parametrize("method", LORAS)
def test_an_invented_key_of_a_lora(method: str, key: str) -> None:
    for value in (1, True, "word", {"q": 1}):
        assert "accepts" not in lora(method, **{key: value}).values()


def test_an_invented_key_beside_one_of_another_method() -> None:
    assert "accepts" not in lora("LORA", target_r=8, invented=1).values()


NONSENSE: list[Any] = ["nonsense", 10**40, [[]], {"nonsense": {}}, [None], -0.5]


@pytest.mark.parametrize("method", LORAS)
def test_a_nonsense_value_of_each_key_of_a_lora(method: str) -> None:
    """But of keys that no forward of a loaded adapter reads, where its type is right, and numbers that are numbers."""
    numbers = {"lora_alpha", "lora_dropout", "beta1", "beta2", "orth_reg_weight"}
    texts = {"base_model_name_or_path", "revision", "megatron_core", "peft_version", "target_modules"}
    objects = {"auto_mapping", "eva_config", "corda_config", "lora_ga_config", "loftq_config", "rank_pattern"}
    objects |= {"alpha_pattern", "exclude_modules", "layers_pattern", "modules_to_save"}
    whole = {"deltaT", "target_r", "tinit", "tfinal", "total_step", "r", "init_r", "qalora_group_size"}
    unread = (
        {"r", "alpha_pattern", "use_rslora", "init_lora_weights", "megatron_config"} if method == "ADALORA" else set()
    )
    for key in sorted(judging.config_keys(method, "peft==0.21.2")):
        for value in NONSENSE:
            fits = (
                (key in numbers and isinstance(value, (int, float))) or (key in texts and isinstance(value, str))
                or (key in objects and isinstance(value, (dict, str))) or (key in whole and type(value) is int)
                or key in unread
            )  # fmt: skip
            if not fits:
                assert lora(method, **{key: value})["peft==0.21.2"] != "accepts", (key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_bdlora", True), ("use_bdlora", {"nblocks": 2, "other": 1}), ("monteclora_config", {"num_samples": 2}),
     ("megatron_config", {"hidden_size": 8}), ("kasa_config", {"beta": 1}), ("velora_config", {"scale": 2})],
)  # fmt: skip
def test_a_rare_value_of_a_lora_is_accepted_by_nothing_that_reads_it(key: str, value: Any) -> None:
    assert lora("LORA", **{key: value})["peft==0.21.2"] != "accepts"


@pytest.mark.parametrize("name", ["blocks.0.attn.lora_gate_A", "blocks.0.lora_a.weight", "an_invented_tensor"])
@pytest.mark.parametrize("method", LORAS)
def test_a_tensor_that_no_lora_has(method: str, name: str) -> None:
    assert "accepts" not in lora(method, tensor=name).values()


@pytest.mark.parametrize("method", LORAS)
def test_a_release_in_which_nobody_looked_at_lora(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judging.forget_lora_review(monkeypatch, "peft==0.21.2")
    assert (lora(method)["peft==0.21.2"], lora(method)["peft==0.20.0"]) == ("unknown", "accepts")
