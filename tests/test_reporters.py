"""Each format is read back by a program that others read it with, also where names and messages are hostile."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET

import pytest
from conftest import ADAPTERS, FIXTURES
from jsonschema import Draft4Validator, FormatChecker
from junitparser import Error, Failure, JUnitXml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ckpt_doctor.adapter import Adapter, Question
from ckpt_doctor.adapter.codes import CODES
from ckpt_doctor.adapter.findings import ERROR, NOTE, WARNING, Finding
from ckpt_doctor.adapter.runtimes import PEFT, SERVERS, peft
from ckpt_doctor.facts.subject import Subject
from ckpt_doctor.files.loader import is_remote
from ckpt_doctor.reports import github, places
from ckpt_doctor.verbs.report import Report
from ckpt_doctor.verbs.scan import examine

ROOT = FIXTURES.parent
FORMATS = ("json", "jsonl", "sarif", "junit", "github", "markdown")
HOSTILE = (
    "a\nb", "\r\n::set-env name=x::y", "::error file=x::y", "##[error]x", "a,b:c=d;e", "a|b\\|c\\\\|", "x | y | z",
    "<script>alert(1)</script>", "<!-- x", "&lt;b&gt;", "]]>", "\x00\x01\x1b[31m\x07\x7f\x9b", "%0A%25%2C%3A 100%",
    "é日本𝔸 \u00a0\u2028\u202e", "@everyone", "@octocat", "a@example.org", "GH-1", "org/repo#1", "#1", "`x` ``y``", "`",
    "[x](https://example.org)", "![x](y)", "[x]: https://example.org", "<https://example.org>", "https://example.org/a",
    "www.example.org", "# x", "- x", "1. x", "> x", "---", "===", "```", "    x", "*x* _x_ ~~x~~ **x**", "$x$ :x: \\",
    " x ", "\udcff", "\ud800x", "\ufffe\uffff", "{0} {{x}}", "'\"x\"'", "-rf", "..", "x" * 3000,
)  # fmt: skip


def finding(message: str = "wrong", **values: Any) -> Finding:
    return Finding(**{"code": "CD101", "name": "adalora-rank-zero", "severity": ERROR, "message": message, **values})


def report(path: str, *findings: Finding, **values: Any) -> Report:
    method, asked = values.pop("method", "LORA"), values.pop("asked", None)
    adapter = Adapter(path, path, {"peft_type": method}, {}, files=("adapter_config.json",))
    return Report(path, None, Subject(adapter, Question(asked)), findings=findings, **values)


def hostile() -> list[Report]:
    """A report for each hostile string, which is in all that a file can say; and one that could not be examined."""
    reports = []
    for at, text in enumerate(HOSTILE):
        fault = finding(
            f"wrong in {text} and {text}", tensors=(text, f"{text}.weight"), config_keys=(text,),
            rejected_by=peft("0.5", "0.7"), undecided_for=peft("0.9", "0.9"), needs="the base model", fixable=True,
        )  # fmt: skip
        doubt = fault._replace(code="CD312", name="missing-layer", severity=WARNING, message=text)
        reports += [report(f"{text}/{at}", fault, doubt, method=text), Report(text, error=f"{text} cannot be read")]
    return reports


def text(format_: str, reports: Iterable[Report]) -> str:
    return "\n".join(import_module(f"ckpt_doctor.reports.{format_}").scan(reports))


def fixtures() -> list[Report]:
    return [examine(str(FIXTURES / name)) for name in ADAPTERS]


def copied(name: str, to: Path) -> Path:
    shutil.copytree(FIXTURES / name, to)
    return to


# What is told


@pytest.mark.parametrize("format_", FORMATS)
def test_what_passes_is_not_told_and_does_not_fail(format_: str) -> None:
    shown, hidden = finding("seen", severity=WARNING), finding("unseen")
    output = text(format_, [report("a", shown, hidden, passed=frozenset({hidden}))])
    assert "seen" in output
    assert "unseen" not in output


@pytest.mark.parametrize("format_", FORMATS)
def test_only_junit_imports_an_xml_library(format_: str) -> None:
    script = (
        "import sys; from importlib import import_module; "
        "import_module(f'ckpt_doctor.reports.{sys.argv[1]}'); print(*sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", script, format_], capture_output=True, text=True, check=True)
    modules = made.stdout.split()
    assert f"ckpt_doctor.reports.{format_}" in modules
    assert ("xml.etree.ElementTree" in modules) == (format_ == "junit")


@pytest.mark.parametrize("format_", ["json", "jsonl"])
def test_json_can_be_read_back(format_: str) -> None:
    reports = [*fixtures(), *hostile()]
    output = text(format_, reports)
    if format_ == "jsonl":
        *entries, last = map(json.loads, output.split("\n"))
        assert {"schema_version", "tool", "summary"} == last.keys()
    else:
        entries = json.loads(output)["reports"]
    for one, expected in zip_longest(entries, reports):
        assert one["path"] == expected.path.replace("\\", "/")
        assert [f["message"] for f in one["findings"]] == [f.message for f in expected.shown]


# Places


def test_paths_are_relative_to_the_workspace_or_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repo/sub").mkdir(parents=True)
    (tmp_path / "..x").mkdir()
    monkeypatch.chdir(tmp_path / "repo/sub")
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    inside, outside = str(tmp_path / "repo/a"), str(tmp_path / "other")
    assert [places.relative(path) for path in (inside, "b/", ".", outside)] == ["../a", "b", ".", "../../other"]
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "repo"))
    assert [places.relative(path) for path in (inside, "b/", ".", outside)] == ["a", "sub/b", "sub", "../../other"]
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert places.relative(str(tmp_path / "..x/a")) == "..x/a"
    monkeypatch.setenv("GITHUB_WORKSPACE", "")
    assert places.relative(inside) == "../a"


CONFIG = """{
  "rank_pattern": {"lora_alpha": 4,
    "r": 3},
  "x": "\\"lora_alpha\\": 1, {[",
  "target_modules": ["r",
    "q"],\r
  "l\\u006fra_alpha"  :
    8, "r": 8,
  "y": "rank_pattern", "z": {"x": 0}
}"""


def test_the_line_is_that_of_the_key_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(CONFIG.encode())
    adapter = Adapter(str(tmp_path), str(tmp_path), json.loads(CONFIG), {}, files=("adapter_config.json",))
    keys = [("lora_alpha",), ("r",), ("rank_pattern",), ("target_modules",), ("none", "x"), ("q", "none"), ()]
    findings = tuple(finding(str(key), config_keys=key) for key in keys)
    by_finding = places.places(Report(str(tmp_path), None, Subject(adapter), findings=findings))
    assert [line for _, line in by_finding.values()] == [7, 8, 2, 5, 4, 1, 1]


def test_the_file_is_the_config_or_the_weights_or_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    folder = copied("adalora-rank0-0.9.0", tmp_path / "a")

    def file() -> str:
        (path,) = {file for file, _ in places.places(examine("a")).values()}
        return path

    assert file() == "a/adapter_config.json"
    (folder / "adapter_config.json").write_text("{")
    assert file() == "a/adapter_config.json"
    (folder / "adapter_config.json").unlink()
    assert file() == "a/adapter_model.safetensors"
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.pt").touch()
    assert file() == "a"


def test_a_config_that_is_a_fifo_is_not_opened_for_lines(tmp_path: Path) -> None:
    folder = copied("lora-plain-0.21.2", tmp_path / "a")
    (folder / "adapter_config.json").unlink()
    os.mkfifo(folder / "adapter_config.json")
    fifo = examine(str(folder))
    assert "CD009" in {f.code for f in fifo.findings}
    by_finding = places.places(fifo._replace(findings=(*fifo.findings, finding(config_keys=("r",)))))
    assert {line for _, line in by_finding.values()} == {1}


# SARIF

SARIF = Draft4Validator(
    json.loads((ROOT / "tests/data/sarif-2.1.0-rtm.5.json").read_text()), format_checker=FormatChecker()
)


def sarif(reports: Iterable[Report]) -> dict[str, Any]:
    """The run of a log that is valid."""
    log = json.loads(text("sarif", reports))
    SARIF.validate(log)
    (run,) = log["runs"]
    assert isinstance(run, dict)
    return run


def test_the_validator_sees_faults() -> None:
    log = json.loads(text("sarif", [report("a", finding())]))
    assert SARIF.is_valid(log)
    result = log["runs"][0]["results"][0]
    for broken in ({"level": "fatal"}, {"unknown": 1}, {"message": {}}):
        assert not SARIF.is_valid({**log, "runs": [{**log["runs"][0], "results": [{**result, **broken}]}]})
    result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] = "a b|c"
    assert not SARIF.is_valid(log)


@pytest.mark.parametrize("name", ADAPTERS)
def test_sarif_says_what_a_report_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    source = examine(f"fixtures/{name}")
    run = sarif([source])
    driver = run["tool"]["driver"]
    assert driver["name"] == "ckpt-doctor"
    assert [rule["id"] for rule in driver["rules"]] == sorted({f.code for f in source.shown})
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]
    for result, expected in zip_longest(run["results"], source.shown):
        rule = driver["rules"][result["ruleIndex"]]
        assert (
            (result["ruleId"], result["level"]) == (expected.code, expected.severity) == (rule["id"], result["level"])
        )
        assert rule["name"] == expected.name
        assert result["message"]["text"].startswith(expected.message)
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"] == {
            "uri": f"fixtures/{name}/adapter_config.json",
            "uriBaseId": "%SRCROOT%",
        }
        line = Path(place["artifactLocation"]["uri"]).read_text().split("\n")[place["region"]["startLine"] - 1]
        keys = [key for key in expected.config_keys if f'"{key}"' in line]
        assert keys or place["region"]["startLine"] == 1
        tensors = [named["fullyQualifiedName"] for named in location.get("logicalLocations", [])]
        assert tensors == list(expected.tensors[:10])


def test_sarif_says_whom_a_finding_stops() -> None:
    fault = finding(
        "wrong", rejected_by=peft("0.8", "0.9"), misloaded_by=peft("0.10", "0.10"), undecided_for=peft("0.2", "0.2"),
        needs="the base model", fixable=True,
    )  # fmt: skip
    (result,) = sarif([report("a", fault)])["results"]
    assert result["message"]["text"] == (
        "wrong; rejected by PEFT 0.8.0 – 0.9.0; misloaded by PEFT 0.10.0; undecided for PEFT 0.2.0 (needs the base "
        "model); ckpt-doctor fix repairs it; next: load it with PEFT ≥ 0.11.0, or no repair makes more releases take "
        "it without changing what it computes"
    )


def test_a_rule_has_what_github_shows_of_it() -> None:
    findings = [finding(code=code.number, name=code.name, severity=NOTE) for code in CODES.values()]
    findings.append(finding("other", code="CD505", severity=ERROR))
    run = sarif([report("a", *findings)])
    rules = run["tool"]["driver"]["rules"]
    assert len(rules) == len(CODES)
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert len(rule["shortDescription"]["text"]) <= 1024
        assert 0 < len(rule["fullDescription"]["text"]) <= 1000
        assert " ".join(rule["help"]["text"].split()) == " ".join(CODES[rule["id"]].page.split())
        assert "<strong>" not in MarkdownIt().render(rule["help"]["markdown"])
        assert len(rule["properties"]["tags"]) <= 10
        assert rule["defaultConfiguration"]["level"] == ("error" if rule["id"] == "CD505" else "note")


def test_what_could_not_be_examined_is_a_notification(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing")
    run = sarif([examine(path), report("b", finding())])
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    (notification,) = invocation["toolExecutionNotifications"]
    assert notification["level"] == "error"
    assert path in notification["message"]["text"]
    assert len(run["results"]) == 1


def test_sarif_of_hostile_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    reports = hostile()
    run = sarif(reports)
    assert len(run["results"]) == 2 * len(HOSTILE)
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == len(HOSTILE)
    encodable = [one for one in reports if not one.error and "\ud800" not in one.path]
    uris = {one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in run["results"]}
    files = {os.path.relpath(unquote_to_bytes(uri)) for uri in uris}
    assert files >= {os.fsencode(os.path.relpath(f"{one.path}/adapter_config.json")) for one in encodable}
    messages = [
        one["message"]["text"] for one in (*run["results"], *run["invocations"][0]["toolExecutionNotifications"])
    ]
    assert not any("](" in message for message in messages)
    assert max(map(len, messages)) <= 2000
    everything = text("sarif", reports)
    everything.encode()
    assert "\\ud" not in json.dumps(json.loads(everything), ensure_ascii=False)


def test_sarif_stays_within_githubs_limits() -> None:
    chance = random.Random(0)  # noqa: S311 - what does not compress
    names = ["".join(chr(chance.randrange(0x4E00, 0x9FA0)) for _ in range(600)) for _ in range(60)]
    many = [
        report(f"a{at}", *(finding(f"{names[at]}{n}", severity=severity, tensors=(*names, str(n))) for n in range(100)))
        for at in range(60)
        for severity in [(NOTE, WARNING, ERROR)[at % 3]]
    ]
    output = text("sarif", many)
    log = json.loads(output)
    (run,) = log["runs"]
    SARIF.validate({**log, "runs": [{**run, "results": run["results"][::500]}]})
    assert [run["results"][at]["level"] for at in (0, 1999, 2000, 3999, 4000, 4999)] == [
        "error", "error", "warning", "warning", "note", "note",
    ]  # fmt: skip
    assert len(run["results"]) == 5000
    (notification,) = run["invocations"][0]["toolExecutionNotifications"]
    assert notification["message"]["text"].startswith("1000 findings are left out")
    assert all(len(result["locations"][0]["logicalLocations"]) <= 10 for result in run["results"])
    assert len(gzip.compress(output.encode())) < 10_000_000


def test_adapters_that_could_not_be_examined_do_not_pile_up_either() -> None:
    run = sarif(Report(f"a{n}", error="no permission") for n in range(5003))
    *_, last = notifications = run["invocations"][0]["toolExecutionNotifications"]
    assert len(notifications) == 5001
    assert last["message"]["text"] == "3 more adapters could not be examined"


def fingerprints(reports: Iterable[Report]) -> list[str]:
    return [result["partialFingerprints"]["ckptDoctor/v1"] for result in sarif(reports)["results"]]


def test_a_fingerprint_outlives_what_does_not_make_the_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    fault = finding("wrong", tensors=("x", "y"), config_keys=("r",), rejected_by=PEFT)
    (before,) = fingerprints([report("a", fault)])
    reworded = fault._replace(message="it is wrong", severity=NOTE, rejected_by=peft("0.9"), tensors=("y", "x"))
    other = finding("other", code="CD201", name="unknown-config-key")
    assert before in fingerprints([report("b", other), report(str(tmp_path / "a"), other, reworded, other)])
    changed = (
        report("b", fault), report("a", fault._replace(code="CD102")), report("a", fault._replace(tensors=("x",))),
        report("a", fault._replace(config_keys=("x",))),
        report("a", fault._replace(tensors=("x",), config_keys=("y", "r"))),
    )  # fmt: skip
    assert before not in {name for one in changed for name in fingerprints([one])}


def test_fingerprints_are_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    same = [finding(f"wrong {n}") for n in range(5)]
    digests = fingerprints([*fixtures(), *hostile(), report("a", *same, same[0])])
    assert len(digests) > 5 + 2 * len(HOSTILE)
    assert len(digests) == len(set(digests))
    hidden = report("a", *same, passed=frozenset(same[:4]))
    assert fingerprints([hidden]) == fingerprints([report("a", *same)])[4:]


# JUnit


def junit(reports: Iterable[Report]) -> tuple[JUnitXml, ET.Element]:
    document = text("junit", reports).encode()
    return JUnitXml.fromstring(document), ET.fromstring(document)  # noqa: S314 - it is ours


def test_junit_has_a_case_for_each_adapter(tmp_path: Path) -> None:
    warned = report("w", finding("odd", severity=WARNING), finding("new", severity=NOTE), fail_on=WARNING)
    silent = report("s", finding("broken"), fail_on="never")
    twice = report("t", finding("broken"), finding("lost", code="CD102"), finding("odd", severity=WARNING))
    reports = [*fixtures(), warned, silent, twice, report("c"), examine(str(tmp_path / "nothing"))]
    read, root = junit(reports)
    counts = [len(reports), sum(bool(one.failing) for one in reports), 1, 0]
    (suite,) = read
    assert [suite.tests, suite.failures, suite.errors, suite.skipped] == counts
    assert [root.get(key) for key in ("tests", "failures", "errors", "skipped")] == [str(count) for count in counts]
    for case, one in zip_longest(suite, reports):
        assert (case.classname, case.name) == ("ckpt-doctor", one.path)
        if one.error:
            (error,) = case.result
            assert isinstance(error, Error)
            assert error.message == one.error
        elif one.failing:
            (failure,) = case.result
            assert isinstance(failure, Failure)
            assert failure.type == one.failing[0].code
            assert [line.split()[1] for line in failure.text.split("\n")] == [f.code for f in one.failing]
        else:
            assert case.result == []
        others = [f for f in one.shown if f not in one.failing]
        assert [line.split()[1] for line in (case.system_out or "").split("\n") if line] == [f.code for f in others]


def test_junit_of_hostile_names() -> None:
    read, root = junit(hostile())
    (suite,) = read
    assert (suite.tests, suite.failures, suite.errors) == (2 * len(HOSTILE), len(HOSTILE), len(HOSTILE))
    assert {element.tag for element in root.iter()} == {
        "testsuites", "testsuite", "testcase", "failure", "error", "system-out",
    }  # fmt: skip
    whole = "".join(root.itertext()) + "".join(value for element in root.iter() for value in element.attrib.values())
    for part in ("<script>alert(1)</script>", "]]>", "&lt;b&gt;", "é日本𝔸", "%0A%25%2C%3A 100%"):
        assert part in whole


# GitHub

PROPERTY = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))
DATA = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))


def annotation(line: str) -> tuple[str, dict[str, str], str]:
    """A command as the runner reads it (actions/runner, ActionCommand.cs: TryParseV2)."""

    def unescape(escaped: str, mappings: tuple[tuple[str, str], ...]) -> str:
        for replacement, token in mappings:
            escaped = escaped.replace(replacement, token)
        return escaped

    line = line.lstrip()
    assert line.startswith("::")
    info, separator, data = line[2:].partition("::")
    assert separator
    name, _, properties = info.partition(" ")
    pairs = (one.split("=", 1) for one in properties.strip().split(",") if one)
    return name, {key: unescape(value, PROPERTY) for key, value in pairs}, unescape(data, DATA)


def annotated(reports: Iterable[Report]) -> list[tuple[str, dict[str, str], str]]:
    return [annotation(line) for line in re.split("[\r\n]", text("github", reports)) if line.startswith("::")]


def test_annotations_say_what_and_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(ROOT))
    one = examine("fixtures/adalora-rank0-0.9.0")
    unread = examine(str(tmp_path / "nothing"))
    commands = annotated([one, unread])
    assert [name for name, _, _ in commands] == ["error", "error", "notice", "notice", "notice", "notice"]
    _, properties, data = commands[0]
    assert properties.keys() == {"file", "line", "title"}
    assert properties["file"] == "fixtures/adalora-rank0-0.9.0/adapter_config.json"
    lines = Path(properties["file"]).read_text().split("\n")
    assert '"rank_pattern"' in lines[int(properties["line"]) - 1]
    assert properties["title"] == "CD101 adalora-rank-zero"
    assert one.shown[0].message in data
    assert "rejected by PEFT 0.8.0 – 0.9.0" in data
    assert commands[1][2] == unread.error


def test_hostile_names_stay_within_their_annotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    monkeypatch.chdir(ROOT)
    for one in hostile():
        lines = re.split("[\r\n]", text("github", [one]))
        commands = [annotation(line) for line in lines]
        assert [name for name, _, _ in commands] == (["error"] if one.error else ["error", "warning"])
        for _, properties, data in commands:
            assert properties.keys() == {"file", "line", "title"}
            assert "\x1b" not in data
            shown = [part for part in re.split(r"[^ -~\n]", one.path[:300]) if part]
            assert all(part in data for part in shown)
            if one.path.replace("\r\n", "").replace("\n", "").isprintable():
                file = one.path if one.error else f"{one.path}/adapter_config.json"
                expected = file if is_remote(file) else os.path.relpath(file)  # an address stays what it is
                assert properties["file"] == expected


def test_ten_annotations_of_a_level_and_the_rest_in_the_summary() -> None:
    few = [report(f"e{n}", *(finding(f"wrong {n} {m}") for m in range(6)), fail_on="never") for n in range(2)]
    grave = report("fails", finding("grave"), finding("minor", severity=NOTE), fail_on=ERROR)
    unread = Report("unread", error="no permission")
    odd = [report(f"w{n}", finding(f"odd {n}", severity=WARNING)) for n in range(10)]
    reports = [*odd, *few, grave, unread]
    commands = annotated(reports)
    assert [name for name, _, _ in commands] == ["error"] * 10 + ["warning"] * 10 + ["notice"]
    assert commands[0][2].startswith("fails: grave")
    assert commands[1][2] == "no permission"
    assert commands[2][2].startswith("e0: wrong 0 0")
    *_, last = text("github", reports).split("\n")
    assert last.startswith("4 more findings")
    rows = table(github.rest(reports))
    assert rows[0] == ["adapter", "verdict", "cause", "next"]
    assert sorted(row[0] for row in rows[1:15]) == sorted(one.path for one in reports)
    assert rows[15:] == [
        ["adapter", "code", "severity", "message"],
        *(["e1", "CD101", "error", f"wrong 1 {m}"] for m in range(2, 6)),
    ]
    assert text("github", few[:1]).count("\n") == 5
    assert len(table(github.rest(few[:1]))) == 2


def test_the_summary_of_a_step_is_bounded_and_safe() -> None:
    many = [*hostile(), *(report(f"a{n}", finding(f"é{n}" * 200)) for n in range(5000))]
    lines = list(github.rest(many))
    size = len("\n".join(lines).encode())
    assert 500_000 < size < 900_000
    *rows, _, last = lines[lines.index("| adapter | code | severity | message |") :]
    left = len(many) + len(HOSTILE) - 20 - (len(rows) - 2)
    assert last == f"{left} more are left out."
    assert {len(row) for row in table(lines)} == {4}
    assert_harmless("\n".join(lines))


# Markdown


def parsed(markdown: str) -> list[Token]:
    """As GitHub's Markdown: tables, bare links, strikethrough."""
    return MarkdownIt("gfm-like").parse(markdown)


