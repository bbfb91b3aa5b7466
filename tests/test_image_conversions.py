"""Adapters of image models: files that the tools' own code made, converted as they were when PEFT proved them there.

`scripts/check_image_conversions.py SD_SCRIPTS --record` makes the files and what is expected of them.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckpt_doctor.adapter import Adapter, FileRange, TensorInfo
from ckpt_doctor.conversions import Converted, Foreign, Refused, diffusers, kohya
from ckpt_doctor.conversions.image_modules import Names, filled, layouts, models, names_of
from ckpt_doctor.conversions.images import KERNELS
from ckpt_doctor.facts.names import PREFIX, pattern_value
from ckpt_doctor.facts.subject import Subject
from ckpt_doctor.files.formats import safetensors
from ckpt_doctor.files.loader import read_weights
from ckpt_doctor.files.streams import Files, content
from ckpt_doctor.files.values import Array, read

DATA = Path(__file__).parent / "data" / "images"
EXPECTED: dict[str, dict[str, dict[str, list[float]]]] = json.loads((DATA / "expected.json").read_text())
TOOLS = {"kohya": kohya, "lycoris": kohya, "diffusers": diffusers}


def foreign(path: Path) -> Foreign:
    with open(path, "rb") as file:
        metadata = safetensors.metadata(file)
    return Foreign({}, metadata, read_weights(str(path)))


def converted(name: str) -> list[Converted]:
    return TOOLS[name.partition("-")[0]].to_peft(foreign(DATA / f"{name}.safetensors"))


def values(info: TensorInfo) -> Array:
    with Files() as files:
        return read(info, content(info, files))


def factors(one: Converted) -> dict[str, dict[str, Array]]:
    """Module → its factors."""
    found: dict[str, dict[str, Array]] = {}
    for key, info in one.tensors.items():
        module, factor = key.removeprefix(PREFIX).removesuffix(".weight").rsplit(".", 1)
        found.setdefault(module, {})[factor] = values(info)
    return found


def delta(module: str, of: dict[str, Array]) -> Array:
    """What the weight of a layer changes by, without the scale, as `[out, the rest]`."""
    if "lora_A" in of:
        a, b = of["lora_A"], of["lora_B"]
        return b.reshape(len(b), -1) @ a.reshape(len(a), -1)
    if "hada_t1" in of:
        rebuilt = [
            np.einsum("ijkl,jr,ip->prkl", of[f"hada_t{at}"], of[f"hada_w{at}_b"], of[f"hada_w{at}_a"]) for at in (1, 2)
        ]
        product: Array = rebuilt[0] * rebuilt[1]
        return product.reshape(len(product), -1)
    if "hada_w1_a" in of:
        whole: Array = (of["hada_w1_a"] @ of["hada_w1_b"]) * (of["hada_w2_a"] @ of["hada_w2_b"])
        return whole
    w1, w2 = (of[f"lokr_w{at}"] if f"lokr_w{at}" in of else of[f"lokr_w{at}_a"] @ of[f"lokr_w{at}_b"] for at in (1, 2))
    if w2.ndim == 2 and "lokr_w2" not in of and module.rpartition(".")[2] in KERNELS:
        w2 = w2.reshape(len(w2), -1, 3, 3)
    product = np.kron(w1[:, :, None, None] if w2.ndim == 4 else w1, w2)
    return product.reshape(len(product), -1)


def scale(config: dict[str, Any], module: str) -> float:
    alpha = config.get("lora_alpha", config.get("alpha"))
    rank = pattern_value(config.get("rank_pattern"), module, config["r"])
    return float(pattern_value(config.get("alpha_pattern"), module, alpha)) / float(rank)


def probes(one: Converted) -> dict[str, list[float]]:
    """As `scripts/check_image_conversions.py: probes`."""
    found = {}
    for module, of in factors(one).items():
        change = delta(module, of) * scale(one.config, module)
        rows, columns = (np.arange(size) for size in change.shape)
        found[module] = [float(np.cos(rows) @ change @ np.cos(2 * columns + 1))]
        if "lora_magnitude_vector" in of:
            found[module].append(float(np.cos(rows) @ of["lora_magnitude_vector"].reshape(-1)))
    return found


def check(found: list[Converted], expected: dict[str, dict[str, list[float]]]) -> None:
    parts = {one.part or next(iter(expected)): probes(one) for one in found}
    assert parts.keys() == expected.keys()
    for part, modules in expected.items():
        assert parts[part].keys() == modules.keys()
        for module, sums in modules.items():
            assert parts[part][module] == pytest.approx(sums, rel=1e-4, abs=1e-6), module


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_becomes_what_was_proved(name: str) -> None:
    check(converted(name), EXPECTED[name])


def subject(one: Converted, folder: Path) -> Subject:
    return Subject(Adapter(str(folder), str(folder), one.config, one.tensors, "safetensors"))


def written(made: Foreign, path: Path) -> Foreign:
    """The same in a file."""
    data, tensors = b"", {}
    for name, info in made.tensors.items():
        with Files() as files:
            raw = content(info, files)
        tensors[name] = info._replace(source=FileRange(str(path), len(data), len(raw)))
        data += raw
    path.write_bytes(data)
    return made._replace(tensors=tensors)


FLUX = {"base_model_class": "FluxTransformer2DModel", "parent_library": "diffusers.models"}
LORAS = sorted(name for name in EXPECTED if not name.startswith(("lycoris-loha", "lycoris-lokr")))


@pytest.mark.parametrize("name", LORAS)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    for one in converted(name):
        part = one.part or next(iter(expected))
        wanted = {part: expected[part]}
        kept = written(Foreign({}, {}, one.tensors), tmp_path / f"{part}.peft")
        it = subject(one._replace(tensors=dict(kept.tensors)), tmp_path / part)
        check(diffusers.to_peft(written(diffusers.from_peft(it), tmp_path / "d")), wanted)
        reason = {"text_encoder": "lora_te_", "transformer": "several scales"}.get(part, "")
        if part == "text_encoder" or "flux-alphas" in name:
            it.config["auto_mapping"] = FLUX if part == "transformer" else None
            with pytest.raises(Refused, match=reason):
                kohya.from_peft(it)
        else:
            check(kohya.to_peft(written(kohya.from_peft(it), tmp_path / "k")), wanted)


@pytest.mark.parametrize("separator", [".", "_"])
def test_each_name_of_a_table_is_found_and_no_other(separator: str) -> None:
    tables = {name: (names_of(name, separator), model.modules) for name, model in models().items()}
    tables |= {name: (Names(layout.modules, separator), tuple(layout.modules)) for name, layout in layouts().items()}
    for index, templates in tables.values():
        for template in templates:
            numbers = [str(7 + at) for at in range(template.count("#"))]
            assert index.of(filled(template, numbers).replace(".", separator)) == (template, numbers)
    assert names_of("UNet2DConditionModel", separator).of(f"down_blocks{separator}01{separator}x") is None


def test_a_layout_says_modules_of_its_class_and_each_row_once() -> None:
    for layout in layouts().values():
        known = set(models()[layout.model].modules)
        for ways in layout.modules.values():
            for pieces in ways.values():
                rows = sorted(edges for shares in pieces.values() for edges in shares)
                assert [first for first, _ in rows] == [0, *(last for _, last in rows[:-1])]
                index = names_of(layout.model)
                assert all(piece in known or index.of(piece.replace("#", "0")) for piece in pieces)


class Written:
    """Tensors that are written to a file, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = b""
        self.tensors: dict[str, TensorInfo] = {}

    def add(self, name: str, array: Any) -> Written:
        raw = np.asarray(array, "<f4").tobytes()
        self.tensors[name] = TensorInfo("F32", np.shape(array), FileRange(str(self.path), len(self.data), len(raw)))
        self.data += raw
        self.path.write_bytes(self.data)
        return self

    def lora(self, name: str, out: int, columns: int, *, alpha: float | None = 3.0, rank: int = 2) -> Written:
        rng = np.random.default_rng(len(self.tensors))
        self.add(f"{name}.lora_down.weight", rng.standard_normal((rank, columns)))
        self.add(f"{name}.lora_up.weight", rng.standard_normal((out, rank)))
        return self if alpha is None else self.add(f"{name}.alpha", alpha)

    def converted(self, tool: Any = kohya) -> list[Converted]:
        made: list[Converted] = tool.to_peft(Foreign({}, {}, self.tensors))
        return made


