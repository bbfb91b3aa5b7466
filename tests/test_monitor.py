"""AdaLoRAs that the real Trainer trains with the real PEFT, with and without RankMonitor."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
import transformers
from trainings import BUDGET, LAYERS, SCHEDULE

import ckpt_doctor
from ckpt_doctor.facts.budget import NEVER, TO, planned
from ckpt_doctor.integrations.torch import log_ranks, ranks_of, schedule_of, tuner_of
from ckpt_doctor.integrations.transformers import RankMonitor
from ckpt_doctor.verbs.ranks import Run, logged

pytestmark = pytest.mark.filterwarnings("ignore")  # of PEFT, transformers and torch
START = LAYERS * SCHEDULE["init_r"]
END = SCHEDULE["total_step"] - SCHEDULE["tfinal"]
OLD = Path(os.environ.get("PEFT_VENVS", ".venvs")) / "peft-0.13.2"


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Way → its folder, and what the Trainer logged, with the PEFT and transformers of these tests."""
    found: dict[str, tuple[Path, list[dict[str, Any]]]] = {}

    def of(how: str) -> tuple[Path, list[dict[str, Any]]]:
        if how not in found:
            folder = tmp_path_factory.mktemp("trained") / how
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[how] = folder, trainings.train(how, folder).state.log_history
        return found[how]

    return of


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same with PEFT 0.13.2 and the transformers of its time."""
    folder = tmp_path_factory.mktemp("old")
    ways = ("plain", "monitored", "callback")
    command = [str(OLD / "bin/python"), trainings.__file__, str(folder), *ways]
    root = str(Path(ckpt_doctor.__file__).parent.parent)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": root})
    return lambda how: (folder / how, json.loads((folder / how / "log.json").read_text()))


both = pytest.mark.parametrize("trained", ["newest", pytest.param("old", marks=pytest.mark.compat)])


@both
def test_ranks_fall_to_the_budget_and_the_log_shows_it(trained: str, request: pytest.FixtureRequest) -> None:
    folder, log = request.getfixturevalue(trained)("monitored")
    budget = ckpt_doctor.scan(folder).budget
    assert budget is not None
    assert (budget.state, budget.rank_sum) == (TO, BUDGET)
    shown = {entry["step"]: entry for entry in log if "ranks/sum" in entry}
    assert list(shown) == [*range(2, 21, 2)]
    assert all("loss" in entry for entry in shown.values())
    assert (shown[2]["ranks/sum"], shown[20]["ranks/sum"]) == (START, BUDGET)
    # at each of them, deltaT being 2, the allocator has just left what was planned
    assert all(entry["ranks/sum"] == entry["ranks/planned"] for entry in shown.values())
    run = logged(str(folder / "ranks.jsonl"))
    assert isinstance(run, Run)
    assert {ranks.step: ranks.sum for ranks in run.steps} == {step: e["ranks/sum"] for step, e in shown.items()}
    assert run.last.verdict.startswith(f"pruned to the budget: {BUDGET} of {BUDGET} triplets")
    layers = ckpt_doctor.scan(folder).layers
    assert run.last.known == {name: layer.rank for name, layer in layers.items()}


@both
def test_without_it_nothing_is_allocated(trained: str, request: pytest.FixtureRequest) -> None:
    folder, log = request.getfixturevalue(trained)("plain")
    report = ckpt_doctor.scan(folder)
    assert report.budget is not None
    assert (report.budget.state, report.budget.rank_sum) == (NEVER, START)
    assert not [key for entry in log for key in entry if key.startswith("ranks/")]


@both
def test_it_allocates_as_one_does_by_hand(trained: str, request: pytest.FixtureRequest) -> None:
    """To the last bit."""
    get = request.getfixturevalue(trained)
    by_hand, monitored = ((get(how)[0] / "adapter_model.safetensors").read_bytes() for how in ("callback", "monitored"))
    assert by_hand == monitored


def test_no_allocation_is_made_twice(tmp_path: Path) -> None:
    """Whether others call before it or after it."""
    for kind, callbacks in (
        (trainings.BySubclass, []), (transformers.Trainer, [trainings.ByCallback()]), (transformers.Trainer, [])
    ):  # fmt: skip
        model = trainings.adapted()
        trainer = trainings.trainer(model, tmp_path, kind, max_steps=8)
        RankMonitor().attach(trainer)
        for callback in callbacks:
            trainer.add_callback(callback)
        steps = counted(model)
        trainer.train()
        assert steps == [*range(1, 9)]
        assert model.base_model.update_and_allocate.__func__ is type(model.base_model).update_and_allocate


def counted(model: Any) -> list[int]:
    """The steps that the allocator of a model is called for, as they come."""
    steps = []
    allocator = model.base_model.rankallocator
    allocate = allocator.update_and_allocate

    def count(model: Any, step: int, **how: Any) -> Any:
        steps.append(step)
        return allocate(model, step, **how)

    allocator.update_and_allocate = count
    return steps


def test_accumulated_gradients_are_scored_once_a_step(tmp_path: Path) -> None:
    model = trainings.adapted()
    trainer = trainings.trainer(model, tmp_path, gradient_accumulation_steps=2, max_steps=6)
    RankMonitor().attach(trainer)
    steps = counted(model)
    trainer.train()
    assert steps == [*range(1, 7)]


def test_a_step_that_the_scaler_skipped_is_not_scored(tmp_path: Path) -> None:
    """But the last allocation, which reads no gradient, is made."""
    model = trainings.adapted()
    trainer = trainings.trainer(model, tmp_path)

    class Skipping(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, _: Any, state: Any, *__: Any, **kwargs: Any) -> None:
            kwargs["optimizer"]._is_overflow = state.global_step + 1 in (3, 7, END)
            assert kwargs["optimizer"].step_was_skipped == (state.global_step + 1 in (3, 7, END))

    RankMonitor().attach(trainer)
    trainer.add_callback(Skipping())
    steps = counted(model)
    trainer.train()
    assert steps == [step for step in range(1, END + 1) if step not in (3, 7)]
    assert sum(ranks_of(tuner_of(model)).values()) == BUDGET


@pytest.mark.parametrize(
    ("schedule", "steps", "warnings"),
    [
        ({}, 20, []),
        ({}, 10, ["goes on until step 16: set total_step to 10", "ended with 7 triplets, for a budget of 6"]),
        (
            {}, 3,
            ["begins at step 4: set total_step to 3, and tinit and tfinal so that their sum is less", "ended with 24"],
        ),
        ({"target_r": 4}, 8, ["nothing to prune: target_r 4 is no less than init_r 4"]),
    ],
)  # fmt: skip
def test_it_warns_of_a_schedule_that_comes_to_nothing(
    schedule: dict[str, int], steps: int, warnings: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainings.trainer(trainings.adapted(**schedule), tmp_path, max_steps=steps)
    RankMonitor().attach(trainer)
    trainer.train()
    told = [text for text in caplog.messages if "no triplet is left" not in text]
    assert len(told) == len(warnings), told
    assert all(part in text for part, text in zip(warnings, told, strict=True)), told


def test_it_warns_where_no_allocator_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in transformers' add_adapter: of a LoRA, and of an AdaLoRA that stays one."""
    import peft

    schedule = {**SCHEDULE, "target_modules": ["q_proj"]}
    for config, why in (
        (peft.AdaLoraConfig(**schedule), "it was injected"),
        (peft.LoraConfig(target_modules=["q_proj"]), "no AdaLoRA is in this model"),
    ):
        model = trainings.base()
        model.add_adapter(config)
        trainer = trainings.trainer(model, tmp_path, max_steps=1)
        RankMonitor().attach(trainer)
        trainer.train()
        assert why in caplog.messages[-1]
        with pytest.raises(ValueError, match=why):
            log_ranks(model, 1, tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_it_warns_where_a_gradient_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where PEFT's own call fails. It says early that nothing is pruned, and the training goes on."""
    model = trainings.adapted(total_step=12, tfinal=2)
    factor = next(p for name, p in model.named_parameters() if "q_proj.lora_A" in name)
    factor.requires_grad_(False)
    trainer = trainings.trainer(model, tmp_path, max_steps=12)
    RankMonitor().attach(trainer)
    trainer.train()
    assert "step 0: not pruned: not every factor has its gradient" in caplog.messages[0]
    assert "step 4: nothing is pruned, and it was to begin at step 4" in caplog.messages[1]
    assert trainer.state.log_history[-2]["ranks/sum"] == START


def test_it_warns_where_a_kind_of_modules_vanishes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = trainings.adapted()
    for name, factor in model.named_parameters():
        if "q_proj.lora_" in name:
            factor.data.zero_()  # which has no gradient then, and no score
    trainer = trainings.trainer(model, tmp_path)
    RankMonitor().attach(trainer)
    trainer.train()
    (told,) = caplog.messages
    assert "no triplet is left in any q_proj (2 layers): raise target_r, or take q_proj from target_modules" in told
    gone = next(entry["step"] for entry in trainer.state.log_history if entry["ranks/mean/q_proj"] == 0)
    assert f"step {gone}:" in told


def test_reporters_see_the_ranks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Callbacks that stand before those of the user do where it is attached; else it says that they do not."""
    seen: set[str] = set()

    class Reporter(transformers.TrainerCallback):
        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            seen.update(logs)

    trainer = trainings.trainer(trainings.adapted(), tmp_path, callbacks=[Reporter()], max_steps=2)
    RankMonitor(tmp_path / "a/b/mine.jsonl").attach(trainer)
    trainer.train()
    assert {"ranks/sum", "ranks/planned", "ranks/at_zero", "ranks/mean/q_proj"} <= seen
    assert (tmp_path / "a/b/mine.jsonl").read_text().count("\n") == 2
    caplog.clear()
    trainer = trainings.trainer(trainings.adapted(), tmp_path, callbacks=[RankMonitor()], max_steps=2)
    trainer.args.report_to = ["tensorboard"]
    trainer.train()
    assert [text for text in caplog.messages if "tensorboard will not see the ranks: use RankMonitor().attach" in text]
    assert trainer.state.log_history[0]["ranks/sum"] == START


def test_a_training_goes_on_in_the_same_log(tmp_path: Path) -> None:
    """A new one begins another."""
    late = {"tinit": 12, "total_step": 20, "tfinal": 2}
    for steps, resumed, lines in ((10, None, 1 + 2), (20, "checkpoint-10", 1 + 2 + 1 + 2), (3, None, 1 + 1)):
        trainer = trainings.trainer(
            trainings.adapted(**late), tmp_path, max_steps=steps, save_strategy="steps", save_steps=10, logging_steps=5
        )
        RankMonitor().attach(trainer)
        trainer.train(resume_from_checkpoint=resumed and str(tmp_path / resumed))
        assert (tmp_path / "ranks.jsonl").read_text().count("\n") == lines
        if steps == 20:
            run = logged(str(tmp_path / "ranks.jsonl"))
            assert isinstance(run, Run)
            assert [ranks.step for ranks in run.steps] == [5, 10, 15, 20]
            assert run.last.sum == BUDGET


@pytest.mark.parametrize(("tinit", "tfinal", "every", "total"), [(0, 4, 1, 20), (5, 0, 7, 29), (7, 6, 3, 20)])
def test_what_is_planned_is_what_is_left_after_each_step(tinit: int, tfinal: int, every: int, total: int) -> None:
    """Also between two masks, before the first and after the last."""
    torch.set_num_threads(1)
    model = trainings.adapted(tinit=tinit, tfinal=tfinal, deltaT=every, total_step=total)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    plan = schedule_of(tuner_of(model))
    assert plan is not None
    for step in range(1, total + 2):
        words = torch.randint(0, 32, (2, 8))
        model(input_ids=words, labels=words).loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        assert sum(ranks_of(tuner_of(model)).values()) == planned(plan, step, START, BUDGET), step


def test_a_plain_loop_logs_what_is_saved(tmp_path: Path) -> None:
    """Between two masks numbers come back in what was zeroed; what is logged is what PEFT would save."""
    torch.set_num_threads(1)
    model = trainings.adapted(deltaT=5)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    words = torch.arange(8)[None]
    for step in range(1, 14):
        model(input_ids=words, labels=words).loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        if step in (4, 8, 13):
            ranks = log_ranks(torch.nn.parallel.DataParallel(model), step, tmp_path / "ranks.jsonl")
    model.save_pretrained(str(tmp_path / "adapter"))
    layers = ckpt_doctor.scan(tmp_path / "adapter").layers
    assert ranks == {name: layer.rank for name, layer in layers.items()} == ranks_of(tuner_of(model))
    assert BUDGET < sum(ranks.values()) < START
    head, *lines = map(json.loads, (tmp_path / "ranks.jsonl").read_text().splitlines())
    assert head == {"method": "ADALORA", **SCHEDULE, "deltaT": 5}
    assert [(line["step"], sum(line["ranks"].values())) for line in lines[::2]] == [
        (4, START),
        (13, sum(ranks.values())),
    ]
