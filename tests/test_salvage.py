"""An adapter inside a whole model: what fix takes out is what PEFT saves of the same model, tensor by tensor."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from ckpt_doctor.adapter import AdapterError, TensorInfo
from ckpt_doctor.conversions import Foreign, Refused, salvage
from ckpt_doctor.files import checkpoint
from ckpt_doctor.files.base import load_base
from ckpt_doctor.files.loader import read_weights
from ckpt_doctor.files.streams import Files, content

DATA = Path(__file__).parent / "data/conversions/peft"
BIASES = "PEFT up to 0.20 leaves the biases out that bias lora_only trains (tuners_utils.py)"

Read = dict[str, tuple[str, tuple[int, ...], bytes]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of each kind, made by the PEFT that is installed."""
    import make_wholes

    folder = tmp_path_factory.mktemp("wholes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in make_wholes.KINDS:
            make_wholes.write(folder / kind, kind)
    return folder


def read(tensors: Any) -> Read:
    with Files() as files:
        return {name: (*info[:2], content(info, files)) for name, info in tensors.items()}


def config_of(folder: Path) -> dict[str, Any]:
    value = json.loads((folder / "adapter_config.json").read_text())
    assert isinstance(value, dict)
    return value


def saved(folder: Path) -> dict[str, Path]:
    """The adapters that PEFT saved of a model, by name."""
    found = {path.parent.name: path.parent for path in (folder / "saved").glob("*/adapter_config.json")}
    return {**({"default": folder / "saved"} if (folder / "saved/adapter_config.json").exists() else {}), **found}


def taken(folder: Path, file: str = "model.safetensors") -> list[salvage.Converted]:
    configs = {name: config_of(path) for name, path in saved(folder).items()}
    if (folder / "before").exists():
        configs = {"default": config_of(folder / "before")}
    base = load_base(str(folder / "base")) if (folder / "base").exists() else None
    return salvage.to_peft(Foreign(configs, {}, read_weights(str(folder / file)), base))


def hold(folder: Path, file: str) -> None:
    """What is taken out of a model is what PEFT saved of it, and its config."""
    wanted, found = saved(folder), taken(folder, file)
    assert {one.part or "default" for one in found} == wanted.keys()
    for one in found:
        place = wanted[one.part or "default"]
        assert read(one.tensors) == read(read_weights(str(place / "adapter_model.safetensors")))
        # the config before it was saved says that it is trained on
        assert {**one.config, "inference_mode": True} == {**config_of(place), "inference_mode": True}


def kinds() -> list[str]:
    import make_wholes

    return sorted(make_wholes.KINDS)


def test_what_is_taken_out_is_what_peft_saves(models: Path) -> None:
    assert len(kinds()) > 35
    for kind in kinds():
        for file in ("model.pt", "model.safetensors"):
            try:
                hold(models / kind, file)
            except Refused as error:
                pytest.fail(f"{kind} {file}: {error}")


def test_every_method_is_held(models: Path) -> None:
    found = {one.config["peft_type"] for kind in kinds() for one in taken(models / kind)}
    assert found == set(salvage.METHODS)


@pytest.mark.parametrize(
    "folder", sorted(path for path in DATA.iterdir() if path.is_dir()), ids=lambda folder: folder.name
)
def test_so_it_is_for_older_releases(folder: Path) -> None:
    hold(folder, "model.safetensors")


def test_biases_that_older_releases_lose_are_taken_out(models: Path) -> None:
    (one,) = taken(models / "bias-only")
    assert sum(name.endswith("base_layer.bias") for name in one.tensors) == 4, BIASES


def wrapped(tensors: Any, how: str) -> dict[str, TensorInfo]:
    names = {
        "ddp": lambda name: f"module.{name}",
        "compiled": lambda name: f"_orig_mod.{name}",
        "fsdp": lambda name: name.replace("self_attn.", "self_attn._fsdp_wrapped_module."),
        "checkpointed": lambda name: name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."),
        "within": lambda name: f"policy.{name}",
    }
    return {names[how](name): info for name, info in tensors.items()}


@pytest.mark.parametrize("how", ["ddp", "compiled", "fsdp", "checkpointed", "within"])
def test_what_launchers_put_into_names_goes(models: Path, how: str) -> None:
    tensors = read_weights(str(models / "kept/model.pt"))
    configs = {"default": config_of(models / "kept/saved")}
    (plain,) = salvage.to_peft(Foreign(configs, {}, tensors))
    (found,) = salvage.to_peft(Foreign(configs, {}, wrapped(tensors, how)))
    assert found == plain


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "another method": ("lora", {"peft_type": "LOHA"}, "is of LOHA, and the tensors are of LORA"),
    "another rank": ("lora", {"r": 8}, "the ranks in adapter_config.json are not those"),
    "other targets": ("lora", {"target_modules": ["q_proj"]}, "does not name"),
    "a head that was not trained": ("lora", {"modules_to_save": ["lm_head"]}, "lm_head is in modules_to_save"),
    "another init_r": ("adalora", {"init_r": 12}, "init_r is not the rank"),
    "a pattern of another step": (
        "adalora", {"rank_pattern": {"model.layers.0.self_attn.q_proj.lora_E": [True, False, True]}},
        "another checkpoint",
    ),
    "a pattern of another model": (
        "adalora", {"rank_pattern": {"model.layers.9.self_attn.q_proj.lora_E": [True] * 4}}, "is not in the model",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "config", "reason"), REFUSED.values(), ids=REFUSED)
