"""What other tools wrote: read as PEFT's, to the same function; and written in their form."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pytest
from conftest import FIXTURES
from safetensors.numpy import load_file, save_file

from ckpt_doctor.adapter import DamagedFile
from ckpt_doctor.facts.subject import Subject
from ckpt_doctor.files.loader import read_weights
from ckpt_doctor.verbs.conversion import opened

DATA = Path(__file__).parent / "data/conversions"
MLX = DATA / "mlx"
CLOSE = 1e-5
"""The difference of logits that rounding makes in float32."""


def fixed(run: Any, *arguments: object) -> dict[str, Any]:
    """The one result of a fix that has to be written."""
    result = run("fix", *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["results"]
    assert found["written"]
    return dict(found)


def logits(model: Path, adapter: Path, tokens: Any) -> Any:
    """What the real PEFT and transformers compute."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        return PeftModel.from_pretrained(base, str(adapter)).eval()(torch.tensor(tokens)).logits.numpy()


@pytest.mark.parametrize("kind", ["lora", "dora", "embedding"])
def test_peft_computes_what_mlx_computes(run: Any, tmp_path: Path, kind: str) -> None:
    outputs = load_file(MLX / "outputs.safetensors")
    fixed(run, MLX / kind, tmp_path / "out", "--base", MLX / "model")
    found = logits(MLX / "model", tmp_path / "out", outputs["tokens"].tolist())
    assert np.abs(outputs[kind] - outputs["plain"]).max() > 0.1
    assert np.abs(found - outputs[kind]).max() < CLOSE


@pytest.mark.parametrize("kind", ["lora", "dora", "embedding"])
def test_there_and_back_is_the_same_to_the_bit(run: Any, tmp_path: Path, kind: str) -> None:
    base = "--base", MLX / "model"
    fixed(run, MLX / kind, tmp_path / "peft", *base)
    fixed(run, tmp_path / "peft", tmp_path / "back", "--to", "mlx", *base)
    before, after = (load_file(folder / "adapters.safetensors") for folder in (MLX / kind, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    old, new = (json.loads((folder / "adapter_config.json").read_text()) for folder in (MLX / kind, tmp_path / "back"))
    assert old["fine_tune_type"] == new["fine_tune_type"]
    for key in ("rank", "scale", "dropout"):
        assert np.float32(old["lora_parameters"][key]) == np.float32(new["lora_parameters"][key])
    assert run("verify", tmp_path / "back").exit_code == 0


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "experts": ("experts", {}, "is a layer of experts"),
    "an embedding without its model": ("embedding", {}, "may be an embedding"),
    "no scale": ("lora", {"lora_parameters": {"rank": 3}}, "no rank and scale"),
    "a scale that is infinite": ("lora", {"lora_parameters": {"rank": 3, "scale": float("inf")}}, "no rank and scale"),
    "alpha, which releases read otherwise": (
        "lora", {"lora_parameters": {"rank": 3, "scale": 10.0, "alpha": 16.0}, "fine_tune_type": None}, "before 0.15",
    ),
    "another rank": ("lora", {"lora_parameters": {"rank": 4, "scale": 10.0}}, "not of rank 4"),
    "whole weights": ("lora", {"fine_tune_type": "full"}, "is no LoRA"),
    "a magnitude without DoRA": ("dora", {"fine_tune_type": "lora"}, "no tensor of a LoRA"),
    "a module that keys do not name": (
        "lora", {"lora_parameters": {"rank": 3, "scale": 0.7, "keys": ["self_attn.v_proj"]}},
        "mlp.down_proj is not in the keys",
    ),
    "DoRA without a magnitude": ("lora", {"fine_tune_type": "dora"}, "has not all of"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "config", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(
    run: Any, scan: Any, tmp_path: Path, kind: str, config: dict[str, Any], reason: str
) -> None:
    shutil.copytree(MLX / kind, tmp_path / "in")
    path = tmp_path / "in/adapter_config.json"
    values = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    report = scan(tmp_path / "in")
    (finding,) = report["findings"]
    assert finding["code"] == "CD024"
    assert "cannot be converted" in finding["message"]
    assert reason in finding["message"]
    assert not any(way["command"] for way in report["next"])
    result = run("fix", tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert reason in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_keys_that_mlx_itself_cannot_place_are_to_be_written_anew(scan: Any, tmp_path: Path) -> None:
    shutil.copytree(MLX / "lora", tmp_path / "in")
    path = tmp_path / "in/adapter_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"lora_parameters": {"rank": 3, "scale": 0.7, "keys": ["auto"]}})
    )
    (way,) = scan(tmp_path / "in")["next"]
    assert '"mlp.down_proj"' in way["text"]
    assert "mlx_lm" not in way["text"]


def test_a_config_alone_does_not_tell_the_names_of_a_model(run: Any, tmp_path: Path) -> None:
    shutil.copytree(MLX / "lora", tmp_path / "in")
    path = tmp_path / "in/adapters.safetensors"
    tensors = load_file(path)
    save_file({f"language_model.{name}": value for name, value in tensors.items()}, path)
    config = tmp_path / "in/adapter_config.json"
    values = {"rank": 3, "scale": 0.7}
    config.write_text(json.dumps({"lora_parameters": values, "num_layers": -1}))
    for base in (MLX / "model/config.json", MLX / "model"):
        assert run("fix", tmp_path / "in", tmp_path / "out", "--base", base).exit_code == 1
        assert not (tmp_path / "out").exists()


def test_mlx_adapts_no_more_than_the_last_layers(run: Any, tmp_path: Path) -> None:
    """What lies in the file for others was left out by mlx_lm, and is rejected by newer ones."""
    shutil.copytree(MLX / "lora", tmp_path / "in")
    path = tmp_path / "in/adapters.safetensors"
    tensors = load_file(path)
    save_file({**tensors, **{name.replace(".1.", ".0."): value for name, value in tensors.items()}}, path)
    result = run("fix", tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "is not in the last 1 layers" in " ".join(result.output.split())
    config = tmp_path / "in/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_layers": 2}))
    fixed(run, tmp_path / "in", tmp_path / "out")


def test_a_head_that_is_tied_is_refused(run: Any, tmp_path: Path) -> None:
    """mlx_lm would adapt the head, too, and PEFT would not."""
    for there in (True, None):
        shutil.copytree(MLX / "model", tmp_path / f"model-{there}")
        path = tmp_path / f"model-{there}/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": there}))
        result = run("fix", MLX / "embedding", tmp_path / "out", "--base", tmp_path / f"model-{there}")
        assert result.exit_code == 1
        assert "tie_word_embeddings" in result.output


