"""`preload` and the other functions for programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES
from test_fix import load, tree

import ckpt_doctor
from ckpt_doctor import AdapterError, AdapterRejected, preload
from ckpt_doctor.adapter.runtimes import UnknownRuntimeError

HEALTHY, ZERO = FIXTURES / "lora-plain-0.21.2", FIXTURES / "adalora-rank0-0.9.0"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CKPT_DOCTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def copies(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.name != "locks"] if cache.exists() else []


def test_what_is_accepted_is_its_own_path(cache: Path) -> None:
    assert preload(ZERO) == ZERO  # the newest PEFT, which is installed here, takes it
    assert preload(str(HEALTHY), "peft==0.21.2") == HEALTHY
    assert preload(HEALTHY / "adapter_config.json") == HEALTHY
    assert copies(cache) == []


def test_what_is_rejected_is_repaired_once(cache: Path) -> None:
    before = tree(ZERO)
    copy = preload(ZERO, "peft==0.9.0")
    assert copies(cache) == [copy]
    assert preload(ZERO, "peft==0.9.0") == copy
    assert ckpt_doctor.scan(copy, "peft==0.9.0").verdicts["peft==0.9.0"] == "accepts"
    assert ckpt_doctor.compare(ZERO, copy).verdict == "same"
    (row,) = load(sys.executable, [copy])
    assert row["verdict"] == "accepts"
    assert tree(ZERO) == before


def test_the_copy_hangs_on_the_content_and_on_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(ZERO, tmp_path / "elsewhere")
    copy = preload(ZERO, "peft==0.9.0")
    assert preload(tmp_path / "elsewhere", "peft==0.9.0") == copy
    assert preload(ZERO, "peft==0.8.2") != copy
    config = tmp_path / "elsewhere/adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    assert preload(tmp_path / "elsewhere", "peft==0.9.0") != copy


def test_a_damaged_copy_is_made_again() -> None:
    copy = preload(ZERO, "peft==0.9.0")
    before = tree(copy)
    (copy / "adapter_model.safetensors").write_bytes(b"")
    assert preload(ZERO, "peft==0.9.0") == copy
    assert tree(copy) == before


def test_what_no_repair_helps_is_rejected_with_the_findings(tmp_path: Path, cache: Path) -> None:
    shutil.copytree(HEALTHY, tmp_path / "a")
    config = tmp_path / "a/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    with pytest.raises(AdapterRejected, match=r"PEFT 0\.8\.2: .*use_dora") as caught:
        preload(tmp_path / "a", "peft==0.8.2")
    assert any("use_dora" in finding.config_keys for finding in caught.value.findings)
    assert copies(cache) == []
    (tmp_path / "a/adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(AdapterRejected, match="it is empty"):
        preload(tmp_path / "a")


def test_what_is_not_known_is_one_warning_and_an_error_where_that_is_asked_for() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert preload(HEALTHY, "vllm") == HEALTHY
    (warning,) = caught
    assert warning.category is UserWarning
    assert warning.filename == __file__
    assert "without the base model" in str(warning.message)
    with pytest.raises(AdapterRejected):
        preload(HEALTHY, "vllm", strict=True)


def test_a_peft_that_no_fact_covers_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    monkeypatch.setattr(peft, "__version__", "0.99.0")
    with pytest.warns(UserWarning, match=r"PEFT 0\.99\.0"):
        assert preload(ZERO) == ZERO
    with pytest.raises(AdapterRejected, match=r"0\.99\.0"):
        preload(ZERO, strict=True)
    with pytest.warns(UserWarning, match=r"PEFT 0\.99\.0 .* is not known; the newest that is known is"):
        assert preload(ZERO, "peft==0.99.0") == ZERO
    with pytest.raises(AdapterRejected, match=r"0\.99\.0"):
        preload(ZERO, "peft==0.99.0", strict=True)
    with pytest.raises(UnknownRuntimeError):
        preload(ZERO, "peft==0.9.5")


def test_without_a_peft_there_is_nothing_to_judge_by() -> None:
    code = "import sys; sys.modules['peft'] = None; from ckpt_doctor import preload; preload(sys.argv[1])"
    result = subprocess.run([sys.executable, "-c", code, HEALTHY], capture_output=True, text=True, check=False)
    assert "no PEFT is installed here" in result.stderr


def test_one_adapter_below_a_root_is_that_one_and_several_ask_for_a_name(tmp_path: Path) -> None:
    shutil.copytree(HEALTHY, tmp_path / "root/mine")
    assert preload(tmp_path / "root") == tmp_path / "root/mine"
    shutil.copytree(HEALTHY, tmp_path / "root/other")
    with pytest.raises(AdapterError, match=r"subfolders mine, other"):
        preload(tmp_path / "root")
    assert preload(tmp_path / "root", subfolder="other") == tmp_path / "root/other"
    shutil.copytree(HEALTHY, tmp_path / "root", dirs_exist_ok=True)  # what PEFT loads from there
    assert preload(tmp_path / "root") == tmp_path / "root"
    with pytest.raises(AdapterError, match="does not exist"):
        preload(tmp_path / "none")


EIGHT = """
import sys, time
from ckpt_doctor import preload
while time.time() < float(sys.argv[2]): pass
print(preload(sys.argv[1], "peft==0.9.0"))
"""


def test_eight_processes_make_one_copy(cache: Path) -> None:
    watch = [sys.executable, "-c", EIGHT, str(ZERO), str(time.time() + 3)]
    running = [subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    paths = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0] * 8
    assert len(paths) == 1
    assert copies(cache) == [Path(paths.pop().strip())]


KILLED = """
import os, signal, sys
from ckpt_doctor import preload
from ckpt_doctor.files import writer
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
setattr(writer, sys.argv[2], die)
preload(sys.argv[1], "peft==0.9.0")
"""


@pytest.mark.parametrize("step", ["_read_back", "_carry", "take_place"])
def test_a_crash_leaves_no_half_copy(cache: Path, step: str) -> None:
    """Killed while it holds the lock, with a half copy staged: the next one makes the copy and removes the rest."""
    killed = subprocess.run([sys.executable, "-c", KILLED, ZERO, step], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name[0] for path in copies(cache)] == ["."]
    copy = preload(ZERO, "peft==0.9.0")
    assert copies(cache) == [copy]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CKPT_DOCTOR_CACHE", str(tmp_path / "file"))
    with pytest.raises(AdapterError, match="set CKPT_DOCTOR_CACHE"):
        preload(ZERO, "peft==0.9.0")


def test_what_an_earlier_fix_said_counts(tmp_path: Path) -> None:
    """It says which release saved the adapter, so it can decide what is repaired."""
    shutil.copytree(ZERO, tmp_path / "a")
    copy = preload(tmp_path / "a", "peft==0.9.0")
    (tmp_path / "a/ckpt-doctor.json").write_text('{"saved_by": "0.21.2"}')
    assert preload(tmp_path / "a", "peft==0.9.0") != copy


def test_the_time_of_a_copy_is_that_of_its_last_use() -> None:
    copy = preload(ZERO, "peft==0.9.0")
    os.utime(copy, (0, 0))
    preload(ZERO, "peft==0.9.0")
    assert copy.stat().st_mtime > time.time() - 60


def test_the_command_prints_the_path(run: Any, cache: Path, tmp_path: Path) -> None:
    result = run("preload", HEALTHY)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{HEALTHY}\n", "")
    result = run("preload", ZERO, "--for", "peft==0.9.0")
    assert [Path(result.stdout.strip())] == copies(cache)
    result = run("preload", HEALTHY, "--for", "vllm")
    assert (result.exit_code, result.stdout) == (0, f"{HEALTHY}\n")
    assert "without the base model" in result.stderr
    assert run("preload", HEALTHY, "--for", "vllm", "--strict").exit_code == 1
    assert run("preload", tmp_path / "none").exit_code == 2
    assert run("preload", FIXTURES).exit_code == 2
    assert run("preload", HEALTHY, "--for", "peft==0.9.5").exit_code == 2
    newer = run("preload", HEALTHY, "--for", "peft==0.99")
    assert (newer.exit_code, newer.stdout, newer.stderr.count("\n")) == (0, f"{HEALTHY}\n", 1)
    assert "PEFT 0.99" in newer.stderr


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a snapshot needs: the list of a repository's files, and each of them."""

    folder: Path
    asked: list[str]
    sha = "0" * 40

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        head, _, name = self.path.partition(f"/org/name/resolve/{self.sha}/")
        if self.path.startswith("/api/models/org/name"):
            files = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()]
            siblings = [{"rfilename": file} for file in files]
            data, status = json.dumps({"id": "org/name", "sha": self.sha, "siblings": siblings}).encode(), 200
        elif not head and (self.folder / name).is_file():
            data, status = (self.folder / name).read_bytes(), 200
            self.asked.append(name)
        else:
            data, status = b"", 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("X-Repo-Commit", self.sha)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[type[Hub]]:
    Hub.folder, Hub.asked = tmp_path / "repository", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Hub.address = f"http://127.0.0.1:{server.server_port}"
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


