"""Which findings count: options, environment, the project's file, and a baseline."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES

from ckpt_doctor.cli.settings import selectors

HEALTHY, ZERO = FIXTURES / "lora-plain-0.21.2", FIXTURES / "adalora-rank0-0.9.0"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a healthy adapter and one with rank-0 layers."""
    for key in list(os.environ):
        if key.startswith("CKPT_DOCTOR_"):
            monkeypatch.delenv(key)
    shutil.copytree(HEALTHY, tmp_path / "adapters/healthy")
    shutil.copytree(ZERO, tmp_path / "adapters/zero")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def codes(result: Any) -> dict[str, list[str]]:
    """The codes that are told of each adapter."""
    return {
        Path(report["path"]).name: [finding["code"] for finding in report["findings"]]
        for report in json.loads(result.stdout)["reports"]
    }


@pytest.mark.usefixtures("project")
def test_select_and_ignore_say_what_is_told_and_never_what_is_true(run: Any) -> None:
    assert codes(run("scan", "adapters", "--format", "json", "--select", "CD1"))["zero"] == ["CD101", "CD112"]
    assert codes(run("scan", "adapters", "--format", "json", "--select", "adalora-rank-zero,CD3"))["zero"] == [
        "CD101",
        "CD301",
    ]
    result = run("scan", "adapters", "--format", "json", "--ignore", "CD101")
    assert result.exit_code == 0
    assert "CD101" not in codes(result)["zero"]
    (zero,) = [r for r in json.loads(result.stdout)["reports"] if r["path"].endswith("zero")]
    assert zero["verdicts"]["peft==0.9.0"] == "rejects"
    assert "accepted by PEFT 0.4.0 – 0.5.0, 0.10.0" in run("scan", "adapters/zero", "-v", "--ignore", "CD").output


@pytest.mark.usefixtures("project")
def test_ignore_wins_over_select(run: Any) -> None:
    result = run("scan", "adapters/zero", "--format", "json", "--select", "CD1", "--ignore", "CD101")
    assert codes(result) == {"zero": ["CD112"]}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("selector", ["CD9999", "X", "rank"])
def test_a_selector_that_matches_no_code_is_refused(run: Any, selector: str) -> None:
    result = run("scan", "adapters", "--select", selector)
    assert result.exit_code == 2
    assert "`ckpt-doctor rules` lists them" in " ".join(result.stderr.split())


def test_a_name_that_a_code_had_still_means_it() -> None:
    assert selectors(["no-layers"]) == ("CD316", "CD510")
    assert selectors(["method-without-layers"]) == ("CD510",)
    assert selectors(["adapter-name-in-key", "adapter-name-in-method-key"]) == ("CD402", "CD514", "CD514")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("least", "code"), [("error", 0), ("warning", 0), ("note", 1), ("never", 0)])
def test_fail_on_is_the_least_severity_that_fails(run: Any, least: str, code: int) -> None:
    assert run("scan", "adapters/healthy", "--fail-on", least).exit_code == code


@pytest.mark.usefixtures("project")
def test_exit_zero_hides_findings_and_not_failures(run: Any) -> None:
    assert run("scan", "adapters", "--exit-zero").exit_code == 0
    assert run("scan", "adapters", "nothing", "--exit-zero").exit_code == 2


