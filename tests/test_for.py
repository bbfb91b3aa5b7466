"""`--for`: verdicts for the runtimes asked for, and repairs that go as far as they need."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES
from test_fix import fixed, load

from ckpt_doctor import scan
from ckpt_doctor.adapter.runtimes import PEFT, UnknownRuntimeError, ids, parse, ranges, specs


def edited(name: str, to: Path, **values: Any) -> Path:
    """A fixture with another config."""
    shutil.copytree(FIXTURES / name, to)
    path = to / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return to


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("peft", "PEFT 0.21.2"),
        ("peft==0.9.0", "PEFT 0.9.0"),
        ("peft>=0.6,<0.8", "PEFT 0.6.0 – 0.7.1"),
        ("peft >= 0.20", "PEFT 0.20.0 – 0.21.2"),
        ("installed", "PEFT 0.21.2"),
    ],
)
def test_a_specifier_names_releases(spec: str, names: str) -> None:
    assert ranges(parse(spec)) == names


@pytest.mark.parametrize("spec", ["peft==*", "peft==0.9.0", "peft>=0.6,<0.8", "vllm", "servers", "tgi"])
def test_ids_have_specifiers_that_name_just_them(spec: str) -> None:
    assert ids(specs(parse(spec))) == parse(spec)


def test_the_command_that_is_proposed_reaches_what_was_asked_for(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    output = run("scan", "a", "--for", "peft>=0.6,<0.10").output
    command = shlex.split(output.partition("next: repair it: ckpt-doctor ")[2].splitlines()[0])
    assert run(*command).exit_code == 0
    assert run("scan", "a-fixed", "--for", "peft>=0.6,<0.10").exit_code == 0


def test_the_command_that_is_proposed_asks_the_same(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FIXTURES / "adalora-rank0-0.17.1", tmp_path / "a")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    monkeypatch.chdir(tmp_path)
    options = ["--for", "peft==0.9.0", "--base", "model", "--adapter-name", "other", "--max-rank", "64"]
    output = run("scan", "a", *options).output
    proposed = output.partition("next: repair it: ckpt-doctor ")[2].splitlines()[0]
    assert shlex.split(proposed) == ["fix", "a", "a-fixed", *options]


def test_all_releases() -> None:
    assert parse("peft==*") == PEFT


@pytest.mark.parametrize("spec", ["peft==0.9.5", "peft<0.2", "peft==0.1", "vllm>0.40", "torch", "peft=>1", ""])
def test_what_no_fact_covers_is_refused(run: Any, spec: str) -> None:
    with pytest.raises(UnknownRuntimeError):
        parse(spec)
    assert run("scan", FIXTURES / "lora-plain-0.21.2", "--for", spec).exit_code == 2


def test_only_what_was_asked_for_is_an_error(run: Any) -> None:
    healthy, zero = FIXTURES / "lora-plain-0.21.2", FIXTURES / "adalora-rank0-0.9.0"
    assert run("scan", healthy).exit_code == 0
    assert run("scan", healthy, "--for", "peft==0.9.0").exit_code == 1
    assert run("scan", zero).exit_code == 1
    assert run("scan", zero, "--for", "peft").exit_code == 0


def test_the_name_that_it_is_loaded_under_matters(run: Any) -> None:
    source = FIXTURES / "adalora-rank0-0.21.2"
    assert run("scan", source, "--for", "peft").exit_code == 0
    assert run("scan", source, "--for", "peft", "--adapter-name", "o").exit_code == 1


def test_for_every_release(run: Any, tmp_path: Path) -> None:
    """One form that all 35 releases take: `.bin`, LoRA of one rank."""
    written = fixed(run, tmp_path, "--for", "peft==*")
    assert {row["verdict"] for row in load(sys.executable, written)} == {"accepts"}
    for out in written:
        assert (out / "adapter_model.bin").exists()
        assert json.loads((out / "ckpt-doctor.json").read_text())["proof"]["verdict"] == "same"


CONVERTED = {
    "rslora": ({"use_rslora": True}, "peft==0.6.2", {"use_rslora"}),
    "regex and exclude": ({"exclude_modules": ["head"]}, "peft==0.9.0", {"exclude_modules"}),
    "patterns read apart": (
        {"rank_pattern": {"q": 4}, "alpha_pattern": {"blocks.0.q": 16}},
        "peft==0.9.0",
        {"alpha_pattern"},
    ),
    "pattern for none": ({"alpha_pattern": {"q": 16}}, "peft==0.5.0", {"alpha_pattern"}),
    "task of tomorrow": ({"task_type": "TELEPATHY"}, "peft==0.21.2", {"task_type"}),
    "null pattern": ({"rank_pattern": None}, "peft==0.21.2", {"rank_pattern"}),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_what_is_converted_computes_the_same(run: Any, tmp_path: Path, name: str) -> None:
    values, spec, keys = CONVERTED[name]
    source = edited("lora-plain-0.21.2", tmp_path / "in", **values)
    result = run("fix", source, tmp_path / "out", "--for", spec)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert all(config.get(key) != values.get(key) for key in keys & values.keys())
    assert run("scan", tmp_path / "out", "--for", spec).exit_code == 0


REFUSED = {
    "dora": ({"use_dora": True}, "peft==0.8.2", "use_dora"),
    "lora_bias": ({"lora_bias": True}, "peft==0.13.2", "lora_bias"),
    "pissa": ({"init_lora_weights": "pissa"}, "peft==0.6.2", "pissa"),
    "target_parameters": ({"target_parameters": ["x"]}, "peft==0.16.0", "target_parameters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_is_refused_by_name(run: Any, tmp_path: Path, name: str) -> None:
    values, spec, word = REFUSED[name]
    source = edited("lora-plain-0.21.2", tmp_path / "in", **values)
    result = run("fix", source, tmp_path / "out", "--for", spec)
    assert result.exit_code == 1
    assert word in result.output
    assert not (tmp_path / "out").exists()
    assert run("fix", source, tmp_path / "out", "--for", spec, "--best-effort").exit_code == 1


def test_a_base_decides_what_was_undecided(run: Any, scan: Any, tmp_path: Path) -> None:
    import make
    from safetensors.torch import load_file, save_file

    save_file(make.make_base("net").state_dict(), tmp_path / "base.safetensors")
    source = edited("lora-plain-0.21.2", tmp_path / "in", init_lora_weights=False)  # what has no tensors is random
    weights = source / "adapter_model.safetensors"
    save_file({key: value for key, value in load_file(weights).items() if "blocks.1.q" not in key}, weights)
    assert scan(source)["verdicts"]["peft==0.21.2"] == "unknown"
    for path, verdict in ((source, "misloads"), (FIXTURES / "lora-plain-0.21.2", "accepts")):
        out = run("scan", path, "--base", tmp_path / "base.safetensors", "--format", "json").stdout
        assert json.loads(out)["reports"][0]["verdicts"]["peft==0.21.2"] == verdict


def test_training_is_resumed_from_the_form_for_it(run: Any, tmp_path: Path) -> None:
    """In the newest PEFT: load it trainable, take steps with the allocator, and see the loss fall."""
    import make
    import peft
    import torch

    source = FIXTURES / "adalora-rank0-0.21.2"
    assert run("fix", source, tmp_path / "out", "--for-training").exit_code == 0
    (row,) = load(sys.executable, [tmp_path / "out"])
    assert row["verdict"] == "accepts"
    torch.manual_seed(0)
    model = peft.PeftModel.from_pretrained(make.make_base("net"), tmp_path / "out", is_trainable=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02)
    target, losses = torch.randn(5, 4), []
    for step in range(12):
        optimizer.zero_grad()
        loss = (make.run(model, "net") - target).pow(2).mean()
        loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_training_without_a_schedule_is_refused_with_what_to_set(run: Any, tmp_path: Path) -> None:
    source = edited("adalora-rank0-0.21.2", tmp_path / "in", total_step=None)
    result = run("fix", source, tmp_path / "out", "--for-training")
    assert result.exit_code == 1
    assert "set total_step above tinit + tfinal" in result.output


def test_a_release_that_nobody_reviewed_is_unknown_and_fails_nothing(run: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / name)
    result = run("scan", tmp_path, "--for", "peft==0.30.0", "--for", "vllm==0.9.1", "--format", "json")
    assert result.exit_code == 0
    told = result.stderr.splitlines()
    assert len(told) == 2
    assert "PEFT 0.30.0" in told[0]
    assert "the newest that is known is 0.21.2" in told[0]
    assert "vllm 0.9.1" in told[1]
    assert "the nearest release that was reviewed is 0.8.5" in told[1]
    for report in json.loads(result.stdout)["reports"]:
        assert {report["verdicts"][id_] for id_ in ("peft==0.30.0", "vllm==0.9.1")} == {"unknown"}
    assert run("scan", tmp_path, "--for", "peft==0.30.0", "--fail-on", "warning").exit_code == 1


def test_the_others_decide_beside_a_release_that_nobody_reviewed(run: Any, tmp_path: Path) -> None:
    source = FIXTURES / "adalora-rank0-0.17.1"
    both = ("--for", "peft==0.9.0", "--for", "peft==0.30.0")
    assert run("scan", source, *both).exit_code == 1
    assert run("fix", source, tmp_path / "out", *both).exit_code == 0
    assert run("scan", tmp_path / "out", *both).exit_code == 0
    assert run("fix", source, tmp_path / "alone", "--for", "vllm==0.40.0").exit_code == 0
    assert (tmp_path / "alone/ckpt-doctor.json").exists()


def test_the_peft_that_is_installed_may_be_newer(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    import peft

    monkeypatch.setattr(peft, "__version__", "0.99.0.dev0")
    assert parse("installed") == {"peft==0.99.0.dev0"}
    assert run("scan", FIXTURES / "lora-plain-0.21.2", "--for", "installed").exit_code == 0
    monkeypatch.setattr(peft, "__version__", "0.1.0")
    with pytest.raises(UnknownRuntimeError, match="none older than"):
        parse("installed")


@pytest.mark.parametrize(
    ("spec", "meant"),
    [("peft=0.9", "peft==0.9.0"), ("vlm", "vllm"), ("vllm=0.11", "vllm==0.11.0"), ("server", "servers")],
)  # fmt: skip
def test_what_is_misspelt_is_an_error_that_says_what_was_meant(run: Any, spec: str, meant: str) -> None:
    result = run("scan", FIXTURES / "lora-plain-0.21.2", "--for", spec)
    assert result.exit_code == 2
    assert f"did you mean {meant}?" in result.stderr


def test_releases_of_a_server() -> None:
    assert parse("vllm==*") == {"vllm==0.33.0", "vllm==0.32.0", "vllm==0.11.0", "vllm==0.8.5"}
    assert parse("vllm>=0.8,<0.12") == {"vllm==0.11.0", "vllm==0.8.5"}
    assert parse("vllm==0.11") == {"vllm==0.11.0"}
    assert parse("vllm==0.8.5.post1") == {"vllm==0.8.5"}
    assert parse("llama.cpp==b4567") == {"llama.cpp==b4567"}
    assert parse("peft>=0.30") == {"peft==0.30"}


def test_in_python_a_release_that_nobody_reviewed_is_a_finding() -> None:
    report = scan(FIXTURES / "lora-plain-0.21.2", "vllm==0.40.0")
    assert report.verdicts["vllm==0.40.0"] == "unknown"
    assert [finding.severity for finding in report.findings if finding.code == "CD902"] == ["warning"]