def test_the_config_of_another_adapter_is_refused(models: Path, kind: str, config: dict[str, Any], reason: str) -> None:
    tensors = read_weights(str(models / kind / "model.pt"))
    with pytest.raises(Refused, match=reason):
        salvage.to_peft(Foreign({"default": {**config_of(models / kind / "saved"), **config}}, {}, tensors))


@pytest.mark.parametrize("kind", ["lora", "adalora", "loha"])
def test_a_layer_whose_factors_are_lost_is_refused(models: Path, kind: str) -> None:
    """Its base_layer tells that it had some, as in a model of which a shard or a node is missing."""
    tensors = read_weights(str(models / kind / "model.pt"))
    module = "layers.1.self_attn.v_proj."
    some = {name: info for name, info in tensors.items() if module not in name or "base_layer" in name}
    assert len(some) < len(tensors)
    with pytest.raises(Refused, match=r"model.layers.1.self_attn.v_proj had an adapter"):
        salvage.to_peft(Foreign({"default": config_of(models / kind / "saved")}, {}, some))


def test_what_the_names_do_not_tell_is_refused(models: Path) -> None:
    tensors = read_weights(str(models / "added/model.pt"))
    configs = {"default": config_of(models / "added/saved")}
    with pytest.raises(salvage.Wants, match="only the base model tells"):
        salvage.to_peft(Foreign(configs, {}, tensors))
    base = load_base(str(models / "added/base"))
    for prefix in ("model.", "net."):  # of a program that holds the model, one of them as transformers calls a part
        held = {prefix + name: info for name, info in tensors.items()}
        with pytest.raises(Refused, match="has no module called"):
            salvage.to_peft(Foreign(configs, {}, held, base))
    lora = read_weights(str(models / "lora/model.pt"))
    some = {name.replace("base_model.model.", "", at % 2): info for at, (name, info) in enumerate(lora.items())}
    with pytest.raises(Refused, match="only some have PEFT's prefix"):
        salvage.to_peft(Foreign(configs, {}, some))
    plain = {name.replace(".default", ""): info for name, info in lora.items()}
    with pytest.raises(Refused, match="no tensor is a factor"):
        salvage.to_peft(Foreign(configs, {}, plain))


def test_a_vocabulary_that_was_resized_is_saved(models: Path) -> None:
    """As PEFT does where it finds the config of the base model (save_embedding_layers "auto")."""
    folder = models / "lora"
    configs = {"default": config_of(folder / "saved")}
    tensors = read_weights(str(folder / "model.pt"))
    base = load_base(str(models / "added/base"))
    (same,) = salvage.to_peft(Foreign(configs, {}, tensors, base))
    base.parameters["model.embed_tokens.weight"] = (15, 8)
    (resized,) = salvage.to_peft(Foreign(configs, {}, tensors, base))
    ends = ("model.embed_tokens.weight", "lm_head.weight")
    assert resized.tensors.keys() - same.tensors.keys() == {f"base_model.model.{name}" for name in ends}


def fixed(run: Any, *arguments: object) -> list[dict[str, Any]]:
    result = run("fix", *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout)["results"])


