"""What lies where no PEFT adapter does: it is named, with the next step, and nothing of it is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES
from safetensors.numpy import save_file

import ckpt_doctor
from ckpt_doctor.facts.embeddings import EMBEDDINGS, HEADS
from ckpt_doctor.files import foreign, recognise


class Fires:
    """A pickle that leaves a trace when it is run."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


PLAIN = FIXTURES / "lora-plain-0.21.2"
TENSORS = {
    "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": "kohya",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": "kohya",
    "lycoris_blocks_0_attn_to_q.hada_w1_a": "kohya",
    "diffusion_model.blocks.0.cross_attn.k.lora_A.weight": "ComfyUI",
    "transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": "of diffusers",
    "transformer_blocks.0.img_mod.1.lora_A.default.weight": "an adapter's name in its keys",
    "transformer.single_transformer_blocks.0.proj_out.lora_B.default.weight": "an adapter's name in its keys",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight": "of diffusers",
    "down_blocks.0.attentions.0.attn1.processor.to_q_lora.down.weight": "of diffusers",
    "layers.0.attention.wq.lora_A.weight": "mistral-finetune",
    "layers.0.attn.q_proj.lora_a.weight": "torchtune",
    "model.layers.0.self_attn.q_proj.lora_a": "MLX",
    "decoder.layers.0.mlp.linear_fc1.adapter.linear_in.weight": "Megatron",
    "module.decoder.layers.0.self_attention.linear_qkv.adapter.linear_out.weight": "Megatron",
    "deberta.encoder.layer.0.attention.self.query_proj.ranknum": "loralib",
    "transformer.h.0.attn.c_attn.lora_A": "loralib",
    "transformer.h.0.attn.c_attn.loras.LoRA.lora_A": "AdapterHub",
    "bert.encoder.layer.0.output.adapters.sst.adapter_down.0.weight": "AdapterHub",
    "roberta.encoder.layer.0.attention.self.query.lora_A": "loralib",
    "double_blocks.0.processor.proj_lora1.down.weight": "of diffusers",
    "transformer.base_model.model.transformer_blocks.4.attn.to_q.lora.down.weight": "of diffusers",
    "blocks.0.lora_down.kernel": "no tool that is known",
    "transformer.prefix_encoder.embedding.weight": "P-Tuning",
    "cond_stage_model.transformer.text_model.embeddings.position_ids": "Stable Diffusion",
    "model.layers.0.self_attn.q_proj.lora_A.default.weight": "without PEFT's prefix",
    "layers.7.to_out_lora.up.weight": "of diffusers",
    "text_model.encoder.layers.0.self_attn.k_proj.lora_A_1.default_0.weight": "of diffusers",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": "of PEFT",
    "model.layers.0.self_attn.q_proj.lora_A.weight": "without PEFT's prefix",
    "transformer.h.0.attn.c_attn.lora_A.weight": "without PEFT's prefix",
    "transformer.encoder.layers.0.self_attention.query_key_value.lora_A.weight": "without PEFT's prefix",
    "transformer.blocks.0.attn.Wqkv.lora_A.weight": "without PEFT's prefix",
    "transformer.blocks.0.attn1.to_q.lora_A.weight": "of diffusers",
}


@pytest.mark.parametrize(("name", "what"), TENSORS.items())
def test_a_tensor_tells_the_tool(name: str, what: str) -> None:
    form = foreign.of_tensors(["model.norm.weight", name])
    assert form is not None
    assert what in form.what


def test_the_weights_of_a_model_tell_no_tool() -> None:
    names = ["lm_head.weight", "model.embed_tokens.weight", "unet.conv_in.weight", "layers.0.attention.wq.weight"]
    assert foreign.of_tensors(names) is None


def test_weights_of_the_adapted_layers_are_a_model() -> None:
    """As PEFT 0.2 and newer name them, under a Trainer; of embeddings an adapter may have them, too."""
    q = "base_model.model.layers.0.q_proj"
    for names in ([f"{q}.weight", f"{q}.lora_A.weight"], [f"{q}.base_layer.weight", f"{q}.lora_A.default.weight"]):
        form = foreign.of_tensors(names)
        assert form is not None
        assert "inside" in form.what
        form = foreign.of_tensors([name.replace("q_proj", "lm_head") for name in names])
        assert form is not None
        assert "of PEFT" in form.what