def test_rows_of_a_projection_in_one_go_to_its_parts(tmp_path: Path) -> None:
    """Flux: linear1 is q, k, v and four times as much; the modulation of the last layer has its halves swapped."""
    file = Written(tmp_path / "f")
    file.lora("lora_unet_single_blocks_3_linear1", 28, 4).lora("lora_unet_final_layer_adaLN_modulation_1", 8, 4)
    (one,) = file.converted()
    of = factors(one)
    raw = {name: values(info) for name, info in file.tensors.items()}
    up = raw["lora_unet_single_blocks_3_linear1.lora_up.weight"]
    block = "single_transformer_blocks.3"
    for module, first, last in (("attn.to_q", 0, 4), ("attn.to_k", 4, 8), ("attn.to_v", 8, 12), ("proj_mlp", 12, 28)):
        assert (of[f"{block}.{module}"]["lora_B"] == up[first:last]).all()
        assert (of[f"{block}.{module}"]["lora_A"] == raw["lora_unet_single_blocks_3_linear1.lora_down.weight"]).all()
    swapped = raw["lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"]
    assert (of["norm_out.linear"]["lora_B"] == np.concatenate([swapped[4:], swapped[:4]])).all()
    assert {scale(one.config, module) for module in of} == {1.5}


def test_parts_of_a_projection_are_put_together(tmp_path: Path) -> None:
    """Each B in its rows and columns, zeros for a part that is not there; one A where the parts share it."""
    file = Written(tmp_path / "f")
    rng = np.random.default_rng(1)
    block = f"{PREFIX}single_transformer_blocks.0"
    for module, rows in (("attn.to_q", 4), ("attn.to_v", 4), ("proj_mlp", 16)):
        file.add(f"{block}.{module}.lora_A.weight", rng.standard_normal((2, 4)))
        file.add(f"{block}.{module}.lora_B.weight", rng.standard_normal((rows, 2)))
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["to_q", "to_v", "proj_mlp"]}
    with pytest.raises(Refused, match=r"Flux.* and Hunyuan.* alike"):
        kohya.from_peft(subject(Converted("", config, file.tensors), tmp_path))
    config["auto_mapping"] = FLUX
    one = Converted("transformer", config, file.tensors)
    made = kohya.from_peft(subject(one, tmp_path))
    assert made.tensors["lora_unet_single_blocks_0_linear1.lora_up.weight"].shape == (28, 6)
    assert float(values(made.tensors["lora_unet_single_blocks_0_linear1.alpha"])) == 9
    (back,) = kohya.to_peft(written(made, tmp_path / "made"))
    before, after = probes(one), probes(back)
    assert after.pop("single_transformer_blocks.0.attn.to_k") == [0.0]
    assert after == {module: pytest.approx(sums) for module, sums in before.items()}