def test_a_proposed_command_converts(run: Any, scan: Any, tmp_path: Path) -> None:
    shutil.copytree(MLX / "lora", tmp_path / "in")
    report = scan(tmp_path / "in")
    command = next(way["command"] for way in report["next"] if way["command"])
    assert run(*command.split()[1:]).exit_code == 0
    record = json.loads((tmp_path / "in-fixed/ckpt-doctor.json").read_text())
    assert [*record["sha256"]["before"]] == ["adapter_config.json", "adapters.safetensors"]
    assert record["repairs"] == [{"title": "convert adapters.safetensors to PEFT's form", "codes": ["CD024"]}]
    assert run("verify", tmp_path / "in-fixed").exit_code == 0
    assert run("compare", tmp_path / "in", tmp_path / "in-fixed").exit_code == 0
    assert run("fix", "--in-place", tmp_path / "in").exit_code == 1


def test_what_mlx_has_no_place_for_is_refused(run: Any, tmp_path: Path) -> None:
    for name, reason in (("lora-head-bert-0.9.0", "ignores"), ("lora-plain-0.21.2", "may be called otherwise")):
        result = run("fix", FIXTURES / name, tmp_path / "out", "--to", "mlx")
        assert result.exit_code == 1
        assert reason in result.output
        assert not (tmp_path / "out").exists()


def test_a_head_goes_to_mlx_only_where_it_is_not_tied(run: Any, tmp_path: Path) -> None:
    """A model of mlx_lm whose head is tied has none."""
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "in")
    factors = {"A": np.ones((4, 8), "float32"), "B": np.ones((32, 4), "float32")}
    tensors = {f"base_model.model.lm_head.lora_{name}.weight": value for name, value in factors.items()}
    save_file(tensors, tmp_path / "in/adapter_model.safetensors")
    path = tmp_path / "in/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": ["lm_head"]}))
    model = tmp_path / "config.json"
    for tied in (None, True, False):
        model.write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": tied}))
        named = [] if tied is None else ["--base", model]
        result = run("fix", tmp_path / "in", tmp_path / "out", "--to", "mlx", *named)
        assert (result.exit_code, (tmp_path / "out").exists()) == ((1, False) if tied is not False else (0, True))


def test_options_that_are_of_peft_do_not_go_with_another_form(run: Any, tmp_path: Path) -> None:
    for more in (("--for", "vllm"), ("--in-place",), ("--for-training",), ("--weights", "bin"), ("--prove",)):
        assert run("fix", MLX / "lora", tmp_path / "out", "--to", "mlx", *more).exit_code == 2


def two(folder: Path, **edits: Any) -> Path:
    """A file with two adapters, as a model that holds both would be saved, under the config of one."""
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    both = {
        key.replace(".weight", f".{name}.weight"): value * times
        for key, value in tensors.items()
        for name, times in (("first", 1), ("second", 2))
    }
    save_file({**both, **edits}, folder / "adapter_model.safetensors")
    return folder


def held(out: Path) -> None:
    """The two are written, each with its numbers."""
    assert sorted(path.name for path in out.iterdir()) == ["first", "second"]
    first, second = (load_file(out / name / "adapter_model.safetensors") for name in ("first", "second"))
    plain = load_file(FIXTURES / "lora-plain-0.21.2/adapter_model.safetensors")
    assert all((first[key] == value).all() and (second[key] == 2 * value).all() for key, value in plain.items())


