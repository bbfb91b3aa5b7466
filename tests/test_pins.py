"""`--for` a lock file or requirements: the runtimes that it pins, and nothing of it is run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES

from ckpt_doctor import scan
from ckpt_doctor.adapter.runtimes import UnknownRuntimeError
from ckpt_doctor.files import pins

UV = """version = 1
[[package]]
name = "peft"
version = "0.9.0"
source = { registry = "https://example.org/simple" }
[[package]]
name = "Transformers"
version = "4.44.2"
[[package]]
name = "torch"
version = "2.4.0"
"""
POETRY = '[[package]]\nname = "vllm"\nversion = "0.11.0"\n[metadata]\nlock-version = "2.0"\n'
PYLOCK = 'lock-version = "1.0"\n[[packages]]\nname = "sglang"\nversion = "0.5.23"\n'
HASHED = "peft==0.9.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\ntorch==2.4.0\n"
REQUIREMENTS = """# what is served
-r more.txt
--index-url https://example.org/simple
peft>=0.6,<0.10  # the server's
Llama_CPP.python==0.3.36; python_version >= "3.8"
vllm==0.11.0; python_version < "3"
sglang @ git+https://example.org/sglang
./local
"""


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("uv.lock", UV, {"peft==0.9.0", "transformers==4.44.2"}),
        ("poetry.lock", POETRY, {"vllm==0.11.0"}),
        ("pylock.toml", PYLOCK, {"sglang==0.5.23"}),
        ("requirements.txt", HASHED, {"peft==0.9.0"}),
        ("requirements.txt", "peft\n", {"peft==0.21.2"}),
        ("requirements.txt", "\ufeffpeft\t==\t0.9.0\t# of 2024\n", {"peft==0.9.0"}),
        ("requirements.txt", "peft[dev]==0.9.0\t--hash=sha256:00\nvllm==0.11.0+cpu\n", {"peft==0.9.0", "vllm==0.11.0"}),
        ("requirements.lock", "peft==0.9.0\n    # via a project\n", {"peft==0.9.0"}),
        ("uv.lock", UV.replace("0.9.0", "0.13.2+local"), {"peft==0.13.2", "transformers==4.44.2"}),
        ("uv.lock", UV.replace("0.9.0", "0.14.1.dev0"), {"peft==0.14.1.dev0", "transformers==4.44.2"}),
    ],
)
def test_what_is_pinned(tmp_path: Path, name: str, text: str, wanted: set[str]) -> None:
    (tmp_path / name).write_text(text)
    assert pins.ids(str(tmp_path / name)) == wanted


def test_requirements_include_others(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(REQUIREMENTS)
    (tmp_path / "last.txt").write_text("--requirement=requirements.txt\ntransformers==5.16.1\n")
    (tmp_path / "more.txt").write_text("-rlast.txt\n")
    ids = pins.ids([str(tmp_path / "requirements.txt")])
    assert {"transformers==5.16.1", "llama.cpp==0.3.36", "peft==0.6.2", "peft==0.9.0"} <= ids
    assert not any(id_.startswith(("vllm", "sglang", "peft==0.10")) for id_ in ids)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not there"),
        ("[[package]\n", "is not valid TOML"),
        ("version = 1\n", "pins none of peft, transformers"),
        ("package = 3\n", "pins none of"),
        ("[[package]]\nname = 3\nversion = []\n", "pins none of"),
        ('[[package]]\nname = "peft"\nversion = "0.1.0"\n', "none older than 0.2.0 is known"),
        ('[[package]]\nname = "peft"\nversion = "0.9.77"\n', "names no release that there is"),
        ("a = " + "[" * 5000 + "]" * 5000, "is not valid TOML"),
        (b"\xff\xfe", "is no text"),
    ],
)
def test_a_file_that_does_not_tell_is_named(run: Any, tmp_path: Path, text: str | bytes | None, message: str) -> None:
    lock = tmp_path / "uv.lock"
    if text is not None:
        lock.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UnknownRuntimeError, match=message) as raised:
        scan(FIXTURES / "lora-plain-0.21.2", str(lock))
    assert str(lock) in str(raised.value)
    result = run("scan", FIXTURES / "lora-plain-0.21.2", "--for", lock)
    assert result.exit_code == 2
    assert message in result.output


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "uv.lock")
    with pytest.raises(UnknownRuntimeError, match="no file"):
        pins.ids(str(tmp_path / "uv.lock"))


def test_a_lock_beside_the_projects_file(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "uv.lock").write_text(UV)
    (tmp_path / "ckpt-doctor.toml").write_text('for = ["uv.lock"]\n')
    monkeypatch.chdir(tmp_path / "deep")
    result = run("scan", FIXTURES / "adalora-rank0-0.9.0", "--format", "json")
    (report,) = json.loads(result.stdout)["reports"]
    assert report["verdicts"]["transformers==4.44.2"] == "unknown"
    assert result.stderr.count("what transformers 4.44.2 makes of an adapter is not known") == 1
    assert result.exit_code == 1  # 0.9.0 rejects it
    (tmp_path / "ckpt-doctor.toml").write_text('[[overrides]]\npaths = ["*"]\nfor = ["uv.lock"]\n')
    monkeypatch.chdir(tmp_path)
    assert run("scan", FIXTURES / "lora-plain-0.6.2").exit_code == 0
    assert run("scan", FIXTURES / "adalora-rank0-0.9.0").exit_code == 1
