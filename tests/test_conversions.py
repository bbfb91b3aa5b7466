"""What other tools wrote: read as PEFT's, to the same function; and written in their form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES
from safetensors.numpy import load_file

DATA = Path(__file__).parent / "data/conversions"
MLX = DATA / "mlx"


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
    assert np.abs(found - outputs[kind]).max() < 2e-6


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


def test_options_that_are_of_peft_do_not_go_with_another_form(run: Any, tmp_path: Path) -> None:
    for more in (("--for", "vllm"), ("--in-place",), ("--for-training",), ("--weights", "bin"), ("--prove",)):
        assert run("fix", MLX / "lora", tmp_path / "out", "--to", "mlx", *more).exit_code == 2