def from_hub(hub: Any, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`ckpt-doctor preload` in a process of its own: the endpoint is read when huggingface_hub is imported."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    environ.update(HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path / "hf"), HF_HUB_DISABLE_XET="1")
    command = [sys.executable, "-m", "ckpt_doctor", "preload", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=tmp_path)


def test_an_id_is_fetched_from_the_hub(hub: Any, tmp_path: Path) -> None:
    shutil.copytree(ZERO, hub.folder)
    (hub.folder / "model.safetensors").write_bytes(b"a base model that nobody asked for")
    result = from_hub(hub, tmp_path, "org/name")
    folder = Path(result.stdout.strip())
    assert folder.is_relative_to(tmp_path / "hf"), result.stderr
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert "model.safetensors" not in hub.asked
    result = from_hub(hub, tmp_path, "org/name", "--for", "peft==0.9.0")
    assert Path(result.stdout.strip()).is_relative_to(tmp_path / "cache"), result.stderr


def test_several_on_the_hub_ask_for_a_name_before_they_are_fetched(hub: Any, tmp_path: Path) -> None:
    shutil.copytree(HEALTHY, hub.folder / "a")
    shutil.copytree(HEALTHY, hub.folder / "b")
    result = from_hub(hub, tmp_path, "org/name")
    assert result.returncode == 2
    assert "subfolders a, b" in result.stderr
    assert not any(name.endswith("safetensors") for name in hub.asked)
    result = from_hub(hub, tmp_path, "org/name", "--subfolder", "b")
    assert result.stdout.endswith("/b\n"), result.stderr


def test_an_id_that_the_hub_has_not_got_is_one_sentence(hub: Any, tmp_path: Path) -> None:
    hub.folder.mkdir()
    result = from_hub(hub, tmp_path, "no/where")
    assert result.returncode == 2
    assert result.stderr.startswith("ckpt-doctor: no/where does not exist here, and the Hub did not give it")
    assert len(result.stderr.splitlines()) == 1


def test_without_huggingface_hub_it_is_said_what_is_missing() -> None:
    code = "import sys; sys.modules['huggingface_hub'] = None; from ckpt_doctor import preload; preload('org/name')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install huggingface_hub" in result.stderr.splitlines()[-1]


def test_all_that_is_promised_is_there() -> None:
    assert ckpt_doctor.__all__ == sorted(ckpt_doctor.__all__)
    assert all(getattr(ckpt_doctor, name) is not None for name in ckpt_doctor.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        ckpt_doctor.nothing  # noqa: B018


def test_a_fix_says_what_became_of_it(tmp_path: Path) -> None:
    result = ckpt_doctor.fix(ZERO, tmp_path / "out", ["peft==0.9.0", "peft==0.21.2"])
    assert (result.out, result.fixed) == (tmp_path / "out", True)
    assert result.proof is not None
    assert result.proof["verdict"] == "same"
    assert [step.codes for step in result.repairs] == [("CD101",)]
    assert ckpt_doctor.fix(ZERO, tmp_path / "dry", dry_run=True).out is None
    refused = ckpt_doctor.fix(FIXTURES / "adalora-all-rank0-0.9.0", tmp_path / "no", rank_zero="prune")
    assert (refused.out, refused.fixed) == (None, False)
    assert refused.refused[0].reason
    assert not (tmp_path / "no").exists()
    with pytest.raises(AdapterError, match="use force=True"):
        ckpt_doctor.fix(ZERO, tmp_path / "out")
    with pytest.raises(AdapterError, match="name another folder"):
        ckpt_doctor.fix(ZERO, ZERO, force=True)


def test_an_adapter_is_its_tensors_and_config() -> None:
    adapter = ckpt_doctor.load(ZERO)
    assert adapter.peft_type == "ADALORA"
    assert adapter.tensors["base_model.model.side.blocks.0.q.lora_E"].shape == (0, 1)
    with pytest.raises(AdapterError):
        ckpt_doctor.scan(FIXTURES)


def test_importing_costs_nothing_that_is_not_used() -> None:
    code = "import sys, ckpt_doctor; ckpt_doctor.preload(sys.argv[1]); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, ZERO], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "peft", "click", "filelock", "huggingface_hub"} & set(result.stdout.split())
