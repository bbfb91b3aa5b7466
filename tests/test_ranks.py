"""`ranks`: where the ranks are, of an adapter, over a run, side by side; and what of them is used."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from conftest import FIXTURES
from safetensors.numpy import save_file
from wcwidth import wcswidth

import ckpt_doctor
from ckpt_doctor.facts.budget import Schedule, planned
from ckpt_doctor.facts.places import Place, places
from ckpt_doctor.verbs.compare import Delta
from ckpt_doctor.verbs.ranks import Ranks, Run
from ckpt_doctor.verbs.spectra import Spectrum, smallest_rank, spectrum_of

P = "base_model.model.model.layers."
RANDOM = np.random.default_rng(22)
Numbers = dict[str, np.ndarray[Any, Any]]


def adalora(folder: Path, ranks: dict[str, int], *, init_r: int = 8, target_r: int = 3, **values: Any) -> Path:
    """An AdaLoRA whose layers have these ranks, each name behind the prefix of the blocks."""
    tensors: Numbers = {}
    for name, rank in ranks.items():
        tensors[f"{P}{name}.lora_A"] = RANDOM.standard_normal((rank, 6), np.float32)
        tensors[f"{P}{name}.lora_B"] = RANDOM.standard_normal((5, rank), np.float32)
        tensors[f"{P}{name}.lora_E"] = RANDOM.standard_normal((rank, 1), np.float32)
    masks = {f"model.layers.{name}.lora_E": [True] * rank + [False] * (init_r - rank) for name, rank in ranks.items()}
    pruned = any(rank < init_r for rank in ranks.values())
    config = {
        "peft_type": "ADALORA", "peft_version": "0.21.2", "init_r": init_r, "target_r": target_r, "tinit": 20,
        "tfinal": 60, "deltaT": 5, "total_step": 200, "lora_alpha": 8, "rank_pattern": masks if pruned else None,
        "target_modules": sorted({name.rpartition(".")[2] for name in ranks}), **values,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def lora(folder: Path, tensors: Numbers, rank: int = 4, **values: Any) -> Path:
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["q", "v"],
        **values,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def pair(name: str, rank: int = 4, columns: int = 6, rows: int = 5) -> Numbers:
    a, b = RANDOM.standard_normal((rank, columns), np.float32), RANDOM.standard_normal((rows, rank), np.float32)
    return {f"{P}{name}.lora_A.weight": a, f"{P}{name}.lora_B.weight": b}


def seen(run: Any, *arguments: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("ranks", "--format", "json", *arguments).stdout)["ranks"]
    return found


def test_a_layer_lies_in_a_block_by_its_first_or_its_last_number() -> None:
    t5 = [f"encoder.block.{at}.layer.{sub}" for at in (10, 2) for sub in ("0.SelfAttention.q", "1.DenseReluDense.wi")]
    assert places(t5)[t5[0]] == Place("encoder.block.10", "layer.0.SelfAttention.q")
    assert next(iter(places(t5))).startswith("encoder.block.2.")
    unet = [f"down_blocks.{at}.attentions.{sub}.proj" for at, sub in ((0, 0), (0, 1), (1, 0))]
    assert places(unet)[unet[1]] == Place("down_blocks.0.attentions.1", "proj")
    experts = [f"layers.{at}.mlp.experts.{expert}.up_proj" for at in (0, 1) for expert in range(9)]
    assert set(places(experts).values()) == {Place(f"layers.{at}", "mlp.experts.#.up_proj") for at in (0, 1)}
    assert places(["lm_head"])["lm_head"] == Place("", "lm_head")


@pytest.mark.parametrize(
    ("fixture", "verdict"),
    [
        ("adalora-rank0-0.17.1", "pruned to the budget: 12 of 12 triplets, 5 layers at 0"),
        ("adalora-never-allocated-0.9.0", "never allocated: all"),
        ("lora-plain-0.21.2", "all 6 layers have rank 4"),
        ("lora-patterns-0.9.0", "6 layers of rank"),
    ],
)
def test_the_verdict_of_a_fixture(run: Any, fixture: str, verdict: str) -> None:
    (one,) = seen(run, FIXTURES / fixture)
    assert one["verdict"].startswith(verdict)
    assert one["rank_sum"] == sum(layer["rank"] for layer in one["layers"])
    assert sum(one["histogram"].values()) == len(one["layers"])
    assert f"  {verdict}" in run("ranks", FIXTURES / fixture).stdout


def test_a_layer_that_was_pruned_away_is_at_0(run: Any, tmp_path: Path) -> None:
    folder = adalora(tmp_path / "a", {"0.q": 3, "1.q": 3})
    config = json.loads((folder / "adapter_config.json").read_text())
    config["rank_pattern"]["model.layers.2.q.lora_E"] = [False] * 8
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (one,) = seen(run, folder)
    assert [layer["rank"] for layer in one["layers"]] == [3, 3, 0]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("names", [["q", "v"], [f"attention.output.dense_of_kind_{at}" for at in range(8)]])
def test_a_map_of_80_layers_fits_the_terminal(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, names: list[str]
) -> None:
    ranks = {f"{at}.{name}": at % 8 for at in range(80) for name in names}
    folder = adalora(tmp_path / "a", ranks)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(tmp_path)
    lines = run("ranks", folder.name).stdout.splitlines()
    assert max(map(wcswidth, lines)) <= width
    blocks = [line.split()[0] for line in lines if re.search("[0-9][·▁▂▃▄▅▆▇█]$", line)]
    assert blocks == [str(at) for at in range(80)]  # in their order


def test_a_map_that_fits_no_terminal_is_left_to_csv(run: Any, tmp_path: Path) -> None:
    ranks = {f"0.{name}": at % 8 for at, name in enumerate("abcdefghijklmnopqrstuvwxyz")}
    assert "a map of 26 modules is wider than 80 columns" in run("ranks", adalora(tmp_path / "a", ranks)).stdout


def test_blocks_that_are_alike_are_one_line(run: Any, tmp_path: Path) -> None:
    ranks = {f"{at}.{name}": 5 if at == 3 else 2 for at in range(12) for name in ("q", "v")}
    out = run("ranks", adalora(tmp_path / "a", ranks)).stdout
    assert [line.split()[:3] for line in out.splitlines() if "2▂" in line] == [["0", "–", "2"], ["4", "–", "11"]]


def test_blocks_of_two_stacks_are_two_lines(run: Any) -> None:
    out = run("ranks", FIXTURES / "adalora-never-allocated-0.9.0").stdout
    assert [line.split("  ")[1] for line in out.splitlines() if "4█" in line] == ["blocks.0 – 1", "side.blocks.0"]


def test_a_map_reads_without_colour_and_has_it_where_it_helps(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run("ranks", FIXTURES / "adalora-rank0-0.17.1").stdout
    assert "\033" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = run("ranks", FIXTURES / "adalora-rank0-0.17.1").stdout
    assert "\033" in coloured
    assert click.unstyle(coloured) == plain


def schedule_of(step: int) -> dict[str, int]:
    """The ranks of four layers that follow the plan of the config, as near as whole numbers can."""
    left = planned(Schedule(20, 25, 140, 200), step, 32, 12)
    return {f"{at}.q": left // 4 + (at < left % 4) for at in range(4)}


def test_a_run_is_shown_over_its_steps_beside_the_schedule(run: Any, tmp_path: Path) -> None:
    for step in (20, 60, 100, 200):
        adalora(tmp_path / f"checkpoint-{step}", schedule_of(step))
    adalora(tmp_path / "end", schedule_of(200))
    shutil.copytree(tmp_path / "end", tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "end")
    (one,) = seen(run, tmp_path)
    assert [step["step"] for step in one["steps"]] == [20, 60, 100, 200, None]
    assert [step["rank_sum"] for step in one["steps"][:4]] == [step["planned"] for step in one["steps"][:4]]
    assert one["settled"]["model.layers.0.q"] == 100
    assert one["advice"] == []
    assert "4 checkpoints" not in one["verdict"]
    assert one["verdict"].startswith("5 checkpoints, step 20 to 200: 32 → 12 triplets; pruned to the budget")
    out = run("ranks", tmp_path).stdout
    assert [line.split()[:3] for line in out.splitlines() if line.split()[:1] == ["100"]] == [["100", "12", "12"]]


def test_a_run_says_what_to_change(run: Any, tmp_path: Path) -> None:
    whole = {f"{at}.q": 8 for at in range(4)}
    for name, steps in {"never": (100, 200), "early": (10, 20), "short": (40, 60), "dead": (20, 200)}.items():
        for step in steps:
            ranks = whole if name in ("never", "early") else schedule_of(step)
            if name == "dead" and step == 200:
                ranks = {"0.q": 8, "1.q": 4, "2.q": 0, "3.q": 0, "4.q": 0}
            adalora(tmp_path / name / f"checkpoint-{step}", ranks)
    said = {name: " ".join(seen(run, tmp_path / name)[0]["advice"]) for name in ("never", "early", "short", "dead")}
    assert "update_and_allocate was not called" in said["never"]
    assert "lower tinit" in said["early"]
    assert "set total_step to 120 or less" in said["short"]
    assert "3 of 5 layers ended at 0: raise target_r" in said["dead"]


def test_what_a_run_does_not_show_is_no_advice(run: Any, tmp_path: Path) -> None:
    """Checkpoints of after the pruning alone, an end that was pruned after the last of them, nothing to prune."""
    for step in (180, 200):
        adalora(tmp_path / "late" / f"checkpoint-{step}", schedule_of(200))
    for step in (20, 100):
        adalora(tmp_path / "end" / f"checkpoint-{step}", schedule_of(step))
    shutil.copytree(adalora(tmp_path / "x", schedule_of(200)), tmp_path / "end", dirs_exist_ok=True)
    for step in (20, 200):
        adalora(tmp_path / "none" / f"checkpoint-{step}", {f"{at}.q": 8 for at in range(4)}, target_r=8)
    said = {name: " ".join(seen(run, tmp_path / name)[0]["advice"]) for name in ("late", "end", "none")}
    assert (said["late"], said["end"]) == ("", "")
    assert "target_r 8 is no less than init_r 8" in said["none"]
    assert "update_and_allocate" not in said["none"]


def test_adapters_with_names_have_runs_of_their_own(tmp_path: Path) -> None:
    """As PEFT saves several of one model: "default" in the checkpoint, others in folders below it."""
    for step in (20, 200):
        adalora(tmp_path / "checkpoint-3" / f"checkpoint-{step}" / "other", schedule_of(step))
        like = adalora(tmp_path / f"like-{step}", schedule_of(step))
        shutil.move(like / "adapter_config.json", tmp_path / "checkpoint-3" / f"checkpoint-{step}")
        shutil.move(like / "adapter_model.safetensors", tmp_path / "checkpoint-3" / f"checkpoint-{step}")
    adalora(tmp_path / "checkpoint-3" / "other", schedule_of(200))
    found = [one for one in ckpt_doctor.ranks(tmp_path) if isinstance(one, Run)]
    assert [(one.path, [ranks.step for ranks in one.steps]) for one in found] == [
        (f"{tmp_path}/checkpoint-3", [20, 200]),
        (f"{tmp_path}/checkpoint-3/checkpoint-*/other", [20, 200, None]),
    ]


def test_a_checkpoint_that_cannot_be_read_has_no_ranks(run: Any, tmp_path: Path) -> None:
    for step in (20, 200):
        adalora(tmp_path / f"checkpoint-{step}", schedule_of(step))
    (tmp_path / "checkpoint-200" / "adapter_model.safetensors").write_bytes(b"")
    result = run("ranks", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no tensor of" in result.stderr
    assert "checkpoint-200` says why" in result.stderr


def test_a_schedule_of_the_advised_length_ends_within_the_run() -> None:
    assert planned(Schedule(20, 25, 120 - 60, 120), 60, 32, 12) == 12


def test_a_tree_of_runs_and_adapters_is_told_one_by_one(run: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for step in (100, 20):
            adalora(tmp_path / name / f"checkpoint-{step}", schedule_of(step))
    adalora(tmp_path / "alone", schedule_of(200))
    adalora(tmp_path / "c" / "checkpoint-5", schedule_of(20))
    found = seen(run, tmp_path)
    assert [("steps" in one, Path(one["path"]).name) for one in found] == [
        (True, "a"), (False, "alone"), (True, "b"), (False, "checkpoint-5"),
    ]  # fmt: skip


def test_a_log_is_a_run(run: Any, tmp_path: Path) -> None:
    log = tmp_path / "ranks.jsonl"
    head = {"method": "ADALORA", "init_r": 8, "target_r": 3, "tinit": 20, "tfinal": 60, "deltaT": 5, "total_step": 200}
    lines = [head, *({"step": step, "ranks": schedule_of(step)} for step in (20, 100, 60, 60, 200))]
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 205, "ra')
    (one,) = seen(run, log)
    assert [step["step"] for step in one["steps"]] == [20, 60, 100, 200]
    assert [step["rank_sum"] for step in one["steps"]] == [step["planned"] for step in one["steps"]]
    assert one["verdict"].endswith("pruned to the budget: 12 of 12 triplets")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"step": 1}', '{"step": true, "ranks": {}}', '{"step": 1, "ranks": {"a": "b"}}',
        '{"step": 1, "ranks": {}}', '{"step": -1, "ranks": {"a": 1}}', '{"step": 1, "ranks": {"a": -1}}',
        f'{{"step": 1{"0" * 400}, "ranks": {{"a": 1}}}}', f'{{"step": 1, "ranks": {{"a": 1{"0" * 400}}}}}',
    ],
)  # fmt: skip
def test_what_is_no_log_is_said(run: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "ranks.jsonl").write_text(text)
    result = run("ranks", tmp_path / "ranks.jsonl")
    assert result.exit_code == 2
    assert "no line with a step and ranks" in result.stderr


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        ({"init_r": 8, "target_r": 3}, "never allocated: 1 layer has init_r 8"),
        ({"init_r": None}, "1 layer of rank 8, 8 triplets: how far it was to be pruned is not told"),
        ({"method": "LORA"}, "1 layer of rank 8"),
    ],
)
def test_one_layer_is_told_as_one(run: Any, tmp_path: Path, head: dict[str, Any], verdict: str) -> None:
    lines = [{"method": "ADALORA", **head}, {"step": 1, "ranks": {"q": 8}}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert seen(run, tmp_path / "x.jsonl")[0]["verdict"] == verdict


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_singular_values_are_those_of_the_product(rank: int) -> None:
    b, a = RANDOM.standard_normal((40, rank)), RANDOM.standard_normal((rank, 30))
    found = spectrum_of(Delta(b, a))
    whole = np.linalg.svd(b @ a, compute_uv=False)[:rank]
    assert np.allclose(found.singular, whole, rtol=1e-9)
    assert math.isclose(found.norm, float(np.linalg.norm(b @ a)), rel_tol=1e-12)
    shares = whole / whole.sum()
    assert math.isclose(found.effective, float(np.exp(-(shares * np.log(shares)).sum())), rel_tol=1e-9)


def test_a_rank_of_which_half_is_used_says_so() -> None:
    b, a = RANDOM.standard_normal((40, 8)), RANDOM.standard_normal((8, 30))
    b[:, 4:6] = 0
    a[6:] = a[:2]
    found = spectrum_of(Delta(b, a))
    assert (found.used, found.dead) == (4, 2)


def test_the_smallest_rank_keeps_the_energy_of_all_layers() -> None:
    large, small = Spectrum((10.0, 1.0, 0.1), math.sqrt(101.01), 0), Spectrum((1.0, 1.0, 1.0), math.sqrt(3), 0)
    assert smallest_rank([large]) == 1
    assert smallest_rank([small]) == 3
    assert smallest_rank([large, small]) == 2
    assert smallest_rank([Spectrum((), math.nan, 0), large]) is None
    assert smallest_rank([Spectrum((0.0,), 0.0, 1)]) is None


def test_values_find_what_is_used_what_is_dead_and_what_is_no_number(run: Any, tmp_path: Path) -> None:
    tensors = {**pair("0.q"), **pair("0.v"), **pair("1.q"), **pair("1.v")}
    tensors[f"{P}0.q.lora_A.weight"][1] = 0
    tensors[f"{P}0.v.lora_B.weight"][:] = 0
    found = {layer["module"][13:]: layer for layer in seen(run, lora(tmp_path / "a", tensors), "--values")[0]["layers"]}
    assert (found["0.q"]["used"], found["0.q"]["dead"]) == (3, 1)
    assert (found["0.v"]["used"], found["0.v"]["effective_rank"], found["0.v"]["norm"]) == (0, 0.0, 0.0)
    delta = tensors[f"{P}1.q.lora_B.weight"].astype(float) @ tensors[f"{P}1.q.lora_A.weight"]
    assert math.isclose(found["1.q"]["energy"], float((delta**2).sum()), rel_tol=1e-9)
    tensors[f"{P}1.v.lora_A.weight"][-1, -1] = np.nan
    (one,) = seen(run, lora(tmp_path / "b", tensors), "--values")
    assert [layer["module"] for layer in one["layers"] if not layer["finite"]] == ["model.layers.1.v"]
    assert (one["energy"], one["smallest_rank"]) == (None, None)
    assert "1 layers hold NaN or infinity: model.layers.1.v" in run("ranks", "--values", tmp_path / "b").stdout


def test_layers_without_a_product_are_told_to_have_no_numbers(run: Any, tmp_path: Path) -> None:
    factors = {"w1_a": (6, 4), "w1_b": (4, 6), "w2_a": (6, 4), "w2_b": (4, 6)}
    tensors: Numbers = {f"{P}0.q.hada_{name}": np.ones(shape, np.float32) for name, shape in factors.items()}
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOHA", "r": 4, "alpha": 4, "target_modules": ["q"]}')
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    said = "singular values are of a product B·A, and LOHA has none"
    assert f"no numbers of 1 layer: {said}" in run("ranks", tmp_path, "--values").stdout
    assert seen(run, tmp_path, "--values")[0]["layers"][0]["why_no_values"] == said
    run("ranks", tmp_path, "--values", "--html", tmp_path / "page.html")
    assert said in json.loads(f'"{(tmp_path / "page.html").read_text().partition("why_not")[2].split(chr(34))[2]}"')
    assert "no numbers" not in run("ranks", tmp_path).stdout


def test_an_adapter_that_does_nothing_is_told(run: Any, tmp_path: Path) -> None:
    tensors = {key: values * ("lora_A" in key) for key, values in pair("0.q").items()}
    assert "every delta is zero: it does nothing" in run("ranks", "--values", lora(tmp_path / "a", tensors)).stdout


def test_an_adapter_that_does_more_than_its_deltas_is_not_said_to_do_nothing(run: Any, tmp_path: Path) -> None:
    tensors = {key: values * ("lora_A" in key) for key, values in pair("0.q").items()}
    tensors["base_model.model.head.weight"] = RANDOM.standard_normal((3, 3), np.float32)
    out = run("ranks", "--values", lora(tmp_path / "a", tensors, modules_to_save=["head"])).stdout
    assert "every delta is zero" in out
    assert "does nothing" not in out


def test_energies_are_scaled_as_the_release_that_saved_it_does(run: Any, tmp_path: Path) -> None:
    tensors = {**pair("0.q"), **pair("0.v", 2)}
    options = {"rank_pattern": {"v": 2}, "alpha_pattern": {"v": 6}, "use_rslora": True}
    found = {one["kind"]: one for one in seen(run, lora(tmp_path / "a", tensors, **options), "--values")[0]["layers"]}
    for kind, scale in {"q": 4 / math.sqrt(4), "v": 6 / math.sqrt(2)}.items():
        b, a = (tensors[f"{P}0.{kind}.lora_{factor}.weight"].astype(float) for factor in "BA")
        assert math.isclose(found[kind]["norm"], scale * float(np.linalg.norm(b @ a)), rel_tol=1e-9)


def test_where_a_scale_is_not_known_no_rank_is_said_to_do(run: Any, tmp_path: Path) -> None:
    """Of keys that contradict one another; and without peft_version, of releases that read them otherwise."""
    tensors = {**pair("0.q"), **pair("0.v")}
    contradicting = lora(tmp_path / "a", tensors, alpha_pattern={"0.q": 8, "layers.0.q": 16})
    (one,) = seen(run, contradicting, "--values")
    assert (one["energy"], one["smallest_rank"]) == (None, None)
    assert one["layers"][0]["why_no_values"] == "the scale of model.layers.0.q is not known"
    assert one["layers"][1]["energy"] > 0
    out = run("ranks", contradicting, "--values").stdout
    assert "no numbers of 1 layer: the scale of model.layers.0.q is not known" in out
    assert "99 %" not in out
    whole_name = lora(tmp_path / "b", tensors, alpha_pattern={"^model.layers.0.q": 8})
    assert [layer["energy"] > 0 for layer in seen(run, whole_name, "--values")[0]["layers"]] == [True, True]
    config = json.loads((whole_name / "adapter_config.json").read_text())
    del config["peft_version"]  # of those that know alpha_pattern the newer ones alone take a ^
    (whole_name / "adapter_config.json").write_text(json.dumps(config))
    first, second = seen(run, whole_name, "--values")[0]["layers"]
    assert "the releases that may have saved it scale model.layers.0.q otherwise" in first["why_no_values"]
    assert second["energy"] > 0


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_of_any_size_have_a_spectrum(run: Any, tmp_path: Path, scale: float) -> None:
    tensors = {key: (values * np.float32(scale)) for key, values in pair("0.q").items()}
    (layer,) = seen(run, lora(tmp_path / "a", tensors), "--values")[0]["layers"]
    assert layer["used"] == 4
    assert 1 < layer["effective_rank"] <= 4


def test_two_adapters_are_shown_side_by_side(run: Any, tmp_path: Path) -> None:
    a = adalora(tmp_path / "a", {"0.q": 6, "0.v": 2, "1.q": 3, "1.v": 1})
    b = lora(tmp_path / "b", {**pair("0.q"), **pair("0.v"), **pair("1.q"), **pair("1.v")})
    out = run("ranks", a, b, "--values").stdout.partition("side by side")[2]
    assert [line.split()[1:5] for line in out.splitlines() if line.split()[:1] == ["q"]] == [
        ["9", "(75%)", "8", "(50%)"]
    ]
    assert "energy by block" in out
    assert "side by side" not in run("ranks", a).stdout


def test_csv_has_a_row_a_layer_and_no_formula(run: Any, tmp_path: Path) -> None:
    folder = lora(tmp_path / "a", {**pair("0.q"), **pair("0.v")})
    rows = list(csv.DictReader(io.StringIO(run("ranks", folder, "--values", "--format", "csv").stdout)))
    assert [(row["module"], row["rank"]) for row in rows] == [("model.layers.0.q", "4"), ("model.layers.0.v", "4")]
    assert float(rows[0]["effective_rank"]) > 1
    tensors = {key.replace(f"{P}0.q", "base_model.model.=cmd()"): value for key, value in pair("0.q").items()}
    rows = list(csv.DictReader(io.StringIO(run("ranks", lora(tmp_path / "b", tensors), "--format", "csv").stdout)))
    assert rows[0]["module"] == "'=cmd()"


def test_python_has_the_same(tmp_path: Path) -> None:
    for step in (20, 200):
        adalora(tmp_path / "run" / f"checkpoint-{step}", schedule_of(step))
    found, one = ckpt_doctor.ranks(tmp_path / "run", FIXTURES / "lora-plain-0.21.2", values=True)
    assert isinstance(found, Run)
    assert isinstance(one, Ranks)
    assert found.ranks_of("model.layers.0.q") == [8, 3]
    assert one.smallest is not None
    assert one.smallest <= 4
    with pytest.raises(ckpt_doctor.AdapterError):
        ckpt_doctor.ranks(tmp_path / "nowhere")