CONFIGS = {
    "pyproject.toml": '[project]\nname = "x"\nversion = "1"\n[tool.ckpt-doctor]\n',
    "ckpt-doctor.toml": "",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_project_says_it_in_a_file(run: Any, project: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / name).write_text(CONFIGS[name] + 'ignore = "CD101"\nfail-on = "warning"\n')
    assert run("scan", "adapters").exit_code == 0
    (project / name).write_text(CONFIGS[name] + 'for = ["peft==0.21.2"]\n')
    assert run("scan", "adapters").exit_code == 0
    (project / name).write_text(CONFIGS[name] + 'fail-on = "note"\nfor = "peft==0.21.2"\n')
    assert run("scan", "adapters/healthy").exit_code == 1
    monkeypatch.chdir(project / "adapters/healthy")  # the nearest file above holds
    assert run("scan", ".").exit_code == 1


def test_an_option_wins_over_the_environment_and_that_over_the_file(
    run: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "ckpt-doctor.toml").write_text('fail-on = "note"\n')
    assert run("scan", "adapters/healthy").exit_code == 1
    monkeypatch.setenv("CKPT_DOCTOR_FAIL_ON", "error")
    assert run("scan", "adapters/healthy").exit_code == 0
    assert run("scan", "adapters/healthy", "--fail-on", "note").exit_code == 1
    monkeypatch.setenv("CKPT_DOCTOR_FOR", "peft==0.9.0 peft==0.21.2")
    assert run("scan", "adapters/healthy").exit_code == 1


def test_overrides_hold_for_the_adapters_of_their_paths(run: Any, project: Path) -> None:
    override = '[[overrides]]\npaths = ["adapters/z*"]\nignore = ["CD101"]\n'
    (project / "ckpt-doctor.toml").write_text(override)
    assert run("scan", "adapters").exit_code == 0
    (project / "ckpt-doctor.toml").write_text(override.replace("adapters/z*", "other"))
    assert run("scan", "adapters").exit_code == 1
    (project / "ckpt-doctor.toml").write_text('for = "peft==0.9.0"\n[[overrides]]\npaths = "adapters"\nfor = "peft"\n')
    assert run("scan", "adapters").exit_code == 0
    assert run("scan", "adapters", "--for", "peft==0.9.0").exit_code == 1


def test_of_the_same_adapter_one_fails_and_another_does_not(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("legacy/1", "legacy/2", "legacy/3", "now/1"):  # the first and the second are not remembered
        shutil.copytree(ZERO, tmp_path / "tree" / name)
    (tmp_path / "ckpt-doctor.toml").write_text('[[overrides]]\npaths = ["tree/legacy/*"]\nfail-on = "never"\n')
    monkeypatch.chdir(tmp_path)
    assert run("scan", "tree/legacy", "--for", "peft==0.9.0").exit_code == 0
    for paths in (["tree"], ["tree/now", "tree/legacy"]):
        result = run("scan", *paths, "--for", "peft==0.9.0", "--format", "json")
        assert (result.exit_code, json.loads(result.stdout)["summary"]["failing"]) == (1, 1)


def test_an_override_reaches_a_fix_as_well(run: Any, project: Path) -> None:
    (project / "ckpt-doctor.toml").write_text('[[overrides]]\npaths = "adapters/healthy"\nfor = "peft==0.9.0"\n')
    assert run("fix", "adapters/healthy", "out").exit_code == 0
    assert json.loads((project / "out/adapter_config.json").read_text()).keys().isdisjoint({"lora_bias", "use_qalora"})


WRONG = {
    'faill-on = "note"': "no key 'faill-on'",
    'fail-on = "loud"': "fail-on: 'loud' is none of",
    "max-rank = 0": "max-rank: 0 is no whole number",
    "for = 3": "for: 3 is neither a text nor a list of texts",
    'for = "peft==0.9.5"': "names no release",
    'select = ["CD777"]': "'CD777' is no code, beginning or name of a finding",
    "overrides = 3": "overrides are tables",
    "\ufefffor = 3": "not valid TOML",
    '[[overrides]]\nignore = "CD101"': "an override needs paths",
    '[[overrides]]\npaths = "a"\nformat = "json"': "no key 'format'",
    "= 3": "not valid TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_the_file_is_said(run: Any, project: Path, text: str) -> None:
    (project / "ckpt-doctor.toml").write_text(text)
    result = run("scan", "adapters")
    assert result.exit_code == 2
    assert WRONG[text] in result.stderr


@pytest.mark.parametrize(
    "text", ['tool = "ckpt-doctor"', "[project]\nname = 'ckpt-doctor'", "[tool.other]\nx = 'ckpt-doctor'"]
)
def test_a_file_that_says_nothing_of_it_counts_for_nothing(run: Any, project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(text)
    assert run("scan", "adapters/healthy").exit_code == 0


def test_another_file_can_be_named(run: Any, project: Path) -> None:
    (project / "mine.toml").write_text('ignore = ["CD101"]\n')
    assert run("scan", "adapters", "--config", "mine.toml").exit_code == 0
    assert run("scan", "adapters", "--config", "none.toml").exit_code == 2


def test_a_baseline_lets_what_is_known_pass_and_names_what_is_gone(run: Any, project: Path) -> None:
    assert run("scan", "adapters", "--write-baseline", "known.json").exit_code == 0
    result = run("scan", "adapters", "--baseline", "known.json", "--format", "json")
    assert result.exit_code == 0
    assert codes(result) == {"healthy": [], "zero": []}
    shutil.copytree(ZERO, project / "adapters/new")
    assert run("scan", "adapters", "--baseline", "known.json").exit_code == 1
    shutil.rmtree(project / "adapters/new")
    assert run("fix", "--in-place", "adapters/zero").exit_code == 0
    result = run("scan", "adapters", "--baseline", "known.json")
    assert result.exit_code == 0
    assert "gone from the baseline: CD101 adalora-rank-zero of adapters/zero" in result.stderr
    assert run("scan", "adapters", "--baseline", "known.json", "--write-baseline").exit_code == 0
    assert "gone" not in run("scan", "adapters", "--baseline", "known.json").stderr


@pytest.mark.usefixtures("project")
def test_a_known_finding_that_became_more_severe_fails(run: Any) -> None:
    run("scan", "adapters/healthy", "--write-baseline", "known.json")
    assert run("scan", "adapters/healthy", "--baseline", "known.json").exit_code == 0
    assert run("scan", "adapters/healthy", "--baseline", "known.json", "--for", "peft==0.9.0").exit_code == 1


def test_a_code_in_a_baseline_is_known_also_by_the_name_that_it_had(run: Any, project: Path) -> None:
    run("scan", "adapters", "--write-baseline", "known.json")
    known = project / "known.json"
    known.write_text(known.read_text().replace("adalora-rank-zero", "rank-zero-of-adalora"))
    result = run("scan", "adapters", "--baseline", "known.json")
    assert result.exit_code == 0
    assert "gone" not in result.stderr


def test_what_was_not_examined_is_neither_gone_nor_forgotten(run: Any, project: Path) -> None:
    run("scan", "adapters", "--write-baseline", "known.json")
    before = json.loads((project / "known.json").read_text())
    result = run("scan", "adapters/healthy", "--baseline", "known.json")
    assert "gone" not in result.stderr
    run("scan", "adapters/healthy", "--baseline", "known.json", "--write-baseline")
    assert json.loads((project / "known.json").read_text()) == before
    shutil.rmtree(project / "adapters/zero")
    assert "adapters/zero" in run("scan", "adapters/healthy", "--baseline", "known.json").stderr
    run("scan", "adapters/healthy", "--write-baseline", "known.json")
    assert "adapters/zero" not in (project / "known.json").read_text()


def test_a_baseline_does_not_hang_on_the_folder_that_one_is_in(
    run: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("scan", "adapters", "--write-baseline", "known.json")
    monkeypatch.chdir(project / "adapters")
    assert run("scan", project / "adapters/zero", "--baseline", "../known.json").exit_code == 0


def test_no_other_file_is_taken_for_a_baseline_or_overwritten_by_one(run: Any, project: Path) -> None:
    config = project / "adapters/zero/adapter_config.json"
    before = config.read_bytes()
    assert run("scan", "adapters", "--baseline", config).exit_code == 2
    assert run("scan", "adapters", "--write-baseline", config).exit_code == 2
    assert config.read_bytes() == before
    result = run("scan", "adapters", "--baseline", "none.json")
    assert result.exit_code == 2
    assert "--write-baseline makes it" in result.stderr
    assert run("scan", "adapters", "--write-baseline").exit_code == 2
    assert run("scan", "adapters", "--write-baseline", "adapters").exit_code == 2