def test_the_tables_of_a_model_are_those_of_the_facts() -> None:
    assert {*foreign.TABLES} == {*EMBEDDINGS, *HEADS}


def test_factors_alone_are_no_model() -> None:
    """As a file that was saved with the adapter's name left in: once renamed, CD402 says the rest."""
    names = [f"base_model.model.layers.{at}.q_proj.lora_{ab}.default.weight" for at in (0, 1) for ab in "AB"]
    assert foreign.of_tensors(names) == foreign.of_tensors([names[0].replace(".default", "")])


@pytest.mark.parametrize("name", ["linear_fc1" * 100_000, "a.processor." + "lora" * 250_000, "." * 1_000_000])
def test_a_long_name_takes_no_time(name: str) -> None:
    start = time.monotonic()
    foreign.of_tensors([name])
    assert time.monotonic() - start < 1


FILES = {
    "global_step300": "ZeRO", "zero_pp_rank_0_mp_rank_00_optim_states.pt": "ZeRO", "__0_0.distcp": "FSDP",
    "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": "ZeRO", "mp_rank_00_model_states.pt": "ZeRO",
    "mp_rank_00": "Megatron", "mp_rank_00_001": "Megatron", "common.pt": "Megatron", "epoch=0.ckpt": "Lightning",
    "model_world_size_2_rank_0.pt": "verl",
    "pytorch_model_fsdp_0": "FSDP", "iter_0000100": "Megatron", "ocdbt.process_0": "orbax", "adapter_0.pt": "torchtune",
    "adapters.npz": "MLX", "0000100_adapters.safetensors": "MLX", "model.gguf": "llama.cpp",
    "ggml-adapter-model.bin": "llama.cpp", "pytorch_adapter.bin": "AdapterHub", "lit_model.pth.lora": "litgpt",
    "model.lora_weights.npy": "TensorRT-LLM", "megatron_gpt_peft.nemo": "NeMo", "gemma.lora.h5": "Keras",
    "ip-adapter_sd15.bin": "IP-Adapter", "learned_embeds.safetensors": "textual inversion",
    "consolidated.00.pth": "Mistral", "model-00001-of-00002.safetensors": "whole model",
    "pytorch_model.bin.index.json": "whole model", "training_args.bin": "Trainer", "random_states_0.pkl": "accelerate",
}  # fmt: skip


@pytest.mark.parametrize(("name", "what"), FILES.items())
def test_a_file_tells_where_no_tensor_does(name: str, what: str, tmp_path: Path) -> None:
    found = recognise.recognised(str(tmp_path), [name])
    assert found is not None
    assert what in found.message
    assert found.remedy


def test_the_export_of_megatron_is_told(tmp_path: Path) -> None:
    (tmp_path / "common.pt").touch()
    found = recognise.recognised(str(tmp_path), ["__0_0.distcp", "common.pt", "run_config.yaml"])
    assert found is not None
    assert "export_adapter_ckpt(" in found.remedy
    assert f"--adapter_load {tmp_path} " in found.remedy


def weights(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ones((2, 2), "float32") for name in names}, path)
    return path