def flat(tokens: Iterable[Token]) -> list[Token]:
    return [token for parent in tokens for token in (parent, *(parent.children or ()))]


def table(lines: Iterable[str]) -> list[list[str]]:
    """The text of the cells of every row."""
    rows: list[list[str]] = []
    tokens = parsed("\n".join(lines))
    for at, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in tokens[at + 1].children or ()))
    return rows


def assert_harmless(markdown: str) -> None:
    """No markup of names: no HTML, links, pictures or emphasis, and no mention outside a code span."""
    assert markdown.isprintable() or markdown.replace("\n", "").isprintable()
    known = {
        "text", "code_inline", "strong_open", "strong_close", "inline", "paragraph_open", "paragraph_close",
        "heading_open", "heading_close", "bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close",
        "table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close", "tr_open", "tr_close",
        "th_open", "th_close", "td_open", "td_close",
    }  # fmt: skip
    for token in flat(parsed(markdown)):
        assert token.type in known
        if token.type == "text":
            assert not re.search(r"[@#<>&`|*_~$\\\[\]]|://|www\.|GH-\d", token.content)


def test_markdown_has_a_row_for_each_adapter(tmp_path: Path) -> None:
    reports = [*fixtures(), examine(str(tmp_path / "nothing"))]
    markdown = text("markdown", reports)
    head, *rows = table([markdown])
    assert head == ["adapter", "verdict", "cause", "next"]
    assert sorted(row[0] for row in rows) == sorted(one.path for one in reports)
    assert rows[0][1:] == ["not examined", "", ""]
    failing = sum(bool(one.failing) for one in reports)
    assert [row[2] for row in rows[1 : failing + 1]] == ["CD101 adalora-rank-zero"] * failing
    (row,) = [row for row in rows if row[0].endswith("adalora-rank0-0.9.0")]
    assert row[1:] == ["loads in PEFT ≥ 0.10.0", "CD101 adalora-rank-zero", "load it with PEFT ≥ 0.10.0"]
    counts = f"{len(reports)} adapters: {len(reports) - failing - 1} accepted, {failing} rejected"
    assert f"{counts} ({failing} repairable), 1 could not be examined" in markdown.split("\n")[0]
    assert "notes are not shown." in markdown
    assert "CD201" not in markdown