def test_fix_takes_it_out_and_says_by_which_config(run: Any, tmp_path: Path, models: Path) -> None:
    """A checkpoint of a Trainer without a config, the run's, one beside it, one that is named; and a file alone."""
    source = models / "lora"
    checkpoints = tmp_path / "run/checkpoint-5"
    checkpoints.mkdir(parents=True)
    shutil.copy(source / "model.safetensors", checkpoints)
    (checkpoints / "optimizer.bin").write_bytes(b"none of ours")
    config = source / "saved/adapter_config.json"
    result = run("scan", checkpoints)
    said = " ".join(result.stdout.split())
    assert f"type `ckpt-doctor fix {checkpoints} OUT --adapter-config FILE`" in said
    assert "of LORA of rank 4 on q_proj, v_proj" in said
    assert run("fix", checkpoints, tmp_path / "none").exit_code == 1
    assert not (tmp_path / "none").exists()

    fixed(run, checkpoints, tmp_path / "named", "--adapter-config", config)
    shutil.copy(config, tmp_path / "run")
    (one,) = fixed(run, checkpoints, tmp_path / "of-run")
    assert "../adapter_config.json" in json.dumps(one)
    shutil.copy(config, checkpoints)
    assert f"ckpt-doctor fix {checkpoints} " in " ".join(run("scan", checkpoints).stdout.split())
    fixed(run, checkpoints, tmp_path / "beside")
    fixed(run, source / "model.pt", tmp_path / "file", "--adapter-config", config)
    wanted = read(read_weights(str(source / "saved/adapter_model.safetensors")))
    for out in ("named", "of-run", "beside", "file"):
        names = {path.name for path in (tmp_path / out).iterdir()}
        assert names == {"adapter_config.json", "adapter_model.safetensors", "ckpt-doctor.json"}, out
        assert read(read_weights(str(tmp_path / out / "adapter_model.safetensors"))) == wanted
        assert run("scan", tmp_path / out).exit_code == 0


def test_checkpoints_that_disagree_are_no_config(tmp_path: Path) -> None:
    for step, alpha in ((5, 8), (6, 9)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if step == 6:
            (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
    assert checkpoint.configs(str(tmp_path / "checkpoint-5"), ["default"])["default"].content == {"lora_alpha": 9}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8}))
    with pytest.raises(AdapterError, match="say different things"):
        checkpoint.configs(str(tmp_path / "checkpoint-5"), ["default"])
    (tmp_path / "elsewhere").mkdir()
    assert checkpoint.configs(str(tmp_path / "elsewhere"), ["default"]) == {}


def test_the_pattern_of_another_step_is_refused(run: Any, tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    shutil.copy(models / "adalora-pruned/model.safetensors", folder)
    shutil.copy(models / "adalora-pruned/saved/adapter_config.json", tmp_path)
    result = run("scan", folder)
    assert "is of another step" in " ".join(result.stdout.split())


def test_several_adapters_are_written_apart(run: Any, tmp_path: Path, models: Path) -> None:
    shutil.copytree(models / "two", tmp_path / "in", ignore=shutil.ignore_patterns("saved", "*.pt"))
    for name, path in saved(models / "two").items():
        (tmp_path / "in" / name).mkdir()
        shutil.copy(path / "adapter_config.json", tmp_path / "in" / name)
    fixed(run, tmp_path / "in/model.safetensors", tmp_path / "out")
    for name, path in saved(models / "two").items():
        wanted = read(read_weights(str(path / "adapter_model.safetensors")))
        assert read(read_weights(str(tmp_path / "out" / name / "adapter_model.safetensors"))) == wanted
    shutil.rmtree(tmp_path / "in/other")
    result = run("fix", tmp_path / "in/model.safetensors", tmp_path / "other")
    assert result.exit_code == 1
    assert "lay that of each in a folder of its name" in " ".join(result.stdout.split())
    # one that is named is of all, where it holds for each
    config = tmp_path / "config.json"
    for path in saved(models / "two").values():
        shutil.copy(path / "adapter_config.json", config)
        result = run("fix", tmp_path / "in/model.safetensors", tmp_path / "other", "--adapter-config", config)
        assert (result.exit_code, "cannot be converted" in result.stdout) == (1, True)
        assert not (tmp_path / "other").exists()


def test_shards_and_states_of_trainers(run: Any, tmp_path: Path, models: Path) -> None:
    """Shards of an index, and a file with other states beside the model, as dcp_to_torch and Lightning write."""
    import torch
    from safetensors.torch import load_file, save_file

    source, config = models / "lora", models / "lora/saved/adapter_config.json"
    state = load_file(source / "model.safetensors")
    names = sorted(state)
    places = {name: f"model-0000{1 + (at > 20)}-of-00002.safetensors" for at, name in enumerate(names)}
    (tmp_path / "shards").mkdir()
    for file in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == file}, tmp_path / "shards" / file)
    index = tmp_path / "shards/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    torch.save({"model": state}, tmp_path / "dcp.pt")
    lightning = {"epoch": 1, "state_dict": {f"model.{name}": x for name, x in state.items()}, "optimizer_states": []}
    torch.save(lightning, tmp_path / "last.ckpt")
    wanted = read(read_weights(str(source / "saved/adapter_model.safetensors")))
    for name in ("shards", "dcp.pt", "last.ckpt"):
        fixed(run, tmp_path / name, tmp_path / f"out-{name}", "--adapter-config", config)
        assert read(read_weights(str(tmp_path / f"out-{name}/adapter_model.safetensors"))) == wanted
    index.unlink()
    assert "the index of the shards" in " ".join(run("scan", tmp_path / "shards").stdout.split())
    save_file(state, tmp_path / "shards/model.safetensors")
    (tmp_path / "shards/model_1.safetensors").write_bytes((tmp_path / "shards/model.safetensors").read_bytes())
    for file in places.values():
        (tmp_path / "shards" / file).unlink(missing_ok=True)
    assert "name the file that is meant" in " ".join(run("scan", tmp_path / "shards").stdout.split())


