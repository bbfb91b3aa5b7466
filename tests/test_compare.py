"""Whether two adapters compute the same: a set made to fool it, judged against B @ A formed in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ckpt_doctor.facts.subject import Subject
from ckpt_doctor.files.loader import load
from ckpt_doctor.verbs.compare import Comparison, compare

RANDOM = np.random.default_rng(0)
P = "base_model.model."
LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q", "v"]}


def read(path: Path) -> Subject:
    """The adapter in a folder."""
    return Subject(load(str(path)))


def tensors(out: int = 24, inner: int = 16, rank: int = 4) -> dict[str, Any]:
    factors: dict[str, Any] = {}
    for module in ("a.q", "a.v", "b.q"):
        factors[f"{P}{module}.lora_A.weight"] = RANDOM.standard_normal((rank, inner)).astype(np.float32)
        factors[f"{P}{module}.lora_B.weight"] = RANDOM.standard_normal((out, rank)).astype(np.float32)
    return factors


PLAIN = tensors()


def write(folder: Path, config: dict[str, Any], table: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({key: np.ascontiguousarray(value) for key, value in table.items()}, folder / "adapter_model.safetensors")
    return folder


def judge(tmp_path: Path, config: dict[str, Any], table: dict[str, Any], tolerance: float = 1e-6) -> Comparison:
    """A plain adapter against another one."""
    one, other = write(tmp_path / "one", LORA, PLAIN), write(tmp_path / "other", config, table)
    return compare(read(one), read(other), tolerance)


def mapped(change: Any) -> dict[str, Any]:
    return {key: change(key, value) for key, value in PLAIN.items()}


def test_equal_bytes_are_the_same(tmp_path: Path) -> None:
    comparison = judge(tmp_path, LORA, PLAIN)
    assert (comparison.verdict, comparison.largest.difference if comparison.largest else None) == ("same", 0.0)


def test_a_sign_flip_in_one_element(tmp_path: Path) -> None:
    table = mapped(lambda _, value: value.copy())
    table[f"{P}b.q.lora_B.weight"][3, 2] *= -1
    comparison = judge(tmp_path, LORA, table)
    assert comparison.verdict == "different"
    assert [row.name for row in comparison.layers if row.relative > 1e-6] == ["b.q"]


def test_the_difference_is_that_of_the_products(tmp_path: Path) -> None:
    table = mapped(lambda _, value: value + 1e-3 * RANDOM.standard_normal(value.shape).astype(np.float32))
    layers = {row.name: row for row in judge(tmp_path, LORA, table).layers}
    for module, row in layers.items():
        a, b = (PLAIN[f"{P}{module}.lora_{factor}.weight"].astype(np.float64) for factor in "AB")
        x, y = (table[f"{P}{module}.lora_{factor}.weight"].astype(np.float64) for factor in "AB")
        assert row.difference == pytest.approx(np.linalg.norm(2 * (b @ a) - 2 * (y @ x)), rel=1e-9)


def test_rotated_factors_are_the_same_with_every_byte_different(tmp_path: Path) -> None:
    turn = np.linalg.qr(RANDOM.standard_normal((4, 4)))[0]

    def rotate(key: str, value: Any) -> Any:
        return value.astype(np.float64) @ turn if "lora_B" in key else turn.T @ value.astype(np.float64)

    assert judge(tmp_path, LORA, mapped(rotate)).verdict == "same"


def test_a_scale_moved_between_factors_is_the_same(tmp_path: Path) -> None:
    table = mapped(lambda key, value: value * (2 if "lora_A" in key else 0.5))
    assert judge(tmp_path, LORA, table).verdict == "same"


def test_a_scale_moved_into_alpha_is_the_same_and_alpha_alone_is_not(tmp_path: Path) -> None:
    table = mapped(lambda key, value: value * (1 if "lora_A" in key else 0.5))
    assert judge(tmp_path, {**LORA, "lora_alpha": 16}, table).verdict == "same"
    (tmp_path / "x").mkdir()
    assert judge(tmp_path / "x", {**LORA, "lora_alpha": 16}, PLAIN).verdict == "different"


def test_padded_ranks_are_the_same(tmp_path: Path) -> None:
    def pad(key: str, value: Any) -> Any:
        return np.pad(value, [(0, 2), (0, 0)] if "lora_A" in key else [(0, 0), (0, 2)])

    assert judge(tmp_path, {**LORA, "r": 6, "lora_alpha": 12}, mapped(pad)).verdict == "same"


def test_nan_is_the_same_only_as_the_same_bytes(tmp_path: Path) -> None:
    table = mapped(lambda _, value: value.copy())
    table[f"{P}a.q.lora_A.weight"][0, 0] = np.nan
    one, other = write(tmp_path / "1", LORA, table), write(tmp_path / "2", LORA, table)
    assert compare(read(one), read(other)).verdict == "same"
    assert judge(tmp_path, LORA, table).verdict == "different"


def test_a_renamed_module_is_different(tmp_path: Path) -> None:
    table = {key.replace("b.q", "c.q"): value for key, value in PLAIN.items()}
    assert judge(tmp_path, LORA, table).verdict == "different"


def test_a_layer_that_adds_nothing_may_be_missing(tmp_path: Path) -> None:
    extra = {f"{P}c.q.lora_A.weight": np.ones((4, 16), np.float32), f"{P}c.q.lora_B.weight": np.zeros((24, 4), "f4")}
    assert judge(tmp_path, LORA, {**PLAIN, **extra}).verdict == "same"


def test_a_tensor_that_overwrites_a_head_is_different(tmp_path: Path) -> None:
    comparison = judge(tmp_path, LORA, {**PLAIN, P + "head.weight": np.ones((2, 2), np.float32)})
    assert comparison.verdict == "different"
    assert "head.weight" in comparison.reasons[0]


def test_a_bias_under_either_name_is_one(tmp_path: Path) -> None:
    old, new = {P + "a.q.bias": np.ones(24, np.float32)}, {P + "a.q.base_layer.bias": np.ones(24, np.float32)}
    one = write(tmp_path / "1", LORA, {**PLAIN, **old})
    other = write(tmp_path / "2", LORA, {**PLAIN, **old, **new})
    assert compare(read(one), read(other)).verdict == "same"
    third = write(tmp_path / "3", LORA, {**PLAIN, **old, P + "a.q.base_layer.bias": np.zeros(24, np.float32)})
    assert compare(read(one), read(third)).verdict == "different"


def test_prefixes_do_not_matter(tmp_path: Path) -> None:
    assert judge(tmp_path, LORA, {key.removeprefix(P): value for key, value in PLAIN.items()}).verdict == "same"


def test_the_tolerance_is_relative(tmp_path: Path) -> None:
    for number, (factor, verdict) in enumerate([(1 + 1e-7, "same"), (1 + 1e-5, "different")]):
        (tmp_path / str(number)).mkdir()
        table = mapped(lambda key, value, by=factor: value.astype(np.float64) * (by if "lora_B" in key else 1))
        assert judge(tmp_path / str(number), LORA, table).verdict == verdict


def test_adalora_and_its_lora(tmp_path: Path) -> None:
    ada = {"peft_type": "ADALORA", "init_r": 4, "lora_alpha": 8, "target_modules": ["q", "v"]}
    folded, triplets = {}, {}
    for module in ("a.q", "b.q"):
        a, b, e = (RANDOM.standard_normal(shape) for shape in ((4, 16), (24, 4), (4, 1)))
        triplets.update({f"{P}{module}.lora_A": a, f"{P}{module}.lora_B": b, f"{P}{module}.lora_E": e})
        folded.update({f"{P}{module}.lora_A.weight": a * e, f"{P}{module}.lora_B.weight": b})
    one = write(tmp_path / "1", ada, triplets)
    other = write(tmp_path / "2", {**LORA, "lora_alpha": 8 * 4 / (4 + 1e-5)}, folded)
    assert compare(read(one), read(other), 1e-12).verdict == "same"


@pytest.mark.parametrize("option", ["use_dora", "lora_bias", "target_parameters"])
def test_an_option_that_changes_the_meaning_is_a_doubt(tmp_path: Path, option: str) -> None:
    assert judge(tmp_path, {**LORA, option: True}, PLAIN).verdict == "cannot tell"


@pytest.mark.parametrize("option", ["kasa_config", "arrow_config", "monteclora_config", "velora_config", "use_bdlora"])
def test_an_option_of_defaults_is_a_doubt(tmp_path: Path, option: str) -> None:
    """An empty object sets it: PEFT asks whether it is null."""
    assert judge(tmp_path, {**LORA, option: {}}, PLAIN).verdict == "cannot tell"


def test_an_option_that_is_off_is_no_doubt(tmp_path: Path) -> None:
    assert (
        judge(tmp_path, {**LORA, "use_qalora": False, "target_parameters": [], "kasa_config": None}, PLAIN).verdict
        == "same"
    )


def test_a_damaged_adapter_is_a_doubt(tmp_path: Path) -> None:
    one, other = write(tmp_path / "1", LORA, PLAIN), write(tmp_path / "2", LORA, PLAIN)
    (other / "adapter_model.safetensors").write_bytes(b"")
    comparison = compare(read(one), read(other))
    assert comparison.verdict == "cannot tell" or comparison.verdict == "different"


def deltas(
    tmp_path: Path, one: tuple[Any, Any], other: tuple[Any, Any], tolerance: float = 1e-6, **config: Any
) -> Comparison:
    """Two adapters with one layer each, given as B and A in float64."""
    folders = []
    for name, (b, a) in (("one", one), ("other", other)):
        table = {f"{P}a.q.lora_A.weight": np.array(a, "f8"), f"{P}a.q.lora_B.weight": np.array(b, "f8")}
        rank = len(a)
        folders.append(write(tmp_path / name, {**LORA, "r": rank, "lora_alpha": rank, **config}, table))
    return compare(read(folders[0]), read(folders[1]), tolerance)


def heads(tmp_path: Path, one: Any, other: Any, tolerance: float = 1e-6) -> Comparison:
    """Two adapters that differ in a tensor that is no factor."""
    folders = [
        write(tmp_path / name, LORA, {**PLAIN, f"{P}head.weight": np.array(value, "f8")})
        for name, value in (("one", one), ("other", other))
    ]
    return compare(read(folders[0]), read(folders[1]), tolerance)


def relative(comparison: Comparison) -> float:
    assert comparison.largest
    return comparison.largest.relative


I2 = np.eye(2)
EXTREMES = {
    "the square of the norm overflows": ([[1e155, 0], [0, 1]], [[1e155, 0], [0, 1e150]], 1e-5),
    "far apart in one tensor": ([[1e200, 0], [0, 1]], [[1e200, 0], [0, 7]], 6e-200),
    "the norm overflows": ([[1.5e308, 1.5e308]] * 2, [[1.5e308, -1.5e308]] * 2, 2**0.5),
    "the difference overflows": ([[1.5e308, 0], [0, 0]], [[-1.5e308, 0], [0, 0]], 2.0),
    "squares vanish": ([[1e-200, 0], [0, 1e-200]], [[1e-200, 0], [0, 3e-200]], 2**0.5),
    "the smallest numbers": ([[5e-324, 0], [0, 0]], [[1e-323, 0], [0, 0]], 1.0),
    "the first is tiny": ([[1e-200, 0], [0, 0]], [[1.0, 0], [0, 0]], 1e200),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_numbers_are_compared_as_others(tmp_path: Path, name: str) -> None:
    a, other, expected = EXTREMES[name]
    for kind, comparison in (
        ("delta", deltas(tmp_path, (I2, a), (I2, other))), ("B", deltas(tmp_path / "b", (a, I2), (other, I2))),
        ("head", heads(tmp_path / "h", a, other)),
    ):  # fmt: skip
        assert relative(comparison) == pytest.approx(expected, rel=1e-6), kind
        assert comparison.verdict == ("different" if expected > 1e-6 else "cannot tell"), kind


def test_the_least_difference_is_none_without_a_tolerance(tmp_path: Path) -> None:
    one, other, _ = EXTREMES["far apart in one tensor"]
    assert deltas(tmp_path, (I2, one), (I2, other), 0.0).verdict == "different"
    assert heads(tmp_path / "h", one, other, 0.0).verdict == "different"


def test_a_product_that_float64_does_not_have(tmp_path: Path) -> None:
    for number, factor in enumerate((1e-200, 1e200)):
        folder, b, a = tmp_path / str(number), factor * np.array([[1, 2], [3, 4]]), factor * np.array([[5, 6], [7, 8]])
        assert deltas(folder / "same", (b, a), (2 * b, a / 2)).verdict == "same"
        comparison = deltas(folder / "different", (b, a), (b * (1 + 1e-5), a))
        assert (comparison.verdict, relative(comparison)) == ("different", pytest.approx(1e-5))


def test_a_product_that_is_far_smaller_than_its_factors(tmp_path: Path) -> None:
    comparison = deltas(tmp_path, ([[1, 1e-200]], [[0], [1]]), ([[1, 3e-200]], [[0], [1]]))
    assert (comparison.verdict, relative(comparison)) == ("different", pytest.approx(2))


def test_a_scale_moved_far_between_factors_is_the_same(tmp_path: Path) -> None:
    b, a = RANDOM.standard_normal((24, 4)), RANDOM.standard_normal((4, 16))
    by = 2.0**700
    assert deltas(tmp_path, (b, a), (b * by, a / by)).verdict == "same"
    assert deltas(tmp_path / "x", (b, a), (b * by, 1.001 * a / by)).verdict == "different"


@pytest.mark.parametrize("alpha", [1e300, 1e-300])
def test_an_extreme_scale(tmp_path: Path, alpha: float) -> None:
    b, a = RANDOM.standard_normal((24, 4)), RANDOM.standard_normal((4, 16))
    b = b * (1e100 if alpha > 1 else 1e-100)
    assert deltas(tmp_path, (b, a), (2 * b, a / 2), lora_alpha=alpha).verdict == "same"
    comparison = deltas(tmp_path / "x", (b, a), (b * 1.001, a), lora_alpha=alpha)
    assert (comparison.verdict, relative(comparison)) == ("different", pytest.approx(1e-3))


def test_a_scale_that_is_no_number_is_a_doubt(tmp_path: Path) -> None:
    b, a = RANDOM.standard_normal((24, 4)), RANDOM.standard_normal((4, 16))
    assert deltas(tmp_path, (b, a), (2 * b, a / 2), lora_alpha=float("inf")).verdict == "cannot tell"


def test_infinity_is_the_same_only_as_the_same_bytes(tmp_path: Path) -> None:
    assert heads(tmp_path, [np.inf, 1], [np.inf, 2]).verdict == "different"
    assert heads(tmp_path / "x", [np.inf, 1], [np.inf, 1]).verdict == "same"


def test_triplets_whose_product_overflows(tmp_path: Path) -> None:
    ada = {"peft_type": "ADALORA", "init_r": 1, "lora_alpha": 1, "target_modules": ["q"]}
    folders = []
    for name, e in (("one", 1e200), ("half", 2e200), ("other", 1.01e200)):
        a = np.full((1, 4), 1e200 if name != "half" else 0.5e200)
        table = {f"{P}a.q.lora_A": a, f"{P}a.q.lora_B": np.ones((4, 1)), f"{P}a.q.lora_E": np.array([[e]])}
        folders.append(read(write(tmp_path / name, ada, table)))
    assert compare(folders[0], folders[1]).verdict == "same"
    assert compare(folders[0], folders[2]).verdict == "different"
