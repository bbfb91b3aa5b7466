"""Judged by kinds is judged layer by layer: random adapters, whose configs name modules in every form there is."""

from __future__ import annotations

import random
from typing import Any

import judging
import pytest

from ckpt_doctor.facts import targets
from ckpt_doctor.facts.kinds import stacks

LEAVES = ("q_proj", "v_proj", "fc1", "fc2", "w1", "dense_h_to_4h", "conv", "0", "lm_head")
PATHS = (
    "model.layers.{}.attn", "model.layers.{}.mlp.experts.{}", "h.{}", "{}", "model.language_model.layers.{}", "a{}.b",
    "enc.{}.{}", "weight.{}", "modules_to_save.default",
)  # fmt: skip
NAMES = (
    "q_proj", "proj", "fc1", "w1", "0", "1", "attn.q_proj", "model.layers.1.attn.q_proj", "layers.1", "experts.2.w1",
    "conv", "h.1.q_proj", "a.b", "lora_x", "default", "head", "a1",
)  # fmt: skip
PATTERNS = (
    r".*\.q_proj", r".*\.[01]\..*", r"model\.layers\.(1|2)\.attn\.(q|v)_proj", "all-linear", ".*", "(", r".*\d+\.w1",
)  # fmt: skip
SHAPES = {"A": ("4 8", "4 8", "2 8", "0 8", "4 8 3", "32"), "B": ("8 4", "8 4", "8 2", "8 0", "8 4 1", "32")}


def named(chance: random.Random) -> Any:
    """Names of modules, in any of the forms that a config may have them in."""
    names = chance.sample(NAMES, chance.randint(1, 3))
    return chance.choice([names, names, [name for name in NAMES if name.isidentifier()], chance.choice(PATTERNS), None])


def pattern(chance: random.Random) -> Any:
    """A rank or alpha pattern."""
    keys = chance.sample((*NAMES, *PATTERNS), chance.randint(1, 3))
    return chance.choice([{}, {}, {key: chance.choice([2, 4, 8]) for key in keys}])


def config(chance: random.Random) -> dict[str, Any]:
    """A config that names modules, and sets what goes by their numbers."""
    whole: dict[str, Any] = {
        "peft_type": chance.choice(["LORA", "LORA", "LORA", "ADALORA"]), "r": 4, "init_r": 4,
        "target_modules": chance.choice([["q_proj", "fc1"], ["q_proj", "v_proj", "w1", "conv"], named(chance)]),
        "init_lora_weights": chance.choice([True, True, False]), "use_rslora": chance.choice([False, False, True]),
    }  # fmt: skip
    rare = {
        "exclude_modules": named, "modules_to_save": named, "rank_pattern": pattern, "alpha_pattern": pattern,
        "layers_to_transform": lambda chance: chance.choice([[0, 1], 1, []]), "layers_pattern": named,
        "target_parameters": lambda chance: chance.sample(NAMES, 1), "bias": lambda _: "lora_only",
        "use_dora": lambda _: True, "fan_in_fan_out": lambda _: True,
    }  # fmt: skip
    return whole | {key: make(chance) for key, make in rare.items() if chance.random() < 0.15}


def tensors(chance: random.Random) -> dict[str, str]:
    """Factors of layers in several blocks: mostly alike, with faults in some."""
    found: dict[str, str] = {}
    paths, leaves = chance.sample(PATHS, chance.randint(1, 2)), chance.sample(LEAVES, chance.randint(1, 3))
    usual = {(leaf, side): chance.choice(SHAPES[side][: chance.choice([2, 6])]) for leaf in leaves for side in "AB"}
    end = chance.choice([".weight", ".weight", ".weight", "", ".default.weight", ".0.weight"])
    faulty = chance.random() < 0.4
    for path in paths:
        for number in range(first := chance.choice([0, 0, 8]), first + chance.randint(1, 5)):
            for leaf in leaves:
                module = f"{path.format(number, chance.randint(0, 3) if faulty else number)}.{leaf}"
                for side in "AB":
                    shape = chance.choice(SHAPES[side]) if faulty and chance.random() < 0.1 else usual[leaf, side]
                    prefix = "" if faulty and chance.random() < 0.05 else "base_model.model."
                    kind = "lora_embedding_" if leaf == "lm_head" else "lora_"
                    if not faulty or chance.random() < 0.95:
                        dtype = "I8" if faulty and chance.random() < 0.03 else "F32"
                        found[f"{prefix}{module}.{kind}{side}{end}"] = f"{dtype} {shape}"
    for name in (
        "head.weight",
        "model.layers.1.attn.q_proj.bias",
        "x.lora_magnitude_vector",
        "_orig_mod.1.lora_A.weight",
    ):
        if chance.random() < 0.1:
            found[f"base_model.model.{name}"] = "F32 4 8"
    return found


@pytest.mark.parametrize("seed", range(10))
def test_judged_by_kinds_is_judged_layer_by_layer(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    grouped = 0
    for _ in range(1000):
        asked = config(chance), tensors(chance)
        by_kind = judging.adapter(*asked)
        found = judging.judge(by_kind)
        grouped += len(by_kind.kinds) < len(by_kind.layers)
        with monkeypatch.context() as patch:
            judging.apart(patch.setattr)
            one_by_one = judging.adapter(*asked)
            assert found == judging.judge(one_by_one), asked
            assert len(one_by_one.kinds) == len(one_by_one.layers)
    assert grouped > 100


def test_one_layer_speaks_for_those_of_other_numbers_alone() -> None:
    found = {
        f"base_model.model.layers.{number}.{leaf}.lora_{side}.weight": f"F32 {shape}"
        for number in range(12) for leaf in ("q_proj", "fc1") for side, shape in (("A", "4 8"), ("B", "8 4"))
    }  # fmt: skip
    plain = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "fc1"]}
    assert len(judging.adapter(plain, found).kinds) == 2
    odd = {**found, "base_model.model.layers.3.fc1.lora_A.weight": "F32 2 8"}
    assert len(judging.adapter(plain, odd).kinds) == 3
    for key, value in {
        "target_modules": ["layers.1.fc1"], "rank_pattern": {"q_proj": 4, r".*\.1\.fc1": 8}, "layers_to_transform": [1],
        "exclude_modules": ".*fc1", "modules_to_save": ["1"],
    }.items():  # fmt: skip
        assert len(judging.adapter({**plain, key: value}, found).kinds) == 24, key


def test_the_first_block_tells_what_is_missing_in_all() -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    spoken_for = whole = 0
    for _ in range(2000):
        blocks = chance.choice([1, 2, 12])
        modules = [
            f"{path.format(*[number] * path.count('{}'))}.{leaf}"
            for path in chance.sample(PATHS, chance.randint(1, 3))
            for leaf in chance.sample(LEAVES, chance.randint(1, 3)) for number in range(blocks)
        ]  # fmt: skip
        if chance.random() < 0.3:
            modules.remove(chance.choice(modules))
        present = dict.fromkeys(modules)
        alike = stacks(present)
        spoken_for += alike is not None
        if alike and not targets._gaps(dict.fromkeys(alike.first))[0]:
            whole += 1
            assert targets._gaps(present) == ([], False), modules
    assert spoken_for > 500
    assert whole > 200