def test_two_adapters_in_one_file_are_split_where_it_is_told_what_scales_each(
    run: Any, scan: Any, tmp_path: Path
) -> None:
    folder = two(tmp_path / "in")
    config = folder / "adapter_config.json"
    report = scan(folder)
    assert report["findings"][0]["code"] == "CD024"
    assert "lay that of each in a folder of its name" in report["findings"][0]["message"]
    command = f"ckpt-doctor fix {folder} OUT --adapter-config FILE"
    assert [way["text"] for way in report["next"]] == [f"type `{command}`"]
    assert run("fix", folder, tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out").exists()

    typed = command.replace("OUT", str(tmp_path / "out")).replace("FILE", str(config))
    assert run(*typed.split()[1:]).exit_code == 0
    held(tmp_path / "out")
    assert run("compare", tmp_path / "out/first", FIXTURES / "lora-plain-0.21.2").exit_code == 0
    for name, alpha in (("first", 8), ("second", 3)):
        (folder / name).mkdir()
        (folder / name / "adapter_config.json").write_text(
            json.dumps({**json.loads(config.read_text()), "lora_alpha": alpha})
        )
    (split, *alone) = json.loads(run("scan", folder, "--format", "json").stdout)["reports"]
    assert len(alone) == 2  # what holds a config is looked at
    assert run(*split["next"][0]["command"].split()[1:]).exit_code == 0
    held(tmp_path / "in-fixed")
    configs = (json.loads((tmp_path / "in-fixed" / name / config.name).read_text()) for name in ("first", "second"))
    assert [one["lora_alpha"] for one in configs] == [8, 3]


def test_what_cannot_be_converted_is_not_compared(run: Any, tmp_path: Path) -> None:
    """Of two adapters in one file neither is the adapter, and of what was not read nothing differs."""
    result = run("compare", two(tmp_path / "in"), FIXTURES / "lora-plain-0.21.2")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "holds 2 adapters" in " ".join(result.stderr.split())
    result = run("compare", LORALIB / "lora.pt", FIXTURES / "lora-plain-0.21.2")
    assert (result.exit_code, "lora_alpha is in no tensor" in " ".join(result.stderr.split())) == (2, True)


SPLIT: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "ADALORA"}, "is of ADALORA, and the tensors are of LORA"),
    "another rank": ({"r": 8}, "the ranks in adapter_config.json are not those"),
    "other targets": ({"target_modules": ["q"]}, "does not name"),
    "DoRA": ({"use_dora": True}, "use_dora in adapter_config.json is not as the tensors are"),
}