UNET = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
T5 = "lora_te3_encoder_block_0_layer_0_SelfAttention_q"
REFUSED = {
    "another component": (lambda file: file.lora(T5, 4, 4), "lora_te3_.* component"),
    "a name that no table has": (lambda file: file.lora("lora_unet_blocks_0_strange", 4, 4), "of no layout"),
    "names of two layouts": (
        lambda file: file.lora(UNET, 4, 4).lora("lora_unet_double_blocks_0_img_attn_qkv", 12, 4), "of no layout",
    ),
    "a number that is none": (lambda file: file.lora(UNET.replace("_0_", "_00_"), 4, 4), "of no layout"),
    "three factors": (lambda file: file.lora(UNET, 4, 4).add(f"{UNET}.lora_mid.weight", [[1.0]]), "three factors"),
    "a scalar": (lambda file: file.lora(UNET, 4, 4).add(f"{UNET}.scalar", 1.0), "scalar has no counterpart"),
    "alpha 0": (lambda file: file.lora(UNET, 4, 4, alpha=0.0), "alpha of .* is 0"),
    "alpha that is no number": (lambda file: file.lora(UNET, 4, 4, alpha=float("nan")), "alpha of .* is nan"),
    "two alphas": (lambda file: file.lora(UNET, 4, 4, alpha=None).add(f"{UNET}.alpha", [1, 2]), "one number"),
    "a magnitude by columns": (
        lambda file: file.lora(UNET, 6, 4).add(f"{UNET}.dora_scale", np.ones((1, 4))), "one number a row",
    ),
    "half a DoRA": (
        lambda file: file.lora(UNET, 6, 4).add(f"{UNET}.dora_scale", np.ones((6, 1))).lora(UNET[:-1] + "k", 6, 4),
        "some have none",
    ),
    "one factor": (lambda file: file.add(f"{UNET}.lora_up.weight", np.ones((4, 2))), "not all tensors"),
    "two methods": (
        lambda file: file.lora(UNET, 4, 4).add(f"{UNET[:-1]}k.lokr_w1", [[1.0]]).add(f"{UNET[:-1]}k.lokr_w2", [[1.0]]),
        "LOKR and LORA",
    ),
    "another model's layer": (lambda file: file.lora("lora_unet_single_blocks_0_linear1", 36, 4), "not the shape"),
    "a product that cannot be cut": (
        lambda file: file.add("lora_unet_double_blocks_0_img_attn_qkv.lokr_w1", np.ones((3, 1))).add(
            "lora_unet_double_blocks_0_img_attn_qkv.lokr_w2", np.ones((4, 4))
        ),
        "cannot be cut",
    ),
    "sizes that PEFT does not make": (
        lambda file: file.add(f"{UNET}.lokr_w1", np.ones((6, 2))).add(f"{UNET}.lokr_w2", np.ones((2, 6))),
        "no rank and decompose_factor",
    ),
    "two names for one": (lambda file: file.lora(
        "lora_te_text_model_encoder_layers_0_mlp_fc1", 4, 4).lora("lora_te1_text_model_encoder_layers_0_mlp_fc1", 4, 4),
        "two sets of names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(Refused, match=reason):
        make(Written(tmp_path / "f")).converted()


Q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
T = "transformer.transformer_blocks.0.attn.to_q"


def pair(file: Written, module: str) -> Written:
    return file.add(f"{module}.lora_A.weight", np.ones((2, 4))).add(f"{module}.lora_B.weight", np.ones((4, 2)))


@pytest.mark.parametrize(("make", "reason"), [
    (lambda file: pair(file, Q).add(f"{Q}.alpha", 1.0), "read by no loader"),
    (lambda file: pair(pair(file, T), T[:-1] + "k").add(f"{T}.alpha", 1.0), "to_k has no alpha"),
    (lambda file: pair(file, T).add("transformer.norm.weight", [1.0]), "transformer.norm.weight is no tensor"),
    (lambda file: pair(file, Q).add("x.lora.down.weight", [[1.0]]), "some tensors name their component"),
    (lambda file: file.add("x.lora.down.weight", [[1.0]]), "names no component"),
    (lambda file: pair(file, Q).add(f"{Q}.lora.up.weight", np.ones((4, 2))), "two tensors stand for"),
    (lambda file: file.add(f"{Q}.lora_A.weight", np.ones((2, 4))), "has factors"),
])  # fmt: skip
def test_what_diffusers_does_not_read_is_refused(make: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=reason):
        make(Written(tmp_path / "f")).converted(diffusers)


@pytest.mark.parametrize(("metadata", "reason"), [
    ("[", "no JSON object"), ('{"unet.r": 2}', "no target_modules"),
    ('{"unet.target_modules": ["to_q"], "unet.peft_type": "LOHA"}', "LOHA"),
])  # fmt: skip
def test_metadata_that_tells_no_config_is_refused(metadata: str, reason: str, tmp_path: Path) -> None:
    tensors = pair(Written(tmp_path / "f"), Q).tensors
    with pytest.raises(Refused, match=reason):
        diffusers.to_peft(Foreign({}, {"lora_adapter_metadata": metadata}, tensors))


def test_a_layer_whose_name_ends_another_keeps_its_rank(tmp_path: Path) -> None:
    """Flux's proj_out is the end of other names, and PEFT takes the first of a pattern that fits."""
    file = Written(tmp_path / "f")
    for module, rank in (("proj_out", 3), ("single_transformer_blocks.0.proj_out", 2), ("x_embedder", 2)):
        file.add(f"transformer.{module}.lora_A.weight", np.ones((rank, 4)))
        file.add(f"transformer.{module}.lora_B.weight", np.ones((4, rank)))
    (one,) = file.converted(diffusers)
    pattern = one.config["rank_pattern"]
    assert list(pattern) == ["single_transformer_blocks.0.proj_out", "proj_out"]
    assert [pattern_value(pattern, module, 2) for module in ("proj_out", "single_transformer_blocks.0.proj_out")] == [
        3,
        2,
    ]


@pytest.mark.parametrize(("config", "reason"), [
    ({"lora_alpha": 0}, "makes the rank of an alpha of 0"), ({"lora_bias": True}, "lora_bias has no counterpart"),
    ({"peft_type": "LOHA"}, "LOHA is no LoRA"), ({"lora_alpha": 1.7e308, "use_rslora": True}, "scaled by"),
])  # fmt: skip
def test_what_sd_scripts_has_no_place_for_is_refused(config: dict[str, Any], reason: str, tmp_path: Path) -> None:
    module = Q.removeprefix("unet.")
    file = pair(Written(tmp_path / "f"), PREFIX + module)
    whole = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["to_q"], **config}
    with pytest.raises(Refused, match=reason):
        kohya.from_peft(subject(Converted("", whole, file.tensors), tmp_path))


@pytest.mark.parametrize(("folder", "width", "part"), [
    ("text_encoder_2", 4, "text_encoder_2"), ("any", 768, "text_encoder"), ("any", 1280, "text_encoder_2"),
    ("any", 1024, ""), ("text_encoder_3", 768, "text_encoder"), ("text_encoder_3", 4096, ""),
])  # fmt: skip
def test_the_text_encoder_is_told_by_folder_or_width(folder: str, width: int, part: str, tmp_path: Path) -> None:
    file, module = Written(tmp_path / "f"), "text_model.encoder.layers.0.self_attn.q_proj"
    file.add(f"{PREFIX}{module}.lora_A.weight", np.ones((1, width))).add(
        f"{PREFIX}{module}.lora_B.weight", np.ones((4, 1))
    )
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    it = subject(Converted("", config, file.tensors), tmp_path / folder)
    if part:
        assert {name.partition(".")[0] for name in diffusers.from_peft(it).tensors} == {part}
    else:
        with pytest.raises(Refused, match="which text encoder"):
            diffusers.from_peft(it)


def test_a_module_of_no_image_model_is_named(tmp_path: Path) -> None:
    file = pair(Written(tmp_path / "f"), f"{PREFIX}model.layers.0.self_attn.q_proj")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["q_proj"]}
    for tool in (diffusers, kohya):
        with pytest.raises(Refused, match=r"model.layers.0.self_attn.q_proj is a module of no image model"):
            tool.from_peft(subject(Converted("", config, file.tensors), tmp_path))


