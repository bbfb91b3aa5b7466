"""How far AdaLoRA came, and the ranks of layers: told as PEFT's own allocator left them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES

import ckpt_doctor
from ckpt_doctor.adapter import Layer
from ckpt_doctor.facts.budget import BELOW, HALF_WAY, NEVER, TO, UNKNOWN, Budget
from ckpt_doctor.facts.places import natural
from ckpt_doctor.files import loader
from ckpt_doctor.reports import Style
from ckpt_doctor.reports.layers import budget_line, layer_lines
from ckpt_doctor.reports.text import columns

PRUNED = FIXTURES / "adalora-rank0-0.9.0"
TINIT, TFINAL, TOTAL, INIT, TARGET, EVERY = 3, 5, 40, 4, 1, 3
TRAIN = f"""
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {str(FIXTURES)!r})
import make, peft, torch
for stop in map(int, sys.argv[2:]):
    torch.manual_seed(1)
    model = make.make_base("net")
    model = peft.get_peft_model(model, peft.AdaLoraConfig(
        target_modules=["q", "v", "up", "down"], init_r={INIT}, target_r={TARGET}, tinit={TINIT}, tfinal={TFINAL},
        total_step={TOTAL}, deltaT={EVERY}))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    target = torch.randn_like(make.run(model, "net").detach())
    for step in range(1, stop + 1):
        optimizer.zero_grad()
        (make.run(model, "net") - target).pow(2).mean().backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
    model.save_pretrained(sys.argv[1] + "/" + str(stop))