@pytest.mark.parametrize(("config", "reason"), SPLIT.values(), ids=SPLIT)
def test_a_config_that_is_not_of_each_is_refused(run: Any, tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    folder = two(tmp_path / "in")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    result = run("fix", folder, tmp_path / "out", "--adapter-config", path)
    said = " ".join(result.stdout.split())
    assert (result.exit_code, reason in said) == (1, True)
    assert f"by hand: type `ckpt-doctor fix {folder} OUT --adapter-config FILE`" in said
    assert not (tmp_path / "out").exists()


def test_parts_of_a_quantised_factor_are_no_adapters(scan: Any, tmp_path: Path) -> None:
    """As compressed-tensors names them (weight_packed, weight_scale): PEFT ignores them in silence."""
    folder = tmp_path / "packed"
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", folder)
    tensors = {}
    for key, value in load_file(folder / "adapter_model.safetensors").items():
        tensors.update({key: value} if ".q." in key else {f"{key}_packed": value, f"{key}_scale": value})
    save_file(tensors, folder / "adapter_model.safetensors")
    report = scan(folder)
    assert [finding["code"] for finding in report["findings"] if finding["severity"] == "error"] == ["CD520"]
    assert report["verdicts"]["peft==0.21.2"] == "misloads"


@pytest.mark.parametrize("name", ["../out", "a/b", "x" * 80])
def test_a_name_that_is_none_of_a_folder_is_not_written(run: Any, tmp_path: Path, name: str) -> None:
    evil = {f"base_model.model.blocks.0.q.lora_A.{name}.weight": np.ones((4, 16), "float32")}
    assert run("fix", two(tmp_path / "in", **evil), tmp_path / "out/below").exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_prefix_of_peft_goes_off_the_targets(run: Any, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "in")
    path = tmp_path / "in/adapter_config.json"
    config = json.loads(path.read_text())
    with_prefix = [f"base_model.model.{name}" for name in Subject(opened(str(tmp_path / "in"))).layers]
    path.write_text(json.dumps({**config, "target_modules": with_prefix}))
    found = fixed(run, tmp_path / "in", tmp_path / "out")
    assert {"title": "take PEFT's prefix off target_modules", "codes": ["CD309"]} in found["repairs"]
    assert found["proof"]["verdict"] == "same"
    assert run("compare", tmp_path / "out", FIXTURES / "lora-plain-0.21.2").exit_code == 0
    path.write_text(json.dumps({**config, "target_modules": with_prefix[1:]}))  # which one is meant is not known
    assert run("fix", tmp_path / "in", tmp_path / "other").exit_code == 1


@pytest.mark.parametrize("targets", [["q", "conv", "embed_tokens"], ".*(q|conv)"], ids=["list", "regex"])
def test_what_adalora_has_no_layer_for_goes_off_the_targets(run: Any, tmp_path: Path, targets: Any) -> None:
    """In the real PEFT: what rejects it loads it then, to the same outputs."""
    import peft
    import torch
    from safetensors.torch import save_file as save

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.config = {"model_type": "custom"}
            self.embed_tokens = torch.nn.Embedding(32, 8)
            self.conv = torch.nn.Conv1d(8, 8, 3, padding=1)
            self.q = torch.nn.Linear(8, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.q(self.conv(self.embed_tokens(x).transpose(1, 2)).transpose(1, 2)))

    config = peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, tinit=1, tfinal=2, target_modules=["q"])
    model = peft.get_peft_model(Net(), config).eval()
    for name, value in model.named_parameters():
        if "lora_" in name:
            value.data = torch.randn(value.shape)
    model.save_pretrained(tmp_path / "in")
    (tmp_path / "base").mkdir()
    save(Net().state_dict(), tmp_path / "base/model.safetensors")
    (tmp_path / "base/config.json").write_text(json.dumps({"vocab_size": 32}))
    path = tmp_path / "in/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": targets}))
    with pytest.raises(ValueError, match="is not supported"):
        peft.PeftModel.from_pretrained(Net(), str(tmp_path / "in"))
    found = fixed(run, tmp_path / "in", tmp_path / "out", "--base", tmp_path / "base")
    assert "CD332" in [code for step in found["repairs"] for code in step["codes"]]
    x = torch.arange(10).reshape(2, 5)
    again = peft.PeftModel.from_pretrained(Net(), str(tmp_path / "out")).eval()
    torch.testing.assert_close(again(x), model(x))


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("forward", [["down"], ["base.down"], ["0.down"], [], None])
def test_ia3_is_named_by_its_shapes_and_loads(run: Any, tmp_path: Path, forward: list[str] | None, blocks: int) -> None:
    """In the real PEFT: what one config says, and what is rejected, come to the same. Of one block alone nothing tells
    whether the config was changed or a vector was turned.
    """
    import peft
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            parts = [{"q": torch.nn.Linear(6, 8), "down": torch.nn.Linear(8, 6)} for _ in range(blocks)]
            self.base = torch.nn.ModuleList(map(torch.nn.ModuleDict, parts))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.base:
                x = torch.as_tensor(block["down"](torch.relu(block["q"](x))))
            return x

    model = peft.get_peft_model(Net(), peft.IA3Config(target_modules=["q", "down"], feedforward_modules=["down"]))
    for name, value in model.named_parameters():
        if "ia3_l" in name:
            value.data = torch.rand(value.shape) + 0.5
    x = torch.randn(3, 6)
    model.save_pretrained(tmp_path / "in")
    path = tmp_path / "in/adapter_config.json"
    edited = {"feedforward_modules": forward, "target_modules": ["q", "down"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **edited}))
    as_it_was = forward == ["down"]
    one_is_otherwise = forward == ["0.down"] if blocks == 2 else forward in ([], ["base.down"])
    if one_is_otherwise:
        assert run("fix", tmp_path / "in", tmp_path / "out").exit_code == 1
        assert not (tmp_path / "out").exists()
        return
    if not as_it_was:
        titles = [step["title"] for step in fixed(run, tmp_path / "in", tmp_path / "out")["repairs"]]
        assert "name IA3's modules as the shapes of the tensors say" in titles
    loaded = peft.PeftModel.from_pretrained(Net(), str(tmp_path / ("in" if as_it_was else "out")))
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("forward", [[], None])
def test_the_vector_of_a_convolution_does_not_tell_what_ia3_multiplies(
    run: Any, tmp_path: Path, forward: list[str] | None
) -> None:
    config = {"peft_type": "IA3", "target_modules": ["conv"], "feedforward_modules": forward}
    (tmp_path / "in").mkdir()
    (tmp_path / "in/adapter_config.json").write_text(json.dumps(config))
    vector = np.ones((1, 4, 1, 1), "float32")
    save_file({"base_model.model.conv.ia3_l": vector}, tmp_path / "in/adapter_model.safetensors")
    (result,) = json.loads(run("fix", tmp_path / "in", tmp_path / "out", "--format", "json").stdout)["results"]
    assert "name IA3's modules as the shapes of the tensors say" not in [step["title"] for step in result["repairs"]]


TORCHTUNE = DATA / "torchtune"


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_peft_computes_what_torchtune_computes(run: Any, tmp_path: Path, model: str, kind: str) -> None:
    """Llama's q and k are turned, and Qwen2's are not."""
    outputs = load_file(TORCHTUNE / model / "outputs.safetensors")
    fixed(run, TORCHTUNE / model / kind, tmp_path / "out", "--base", TORCHTUNE / model / "model")
    found = logits(TORCHTUNE / model / "model", tmp_path / "out", outputs["tokens"].tolist())
    assert np.abs(found - outputs[kind]).max() < CLOSE


def test_torchtune_wants_the_model_and_its_config(run: Any, scan: Any, tmp_path: Path) -> None:
    shutil.copytree(TORCHTUNE / "llama/lora", tmp_path / "in")
    assert "name the model with --base" in scan(tmp_path / "in")["findings"][0]["message"]
    base = shutil.copytree(TORCHTUNE / "llama/model", tmp_path / "model")
    path = base / "config.json"
    config = json.loads(path.read_text())
    for key, value, reason in (
        ("model_type", "phi3", "phi3 is not followed"),
        ("num_attention_heads", 3, "not those of 3 heads"),
        ("num_attention_heads", None, "has no num_attention_heads"),
        ("tie_word_embeddings", True, "output has a counterpart only"),
    ):
        path.write_text(json.dumps({**config, key: value}))
        result = run("fix", tmp_path / "in", tmp_path / "out", "--base", base)
        assert result.exit_code == 1
        assert reason in " ".join(result.output.split())
    path.write_text(json.dumps(config))
    (tmp_path / "in/adapter_config.json").unlink()
    result = run("fix", tmp_path / "in/adapter_0.pt", tmp_path / "out", "--base", base)
    assert result.exit_code == 1
    assert "no adapter_config.json" in " ".join(result.output.split())


