"""What `together` says of adapters, and that `fix` makes them alike without changing what they compute.

What it says is held against real releases by scripts/check_together.py; a share of that is here, marked compat.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import check_together
import numpy as np
import pytest
from conftest import FIXTURES
from safetensors.numpy import load_file, save_file
from test_compat import VENVS
from test_servers import QV, Q, base, lora  # noqa: F401 - base is a fixture

import ckpt_doctor
from ckpt_doctor.facts.subject import Subject
from ckpt_doctor.files.loader import load
from ckpt_doctor.repairs.lora import trimmed

P = "base_model.model."
RANDOM = np.random.default_rng(21)
SIZE = 32


def adapter(folder: Path, names: str = "q v", *, blocks: int = 2, rank: int = 4, **values: Any) -> Path:
    """A LoRA of random numbers on modules of some blocks."""
    listed = names.split()
    config = {
        "peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": listed, "lora_dropout": 0.0, "bias": "none",
        "peft_version": "0.21.2", **values,
    }  # fmt: skip
    modules = [f"{P}model.layers.{block}.{name}" for block in range(blocks) for name in listed]
    tensors = {f"{module}.lora_A.weight": RANDOM.standard_normal((rank, SIZE), np.float32) for module in modules}
    tensors |= {f"{module}.lora_B.weight": RANDOM.standard_normal((SIZE, rank), np.float32) for module in modules}
    tensors |= {f"{P}{name}.weight": np.ones((2, SIZE), np.float32) for name in values.get("modules_to_save") or ()}
    folder.mkdir(parents=True)
    known = {key: value for key, value in config.items() if value is not None}
    (folder / "adapter_config.json").write_text(json.dumps(known))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def said(run: Any, *arguments: object, release: str = "0.21.2") -> dict[str, str]:
    """The verdict of each use in one release, by its name."""
    out = run("together", *arguments, "--for", f"peft=={release}", "--format", "json", "--base", "none").stdout
    (runtime,) = json.loads(out)["runtimes"]
    return {answer["use"].removeprefix("merged by "): answer["verdict"] for answer in runtime["answers"]}


def test_adapters_of_one_recipe_can_be_merged_swapped_and_had_side_by_side(run: Any, tmp_path: Path) -> None:
    a, b = adapter(tmp_path / "a"), adapter(tmp_path / "b")
    assert set(said(run, a, b).values()) == {"accepts"}
    result = run("together", a, b)
    assert result.exit_code == 0
    assert "yes: merged by cat: exact; its rank is 8" in result.stdout


@pytest.mark.parametrize(
    ("first", "second", "wrong"),
    [
        ({}, {"rank": 8}, {"linear": "rejects", "cat": "accepts", "svd": "accepts", "hot-swapped": "accepts"}),
        ({"use_rslora": True}, {}, {"cat": "misloads", "hot-swapped": "rejects", "side by side": "accepts"}),
        ({}, {"use_rslora": True}, {"cat": "accepts", "linear": "accepts", "hot-swapped": "rejects"}),
        ({}, {"names": "q v k"}, {"cat": "accepts", "hot-swapped": "rejects"}),
        ({"names": "q v k"}, {}, {"cat": "accepts", "hot-swapped": "accepts"}),
        ({}, {"target_modules": r".*\.(q|v)"}, {"cat": "rejects", "side by side": "accepts"}),
        ({}, {"lora_dropout": 0.1}, {"cat": "accepts", "hot-swapped": "rejects"}),
        ({"rank": 40}, {"rank": 40}, {"cat": "accepts", "linear": "accepts", "svd": "accepts"}),
        ({}, {"layers_to_transform": [0, 1]}, {"cat": "unknown", "side by side": "accepts"}),
        ({"alora_invocation_tokens": [1]}, {}, {"cat": "unknown", "hot-swapped": "unknown", "side by side": "unknown"}),
        ({}, {"init_lora_weights": "pissa"}, {"cat": "unknown", "side by side": "unknown"}),
    ],
)  # fmt: skip
def test_what_stands_in_the_way(
    run: Any, tmp_path: Path, first: dict[str, Any], second: dict[str, Any], wrong: dict[str, str]
) -> None:
    found = said(run, adapter(tmp_path / "a", **first), adapter(tmp_path / "b", **second))
    assert {use: found[use] for use in wrong} == wrong


def test_older_releases_do_otherwise(run: Any, tmp_path: Path) -> None:
    a, b, more = (adapter(tmp_path / name, names) for name, names in (("a", "q v"), ("b", "q v"), ("c", "q v k")))
    assert said(run, a, b, release="0.20.0")["svd"] == "misloads"  # the scale counts twice
    assert said(run, a, b, release="0.20.0")["cat"] == "accepts"
    assert said(run, more, a, release="0.15.2")["hot-swapped"] == "accepts"
    assert said(run, more, a, release="0.14.0")["hot-swapped"] == "rejects"
    assert said(run, a, b, release="0.13.2")["hot-swapped"] == "rejects"
    old = [adapter(tmp_path / name, peft_version=None) for name in ("d", "e")]
    assert said(run, *old, release="0.10.0")["cat"] == "unknown"  # nobody looked


@pytest.mark.parametrize(
    ("first", "second", "off"),
    [
        ("head", None, "head of {0} stays off once {1}, which has none, was active"),
        (None, "head", "head of {1} stays off once {0}, which has none, was active"),
        ("head", "pooler", "pooler of {1} stays off once {0}, which has none, was active"),
        ("head pooler", "head", ""),  # the second has a copy of the pooler as well
        ("head", "head pooler", "pooler of {1} stays off once {0}, which has none, was active"),
    ],
)
def test_what_was_saved_whole_stays_off_in_older_releases(
    run: Any, tmp_path: Path, first: str | None, second: str | None, off: str
) -> None:
    wholes = {"a": first, "b": second}
    both = [adapter(tmp_path / name, modules_to_save=names and names.split()) for name, names in wholes.items()]
    out = run("together", *both, "--for", "peft==0.14.0", "--format", "json", "--base", "none").stdout
    answers = {answer["use"]: answer for answer in json.loads(out)["runtimes"][0]["answers"]}
    reason = answers["side by side"]["reason"]
    assert off.format(*both) in reason
    assert bool(off) == ("stays off" in reason)


def test_what_the_model_has_decides_which_modules_a_merged_adapter_would_have(run: Any, tmp_path: Path) -> None:
    a, b = adapter(tmp_path / "a"), adapter(tmp_path / "b", "q k", blocks=1, layers_to_transform=[0])
    model = {f"model.layers.{n}.{name}.weight": np.zeros((SIZE, SIZE), np.float32) for n in range(2) for name in "qkv"}
    save_file(model, tmp_path / "model.safetensors")
    assert said(run, a, b)["cat"] == "unknown"
    out = run("together", a, b, "--base", tmp_path / "model.safetensors", "--format", "json").stdout
    answer = json.loads(out)["runtimes"][0]["answers"][0]
    assert (answer["verdict"], "model.layers.1.k" in answer["reason"]) == ("rejects", True)


def test_adapters_of_two_models_are_not_for_one(run: Any, tmp_path: Path) -> None:
    a, b = adapter(tmp_path / "a"), adapter(tmp_path / "b")
    tensors = load_file(b / "adapter_model.safetensors")
    tensors[f"{P}model.layers.0.q.lora_A.weight"] = np.ones((4, SIZE + 1), np.float32)
    save_file(tensors, b / "adapter_model.safetensors")
    assert set(said(run, a, b).values()) == {"rejects"}
    result = run("fix", tmp_path, tmp_path.with_name("alike"), "--modules", "union")
    assert (result.exit_code, "two models" in result.stderr) == (1, True)


def test_what_the_configs_say_of_the_model_is_told(run: Any, tmp_path: Path) -> None:
    a, b = (adapter(tmp_path / name, base_model_name_or_path=f"owner/{name}") for name in ("a", "b"))
    out = run("together", a, b)
    assert (out.exit_code, "they name several models: owner/a, owner/b" in out.stdout) == (0, True)
    same = run("together", a, a, "--format", "json").stdout
    assert json.loads(same)["runtimes"][0]["models"] == []


def test_a_tensor_that_nobody_followed_leaves_it_unknown(run: Any, tmp_path: Path) -> None:
    """As save_embedding_layers writes it: loaded, it is the embedding of the model, for all."""
    a, b = adapter(tmp_path / "a"), adapter(tmp_path / "b")
    tensors = load_file(b / "adapter_model.safetensors")
    tensors[f"{P}model.embed_tokens.weight"] = np.ones((8, SIZE), np.float32)
    save_file(tensors, b / "adapter_model.safetensors")
    found = said(run, a, b)
    assert [found[use] for use in ("cat", "linear", "side by side", "hot-swapped")] == ["unknown"] * 3 + ["rejects"]


def test_one_that_cannot_be_examined_and_one_alone(run: Any, tmp_path: Path) -> None:
    a = adapter(tmp_path / "a")
    result = run("together", a, tmp_path / "none", "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)["runtimes"]) == (2, [])
    assert run("together", a).exit_code == 2


def test_no_numbers_are_read(tmp_path: Path) -> None:
    a, b = adapter(tmp_path / "a"), adapter(tmp_path / "b")
    code = f"""
