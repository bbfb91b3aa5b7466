"""What runs in CI: the hooks for pre-commit, the action, and what docs/ci.md shows of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from conftest import FIXTURES

from ckpt_doctor.cli import main

ROOT = FIXTURES.parent
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
DOCS = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
HEALTHY, BROKEN = "lora-plain-0.21.2", "adalora-rank0-0.9.0"

OF_OTHERS = ("GIT_", "GITHUB_", "RUNNER_", "PRE_COMMIT", "CKPT_DOCTOR_", "SKIP")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(OF_OTHERS)},
    **{f"GIT_{who}_{what}": f"{who}@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}
"""The environment, without what a hook or a runner around these tests says of itself."""

PWNED = "with open(__file__ + '.was-run', 'w'): pass\n"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout


def commit(folder: Path) -> str:
    """Make a repository of a folder; its one commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--no-gpg-sign", "--message", "All")
    return git(folder, "rev-parse", "HEAD").strip()


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a clone would have it, uncommitted work included."""
    copy = tmp_path_factory.mktemp("project") / "ckpt doctor"
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


# --- pre-commit


@pytest.fixture(scope="module")
def hook_repository(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Path]:
    """The project's hooks in a repository, their commit, and pre-commit's cache, which holds one environment."""
    repository = tmp_path_factory.mktemp("hooks") / "ckpt-doctor"
    shutil.copytree(project, repository)
    return repository, commit(repository), tmp_path_factory.mktemp("pre-commit")


@pytest.fixture
def user(hook_repository: tuple[Path, str, Path], tmp_path: Path) -> tuple[Path, Callable[[str], tuple[int, str]]]:
    """A user's repository with a healthy and a broken adapter, and how to run one hook in it."""
    repository, revision, cache = hook_repository
    folder = tmp_path / "user"
    for name, source in {"healthy": HEALTHY, "broken one": BROKEN}.items():
        shutil.copytree(FIXTURES / source, folder / "adapters" / name)
    hooks = [{"id": id_} for id_ in HOOKS]
    config = {"repos": [{"repo": str(repository), "rev": revision, "hooks": hooks}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    commit(folder)

    def run(hook: str) -> tuple[int, str]:
        result = subprocess.run(
            [sys.executable, "-m", "pre_commit", "run", hook, "--all-files", "--color", "never", "--verbose"],
            cwd=folder, env={**ENVIRONMENT, "PRE_COMMIT_HOME": str(cache)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return result.returncode, result.stdout + result.stderr

    return folder, run


@pytest.mark.ci
def test_pre_commit(user: tuple[Path, Callable[[str], tuple[int, str]]]) -> None:
    """Scan tells of the broken adapter only, and once; fix repairs it, touches no other, and leaves nothing behind."""
    folder, run = user
    before = contents(folder)

    code, output = run("ckpt-doctor-scan")
    assert code == 1, output
    assert output.count("CD101") == 1, output
    assert "adapters/broken one" in output
    assert "healthy" not in output, output
    assert contents(folder) == before

    code, output = run("ckpt-doctor-fix")
    assert code == 1, output
    assert "files were modified by this hook" in output
    after = contents(folder)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {"adapters/broken one/adapter_model.safetensors"} < changed
    assert {name.split("/")[1] for name in changed} == {"broken one"}
    assert not [name for name in after if name.endswith(".bak")]

    for hook in ("ckpt-doctor-fix", "ckpt-doctor-scan"):
        code, output = run(hook)
        assert code == 0, output
    assert contents(folder) == after


@pytest.mark.ci
def test_pre_commit_takes_no_name_for_an_option(user: tuple[Path, Callable[[str], tuple[int, str]]]) -> None:
    """A folder `-oadapters` would else be `--output adapters/…`, and write over that file."""
    folder, run = user
    shutil.copytree(FIXTURES / HEALTHY, folder / "-oadapters" / "healthy")
    (folder / "adapters" / "broken one").rename(folder / "--exit-zero")
    git(folder, "add", "--all")
    before = contents(folder)
    code, output = run("ckpt-doctor-scan")
    assert code == 1, output
    assert output.count("CD101") == 1, output
    assert contents(folder) == before
    code, output = run("ckpt-doctor-fix")
    assert "files were modified by this hook" in output
    assert run("ckpt-doctor-scan")[0] == 0


FILES = (
    "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "adapter_model.safetensors.index.json",
    "adapter_model-00001-of-00002.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("hook", HOOKS.values(), ids=list(HOOKS))
def test_files_of_hooks(hook: dict[str, Any]) -> None:
    """What pre-commit is told to look at: the files of an adapter, in any folder."""
    matches = [f"{folder}{name}" for folder in ("", "a/", "a b/c.d/") for name in FILES]
    others = [
        *(f"{name}.bak" for name in FILES), *(f"my_{name}" for name in FILES), *(f"{name}/README.md" for name in FILES),
        "config.json", "model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin", "ckpt-doctor.json",
        "adapter_config_json", "adapter_model-00001-of-00002-safetensors", "adapter_model_safetensors",
        "adapter_model.safetensors.index", "adapter_model.bin.index.json", "adapter_model-1-of-2.safetensors",
        "adapter_config.safetensors", "adapter_model.json", "adapter_model.gguf",
    ]  # fmt: skip
    assert [name for name in matches if not re.search(hook["files"], name)] == []
    assert [name for name in others if re.search(hook["files"], name)] == []
    assert hook["require_serial"]
    assert "types" not in hook


# --- the action

INPUT = r"\$\{\{ inputs\.([\w-]+) \}\}"


class Runner:
    """Runs the steps of the action as GitHub's runner does."""

    def __init__(self, action: Path, temp: Path, workspace: Path) -> None:
        self.workspace, self._output = workspace, temp / "output"
        self._environment = {
            **ENVIRONMENT, "CI": "true", "GITHUB_ACTIONS": "true", "RUNNER_TEMP": str(temp),
            "GITHUB_ACTION_PATH": str(action), "GITHUB_WORKSPACE": str(workspace), "GITHUB_OUTPUT": str(self._output),
            "GITHUB_STEP_SUMMARY": str(temp / "summary"),
        }  # fmt: skip

    def step(self, step: dict[str, Any], **inputs: str) -> tuple[int, str]:
        """The exit code of a step, and what it printed."""
        values = {name: str(spec.get("default", "")) for name, spec in ACTION["inputs"].items()}
        values |= {name.replace("_", "-").strip("-"): value for name, value in inputs.items()}
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an expression in a script is code of whoever wrote its value"
        given = {name: re.sub(INPUT, lambda m: values[m[1]], value) for name, value in step.get("env", {}).items()}
        script = Path(self._environment["RUNNER_TEMP"]) / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        result = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=self.workspace, env=self._environment | given, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return result.returncode, result.stdout.decode()

    def scan(self, **inputs: str) -> tuple[int, str]:
        """The same of the last step; its output says the exit code too."""
        self._output.write_text("")
        code, output = self.step(ACTION["runs"]["steps"][-1], **inputs)
        assert self._output.read_text() == f"exit-code={code}\n"
        return code, output


@pytest.fixture(scope="module")
def installed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The action's folder, and a RUNNER_TEMP in which all of its steps but the last were run."""
    workspace, temp = tmp_path_factory.mktemp("workspace"), tmp_path_factory.mktemp("runner temp")
    (workspace / "pip.py").write_text(PWNED)
    for step in ACTION["runs"]["steps"][:-1]:
        code, output = Runner(project, temp, workspace).step(step)
        assert code == 0, output
    assert contents(workspace) == {"pip.py": PWNED.encode()}
    return project, temp


@pytest.fixture
def runner(installed: tuple[Path, Path], tmp_path: Path) -> Runner:
    """A workspace with two adapters, and modules that are not to be imported."""
    shutil.copytree(FIXTURES / HEALTHY, tmp_path / "healthy")
    shutil.copytree(FIXTURES / BROKEN, tmp_path / "broken one")
    for module in ("ckpt_doctor", "click", "json", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text(PWNED)
    return Runner(*installed, tmp_path)


@pytest.mark.ci
def test_action(runner: Runner) -> None:
    """Everything below the workspace; findings are annotations and SARIF."""
    before = contents(runner.workspace)
    code, output = runner.scan(sarif="out.sarif")
    assert code == 1, output
    assert [line for line in output.splitlines() if line.startswith("::error file=broken one/adapter_config.json,")]
    assert "::error file=healthy" not in output
    written = contents(runner.workspace)
    sarif = json.loads(written.pop("out.sarif"))
    assert sarif["version"] == "2.1.0"
    assert "CD101" in {result["ruleId"] for result in sarif["runs"][0]["results"] if result["level"] == "error"}
    assert written == before


@pytest.mark.ci
@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"fail_on": "never"}, 0),
        ({"fail_on": "note", "paths": "healthy"}, 1),
        ({"paths": "healthy"}, 0),
        ({"paths": "broken one\n"}, 1),
        ({"paths": "healthy\n\nbroken one"}, 1),
        ({"paths": "  healthy   healthy/adapter_config.json "}, 0),
        ({"paths": "broken one"}, 2),  # two paths
        ({"paths": " "}, 2),
        ({"for_": "peft==0.9.0"}, 1),
        ({"for_": "peft>=0.10,<0.12 peft==0.15.2", "paths": "broken one\n"}, 0),
        ({"for_": "peft==0.15.2\npeft==0.9.0\n", "paths": "broken one\n"}, 1),
        ({"for_": "installed"}, 0),  # the PEFT of the Python that runs the tests
        ({"for_": "peft==*", "paths": "healthy"}, 1),
        ({"sarif": "no/such/folder.sarif"}, 2),
    ],
)
def test_inputs_of_the_action(runner: Runner, inputs: dict[str, str], code: int) -> None:
    """Each gets where it belongs."""
    got, output = runner.scan(**inputs)
    assert got == code, output


@pytest.mark.ci
@pytest.mark.parametrize("name", ["paths", "for_", "fail_on", "sarif"])
def test_inputs_of_the_action_are_not_run(runner: Runner, name: str) -> None:
    """Neither by the shell, nor as options of the program: it fails on each, or takes it for a name."""
    hostile = [
        "$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "x\ntouch pwned\n", "${IFS}", "*",
        "--exit-zero", "never --exit-zero", "-q", "--output=pwned", "--", "\\", "--help", "::set-output name=x::y",
    ]  # fmt: skip
    before = contents(runner.workspace)
    for value in hostile:
        code, output = runner.scan(**{name: value})
        assert code == (1 if name == "sarif" else 2), (value, output)
        assert "Usage: ckpt-doctor [" not in output
        if name == "sarif":
            (runner.workspace / value).unlink()
        assert contents(runner.workspace) == before, value


@pytest.mark.ci
def test_paths_of_the_action_are_no_options(runner: Runner) -> None:
    """Also where they look as one, and exist."""
    (runner.workspace / "broken one").rename(runner.workspace / "--exit-zero")
    (runner.workspace / "healthy").rename(runner.workspace / "[a-z]*")
    code, output = runner.scan(paths="--exit-zero", fail_on="error")
    assert code == 1, output
    assert "::error file=--exit-zero/adapter_config.json," in output
    code, output = runner.scan(paths="[a-z]*")
    assert code == 0, output


# --- what the docs show

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", DOCS, re.M | re.S)
DOCUMENTS = [yaml.safe_load(text) for language, text in BLOCKS if language == "yaml"]


def test_hooks_in_the_docs() -> None:
    """Every hook is shown, no other, and options that are given end as the hook's own do."""
    shown = [hook for shown in DOCUMENTS if "repos" in shown for repo in shown["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in shown} == HOOKS.keys()
    for hook in (*HOOKS.values(), *shown):
        arguments = shlex.split(HOOKS[hook["id"]]["entry"])[1:] + hook.get("args", ["--"])
        assert arguments[-1] == "--"
        accepted([*arguments, "adapter_config.json"])


def test_action_in_the_docs() -> None:
    """Inputs are those that there are, in the examples and in the table."""
    steps = [s for shown in DOCUMENTS for job in shown.get("jobs", {}).values() for s in job["steps"]]
    used = [step for step in steps if step.get("uses", "").startswith("OWNER/ckpt-doctor@")]
    assert len(used) == 2
    for step in used:
        assert step.get("with", {}).keys() <= ACTION["inputs"].keys()
    assert re.findall(r"^\| `([\w-]+)` \|", DOCS, re.M) == list(ACTION["inputs"])
    for output in ACTION["outputs"]:
        assert f"The output `{output}`" in DOCS


def test_commands_in_the_docs() -> None:
    """The command line takes what is shown, and no format or option is made up."""
    lines = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
    lines += [line for shown in DOCUMENTS for job in shown.values() if "script" in job for line in job["script"]]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("ckpt-doctor ")]
    assert len(commands) == 5
    for command in commands:
        accepted(command)


def accepted(arguments: list[str]) -> None:
    """Parse a command line as the program does, without running it."""
    with click.Context(main, info_name="ckpt-doctor") as parent:
        command = main.get_command(parent, arguments[0])
        assert command is not None, arguments
        command.make_context(arguments[0], arguments[1:], parent=parent)