def test_torchtune_under_the_name_of_peft_is_converted(run: Any, scan: Any, tmp_path: Path) -> None:
    """Its names in PEFT's file: a load ignores them in silence."""
    import torch
    from safetensors.torch import save_file as save

    shutil.copytree(TORCHTUNE / "llama/lora", tmp_path / "in")
    save(torch.load(tmp_path / "in/adapter_0.pt"), tmp_path / "in/adapter_model.safetensors")
    (tmp_path / "in/adapter_0.pt").unlink()
    assert scan(tmp_path / "in")["verdicts"]["peft==0.21.2"] == "misloads"
    for name, folder in (("in", tmp_path / "in"), ("pt", TORCHTUNE / "llama/lora")):
        fixed(run, folder, tmp_path / f"out-{name}", "--base", TORCHTUNE / "llama/model")
    first, second = (tmp_path / f"out-{name}/adapter_model.safetensors" for name in ("in", "pt"))
    assert first.read_bytes() == second.read_bytes()


GGUF = DATA / "gguf"


@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_what_llama_cpp_converted_comes_back_to_the_bit(run: Any, tmp_path: Path, model: str) -> None:
    """By its own converter, which turns q and k of Llama; a layer of another rank has its own scale in both."""
    fixed(run, GGUF / model / "gguf", tmp_path / "out", "--base", GGUF / model / "config.json")
    first, second = (
        load_file(folder / "adapter_model.safetensors") for folder in (GGUF / model / "peft", tmp_path / "out")
    )
    assert first.keys() == second.keys()
    assert all(first[key].tobytes() == second[key].tobytes() for key in first)
    assert run("compare", GGUF / model / "peft", tmp_path / "out").exit_code == 0


def test_rows_that_llama_cpp_turned_want_the_model(run: Any, tmp_path: Path) -> None:
    result = run("fix", GGUF / "llama/gguf/lora.gguf", tmp_path / "out")
    assert result.exit_code == 1
    assert "name the model with --base" in " ".join(result.output.split())


@pytest.mark.parametrize(("base", "reason"), [
    (None, "name the model with --base"), ({"model_type": "qwen2_audio"}, "of type qwen2_audio is not followed"),
])  # fmt: skip
def test_the_architecture_of_llama_cpp_tells_no_names(run: Any, tmp_path: Path, base: Any, reason: str) -> None:
    """Qwen2-Audio is of its qwen2, too, and its layers are called language_model.model.layers."""
    (tmp_path / "config.json").write_text(json.dumps(base))
    named = ["--base", tmp_path / "config.json"] if base else []
    result = run("fix", GGUF / "qwen2/gguf/lora.gguf", tmp_path / "out", *named)
    assert result.exit_code == 1
    assert reason in " ".join(result.output.split())


def test_a_gguf_that_is_cut_or_says_too_much_is_no_fault_of_ours(run: Any, tmp_path: Path) -> None:
    whole = (GGUF / "llama/gguf/lora.gguf").read_bytes()
    path = tmp_path / "lora.gguf"
    for at in (4, 8, 20, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at])
        assert run("scan", path).exit_code in (1, 2)
    for at in range(4, 160, 3):
        path.write_bytes(whole[:at] + b"\xff" * 8 + whole[at + 8 :])
        result = run("scan", path)
        assert result.exit_code in (1, 2)
        assert "please report" not in result.output


IMAGES = Path(__file__).parent / "data/images"


def tree(folder: Path) -> Path:
    """A PEFT adapter, and beside it what other tools wrote, what is refused, and a model."""
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", folder / "peft")
    shutil.copytree(MLX / "lora", folder / "mlx")
    shutil.copytree(MLX / "model", folder / "model")
    (folder / "styles").mkdir()
    shutil.copy(IMAGES / "kohya-sd1-by-diffusers.safetensors", folder / "styles/one.safetensors")
    shutil.copy(IMAGES / "lycoris-loha-by-lycoris.safetensors", folder / "styles/two.safetensors")
    save_file({"diffusion_model.a.lora_down.weight": np.zeros((1, 1))}, folder / "styles/comfy.safetensors")
    return folder


