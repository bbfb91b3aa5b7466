"""README, the other pages, `--help`, CHANGELOG and the code say the same thing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import tomllib
from conftest import FIXTURES
from markdown_it import MarkdownIt
from wcwidth import wcswidth

import ckpt_doctor
from ckpt_doctor.adapter import codes
from ckpt_doctor.adapter.codes import CODES
from ckpt_doctor.adapter.findings import EXCEPTIONS, Code
from ckpt_doctor.adapter.runtimes import PEFT_RELEASES, RAN, READ
from ckpt_doctor.cli import COMMANDS, main
from ckpt_doctor.cli.settings import read_config
from ckpt_doctor.reports import FORMATS, pages

ROOT = FIXTURES.parent
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FOREIGN = {
    "--help", "--version", "--json", "--lora-modules", "--enable-lora", "--max-lora-rank", "--all-files", "--record",
    "--enable-mixed-moe-lora-format", "--enable-tower-connector-lora", "--lora-target-modules", "--max-loras-per-batch",
    "--no-deps", "--from", "--errors", "--remote", "--adapters", "--keep", "--count", "--seed", "--savers",
    "--rounds", "--copy", "--others", "--write",
}  # fmt: skip
"""Options of other programs and of scripts, and click's own."""


def options() -> set[str]:
    """Every long option of every command."""
    context = click.Context(main)
    flags = set()
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        flags |= {text for option in command.params for text in option.opts if text.startswith("--")}
    return flags


def fenced(text: str, language: str = r"\w*") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_pages_name_every_option_and_no_other() -> None:
    named = {name for page in PAGES for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())}
    assert options() - named == set()
    assert named - options() - FOREIGN == set()


def test_the_readme_names_every_command_format_function_and_runtime() -> None:
    text = README.read_text()
    assert [name for name in COMMANDS if f"ckpt-doctor {name}" not in text] == []
    assert [name for name in FORMATS if f"`{name}`" not in text] == []
    functions = [name for name in ckpt_doctor.__all__ if name.islower()]
    assert [name for name in functions if f"`{name}(" not in text] == []
    table = text.partition("## Runtimes")[2].partition("\n## ")[0].lower().replace("-", "")
    assert [name for name in (*RAN, *READ) if name.replace("-", "") not in table] == []
    releases = [id_.partition("==")[2] for id_ in (*RAN.values(), *READ.values())]
    assert [release for release in (*releases, PEFT_RELEASES[0], PEFT_RELEASES[-1]) if release not in table] == []
    assert f"{len(PEFT_RELEASES)}, every final one" in table


def test_codes_that_pages_name_are_codes() -> None:
    named = {code for page in PAGES for code in re.findall(r"\bCD\d{3}\b", page.read_text())}
    assert named - CODES.keys() == set()


def test_the_page_of_rules_is_made_from_the_codes() -> None:
    command = "python -m ckpt_doctor.reports.pages > docs/rules.md"
    assert (ROOT / "docs/rules.md").read_text() == "\n".join(pages.document()) + "\n", f"run {command}"
    assert command in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
def test_a_page_says_what_why_who_and_how(code: Code) -> None:
    first, *rest = pages.paragraphs(code)
    assert [paragraph.partition(": ")[0] for paragraph in rest] == ["Why", "Who stops", "What to do", "References"]
    assert all(paragraph.endswith((".", "…")) for paragraph in (first, *rest))
    assert not re.search("<(em|strong)>|<(?!/?(p|ul|li|code))", MarkdownIt().render(pages.markdown(code)))


def test_a_name_is_one_code_and_a_code_one_name() -> None:
    objects = [value for value in vars(codes).values() if isinstance(value, Code)]
    assert list(CODES.values()) == objects == sorted(objects)
    assert len({code.name for code in objects}) == len(objects) == len(CODES)
    assert len({code.page for code in objects}) == len(objects)
    names = {name: value for name, value in vars(codes).items() if isinstance(value, Code)}
    assert {code.name.upper().replace("-", "_") for code in objects} == names.keys()
    assert all(re.fullmatch(r"CD\d{3}", code.number) for code in objects)


def test_severities_are_said_of_codes_that_are() -> None:
    assert EXCEPTIONS.keys() <= CODES.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_example_of_a_file_is_one(tmp_path: Path) -> None:
    (text,) = fenced(README.read_text(), "toml")
    (tmp_path / "pyproject.toml").write_text(text)
    config = read_config(str(tmp_path / "pyproject.toml"))
    assert config.values["fail-on"] == "warning"
    assert config.overrides[0][0] == ("adapters/legacy/*",)


def test_the_example_of_preload_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import make
    import peft

    shutil.copytree(ROOT / "fixtures/adalora-rank0-0.21.2", tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    first, second = fenced(README.read_text(), "python")
    names = {"PeftModel": peft.PeftModel, "model": make.make_base("net")}
    with pytest.warns(RuntimeWarning, match="rank_pattern keys"):  # PEFT 0.21.2 says so of every AdaLoRA
        exec(first, names)  # noqa: S102 - it is our own
    assert isinstance(names["model"], peft.PeftModel)
    compile(second, "README.md", "exec")


def test_the_sample_is_what_is_printed(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.copytree(ROOT / "fixtures/adalora-rank0-0.17.1", tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "96")
    for page in (README, CHINESE):
        shutil.rmtree(tmp_path / "fixed", ignore_errors=True)
        (sample,) = fenced(page.read_text(), "console")
        for block in sample.removeprefix("$ ").split("\n$ "):
            command, _, printed = block.partition("\n")
            assert run(*command.split()[1:]).output.strip() == printed.strip()


def test_the_shell_examples_run() -> None:
    script = ROOT / "scripts/run_readme.py"
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_change_log_has_this_version() -> None:
    assert f"## {ckpt_doctor.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["readme"] == "README.md"


def code_of(text: str) -> list[str]:
    """The code blocks without what is said beside the code."""
    blocks = ["\n".join(re.sub(r"\s*#.*", "", line) for line in block.splitlines()) for block in fenced(text)]
    return [block for block in blocks if "should be a positive integer" not in block]


def test_the_chinese_page_says_the_same() -> None:
    english, chinese = README.read_text(), CHINESE.read_text()
    assert code_of(chinese) == code_of(english)
    assert len(re.findall(r"^## ", chinese, re.MULTILINE)) == len(re.findall(r"^## ", english, re.MULTILINE))
    rows = [len(re.findall(r"^\|", text, re.MULTILINE)) for text in (english, chinese)]
    assert rows[0] == rows[1]
    opening = chinese.partition("\n## ")[0]
    error = "ValueError: `r` should be a positive integer value but the value passed is 0"
    assert (
        opening.index(error)
        < opening.index("ckpt-doctor scan adapter/")
        < opening.index("ckpt-doctor fix adapter/ fixed/")
    )


def test_tables_of_the_chinese_page_line_up() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", CHINESE.read_text(), re.MULTILINE):
        bars = {
            tuple(wcswidth(line[: at.start()]) for at in re.finditer(r"(?<!\\)\|", line)) for line in table.splitlines()
        }
        assert len(bars) == 1, table


def test_each_promise_names_a_test_that_is() -> None:
    page, file = (ROOT / "SECURITY.md").read_text(), ""
    named = re.findall(r"`(?:tests/(\w+\.py): )?(test_\w+)`", page)
    assert len(named) > 20
    for path, name in named:
        file = path or file
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), (file, name)