def scanned(run: Any, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    result = run("scan", *arguments, "--format", "json")
    return result.exit_code, json.loads(result.stdout)["reports"]


def test_what_a_named_path_holds_is_said(run: Any, tmp_path: Path) -> None:
    file = weights(tmp_path / "deep/run/my_style.safetensors", "lora_unet_a.lora_down.weight")
    for path in (tmp_path, file.parent, file):
        code, (report,) = scanned(run, path)
        assert (code, [finding["code"] for finding in report["findings"]]) == (1, ["CD024"]), path
        assert report["next"][0]["text"].startswith("load it with diffusers")
    result = run("fix", tmp_path / "deep", tmp_path / "out")
    assert (result.exit_code, "my_style.safetensors is an adapter of kohya" in result.stdout) == (1, True)
    assert "lora_unet_a is a module of no layout that a table has" in " ".join(result.stdout.split())
    with pytest.raises(ckpt_doctor.AdapterError, match="kohya"):
        ckpt_doctor.scan(tmp_path)
    with pytest.raises(ckpt_doctor.AdapterError, match="kohya"):
        list(ckpt_doctor.scan_tree(tmp_path))


def test_beside_adapters_those_of_other_tools_are_told_and_nothing_else(run: Any, tmp_path: Path) -> None:
    shutil.copytree(PLAIN, tmp_path / "tree/adapter")
    weights(tmp_path / "tree/adapter/global_step10/mine.safetensors", "lora_unet_a.lora_down.weight")
    weights(tmp_path / "tree/other/my_style.safetensors", "lora_unet_a.lora_down.weight")
    weights(tmp_path / "tree/model/model.safetensors", "model.norm.weight")
    result = run("scan", tmp_path / "tree", "--format", "json")
    (report,) = json.loads(result.stdout)["reports"]
    assert (result.exit_code, os.path.basename(report["path"])) == (0, "adapter")
    said = " ".join(result.stderr.split())
    assert said.startswith("ckpt-doctor: beside the adapters: ")
    assert "my_style.safetensors is an adapter of kohya" in said
    assert said.count("beside the adapters") == 1
    assert run("scan", tmp_path / "tree", "-q").stderr == ""


def test_what_is_not_recognised_is_no_adapter(run: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a")
    weights(tmp_path / "some.safetensors", "a", "b")
    for path in (tmp_path, tmp_path / "some.safetensors"):
        assert scanned(run, path)[0] == 2


def test_another_name_is_told_and_a_fix_gives_the_right_one(run: Any, tmp_path: Path) -> None:
    shutil.copytree(PLAIN, tmp_path / "a")
    (tmp_path / "a/adapter_model.safetensors").rename(tmp_path / "a/step_100.safetensors")
    code, (report,) = scanned(run, tmp_path / "a")
    assert (code, report["next"][0]["command"]) == (1, f"ckpt-doctor fix {tmp_path / 'a'} {tmp_path / 'a-fixed'}")
    assert run("fix", tmp_path / "a", tmp_path / "a-fixed").exit_code == 0
    written = (tmp_path / "a-fixed/adapter_model.safetensors").read_bytes()
    assert written == (PLAIN / "adapter_model.safetensors").read_bytes()
    assert not (tmp_path / "a-fixed/step_100.safetensors").exists()


def test_another_name_without_a_config_is_told(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(PLAIN / "adapter_model.safetensors", tmp_path / "in/step_100.safetensors")
    _, (report,) = scanned(run, tmp_path / "in")
    (way,) = report["next"]
    assert way["text"] == f"type `ckpt-doctor fix {tmp_path / 'in'} OUT --adapter-config FILE`"
    config = PLAIN / "adapter_config.json"
    assert run("fix", tmp_path / "in", tmp_path / "out", "--adapter-config", config).exit_code == 0
    written = (tmp_path / "out/adapter_model.safetensors").read_bytes()
    assert written == (PLAIN / "adapter_model.safetensors").read_bytes()


def test_what_lies_in_an_adapter_is_not_told_even_beside_one_that_lies_there_too(run: Any, tmp_path: Path) -> None:
    shutil.copytree(PLAIN, tmp_path / "adapter")
    shutil.copytree(PLAIN, tmp_path / "adapter/m")
    for name in ("a", "b", "y", "z"):  # one of which is listed after the inner adapter, in whatever order
        weights(tmp_path / f"adapter/{name}/my_style.safetensors", "lora_unet_a.lora_down.weight")
    assert run("scan", tmp_path, "--format", "json").stderr == ""


def test_a_fix_of_what_is_no_adapter_does_not_speak_of_its_function(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    shutil.copy(PLAIN / "adapter_model.safetensors", tmp_path / "a/step_100.safetensors")
    said = " ".join(run("fix", tmp_path / "a", tmp_path / "out").stdout.split())
    assert "nothing was written: the files are not those of an adapter that can be read by hand: type" in said
    assert "changing what is computed" not in said


def test_servers_are_not_said_to_take_it(run: Any, tmp_path: Path) -> None:
    weights(tmp_path / "adapters.safetensors", "model.layers.0.self_attn.q_proj.lora_a")
    _, (report,) = scanned(run, tmp_path, "--for", "servers")
    assert not {"accepts", "misloads"} & {*report["verdicts"].values()}


def test_nothing_is_run_and_nothing_hangs(run: Any, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Fires()))
    os.mkfifo(tmp_path / "aaa.safetensors")
    (tmp_path / "loop").symlink_to(tmp_path)
    name = "lora" * 20_000
    for number in range(50):
        weights(tmp_path / f"x{number:02}.safetensors", name, "a" * 50_000 + ".")
    start = time.monotonic()
    code, _ = scanned(run, tmp_path)
    assert code in (1, 2)
    assert time.monotonic() - start < 20