def test_a_tree_is_converted_beside_its_adapters(run: Any, tmp_path: Path) -> None:
    source, out = tree(tmp_path / "in"), tmp_path / "out"
    result = run("fix", source, out, "--format", "json")
    assert result.exit_code == 1
    found = {
        (Path(one["path"]).relative_to(source).as_posix(), one["written"])
        for one in json.loads(result.stdout)["results"]
    }
    written = {
        ("mlx", True), ("peft", True), ("styles/one.safetensors", True), ("styles/two.safetensors", True),
        ("styles/comfy.safetensors", False),
    }  # fmt: skip
    assert found == written
    for name in ("one", "two"):  # as by the file alone
        assert run("fix", source / f"styles/{name}.safetensors", tmp_path / name).exit_code == 0
        files = sorted(
            path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("adapter_model.safetensors")
        )
        assert files
        for file in files:
            assert (out / "styles" / name / file).read_bytes() == (tmp_path / name / file).read_bytes()
    told = " ".join(run("fix", source, tmp_path / "again").stdout.split())
    assert "comfy.safetensors is a LoRA in ComfyUI's layout" in told
    assert told.endswith("6 adapters: 5 repaired, 1 refused")


def test_a_part_does_not_take_the_place_of_another_adapter(run: Any, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "in/text_encoder")
    shutil.copy(IMAGES / "diffusers-before-peft-by-diffusers.safetensors", tmp_path / "in/style.safetensors")
    result = run("fix", tmp_path / "in", tmp_path / "out", "--force")
    assert (result.exit_code, "another adapter's place" in result.stderr) == (1, True)
    file = "adapter_model.safetensors"
    assert (tmp_path / "out/text_encoder" / file).read_bytes() == (FIXTURES / "lora-plain-0.21.2" / file).read_bytes()


def ranked(run: Any, path: Path) -> dict[str, tuple[int, float]]:
    found = json.loads(run("ranks", path, "--values", "--format", "json").stdout)["ranks"]
    return {layer["module"]: (layer["rank"], layer["norm"]) for one in found for layer in one["layers"]}


def test_ranks_are_told_of_what_is_converted(run: Any, tmp_path: Path) -> None:
    for path in (IMAGES / "kohya-sd1-by-diffusers.safetensors", MLX / "lora"):
        assert run("fix", path, tmp_path / path.name).exit_code == 0
        before, after = (ranked(run, place) for place in (path, tmp_path / path.name))
        assert before.keys() == after.keys()
        for module, (rank, norm) in before.items():
            assert (rank, norm) == (after[module][0], pytest.approx(after[module][1]))
    result = run("ranks", DATA / "torchtune/llama/lora")
    assert result.exit_code == 2
    assert f"type `ckpt-doctor fix {DATA / 'torchtune/llama/lora'} OUT --base MODEL`" in " ".join(result.stderr.split())


def test_the_api_converts_as_the_command_does(run: Any, tmp_path: Path) -> None:
    import ckpt_doctor

    result = ckpt_doctor.fix(MLX / "lora", tmp_path / "peft")
    fixed(run, MLX / "lora", tmp_path / "by-command")
    assert result
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "peft" / name).read_bytes() == (tmp_path / "by-command" / name).read_bytes()
    assert ckpt_doctor.fix(tmp_path / "peft", tmp_path / "back", to="mlx")
    before, after = (load_file(folder / "adapters.safetensors") for folder in (MLX / "lora", tmp_path / "back"))
    assert {name: value.tobytes() for name, value in before.items()} == {
        name: value.tobytes() for name, value in after.items()
    }
    with pytest.raises(ckpt_doctor.AdapterError, match="no counterpart in MLX"):
        ckpt_doctor.fix(FIXTURES / "lora-plain-0.21.2", tmp_path / "none", to="mlx")
    for wrong in ({"to": "torchtune"}, {"to": "mlx", "for_": "vllm"}, {"to": "kohya", "weights": "bin"}):
        with pytest.raises(ValueError, match="to="):
            ckpt_doctor.fix(tmp_path / "peft", tmp_path / "none", **wrong)


def test_the_api_takes_one_of_several_and_a_config(tmp_path: Path) -> None:
    import ckpt_doctor

    file = IMAGES / "diffusers-before-peft-by-diffusers.safetensors"
    with pytest.raises(ckpt_doctor.AdapterError, match=r"holds the adapters .*text_encoder.*: name one as part="):
        ckpt_doctor.fix(file, tmp_path / "none")
    with pytest.raises(ckpt_doctor.AdapterError, match="name one as part="):
        ckpt_doctor.fix(file, tmp_path / "none", part="vae")
    assert ckpt_doctor.fix(file, tmp_path / "encoder", part="text_encoder")
    (tmp_path / "in").mkdir()
    plain = FIXTURES / "lora-plain-0.21.2"
    shutil.copy(plain / "adapter_model.safetensors", tmp_path / "in/step.safetensors")
    assert not ckpt_doctor.fix(tmp_path / "in", tmp_path / "none")
    assert ckpt_doctor.fix(tmp_path / "in", tmp_path / "out", adapter_config=plain / "adapter_config.json")
    assert ckpt_doctor.compare(tmp_path / "out", plain)
    with pytest.raises(ckpt_doctor.AdapterError, match="adapter_config="):
        ckpt_doctor.fix(plain, tmp_path / "none", adapter_config=plain / "adapter_config.json")
    assert not (tmp_path / "none").exists()