def test_a_config_is_named_for_a_model_alone(run: Any, tmp_path: Path, models: Path) -> None:
    adapter = models / "lora/saved"
    result = run("fix", adapter, tmp_path / "out", "--adapter-config", adapter / "adapter_config.json")
    assert (result.exit_code, "is not in a form that may want --adapter-config" in " ".join(result.stderr.split())) == (
        2,
        True,
    )


def test_the_command_that_is_said_gathers_shards(
    run: Any, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What accelerate saves of FSDP (utils/fsdp_utils.py: save_fsdp_model), here of one process."""
    import re
    import runpy
    import shlex
    import sys

    import torch.distributed.checkpoint as dcp
    from safetensors.torch import load_file

    source, folder = models / "lora", tmp_path / "checkpoint-5"
    (folder / "pytorch_model_fsdp_0").mkdir(parents=True)
    state = {"model": load_file(source / "model.safetensors")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)
    said = " ".join(run("scan", folder).stdout.split())
    first, second = re.findall("`(.*?)`", said)
    program = shlex.split(first)
    assert program[:2] == ["python", "-m"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", program[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_module(program[2], run_name="__main__")
    config = str(source / "saved/adapter_config.json")
    words = [{"OUT": "out", "FILE": config}.get(word, word) for word in shlex.split(second)]
    fixed(run, *words[2:])
    wanted = read(read_weights(str(source / "saved/adapter_model.safetensors")))
    assert read(read_weights("out/adapter_model.safetensors")) == wanted


def trained(folder: Path, by: str) -> Path:
    """What a real training leaves of a model with an adapter inside, and in `saved` what PEFT saves of it."""
    import make_wholes
    import peft
    import torch
    import transformers

    model = peft.get_peft_model(make_wholes.llama(), make_wholes.lora(modules_to_save=["lm_head"]))
    ids = torch.arange(8) % 16

    class Wrapper(torch.nn.Module):
        """A model of somebody's own, of which a Trainer saves the whole state dict."""

        def __init__(self) -> None:
            super().__init__()
            self.policy = model

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:
            return self.policy(input_ids=input_ids, labels=labels)

    if by == "accelerate":
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        there, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
        accelerator.backward(there(input_ids=ids[None], labels=ids[None]).loss)
        optimizer.step()
        accelerator.save_state(str(folder / "state"))
        accelerator.free_memory()
        place = folder / "state"
    else:
        arguments = transformers.TrainingArguments(
            output_dir=str(folder / "run"), max_steps=2, save_steps=2, learning_rate=1.0, use_cpu=True, report_to=[],
            disable_tqdm=True,
        )  # fmt: skip
        rows = [{"input_ids": ids, "labels": ids}] * 4
        transformers.Trainer(Wrapper(), arguments, train_dataset=rows).train()
        place = folder / "run/checkpoint-2"
    model.save_pretrained(folder / "saved")
    return place


@pytest.mark.parametrize("by", ["accelerate", "Trainer"])
def test_what_a_real_training_leaves_is_taken_apart(run: Any, tmp_path: Path, by: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = trained(tmp_path, by)
    assert not (place / "adapter_config.json").exists()
    said = " ".join(run("scan", place).stdout.split())
    assert f"type `ckpt-doctor fix {place} OUT --adapter-config FILE`" in said
    fixed(run, place, tmp_path / "out", "--adapter-config", tmp_path / "saved/adapter_config.json")
    wanted, found = (
        read(read_weights(str(tmp_path / folder / "adapter_model.safetensors"))) for folder in ("saved", "out")
    )
    assert found == wanted
    assert any("lm_head" in name for name in wanted)