import sys
from ckpt_doctor.adapter import NOTHING_ASKED
from ckpt_doctor.verbs.together import together
together([{str(a)!r}, {str(b)!r}], NOTHING_ASKED)
print(*(name for name in ("numpy", "torch") if name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_fix_gives_all_one_rank_and_the_modules_of_all(run: Any, tmp_path: Path) -> None:
    a = adapter(tmp_path / "in/a", "q v", rank=4)
    b = adapter(tmp_path / "in/b", "q k", rank=8, use_rslora=True)
    assert said(run, a, b)["linear"] == "rejects"
    out = tmp_path / "out"
    assert run("fix", tmp_path / "in", out, "--to", "lora", "--rank", "16", "--modules", "union").exit_code == 0
    assert set(said(run, out / "a", out / "b").values()) == {"accepts"}
    for name in ("a", "b"):
        assert ckpt_doctor.compare(tmp_path / "in" / name, out / name)
        tensors = load_file(out / name / "adapter_model.safetensors")
        assert len(tensors) == 12
        assert {shape for value in tensors.values() for shape in value.shape} == {16, SIZE}


@pytest.mark.parametrize("rooted", [False, True])
def test_another_rank_keeps_the_scale(rooted: bool, tmp_path: Path) -> None:
    """With rsLoRA alpha is divided by the root of the rank."""
    folder = adapter(tmp_path / "a", rank=8, use_rslora=rooted)
    tensors = load_file(folder / "adapter_model.safetensors")
    cut = {
        key: value * (np.arange(8)[:, None] < 2 if "lora_A" in key else np.arange(8) < 2)
        for key, value in tensors.items()
    }
    save_file({key: value.astype(np.float32) for key, value in cut.items()}, folder / "adapter_model.safetensors")
    before = Subject(load(str(folder)))
    after = before.changed(trimmed(before))
    assert {layer.rank for layer in after.layers.values()} == {2}
    assert [layer.scaling for layer in after.layers.values()] == pytest.approx(
        [layer.scaling for layer in before.layers.values()], rel=1e-12
    )


def test_a_rank_below_the_one_that_is_used_is_refused_and_zeros_are_trimmed(run: Any, tmp_path: Path) -> None:
    a = adapter(tmp_path / "a", rank=8)
    refused = run("fix", a, tmp_path / "out", "--to", "lora", "--rank", "4")
    assert (refused.exit_code, "rank 8 is used" in refused.stderr, (tmp_path / "out").exists()) == (1, True, False)
    tensors = load_file(a / "adapter_model.safetensors")
    for key, value in tensors.items():
        (value[3:] if "lora_A" in key else value[:, 3:])[:] = 0
    save_file(tensors, a / "adapter_model.safetensors")
    assert run("fix", a, tmp_path / "out", "--to", "lora", "--rank", "4").exit_code == 0
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["r"] == 4
    assert ckpt_doctor.compare(a, tmp_path / "out")
    assert run("fix", a, tmp_path / "other", "--rank", "4").exit_code == 2


def test_two_adaloras_are_merged_once_they_are_lora(run: Any, tmp_path: Path) -> None:
    """PEFT refuses them as they are (tuners/adalora/model.py: AdaLoraModel.add_weighted_adapter)."""
    for name in ("a", "b"):
        shutil.copytree(FIXTURES / "adalora-rank0-0.17.1", tmp_path / "in" / name)
    assert said(run, tmp_path / "in/a", tmp_path / "in/b")["cat"] == "rejects"
    out = tmp_path / "out"
    assert run("fix", tmp_path / "in", out, "--to", "lora", "--rank", "16", "--modules", "union").exit_code == 0
    found = said(run, out / "a", out / "b")
    assert {found[use] for use in ("cat", "linear", "ties", "hot-swapped", "side by side")} == {"accepts"}
    assert ckpt_doctor.compare(tmp_path / "in/a", out / "a")


def test_a_server_takes_all_with_the_largest_rank(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    a, b = lora(tmp_path / "a", QV), lora(tmp_path / "b", dict.fromkeys(Q, 64), r=64)
    result = run("together", a, b, "--for", "vllm", "--base", base, "--format", "json")
    (runtime,) = json.loads(result.stdout)["runtimes"]
    assert [answer["verdict"] for answer in runtime["answers"]] == ["accepts"]
    assert runtime["start"] == "--enable-lora --max-lora-rank 64"
    limited = run("together", a, b, "--for", "vllm", "--base", base, "--max-rank", 16, "--format", "json")
    assert json.loads(limited.stdout)["runtimes"][0]["answers"][0]["verdict"] == "rejects"


@pytest.mark.parametrize(
    "values", [{"bias": "lora_only"}, {"use_dora": True}, {"modules_to_save": ["head"]}, {"rank_pattern": {"q": 4}}]
)
def test_zero_pairs_are_refused_where_what_they_would_be_is_not_known(
    run: Any, tmp_path: Path, values: dict[str, Any]
) -> None:
    adapter(tmp_path / "in/a", "q v", **values)
    adapter(tmp_path / "in/b", "q k")
    result = run("fix", tmp_path / "in", tmp_path / "out", "--modules", "union")
    assert (result.exit_code, (tmp_path / "out/a").exists()) == (1, False)


@pytest.mark.compat
@pytest.mark.parametrize("release", ["0.13.2", "0.21.2"])
def test_pairs_of_random_draw_do_as_it_says(tmp_path: Path, release: str) -> None:
    python = {venv.name: venv for venv in VENVS}[f"peft-{release}"] / "bin/python"
    places = check_together.pairs(os.path.abspath(python), tmp_path / release, 21, 8)
    real = check_together.truth(os.path.abspath(python), places)
    for place, uses in zip(places, real, strict=True):
        found = check_together.judged(place, release, base=True)
        wrong = {use: (found[use], uses[use]) for use in uses if found[use][0] not in ("unknown", uses[use][0])}
        assert {use: why for use, why in wrong.items() if "by itself" not in why[0][1]} == {}
    assert len({verdict for uses in real for verdict, _ in uses.values()}) == 3  # the draw has each