LORALIB = DATA / "loralib"
PLAIN = {"peft_type": "LORA", "r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "v_proj", "down_proj"]}


def test_peft_computes_what_loralib_computes(run: Any, tmp_path: Path) -> None:
    model = DATA / "torchtune/llama/model"
    config = tmp_path / "config.json"
    config.write_text(json.dumps(PLAIN))
    options = ["--adapter-config", config, "--base", model]
    said = " ".join(run("scan", LORALIB / "lora.pt").stdout.split())
    assert f"type `ckpt-doctor fix {LORALIB / 'lora.pt'} OUT --adapter-config FILE --base MODEL`" in said
    assert run("fix", LORALIB / "lora.pt", tmp_path / "none", *options[2:]).exit_code == 1
    assert run("fix", LORALIB / "lora.pt", tmp_path / "none", *options[:2]).exit_code == 1
    assert not (tmp_path / "none").exists()
    fixed(run, LORALIB / "lora.pt", tmp_path / "out", *options)
    outputs = load_file(LORALIB / "outputs.safetensors")
    found = logits(model, tmp_path / "out", outputs["tokens"].tolist())
    assert np.abs(found - outputs["lora"]).max() < CLOSE
    config.write_text(json.dumps({**PLAIN, "lora_alpha": 70}))
    fixed(run, LORALIB / "lora.pt", tmp_path / "other", *options)
    assert np.abs(logits(model, tmp_path / "other", outputs["tokens"].tolist()) - outputs["lora"]).max() > 0.1


Q = "model.layers.0.self_attn.q_proj"
NO_LORALIB: dict[str, tuple[dict[str, tuple[int, int]], dict[str, Any], str]] = {
    "AdaLoRA": ({f"{Q}.lora_A": (3, 16), f"{Q}.lora_B": (16, 3), f"{Q}.lora_E": (3, 1)}, {}, "loralib's AdaLoRA"),
    "MergedLinear": ({f"{Q}.lora_A": (6, 16), f"{Q}.lora_B": (16, 3)}, {}, "it is no Linear"),
    "an embedding": (
        {"model.embed_tokens.lora_A": (3, 32), "model.embed_tokens.lora_B": (16, 3)}, {}, "it is no Linear",
    ),
    "a bias": ({f"{Q}.lora_A": (3, 16), f"{Q}.lora_B": (16, 3), f"{Q}.bias": (16, 1)}, {}, "bias has no counterpart"),
    "one factor": ({f"{Q}.lora_A": (3, 16)}, {}, "it is no Linear"),
    "another name": ({"h.0.q.lora_A": (3, 16), "h.0.q.lora_B": (16, 3)}, {}, "no module called h.0.q"),
    "another rank": ({f"{Q}.lora_A": (4, 16), f"{Q}.lora_B": (16, 4)}, {}, "ranks in adapter_config.json"),
    "rsLoRA": ({f"{Q}.lora_A": (3, 16), f"{Q}.lora_B": (16, 3)}, {"use_rslora": True}, "has no such scale"),
    **{
        option: ({f"{Q}.lora_A": (3, 16), f"{Q}.lora_B": (16, 3)}, {option: value}, reason)
        for option, value, reason in (
            ("alora_invocation_tokens", [1, 2], "alora_invocation_tokens has no counterpart"),
            ("layer_replication", [[0, 2], [0, 2]], "layer_replication has no counterpart"),
            ("target_parameters", ["mlp.down_proj.weight"], "target_parameters has no counterpart"),
            ("use_bdlora", {"nblocks": 2}, "use_bdlora has no counterpart"),
            ("bias", "all", "bias has no counterpart"),
            ("init_lora_weights", "pissa", "takes something off the base weights"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(("shapes", "config", "reason"), NO_LORALIB.values(), ids=NO_LORALIB)
def test_what_of_loralib_has_no_counterpart_is_refused(
    run: Any, tmp_path: Path, shapes: dict[str, tuple[int, int]], config: dict[str, Any], reason: str
) -> None:
    save_file({name: np.ones(shape, "float32") for name, shape in shapes.items()}, tmp_path / "lora.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, **config}))
    options = ["--adapter-config", tmp_path / "config.json", "--base", DATA / "torchtune/llama/model"]
    result = run("fix", tmp_path / "lora.safetensors", tmp_path / "out", *options)
    assert (result.exit_code, reason in " ".join(result.stdout.split())) == (1, True), result.stdout
    assert not (tmp_path / "out").exists()


def test_an_embedding_as_high_as_it_is_wide_is_not_taken_for_a_linear(run: Any, tmp_path: Path) -> None:
    """As GPT-2's wpe at 1024: loralib's Embedding has other factors under the same names, of the same sizes."""
    shapes = {"lora_A": (3, 16), "lora_B": (16, 3)}
    save_file({f"wpe.{name}": np.ones(x, "float32") for name, x in shapes.items()}, tmp_path / "lora.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, "target_modules": ["wpe"]}))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    save_file({"wpe.weight": np.ones((16, 16), "float32")}, model / "model.safetensors")
    options = ["--adapter-config", tmp_path / "config.json", "--base", model]
    result = run("fix", tmp_path / "lora.safetensors", tmp_path / "out", *options)
    assert (result.exit_code, "wpe may be an embedding" in " ".join(result.stdout.split())) == (1, True), result.stdout


def test_arrays_of_older_mlx_are_read(run: Any, tmp_path: Path) -> None:
    """adapters.npz, as MLX and numpy write it: to the same adapter as safetensors, to the bit."""
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in/adapters.npz", **load_file(MLX / "lora/adapters.safetensors"))
    result = run("fix", tmp_path / "in", tmp_path / "out")
    assert "which has the scale, is missing" in " ".join(result.stdout.split())
    shutil.copy(MLX / "lora/adapter_config.json", tmp_path / "in")
    for name, source in (("by-numpy", tmp_path / "in"), ("by-mlx", MLX / "npz"), ("wanted", MLX / "lora")):
        fixed(run, source, tmp_path / name)
    written = [
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("by-numpy", "by-mlx", "wanted")
    ]
    assert written[0] == written[1] == written[2]


def npy(header: str) -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()


ARRAYS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a pickle": ({"a.lora_a": np.array([{}], dtype=object)}, {}, "of a type that is not read"),
    "big-endian": ({"a.lora_a": np.ones((2, 2), ">f4")}, {}, "of a type that is not read"),
    "columns first": ({"a.lora_a": np.asfortranarray(np.ones((2, 3)))}, {}, "columns first"),
    "compressed": ({"a.lora_a": np.ones((2, 2))}, {"compressed": True}, "is compressed"),
    "cut": ({"a.lora_a": np.ones((2, 2))}, {"bytes": b"1" * 20}, "not the bytes that its shape says"),
    "longer": ({"a.lora_a": np.ones((2, 2))}, {"bytes": b"1" * 40}, "more bytes than its shape says"),
    "two of one name": ({"a.lora_a": np.ones((2, 2))}, {"bytes": b"", "again": True}, "two arrays of one name"),
    "nearly nothing": ({"a.lora_a": np.ones((2, 2))}, {"bytes": b"\x93NUMPY\1"}, "is no array of numpy's"),
    "a header of 4 GB": ({"a.lora_a": np.ones((2, 2))}, {"bytes": b"\x93NUMPY\2\0" + b"\xff" * 8}, "is longer than"),
    "a shape beyond all bounds": (
        {"a.lora_a": np.ones((2, 2))},
        {"bytes": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 15 + ", " + "9" * 15 + ")}")},
        "not the bytes that its shape says",
    ),
    "a shape of 1,000 numbers": (
        {"a.lora_a": np.ones((2, 2))},
        {"bytes": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 1000 + ")}")},
        "of a type that is not read",
    ),
    "no array": ({"a.lora_a": np.ones((2, 2))}, {"bytes": b"PK" * 40}, "is no array of numpy's"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "edit", "reason"), ARRAYS.values(), ids=ARRAYS)
def test_what_is_no_plain_array_is_not_read(
    tmp_path: Path, arrays: dict[str, Any], edit: dict[str, Any], reason: str
) -> None:
    from ckpt_doctor.adapter import AdapterError

    path = tmp_path / "adapters.npz"
    (np.savez_compressed if edit.get("compressed") else np.savez)(path, **arrays)
    if "bytes" in edit:
        with zipfile.ZipFile(path) as archive:
            head = archive.read("a.lora_a.npy")[:-32] if edit["bytes"].startswith(b"1") else b""
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2 if "again" in edit else 1):
                archive.writestr("a.lora_a.npy", head + edit["bytes"])
    with pytest.raises((AdapterError, DamagedFile)) as error:
        read_weights(str(path))
    assert reason in str(error.value)


NPZ_HEADERS = {
    "plain": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
    "no comma": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
    "one size": b"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }",
    "a number": b"{'descr': '<f4', 'fortran_order': False, 'shape': (6), }",
    "no size": b"{'descr': '<f4', 'fortran_order': False, 'shape': (), }",
    "a zero before": b"{'descr': '<f4', 'fortran_order': False, 'shape': (06,), }",
    "as MLX writes it": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, )}",
    "a comma alone": b"{'descr': '<f4', 'fortran_order': False, 'shape': (,), }",
    "no-break space": b"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\xa0",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (6,), }",
}