def test_markdown_of_hostile_names() -> None:
    reports = hostile()
    markdown = text("markdown", reports)
    assert_harmless(markdown)
    rows = table([markdown])
    assert {len(row) for row in rows} == {4}
    assert len(rows) == 1 + len(reports)
    shown = {row[0] for row in rows}
    for name in ("a,b:c=d;e/4", "a|b\\|c\\\\|/5", "<script>alert(1)</script>", "`x` ``y``", "@everyone", "[x](y)"):
        assert name in shown or f"!{name}" in shown


def test_markdown_of_real_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [name for name in HOSTILE if not re.search("[/\0\ud800]", name) and name != ".." and len(name) < 200]
    for name in names:
        folder = copied("adalora-rank0-0.9.0", Path(name))
        config = {**json.loads((folder / "adapter_config.json").read_text()), "peft_type": name, "r": name}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    reports = [examine(name) for name in names]
    assert len(table([text("markdown", reports)])) == 1 + len(names)
    assert_harmless(text("markdown", reports))
    assert len(sarif(reports)["results"]) >= len(names)
    assert junit(reports)[0].tests == len(names)
    assert len(annotated(reports)) >= 10


@pytest.mark.parametrize("name", ["-a b's $x `y` | z", "."])
def test_markdown_names_the_ways_out(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "in").mkdir()
    copied("adalora-rank0-0.9.0", tmp_path / "in" / "here" if name == "." else tmp_path / "in" / name)
    monkeypatch.chdir(tmp_path / "in/here" if name == "." else tmp_path / "in")
    markdown = text("markdown", [examine(name)])
    assert "load it with PEFT ≥ 0.10.0" in markdown
    (command,) = [
        t.content for t in flat(parsed(markdown)) if t.type == "code_inline" and t.content.startswith("ckpt-")
    ]
    result = run(*shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert examine(shlex.split(command)[-1]).failing == ()


def test_markdown_does_not_promise_a_repair() -> None:
    broken = text("markdown", [report("a", finding("broken", rejected_by=PEFT))])
    assert "no repair makes it load" in broken
    odd = text("markdown", [report("a", finding("odd", severity=WARNING))])
    assert "repair" not in odd
    split = text("markdown", [report("a\nb", finding("broken", fixable=True))])
    assert "ckpt-doctor fix a" not in split


@pytest.mark.parametrize("count", [0, 1, 40, 3000])
def test_markdown_stays_below_the_limit_of_a_comment(count: int) -> None:
    many = [report(f"adapters/{n}", *(finding(f"wrong {n} {m} " * 20) for m in range(30))) for n in range(count)]
    markdown = text("markdown", [*(report(f"fine/{n}") for n in range(count)), *many])
    assert len(markdown) < 60_000
    rows, sections = len(table([markdown])) - 1, markdown.count("### ")
    left = re.findall(r"(\d+) more adapters", markdown)
    expected = [2 * count - rows] * (rows < 2 * count) + [count - sections] * (sections < count)
    assert [int(number) for number in left] == expected
    if count:
        assert sections
        assert table([markdown])[1][0] == "adapters/0"
        assert markdown.count("10 more") == sections


def test_markdown_counts_servers_among_what_accepts() -> None:
    ids = frozenset({"vllm==0.33.0", "sglang==0.5.23"})
    fault = finding("wrong", rejected_by=frozenset({"sglang==0.5.23"}))
    (_, row) = table([text("markdown", [report("a", fault, asked=ids)])])
    assert row[1] == "vllm 0.33.0: accepts; sglang 0.5.23: rejects"


@pytest.mark.parametrize("name", ADAPTERS)
def test_findings_are_named_as_their_pages(name: str) -> None:
    findings = examine(str(FIXTURES / name), Question(PEFT | SERVERS)).findings
    assert {(f.code, f.name) for f in findings} <= {(code.number, code.name) for code in CODES.values()}