def test_a_class_that_no_table_has_is_refused(tmp_path: Path) -> None:
    """A ControlNet has the names of a UNet."""
    file = pair(Written(tmp_path / "f"), PREFIX + Q.removeprefix("unet."))
    config: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["to_q"]}
    config["auto_mapping"] = {"base_model_class": "ControlNetModel", "parent_library": "diffusers"}
    for tool in (diffusers, kohya):
        with pytest.raises(Refused, match="ControlNetModel"):
            tool.from_peft(subject(Converted("", config, file.tensors), tmp_path))


def test_an_alpha_keeps_its_number() -> None:
    from ckpt_doctor.conversions.images import constant, number

    for value, dtype in ((4.0, "F32"), (0.1, "F64"), (1e300, "F64")):
        info = constant(value)
        assert info.dtype == dtype
        assert number("alpha", info) == value
    half = constant(1.0)._replace(dtype="BF16")
    assert number("alpha", half._replace(source=half.source._replace(data=struct.pack("<H", 0x4040)))) == 3  # type: ignore[union-attr]


def test_fix_writes_a_folder_for_each_component_and_back(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    name = "kohya-sd1-alphas-by-sd-scripts"
    (source / "mine.safetensors").write_bytes((DATA / f"{name}.safetensors").read_bytes())
    assert "repair it: ckpt-doctor fix" in run("scan", source).output
    made = run("fix", source, tmp_path / "out")
    assert made.exit_code == 0, made.output
    assert made.output.count("same function: bit-exact") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["text_encoder", "unet"]
    assert run("scan", "--for", "peft", tmp_path / "out" / "unet").exit_code == 0
    for form, file in (("kohya", "kohya_lora.safetensors"), ("diffusers", "pytorch_lora_weights.safetensors")):
        back = run("fix", "--to", form, tmp_path / "out" / "unet", tmp_path / form)
        assert back.exit_code == 0, back.output
        assert run("verify", tmp_path / form).exit_code == 0
        tool = TOOLS[form]
        check(tool.to_peft(foreign(tmp_path / form / file)), {"unet": EXPECTED[name]["unet"]})


def test_fix_says_why_it_does_not_convert(run: Any, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    source = tmp_path / "in"
    source.mkdir()
    save_file(
        {f"{T5}.{leaf}": np.ones((2, 2), "f4") for leaf in ("lora_down.weight", "lora_up.weight")},
        source / "a.safetensors",
    )
    found = run("fix", source, tmp_path / "out")
    assert found.exit_code == 1
    assert "cannot be converted" in found.output
    assert "lora_te3_" in found.output
    assert "fix" not in run("scan", source).output.partition("next:")[2]