@pytest.mark.parametrize("name", NPZ_HEADERS)
@pytest.mark.parametrize("version", [b"\1\0", b"\1\5", b"\4\0"])
def test_an_array_that_is_read_is_what_numpy_reads(tmp_path: Path, name: str, version: bytes) -> None:
    header = NPZ_HEADERS[name]
    for more in (b"", b"x"):
        size = 4 if name == "no size" else 24
        array = b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + bytes(range(size)) + more
        path = tmp_path / "adapters.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", array)
        assert fuzz._differs(path, fuzz.of_numpy(path.read_bytes())) == ""
    assert name != "plain" or version != b"\1\0" or isinstance(fuzz.of_numpy(path.read_bytes()), dict)


def test_a_npz_of_no_arrays_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "adapters.npz"
    path.write_bytes(b"PK\5\6" + bytes(18))
    assert fuzz.of_numpy(path.read_bytes()) == {}
    assert fuzz._differs(path, {}) == ""


def test_a_record_of_a_npz_under_two_names_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "adapters.npz"
    data = (MLX / "npz/adapters.npz").read_bytes()
    path.write_bytes(data.replace(b"model.layers.1", b"model.layers.9", 1))  # in its own header, and not the directory
    assert isinstance(fuzz.of_numpy(path.read_bytes()), str)
    with pytest.raises(DamagedFile, match="differ"):
        read_weights(str(path))
