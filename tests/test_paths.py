"""Names for servers: layers under the paths that the model's class has, one to one and of its sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_servers import QV, base, lora  # noqa: F401 - base is a fixture

OTHERS = {
    "no model.": ("model.", ""),
    "a level too many": ("model.", "model.language_model."),
    "the older name of a language model": ("model.", "language_model.model."),
}


def renamed(folder: Path, old: str, new: str) -> Path:
    """The adapter with the beginning of its names changed."""
    path, prefix = folder / "adapter_model.safetensors", "base_model.model."
    tensors = {key.replace(prefix + old, prefix + new, 1): value for key, value in load_file(path).items()}
    save_file(tensors, path)
    return folder


@pytest.mark.parametrize("other", OTHERS)
def test_layers_are_named_as_the_model_does(run: Any, tmp_path: Path, base: Path, other: str) -> None:  # noqa: F811
    source, out = lora(tmp_path / "a", QV), tmp_path / "out"
    meant = load_file(source / "adapter_model.safetensors")
    renamed(source, *OTHERS[other])
    result = run("fix", source, out, "--for", "vllm", "--base", base)
    assert result.exit_code == 0, result.output
    new = load_file(out / "adapter_model.safetensors")
    assert new.keys() == meant.keys()
    for key, value in new.items():
        np.testing.assert_array_equal(value, meant[key])


@pytest.mark.parametrize("fault", ["size", "two of one name", "a pattern", "no weights"])
def test_no_name_is_guessed(run: Any, tmp_path: Path, base: Path, fault: str) -> None:  # noqa: F811
    values = {"rank_pattern": {"layers.0.self_attn.q_proj": 4}} if fault == "a pattern" else {}
    source, out = lora(tmp_path / "a", QV, **values), tmp_path / "out"
    path, old = source / "adapter_model.safetensors", load_file(source / "adapter_model.safetensors")
    renamed(source, *OTHERS["a level too many"])
    if fault == "size":
        tensors = load_file(path)
        save_file({k: np.ones((8, 4), np.float32) if "q_proj.lora_B" in k else v for k, v in tensors.items()}, path)
    if fault == "two of one name":
        save_file({**load_file(path), **old}, path)
    if fault == "a pattern":
        config = json.loads((source / "adapter_config.json").read_text())
        config["rank_pattern"] = {"model.language_model.layers.0.self_attn.q_proj": 4}
        config["r"] = 8
        (source / "adapter_config.json").write_text(json.dumps(config))
    if fault == "no weights":
        base = base / "config.json"
    assert run("fix", source, out, "--for", "vllm", "--base", base).exit_code != 0
    assert not out.exists()