"""
STATES = {3: NEVER, 5: NEVER, 6: HALF_WAY, 8: HALF_WAY, 15: HALF_WAY, 34: TO, 35: TO, 40: TO}
"""Steps that were trained → where PEFT's allocator was then."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AdaLoRAs that the PEFT of these tests trained for so many steps, each in a folder of that name."""
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run([sys.executable, "-c", TRAIN, folder, *map(str, STATES)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("stop", STATES)
def test_the_state_is_that_of_peft(trained: Path, stop: int) -> None:
    budget = ckpt_doctor.scan(trained / str(stop)).budget
    assert budget is not None
    assert budget.state == STATES[stop]
    assert (budget.init_r, budget.target_r, budget.budget) == (INIT, TARGET, 12 * TARGET)
    # the last step at which it masked
    assert budget.step == (stop // EVERY * EVERY if STATES[stop] == HALF_WAY else None)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("adalora-never-allocated-0.9.0", NEVER), ("adalora-no-rank0-0.21.2", TO), ("adalora-rank0-gpt2-0.12.0", TO),
        ("adalora-rank0-bin-0.12.0", TO), ("adalora-all-rank0-0.9.0", BELOW),
    ],
)  # fmt: skip
def test_the_state_of_the_fixtures(run: Any, scan: Any, name: str, state: str) -> None:
    assert scan(FIXTURES / name)["adalora"]["state"] == state
    assert f" · {state}" in run("scan", FIXTURES / name).output


def edited(source: Path, target: Path, **values: object) -> Path:
    shutil.copytree(source, target)
    config = json.loads((target / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps({**config, **values}))
    return target


HUGE = 10**18
EDITS: dict[str, dict[str, object]] = {
    "no schedule": {"total_step": None}, "no step that leaves as many": {"tinit": 13, "total_step": 21},
    "a schedule without steps": {"tinit": 35}, "never allocates": {"deltaT": 0}, "a word": {"target_r": "1"},
    "no target": {"target_r": None}, "another init_r": {"init_r": 6}, "no init_r": {"init_r": None},
    "a lost pattern": {"rank_pattern": None}, "counts": {"rank_pattern": {"blocks.0.q.lora_E": 2}},
    "huge": {"total_step": HUGE}, "true": {"init_r": True}, "a target above": {"target_r": 5},
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_what_the_files_do_not_tell_is_unknown(trained: Path, tmp_path: Path, what: str) -> None:
    budget = ckpt_doctor.scan(edited(trained / "15", tmp_path / "a", **EDITS[what])).budget
    assert budget is not None
    assert (budget.state, budget.step) == (UNKNOWN, None)
    assert budget_line(budget).endswith(" · pruning unknown")


def test_a_long_schedule_is_not_walked(trained: Path, tmp_path: Path) -> None:
    start = time.process_time()
    budget = ckpt_doctor.scan(edited(trained / "15", tmp_path / "a", total_step=1 << 40)).budget
    assert time.process_time() - start < 1
    assert budget is not None
    assert budget.state == HALF_WAY
    assert budget.step is not None
    assert budget.step > 1 << 30


def test_what_a_fix_made_is_not_taken_for_the_allocator(tmp_path: Path) -> None:
    """Padding leaves more triplets than PEFT did, the form for training as many as none was taken from."""
    for name, how in (("pad", {}), ("prune", {"rank_zero": "prune"}), ("train", {"for_training": True})):
        assert ckpt_doctor.fix(PRUNED, tmp_path / name, **how)  # type: ignore[arg-type]
        budget = ckpt_doctor.scan(tmp_path / name).budget
        assert budget is not None
        assert budget.state == UNKNOWN


def test_other_methods_have_no_budget(scan: Any) -> None:
    assert scan(FIXTURES / "lora-plain-0.21.2")["adalora"] is None


def test_the_line_of_the_budget() -> None:
    assert budget_line(Budget(4, 1, 20, 12, HALF_WAY, 15, 40)) == (
        "init_r 4, target_r 1 · ranks sum to 20, budget 12 · stopped half-way, as after step 15 of 40"
    )
    assert len(budget_line(Budget(12, 8, 1792, 1792, TO))) + 2 <= 80


def layers(ranks: dict[str, int | None], alpha: float = 16.0) -> dict[str, Layer]:
    return {m: Layer(m, {}, rank, alpha, alpha / rank if rank else None) for m, rank in ranks.items()}


def test_what_all_share_is_said_once() -> None:
    names = [f"model.layers.{n}.self_attn.{m}" for n in range(32) for m in ("q_proj", "v_proj")]
    shown = list(layer_lines(layers(dict.fromkeys(names, 8)), Style(80)))
    assert shown == ["  all: rank 8, alpha 16, scaling 2", "  layers: 32 q_proj, 32 v_proj"]


def test_blocks_come_in_the_order_of_their_numbers() -> None:
    assert sorted(["h.10.q", "h.2.q", "h.2.k", "g.3.1", "h.02.a"], key=natural) == [
        "g.3.1", "h.02.a", "h.2.k", "h.2.q", "h.10.q"
    ]  # fmt: skip
    assert natural("9" * 10_000 + ".q") > natural("8" * 10_000 + ".q")
    shown = list(layer_lines(layers({f"h.{n}.q": n + 1 for n in (10, 2, 1)}), Style(80)))
    assert shown[0] == "  all: alpha 16"
    assert [line.split()[0] for line in shown[1:]] == ["module", "h.1.q", "h.2.q", "h.10.q"]


def test_a_matrix_where_it_fits() -> None:
    ranks: dict[str, int | None] = {f"layers.{n}.attn.{m}": 4 + n for n in range(12) for m in ("q", "k")}
    ranks["head"] = None
    del ranks["layers.3.attn.k"]
    shown = list(layer_lines(layers(ranks), Style(40)))
    assert shown[0] == "  all: alpha 16"
    assert [line.split() for line in shown[1:3]] == [["rank/scaling", "head", "k", "q"], ["–", "–/–"]]
    assert shown[-1].split() == ["layers.11", "15/1.067", "15/1.067"]
    (hole,) = [line for line in shown if "layers.3 " in line]
    assert hole.split() == ["layers.3", "7/2.286"]
    assert columns(hole) == columns(shown[1])  # it stands under q
    as_list = list(layer_lines(layers(ranks), Style(36)))
    assert len(as_list) == 2 + len(ranks)
    assert as_list[1].split() == ["module", "rank", "scaling"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_layers_fit_the_terminal(width: int) -> None:
    modules = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ranks: dict[str, int | None] = {
        f"model.language_model.layers.{n}.{m}": 1 + n % 3 for n in range(40) for m in modules
    }
    assert max(map(columns, layer_lines(layers(ranks), Style(width)))) <= width


def test_names_that_share_nothing_make_no_large_matrix() -> None:
    ranks: dict[str, int | None] = {f"b.{n}.{m}{n}": 1 + n % 2 for n in range(20_000) for m in "xy"}
    start = time.process_time()
    assert len(list(layer_lines(layers(ranks), Style(80)))) == 2 + len(ranks)
    assert time.process_time() - start < 5


def test_modules_of_one_last_name_are_named_in_full() -> None:
    ranks: dict[str, int | None] = {f"h.{n}.{m}.proj": 1 + n for n in range(2) for m in ("a", "b")}
    assert list(layer_lines(layers(ranks, 0.0), Style(80)))[1].split() == ["rank", "a.proj", "b.proj"]


def test_the_state_of_a_run_is_read_of_each_checkpoint(run: Any, tmp_path: Path) -> None:
    """Of checkpoints with the same config and header, which a run remembers, each has steps of its own."""
    for at, step in enumerate((10, 20, 12, 10_000)):
        shutil.copytree(FIXTURES / "adalora-never-allocated-0.9.0", tmp_path / f"checkpoint-{at}")
        state = tmp_path / f"checkpoint-{at}/trainer_state.json"
        state.write_text(json.dumps({"global_step": step, "max_steps": 10_000}))
        config = state.with_name("adapter_config.json")
        config.write_text(json.dumps({**json.loads(config.read_text()), "tinit": 15, "total_step": 10_000}))
    state.write_text("{")
    reports = json.loads(run("scan", tmp_path, "--format", "json").stdout)["reports"]
    said = [next(f["message"] for f in report["findings"] if f["code"] == "CD107") for report in reports]
    assert ["saved after step 10," in text for text in said] == [True, False, False, False]
    assert ["saved after step 12," in text for text in said] == [False, False, True, False]
    assert ["never called" in text for text in said] == [False, True, False, True]
    assert not [f for report in reports for f in report["findings"] if f["code"] == "CD109"]


@pytest.mark.parametrize(
    "state",
    [
        "", "[]", "{", '{"global_step": 5}', '{"global_step": true, "max_steps": 9}',
        '{"global_step": "5", "max_steps": "9"}', '{"global_step": 1e400, "max_steps": NaN}',
        '{"global_step": -1, "max_steps": 9}', "[" * 100_000, None,
    ],
)  # fmt: skip
def test_a_state_of_a_run_that_tells_nothing_is_none(state: str | None, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "adalora-never-allocated-0.9.0", tmp_path / "a")
    file = tmp_path / "a/trainer_state.json"
    if state is None:
        os.mkfifo(file)
    else:
        file.write_text(state)
    assert loader.load(str(tmp_path / "a")).trained is None


def test_the_form_for_training_is_one_of_which_nothing_is_said(run: Any, tmp_path: Path) -> None:
    source = FIXTURES / "adalora-no-rank0-0.21.2"
    assert run("fix", source, tmp_path / "a", "--for-training").exit_code == 0
    told = [
        {f["code"] for f in json.loads(run("scan", path, "--format", "json").stdout)["reports"][0]["findings"]}
        for path in (source, tmp_path / "a")
    ]
    training = {"CD107", "CD108", "CD109", "CD110", "CD111", "CD112"}
    assert [codes & training for codes in told] == [{"CD112"}, set()]
