"""Adapters in stores and on servers: what is asked for, what is made of it, and what is said where it fails."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
from conftest import ADAPTERS, FIXTURES
from safetensors.numpy import save_file
from servers import Asked, Handler, Hub, Odd, Server, serving
from test_fix import tree
from test_fleet import until_workers

import ckpt_doctor
from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.cli import fleet
from ckpt_doctor.files import loader, place, remote, upload
from ckpt_doctor.files.loader import load
from ckpt_doctor.files.stores import address as addresses
from ckpt_doctor.files.stores import store
from ckpt_doctor.files.stores.buckets import S3

IMAGES = Path(__file__).parent / "data/images"
PLAIN, ZERO = FIXTURES / "lora-plain-0.21.2", FIXTURES / "adalora-rank0-0.9.0"
SECRETS = ("hunter2", "0123456789abcdef", "hf_secretsecret")


@pytest.fixture(autouse=True)
def _as_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CKPT_DOCTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "PAUSE", 0.01)
    yield
    assert not place.TEMPORARY  # what was downloaded is gone
    remote._BELOW.clear()
    remote._PLACES.clear()
    remote.STORES.clear()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """A server of the adapters named, as `root/NAME`."""
    with ExitStack() as stack:

        def start(*names: str | Path, **how: Any) -> Server:
            root = tmp_path / f"root{len(list(tmp_path.iterdir()))}"
            root.mkdir()
            for name in names:
                shutil.copytree(FIXTURES / name, root / Path(name).name)
            return stack.enter_context(serving(Server(root, **how)))

        yield start


def report(run: Any, *arguments: object) -> dict[str, Any]:
    (one,) = json.loads(run("scan", "--format", "json", *arguments).stdout)["reports"]
    assert isinstance(one, dict)
    return one


def alike(one: dict[str, Any]) -> str:
    """A report without its path, and what follows from that."""
    path = one["path"]
    text = json.dumps({key: value for key, value in one.items() if key not in ("path", "next", "commands")})
    return text.replace(path, "PATH")


def long_header(folder: Path, layers: int = 3000) -> None:
    """A LoRA whose header is longer than the first request."""
    shutil.copytree(PLAIN, folder)
    header: dict[str, Any] = {}
    for layer in range(layers):
        for factor, shape in (("A", [4, 8]), ("B", [8, 4])):
            at = 128 * len(header)
            name = f"base_model.model.layers.{layer}.q.lora_{factor}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 128]}
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\1" * 128 * len(header))
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"target_modules": ["q"], "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))


# What is asked for


def test_two_requests_are_all_that_a_healthy_adapter_takes(run: Any, serve: Any) -> None:
    server = serve(PLAIN)
    assert report(run, f"{server.address}/{PLAIN.name}")["verdicts"]["peft==0.21.2"] == "accepts"
    assert sorted(asked.name for asked in server.asked) == ["adapter_config.json", "adapter_model.safetensors"]
    ranges = {asked.name: asked.headers["range"] for asked in server.asked}
    assert ranges["adapter_model.safetensors"] == "bytes=0-131071"


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole files"])
def test_every_fixture_is_judged_as_where_it_lies_on_a_disk(run: Any, serve: Any, ranges: bool) -> None:
    names = [name for name in ADAPTERS if not (FIXTURES / name / "ckpt-doctor.json").exists()]
    server = serve(*names, ranges=ranges)
    beside = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapter_model.bin",
        "adapter_model.safetensors.index.json",
    }
    for name in names:  # a server lists nothing, so that nothing else is seen
        for path in (server.root / name).iterdir():
            if path.name not in beside and not path.name.startswith("adapter_model-"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (server.root / name / "adapter_model.safetensors").exists():
            (server.root / name / "adapter_model.bin").unlink(missing_ok=True)
    there = [f"{server.address}/{name}" for name in names]
    local = [server.root / name for name in names]
    ours = json.loads(run("scan", "--format", "json", *local).stdout)["reports"]
    theirs = json.loads(run("scan", "--format", "json", *there).stdout)["reports"]
    assert len(ours) == len(theirs) == len(names) >= 20
    assert list(map(alike, theirs)) == list(map(alike, ours))


def test_a_long_header_takes_a_second_request_for_the_rest(run: Any, serve: Any) -> None:
    server = serve()
    long_header(server.root / "long")
    size = (server.root / "long/adapter_model.safetensors").stat().st_size
    found = report(run, f"{server.address}/long")
    assert alike(found) == alike(report(run, server.root / "long"))
    ranges = [asked.headers["range"] for asked in server.asked if asked.name.endswith("safetensors")]
    end = 8 + struct.unpack("<Q", (server.root / "long/adapter_model.safetensors").read_bytes()[:8])[0]
    assert ranges == ["bytes=0-131071", f"bytes=131072-{end - 1}"]
    assert sum(asked.sent[0] for asked in server.asked) < end + 5000 < size


@pytest.mark.parametrize("name", [name for name in ADAPTERS if (FIXTURES / name / "adapter_model.bin").exists()])
def test_of_a_bin_its_pickle_and_its_directory_are_read(
    run: Any, serve: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (place, loader):  # so that it is a large one
        monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(place, "HEAD", 1024)
    monkeypatch.setattr(place, "BLOCK", 512)
    server = serve(name)
    folder = server.root / name
    (folder / "adapter_model.safetensors").unlink(missing_ok=True)
    path = folder / "adapter_model.bin"
    address = f"{server.address}/{name}"
    ours = report(run, folder)
    assert alike(report(run, address)) == alike(ours)
    asked = [each.headers["range"] for each in server.asked if each.name == path.name]
    size = path.stat().st_size
    assert asked[:2] == ["bytes=0-1023", f"bytes={size - 1024}-{size - 1}"]
    assert len(asked) <= 7  # records of torch's beside the pickle and the directory are further away than these blocks
    with pytest.raises(AdapterError, match="where its numbers are was not read: scan it with --values"):
        list(_numbers(load(address)))
    assert alike(report(run, address, "--values")) == alike(report(run, folder, "--values"))
    server.ranges = False
    monkeypatch.setattr(store, "MOST_SKIPPED", 0)
    assert "sends whole files and no ranges" in report(run, address)["error"]
    assert alike(report(run, address, "--values")) == alike(report(run, folder, "--values"))


def test_a_form_that_numbers_tell_is_read_with_them(run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import load_file

    for module in (place, loader):
        monkeypatch.setattr(module, "SMALL", 0)
    server = serve()
    path = server.root / "kohya/adapter_model.bin"
    path.parent.mkdir()
    torch.save(load_file(IMAGES / "kohya-sd1-alphas-by-sd-scripts.safetensors"), path)
    ours, theirs = report(run, path.parent), report(run, f"{server.address}/kohya")
    assert alike(theirs) == alike(ours)
    assert "cannot be converted" not in str(theirs)
    asked = [each.headers.get("range") for each in server.asked if each.name == path.name]
    assert None in asked  # its alphas are numbers, for which it is downloaded


def test_a_bin_of_the_old_format_is_downloaded_or_not_judged(
    run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    for module in (place, loader):
        monkeypatch.setattr(module, "SMALL", 0)
    server = serve(PLAIN)
    folder = server.root / PLAIN.name
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, folder / "adapter_model.bin", _use_new_zipfile_serialization=False)
    address = f"{server.address}/{PLAIN.name}"
    assert "before 1.6, which only a whole file tells: scan it with --values" in report(run, address)["error"]
    assert alike(report(run, address, "--values")) == alike(report(run, folder, "--values"))


def _numbers(adapter: Any) -> Iterator[bytes]:
    from ckpt_doctor.files.streams import Files, content

    with Files() as files:
        for info in adapter.tensors.values():
            yield content(info, files)


def test_numbers_are_the_real_ones_or_there_are_none(run: Any, serve: Any) -> None:
    server = serve(PLAIN)
    path = server.root / PLAIN.name / "adapter_model.safetensors"
    address = f"{server.address}/{PLAIN.name}"
    ours, theirs = (list(_numbers(load(place))) for place in (str(path.parent), address))
    assert ours == theirs
    assert any(any(data) for data in ours)
    path.write_bytes(path.read_bytes()[:-4] + b"\xff\xff\xff\x7f")  # the last number is NaN
    found = report(run, address, "--values")
    assert [finding["code"] for finding in found["findings"] if finding["code"] == "CD410"] == ["CD410"]
    assert alike(found) == alike(report(run, path.parent, "--values"))


def test_what_else_reads_adapters_reads_remote_ones(run: Any, serve: Any, tmp_path: Path) -> None:
    server = serve(PLAIN, ZERO)
    there, here = f"{server.address}/{ZERO.name}", server.root / ZERO.name
    assert run("compare", there, here).exit_code == 0
    assert run("compare", there, f"{server.address}/{PLAIN.name}").exit_code != 0
    assert run("ranks", there).stdout.replace(there, "X") == run("ranks", here).stdout.replace(str(here), "X")
    ours = run("ranks", "--values", "--format", "csv", here).stdout.replace(str(here), "X")
    assert run("ranks", "--values", "--format", "csv", there).stdout.replace(there, "X") == ours
    result = run("together", there, f"{server.address}/{PLAIN.name}", "--format", "json")
    assert json.loads(result.stdout)["adapters"][0] == there
    assert run("verify", there).exit_code == 2
    assert run("fix", "--in-place", there).exit_code == 2
    assert ckpt_doctor.scan(there).path == there
    assert ckpt_doctor.compare(there, here)
    assert ckpt_doctor.fix(there, tmp_path / "out", "peft==0.9.0").out == tmp_path / "out"


def test_many_are_on_the_way_at_once(run: Any, serve: Any) -> None:
    together = threading.Barrier(16)

    def waiting(_: Handler, __: Asked) -> bool:
        together.wait(20)  # breaks where fewer are asked for
        return False

    server = serve(odd=waiting)
    for number in range(16):
        shutil.copytree(PLAIN, server.root / str(number))
    result = run("scan", *(f"{server.address}/{number}" for number in range(16)))
    assert "16 adapters: 16 accepted" in result.stdout


def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have other processes read after the first few adapters."""
    for name, value in (("TRIAL", 0), ("BUSY", -1), ("REMOTE_LEFT", -1), ("_cores", lambda: 2)):
        monkeypatch.setattr(fleet, name, value)
    monkeypatch.setattr(fleet.Fleet, "_until_workers", until_workers)


def test_several_processes_tell_what_one_tells(run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, bad = serve(*ADAPTERS), serve(PLAIN, odd=servers.status(403))
    (server.root / "damaged").mkdir()
    shutil.copy(PLAIN / "adapter_config.json", server.root / "damaged")
    (server.root / "damaged/adapter_model.safetensors").write_bytes(struct.pack("<Q", 9) + b'{"a": []}')
    for number in range(150):  # more than are on the way at once, and than a worker is given
        shutil.copytree(PLAIN, server.root / str(number))
    secret = server.address.replace("://", "://user:hunter2@")
    folders = [f"{server.address}/{path.name}" for path in sorted(server.root.iterdir())]
    folders[-3:-3] = [f"{bad.address}/{PLAIN.name}", f"{secret}/{ZERO.name}", str(ZERO)]
    scan = ["scan", "--format", "jsonl", *folders]
    monkeypatch.setattr(fleet, "_cores", lambda: 1)
    alone, asked = run(*scan), len(server.asked)
    here = list[str]()
    examine = fleet.Examiner.__call__

    def watched(self: Any, folder: str) -> Any:
        here.append(folder)
        return examine(self, folder)

    monkeypatch.setattr(fleet.Examiner, "__call__", watched)
    busy(monkeypatch)
    assert run(*scan).stdout == alone.stdout
    assert len(server.asked) == 2 * asked
    assert 2 <= len(here) < 100  # those that were on the way when it showed that others help
    here.clear()
    assert run(*scan, "--jobs", "2").stdout == alone.stdout
    assert len(server.asked) == 3 * asked
    assert here == []
    assert run(*scan, "--jobs", "1").stdout == alone.stdout
    assert len(here) == len(alone.stdout.splitlines()) - 1
    assert "hunter2" not in alone.stdout
    assert multiprocessing.active_children() == []
    noted = run(*scan, "--jobs", "2", "--values")
    assert "--jobs does nothing where numbers of remote adapters are read" in noted.stderr


def test_processes_share_the_requests_at_once(run: Any, serve: Any) -> None:
    going, most = set[int](), list[int]()

    def counted(_: Handler, asked: Asked) -> bool:
        going.add(id(asked))
        most.append(len(going))
        time.sleep(0.2)
        going.discard(id(asked))
        return False

    server = serve(odd=counted)
    shutil.copytree(PLAIN, server.root / "0")
    for number in range(1, 200):
        (server.root / str(number)).symlink_to(server.root / "0")
    run("scan", "--format", "jsonl", "--jobs", "2", *(f"{server.address}/{number}" for number in range(200)))
    assert 32 < max(most) <= 64


def test_what_hangs_costs_its_worker_and_leaves_nothing(
    run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    over = threading.Event()

    def whole_files_never_come(_: Handler, asked: Asked) -> bool:
        return "range" not in asked.headers and over.wait(60)

    server = serve(PLAIN, ZERO, odd=whole_files_never_come)
    path = server.root / "kohya/adapter_model.bin"
    path.parent.mkdir()
    tensors = load_file(IMAGES / "kohya-sd1-alphas-by-sd-scripts.safetensors")
    name = next(name for name in tensors if name.endswith(".lora_down.weight"))
    tensors[name] = torch.zeros(tensors[name].shape[0], loader.SMALL)
    torch.save(tensors, path)  # its alphas are numbers, for which it is downloaded
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(fleet, "SECONDS_OF_READING", 6)
    names = (PLAIN.name, "kohya", ZERO.name)
    result = run("scan", "--format", "jsonl", "--jobs", "2", *(f"{server.address}/{name}" for name in names))
    over.set()
    first, second, third, _ = map(json.loads, result.stdout.splitlines())
    assert first["error"] is third["error"] is None
    assert second["error"] == f"{server.address}/kohya: it was given up after 6 s"
    assert "adapter_model.bin" in {asked.name for asked in server.asked if "range" not in asked.headers}
    assert list(temporary.iterdir()) == []


def test_a_cluster_is_for_disks(run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(PLAIN)
    scan = ["scan", f"{server.address}/{PLAIN.name}", PLAIN, "--format", "jsonl"]
    result = run(*scan, "--dask", "tcp://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--dask is for adapters on a disk that its workers share: scan remote ones without it" in result.stderr
    monkeypatch.setenv("CKPT_DOCTOR_DASK", "tcp://127.0.0.1:1")
    result = run(*scan)
    assert len(result.stdout.splitlines()) == 3
    assert "all were examined here" in result.stderr
    with ThreadPoolExecutor(1) as executor, pytest.raises(AdapterError, match="scan remote ones without it"):
        ckpt_doctor.scan_tree(f"{server.address}/{PLAIN.name}", executor=executor)


def test_formats_with_locations_name_the_address(run: Any, serve: Any) -> None:
    server = serve(ZERO)
    address = f"{server.address}/{ZERO.name}"
    document = json.loads(run("scan", "--format", "sarif", "--fail-on", "note", address).stdout)
    locations = [place for result in document["runs"][0]["results"] for place in result["locations"]]
    assert {place["physicalLocation"]["artifactLocation"]["uri"] for place in locations} == {
        f"{address}/adapter_config.json"
    }
    assert (
        f"file={address}/adapter_config.json".replace(":", "%3A") in run("scan", "--format", "github", address).stdout
    )


# Fix and preload


def test_a_fix_of_a_remote_adapter_is_that_of_the_same_files(run: Any, serve: Any, tmp_path: Path) -> None:
    server = serve(ZERO)
    for path in (server.root / ZERO.name).iterdir():  # a server lists nothing, so that nothing else comes along
        if not path.name.startswith("adapter_"):
            path.unlink()
    result = run("fix", f"{server.address}/{ZERO.name}", tmp_path / "a", "--for", "peft==0.9.0")
    assert (result.exit_code, result.stderr) == (0, "")
    run("fix", server.root / ZERO.name, tmp_path / "b", "--for", "peft==0.9.0")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert str(tmp_path) not in result.stdout.replace(str(tmp_path / "a"), "")
    assert (
        "cannot be written to: name a folder here" in run("fix", server.root / ZERO.name, f"{server.address}/x").stderr
    )


@pytest.mark.parametrize("tags", [True, False])
def test_preload_keeps_a_copy_of_each_version(run: Any, serve: Any, tags: bool) -> None:
    server = serve(PLAIN)
    server.tags = tags
    address = f"{server.address}/{PLAIN.name}"
    first = ckpt_doctor.preload(address, "peft==0.21.2")
    assert {path.name for path in first.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert (first / "adapter_model.safetensors").read_bytes() == (PLAIN / "adapter_model.safetensors").read_bytes()
    server.asked.clear()
    assert ckpt_doctor.preload(address, "peft==0.21.2") == first
    assert tags == (sorted(each.name for each in server.asked) == ["adapter_config.json", "adapter_model.safetensors"])
    config = server.root / PLAIN.name / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    assert run("preload", address, "--for", "peft==0.21.2").stdout.strip() != str(first)
    copies = [path for path in first.parent.iterdir() if path.name != "locks"]
    assert len(copies) == 2


# Servers that fail


FAULTS: dict[str, tuple[Odd, str]] = {
    "slow": (servers.slow, "given up"),
    "dripping": (servers.dripping, "given up, as it did not come within"),
    "cut off": (servers.cut_off, "was cut off by the server"),
    "too short": (servers.short, "was cut off by the server"),
    "babbling": (servers.babbling, ""),
    "endless": (servers.endless, "does not say how long it is"),
    "forbidden": (servers.status(403), "gives no access (403)"),
    "absent": (servers.status(404), "has no adapter"),
    "broken": (servers.status(500), "is on a server that is busy (500)"),
    "teapot": (servers.status(418), "was answered with 418"),
    "busy for an hour": (servers.status(429, Retry_After="3600"), "busy (429), and asks to wait 3600 s"),
    "another range": (servers.another_range, "with another range than was asked for"),
    "in circles": (servers.status(302, Location="/again"), "is redirected more than 5 times"),
    "nowhere": (servers.status(302, Location="file:///etc/passwd"), "is redirected to what is no address"),
    "compressed": (servers.status(200, Content_Encoding="gzip"), "in another encoding"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_is_one_sentence_and_stops_no_other(
    run: Any, serve: Any, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SECONDS", 1.0 if fault in ("slow", "dripping") else 10.0)
    monkeypatch.setattr(store, "SLOWEST", 1 << 20)
    odd, said = FAULTS[fault]
    good, bad = serve(PLAIN, ZERO), serve(PLAIN, odd=odd)
    places = ((good, PLAIN), (bad, PLAIN), (good, ZERO))
    start = time.monotonic()
    result = run("scan", "--format", "jsonl", *(f"{server.address}/{path.name}" for server, path in places))
    assert time.monotonic() - start < 9
    first, second, third, _ = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 2
    assert first["verdicts"]["peft==0.21.2"] == third["verdicts"]["peft==0.21.2"] == "accepts"
    assert second["error"].startswith(bad.address)
    assert said in second["error"]
    assert "\n" not in second["error"]
    assert "report it" not in second["error"]
    assert sum(asked.sent[0] for asked in bad.asked) < 20 << 20


@pytest.mark.parametrize("fault", ["cut off", "forbidden"])
def test_what_is_downloaded_fails_with_the_same_sentence(run: Any, serve: Any, fault: str) -> None:
    odd, said = FAULTS[fault]
    server = serve(PLAIN, odd=lambda handler, asked: asked.name.endswith("safetensors") and odd(handler, asked))
    address = f"{server.address}/{PLAIN.name}"
    assert said in report(run, address)["error"]
    assert said in report(run, address, "--values")["error"]


def test_an_index_of_shards_without_end_costs_its_time(run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(handler: Handler, asked: Asked) -> bool:
        if not asked.name.endswith(".safetensors") or asked.name == "adapter_model.safetensors":
            return False
        time.sleep(0.1)
        shard = folder / "shard"  # one with another tensor than the index says would end it
        save_file({f"x{asked.name.removesuffix('.safetensors')}": np.zeros(1, np.float32)}, shard)
        handler.file(shard, asked)
        return True

    server = serve(PLAIN, odd=slowly)
    folder = server.root / PLAIN.name
    (folder / "adapter_model.safetensors").unlink()
    names = {f"x{number}": f"{number}.safetensors" for number in range(10_000)}
    (folder / "adapter_model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    monkeypatch.setattr(place, "PATIENCE", 0.3)
    error = report(run, f"{server.address}/{PLAIN.name}")["error"]
    assert error.endswith("was given up, as it was waited for longer than 0 s")
    assert len(server.asked) < 20


def test_a_fault_unforeseen_tells_no_secret(run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any) -> Any:
        raise TypeError("https://user:hunter2@host/a?token=hf_secretsecret is odd")

    monkeypatch.setattr(store.Store, "piece", failing)
    error = report(run, f"{serve(PLAIN).address}/{PLAIN.name}")["error"]
    assert error.endswith("cannot be read: https://host/a is odd")


@pytest.mark.parametrize("base", ["hf://org/name", "https://user:hunter2@host/model"])
def test_a_base_model_is_read_on_a_disk(run: Any, base: str) -> None:
    result = run("scan", PLAIN, "--base", base)
    assert "is remote, and a base model is read on a disk" in result.stderr
    assert "hunter2" not in result.stderr


def test_who_is_busy_is_asked_again_when_it_says(run: Any, serve: Any) -> None:
    def busy_once(handler: Handler, asked: Asked) -> bool:
        if [each.name for each in handler.server.asked].count(asked.name) > 1:
            return False
        handler.reply(429, headers={"Retry-After": "1"})
        return True

    server = serve(PLAIN, odd=busy_once)
    start = time.monotonic()
    assert report(run, f"{server.address}/{PLAIN.name}")["verdicts"]["peft==0.21.2"] == "accepts"
    assert time.monotonic() - start >= 1
    assert len(server.asked) == 4


@pytest.mark.parametrize("tagged", [True, False])
def test_a_header_that_changes_between_two_requests_is_not_read(run: Any, serve: Any, tagged: bool) -> None:
    def changing(handler: Handler, asked: Asked) -> bool:
        path = handler.server.root / asked.path.lstrip("/")
        if asked.headers.get("range", "").startswith("bytes=131072-"):
            path.write_bytes(path.read_bytes() + b"\0")
            if not tagged:
                asked.headers.pop("if-match")
        return False

    server = serve(odd=changing)
    long_header(server.root / "long")
    error = report(run, f"{server.address}/long")["error"]
    assert (
        error == f"{server.address}/long/adapter_model.safetensors was changed by others while it was read; try again"
    )


def test_credentials_go_to_no_other_host_and_into_no_output(run: Any, serve: Any, tmp_path: Path) -> None:
    other = serve(ZERO)

    def elsewhere(handler: Handler, asked: Asked) -> bool:
        if not asked.name.endswith(".safetensors"):
            return False
        handler.reply(
            302, headers={"Location": f"{other.address}{asked.path.partition('?')[0]}?X-Amz-Signature=0123456789abcdef"}
        )
        return True

    server = serve(ZERO, odd=elsewhere)
    secret = server.address.replace("://", "://user:hunter2@")
    address = f"{secret}/{ZERO.name}/?token=hf_secretsecret"
    for arguments in (
        ["scan", "--format", "table", "-v"], ["scan", "--format", "jsonl"], ["scan", "--format", "sarif"],
        ["scan", "--format", "junit"], ["scan", "--format", "markdown"], ["scan", "--html", tmp_path / "page.html"],
        ["ranks"], ["ranks", "--values", "--format", "json"], ["preload", "--for", "peft==0.9.0"],
    ):  # fmt: skip
        for one in (address, f"{secret}/none?token=hf_secretsecret"):
            result = run(*arguments, one)
            printed = result.stdout + result.stderr
            assert not any(word in printed for word in SECRETS), arguments
    assert not any(word in (tmp_path / "page.html").read_text() for word in SECRETS)
    result = run("fix", address, tmp_path / "out")
    assert result.exit_code == 0
    assert not any(word in result.stdout + result.stderr for word in SECRETS)
    assert not any(
        word in (path).read_text(errors="replace") for path in (tmp_path / "out").iterdir() for word in SECRETS
    )
    assert all(asked.headers["authorization"].startswith("Basic ") for asked in server.asked)
    assert all("token=hf_secretsecret" in asked.path for asked in server.asked)
    assert other.asked
    assert not any("authorization" in asked.headers or "hf_secret" in asked.path for asked in other.asked)
    steps = report(run, address)["next"]
    assert any("as you have it" in step["text"] for step in steps)
    assert not any(step["command"] for step in steps)


@pytest.mark.parametrize(
    "address",
    [
        "http://",
        "s3://",
        "hf://alone",
        "hf://datasets/a/b",
        "s3://AKIA:hunter2@bucket/a",
        "http://[::1/a",
        "http://user:hunter2@host:port/a",
        "http://[hunter2]/a",
    ],
)
def test_what_is_no_address_is_said_without_it(run: Any, address: str) -> None:
    for arguments in (["scan"], ["ranks"], ["fix", "--dry-run"], ["preload"], ["compare", PLAIN]):
        end = ["out"] if arguments[0] == "fix" else []
        result = run(*arguments, address, *end)
        assert result.exit_code == 2
        assert "hunter2" not in result.stdout + result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert "report it" not in result.stderr


def test_what_is_no_address_stops_no_other(run: Any, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"s3:///a\nhttp://[::1/a\nhf://alone\n{PLAIN}\n")
    result = run("scan", "--files-from", tmp_path / "list", "--format", "jsonl")
    first, *others, _ = map(json.loads, result.stdout.splitlines())
    assert first["verdicts"]["peft==0.21.2"] == "accepts"
    assert [one["path"] for one in others] == ["s3:///a", "http://[::1/a", "hf://alone"]
    assert len(result.stderr.splitlines()) == 3


# S3


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A client of a new bucket, whose name it has."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": moto, "AWS_ACCESS_KEY_ID": "AKIAhunter2", "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.name = f"b{abs(hash(request.node.name)) % 10**9}"
    client.create_bucket(Bucket=client.name)

    def put(folder: Path, prefix: str) -> str:
        for path in folder.rglob("*"):
            if path.is_file():
                client.put_object(
                    Bucket=client.name, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes()
                )
        return f"s3://{client.name}/{prefix}"

    client.put = put
    client.keys = lambda prefix="": sorted(
        each["Key"] for each in client.list_objects_v2(Bucket=client.name, Prefix=prefix).get("Contents", [])
    )
    return client


def test_a_prefix_of_a_bucket_is_a_tree(run: Any, bucket: Any, tmp_path: Path) -> None:
    names = [
        ZERO.name,
        PLAIN.name,
        *(name for name in ADAPTERS if "bin" in name or "sharded" in name or "fixed" in name),
    ]
    for name in names:
        shutil.copytree(FIXTURES / name, tmp_path / "tree" / name)
    shutil.copytree(PLAIN, tmp_path / "tree/.hidden/a")
    root = bucket.put(tmp_path / "tree", "runs/all")
    bucket.put(PLAIN, "runs/another")
    ours = json.loads(run("scan", "--format", "json", tmp_path / "tree").stdout)["reports"]
    theirs = json.loads(run("scan", "--format", "json", f"{root}/").stdout)["reports"]
    assert [one["path"] for one in theirs] == [one["path"].replace(str(tmp_path / "tree"), root) for one in ours]
    assert list(map(alike, theirs)) == list(map(alike, ours))
    one = report(run, f"{root}/{PLAIN.name}/adapter_config.json")
    assert one["path"] == f"{root}/{PLAIN.name}"
    table = run("scan", f"{root}/").stdout
    assert f"\n{ZERO.name} " in table


def test_each_of_several_is_repaired_to_a_place_of_its_own(
    run: Any, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for above in "ab":
        bucket.put(ZERO, f"{above}/lora")
    reports = json.loads(run("scan", f"s3://{bucket.name}", "--format", "json").stdout)["reports"]
    commands = [step["command"].split() for one in reports for step in one["next"] if step["kind"] == "fix"]
    assert [command[3] for command in commands] == [f"{bucket.name}-{above}-lora-fixed" for above in "ab"]
    for _, *arguments in commands:
        assert run(*arguments).exit_code == 0


def test_in_a_bucket_other_tools_and_nothing_are_recognised(run: Any, bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "all/kohya").mkdir(parents=True)
    shutil.copy(IMAGES / "kohya-sd1-alphas-by-sd-scripts.safetensors", tmp_path / "all/kohya")
    shutil.copytree(FIXTURES.parent / "tests/data/conversions/mlx", tmp_path / "all/mlx")
    root = bucket.put(tmp_path / "all", "all")
    ours = json.loads(run("scan", tmp_path / "all", "--format", "json").stdout)["reports"]
    theirs = json.loads(run("scan", root, "--format", "json").stdout)["reports"]
    assert len(ours) > 2
    assert list(map(alike, theirs)) == list(map(alike, ours))
    assert "does not exist, or is empty" in run("scan", f"s3://{bucket.name}/none").stderr
    assert "does not exist" in run("scan", "s3://no-such-bucket/x").stderr


def test_what_changes_in_a_bucket_while_it_is_read_is_said(
    run: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = bucket.put(PLAIN, "a")
    listing = S3.listing

    async def changed(self: Any) -> Any:
        found = await listing(self)
        bucket.put_object(Bucket=bucket.name, Key="a/adapter_config.json", Body=b"{}")
        return found

    monkeypatch.setattr(S3, "listing", changed)
    assert report(run, address)["error"] == f"{address}/adapter_config.json {store.CHANGED}"


def test_a_list_that_does_not_come_is_not_waited_for(run: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(store, "LISTING", 0.2)
    monkeypatch.setattr(S3, "listing", never)
    said = f"s3://{bucket.name}/a was given up, as it did not come within"
    for arguments in (["scan", f"s3://{bucket.name}/a"], ["fix", PLAIN, f"s3://{bucket.name}/a"]):
        assert said in run(*arguments).stderr


def test_a_fix_goes_from_a_bucket_to_a_bucket(run: Any, bucket: Any, tmp_path: Path) -> None:
    shutil.copytree(ZERO, tmp_path / "in/a")
    shutil.copytree(PLAIN, tmp_path / "in/b/c")
    (tmp_path / "in/a/tokenizer.json").write_text("{}")
    (tmp_path / "in/a/optimizer.pt").write_bytes(b"x")
    source = bucket.put(tmp_path / "in", "in")
    out = f"s3://{bucket.name}/out"
    result = run("fix", source, out, "--for", "peft==0.9.0")
    assert (result.exit_code, result.stderr) == (0, "")
    run("fix", tmp_path / "in", tmp_path / "out", "--for", "peft==0.9.0")
    here = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert {key: bucket.get_object(Bucket=bucket.name, Key=key)["Body"].read() for key in bucket.keys("out/")} == here
    assert "out/a/tokenizer.json" in here
    assert "exists, and what is in a store cannot be replaced" in run("fix", source, out, "--force").stderr
    assert report(run, f"{out}/a", "--for", "peft==0.9.0")["verdicts"]["peft==0.9.0"] == "accepts"


@pytest.mark.parametrize("why", [store.Unread("cannot be written: it is full"), KeyboardInterrupt()])
def test_what_cannot_be_written_whole_is_removed_again(
    run: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch, why: BaseException
) -> None:
    done = upload.run

    def until_the_config(work: Any) -> Any:
        if work.__name__ == "put" and bucket.keys():
            work.close()
            raise why
        return done(work)

    monkeypatch.setattr(upload, "run", until_the_config)
    result = run("fix", ZERO, f"s3://{bucket.name}/out")
    assert result.exit_code != 0
    if isinstance(why, store.Unread):
        assert f"s3://{bucket.name}/out/ckpt-doctor.json cannot be written: it is full" in result.stderr
    assert bucket.keys() == []


def test_what_appears_meanwhile_is_not_replaced(run: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check = upload.check_free

    def late(out: str) -> None:
        check(out)
        bucket.put_object(Bucket=bucket.name, Key="out/adapter_config.json", Body=b"theirs")

    monkeypatch.setattr(upload, "check_free", late)
    result = run("fix", ZERO, f"s3://{bucket.name}/out")
    assert result.exit_code == 2
    assert bucket.keys() == ["out/adapter_config.json"]
    assert bucket.get_object(Bucket=bucket.name, Key="out/adapter_config.json")["Body"].read() == b"theirs"


def test_a_run_goes_on_by_tags(run: Any, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = bucket.put(ZERO, "all/a")[:-2]
    bucket.put(PLAIN, "all/b")
    scan = ["scan", root, "--format", "jsonl", "--resume", tmp_path / "journal"]
    several = run(*scan[:-2], "--jobs", "2").stdout
    assert not {f"{root}/a", f"{root}/b"} & remote._PLACES.keys()  # what was listed of them is let go of
    assert several == run(*scan[:-2]).stdout
    first = run(*scan)
    asked: list[str] = []
    piece = S3.piece

    async def noted(self: Any, name: str, *rest: Any) -> Any:
        asked.append(name)
        return await piece(self, name, *rest)

    monkeypatch.setattr(S3, "piece", noted)
    second = run(*scan)
    assert second.stdout == first.stdout
    assert "2 of 2 adapters are unchanged" in second.stderr
    assert asked == []
    config = json.loads((PLAIN / "adapter_config.json").read_text())
    bucket.put_object(Bucket=bucket.name, Key="all/b/adapter_config.json", Body=json.dumps({**config, "r": 3}).encode())
    third = run(*scan)
    assert third.stdout != first.stdout
    assert "1 of 2 adapters are unchanged" in third.stderr
    assert {name.partition("/")[0] for name in asked} == {"b"}


def test_a_run_goes_on_by_all_tags_or_none(
    run: Any, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = bucket.put(PLAIN, "a")
    listing = S3.listing

    async def untagged(self: Any) -> Any:
        return {
            name: entry._replace(tag="") if name.endswith("config.json") else entry
            for name, entry in (await listing(self)).items()
        }

    monkeypatch.setattr(S3, "listing", untagged)
    scan = ["scan", address, "--format", "jsonl", "--resume", tmp_path / "journal"]
    first = run(*scan)
    config = (PLAIN / "adapter_config.json").read_text()
    bucket.put_object(Bucket=bucket.name, Key="a/adapter_config.json", Body=config.replace("LORA", "LORB"))
    second = run(*scan)
    assert second.stdout != first.stdout
    assert second.stderr == first.stderr == ""


def test_credentials_of_a_bucket_are_in_no_output(run: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address = bucket.put(PLAIN, "a")

    async def failing(*_: Any) -> Any:
        raise OSError("https://user:hunter2@host/b?X-Amz-Signature=0123456789abcdef: no; token=hf_secretsecret")

    monkeypatch.setattr("s3fs.S3FileSystem._call_s3", failing)
    result = run("scan", "--format", "jsonl", address)
    assert "cannot be read" in result.stderr + result.stdout
    assert not any(word in result.stdout + result.stderr for word in SECRETS)


# The Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The Hub with a repository of two commits, of which `main` is the first, and a CDN."""
    from huggingface_hub import constants

    first, second = "1" * 40, "2" * 40
    root = tmp_path / "hub"
    shutil.copytree(PLAIN, root / first)
    shutil.copytree(ZERO, root / first / "runs/zero")
    shutil.copytree(ZERO, root / second)
    (root / "cdn").mkdir()
    with ExitStack() as stack:
        cdn = stack.enter_context(serving(Server(root)))
        server = Hub(root, "org/name", {"main": first, "refs/pr/1": second}, cdn.address, "hf_secretsecret")
        stack.enter_context(serving(server))
        server.beside = cdn  # type: ignore[attr-defined]
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)  # where its releases from 1 on have it
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
        yield server


def test_a_repository_is_a_tree_at_one_commit(run: Any, hub: Any) -> None:
    first, second = json.loads(run("scan", "hf://org/name", "--format", "json").stdout)["reports"]
    assert (first["path"], second["path"]) == ("hf://org/name", "hf://org/name/runs/zero")
    assert alike(first) == alike(report(run, hub.root / ("1" * 40) / "adapter_config.json"))
    assert alike(second) == alike(report(run, ZERO))
    assert [asked.path for asked in hub.asked if "/api/" in asked.path] == ["/api/models/org/name?blobs=True"]
    assert len(hub.asked) == 5  # the model, and two files of each adapter
    assert report(run, "hf://org/name@refs/pr/1")["path"] == "hf://org/name@refs/pr/1"
    assert alike(report(run, "hf://org/name@refs%2Fpr%2F1")) == alike(report(run, ZERO))
    assert alike(report(run, "hf://org/name/runs")) == alike(report(run, ZERO))
    assert alike(report(run, f"hf://org/name@{'2' * 40}/adapter_config.json")) == alike(report(run, ZERO))


def test_a_hub_that_is_busy_is_asked_for_its_files_again(run: Any, hub: Any) -> None:
    wait = ["0"]

    def busy(handler: Handler, asked: Asked) -> bool:
        if "/api/" not in asked.path or not wait:
            return False
        handler.reply(429, headers={"Retry-After": wait.pop()})
        return True

    hub.odd = busy
    assert report(run, "hf://org/name@refs/pr/1")["error"] is None
    wait[:] = ["3600"]
    said = run("scan", "hf://org/name").stderr
    assert "hf://org/name was not given by the Hub: it answered with 429, and asks to wait 3600 s" in said


@pytest.mark.usefixtures("hub")
def test_a_file_without_a_size_is_not_taken_as_missing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    about = servers.HubHandler.about
    monkeypatch.setattr(servers.HubHandler, "about", lambda self, commit, _: about(self, commit, blobs=False))
    said = run("scan", "hf://org/name").stderr
    assert "hf://org/name was given by the Hub without the size of" in said


def test_a_tree_is_asked_for_at_once_from_python_too(hub: Any) -> None:
    together = threading.Barrier(2)

    def waiting(_: Handler, asked: Asked) -> bool:
        if asked.name == "adapter_config.json":
            together.wait(10)  # breaks where one is asked for after the other
        return False

    hub.odd = waiting
    assert [each.error for each in ckpt_doctor.scan_tree("hf://org/name")] == [None, None]


def test_the_token_goes_to_the_hub_alone(run: Any, hub: Any) -> None:
    report(run, "hf://org/name@refs/pr/1")
    assert all(asked.headers["authorization"] == "Bearer hf_secretsecret" for asked in hub.asked)
    assert hub.beside.asked
    assert not any("authorization" in asked.headers for asked in hub.beside.asked)


def test_the_commit_that_was_judged_is_the_one_that_is_fixed(run: Any, hub: Any, tmp_path: Path) -> None:
    def moving(_: Handler, asked: Asked) -> bool:
        hub.branches["main"] = "1" * 40 if asked.path.startswith("/api/") else "2" * 40
        return False

    hub.odd = moving
    result = run("fix", "hf://org/name/runs/zero", tmp_path / "out")
    assert result.exit_code == 0
    assert all("1" * 40 in asked.path for asked in hub.asked if "/resolve/" in asked.path)
    run("fix", ZERO, tmp_path / "ours")
    assert tree(tmp_path / "out") == tree(tmp_path / "ours")


def test_an_answer_of_another_commit_is_not_read(run: Any, hub: Any) -> None:
    def another(handler: Handler, asked: Asked) -> bool:
        if not asked.name.endswith("config.json"):
            return False
        handler.file(PLAIN / "adapter_config.json", asked, {"X-Repo-Commit": "3" * 40})
        return True

    hub.odd = another
    assert report(run, "hf://org/name@refs/pr/1")["error"].endswith(store.CHANGED)


@pytest.mark.usefixtures("hub")
def test_what_the_hub_does_not_give_is_said(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "it has no such revision" in run("scan", "hf://org/name@none").stderr
    assert "it does not exist, or gives no access" in run("scan", "hf://org/other").stderr
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    remote.STORES.clear()
    said = run("scan", "hf://org/name").stderr
    assert "gives no access: log in" in said
    assert "hf_wrong" not in said


def test_preload_has_huggingface_hub_fetch_it(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    there = hub.root / ("1" * 40)
    calls = []

    def fetch(name: str, *, revision: str | None, allow_patterns: str) -> str:
        calls.append((name, revision, allow_patterns))
        return str(there)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    path = ckpt_doctor.preload("hf://org/name@main/runs/zero", "peft==0.21.2")
    assert path == there / "runs/zero"
    assert calls == [
        ("org/name", "main", "runs/zero/*adapter_config.json"),
        ("org/name", "1" * 40, "runs/zero/adapter_*"),
    ]


def test_endpoint_cache_and_offline_are_as_huggingface_hub_takes_them(hub: Any, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        environment.pop(name, None)

    def scanned(*options: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ckpt_doctor", "scan", "hf://org/name@refs/pr/1", "--for", "peft", *options]
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=False)

    assert scanned().returncode == 0
    several = ("--format", "jsonl", "--jobs", "2")
    lines = scanned(*several[:2]).stdout
    hub.asked.clear()
    assert scanned(*several).stdout == lines
    assert len(hub.asked) == 3  # the list, which the other processes are given, and two files
    offline = scanned(HF_HUB_OFFLINE="1")
    assert "is not in the local cache of the Hub, and HF_HUB_OFFLINE is set" in offline.stderr
    folder = tmp_path / "home/hub/models--org--name"
    shutil.copytree(ZERO, folder / "snapshots" / ("2" * 40))
    (folder / "refs/refs/pr").mkdir(parents=True)
    (folder / "refs/refs/pr/1").write_text("2" * 40)
    hub.asked.clear()
    offline = scanned(HF_HUB_OFFLINE="1")
    assert (offline.returncode, hub.asked) == (0, [])
    assert offline.stdout.startswith("hf://org/name@refs/pr/1 · ")
    offline = scanned(*several, HF_HUB_OFFLINE="1")
    assert (offline.stdout, hub.asked) == (lines, [])


# Google Cloud Storage


def test_a_bucket_of_google_is_read_and_written(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.config

    root = tmp_path / "gcs"
    shutil.copytree(ZERO, root / "bucket/in/a")
    shutil.copytree(PLAIN, root / "bucket/in/b")
    with serving(Server(root, handler=servers.GcsHandler)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        monkeypatch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
        result = run("scan", "gs://bucket/in", "--format", "json")
        first, second = json.loads(result.stdout)["reports"]
        assert (first["path"], second["path"]) == ("gs://bucket/in/a", "gs://bucket/in/b")
        assert alike(first) == alike(report(run, ZERO))
        asked = [each for each in server.asked if "/download/" in each.path]
        assert len(asked) == 4
        assert all("ifGenerationMatch=" in each.path for each in asked)
        result = run("fix", "gs://bucket/in/a", "gs://bucket/out", "--for", "peft==0.9.0")
        assert (result.exit_code, result.stderr) == (0, "")
        run("fix", ZERO, tmp_path / "out", "--for", "peft==0.9.0")
        assert tree(root / "bucket/out") == tree(tmp_path / "out")
        config = root / "bucket/in/b/adapter_config.json"
        server.odd = lambda _, asked: "/download/" in asked.path and not config.write_text("{}")
        assert report(run, "gs://bucket/in/b")["error"].endswith(store.CHANGED)


# What is imported


def test_without_the_extra_one_sentence_says_what_to_install(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in ("fsspec", "s3fs") else find(name))
    addresses._missing.cache_clear()
    result = run("scan", "s3://bucket/a")
    addresses._missing.cache_clear()
    assert result.exit_code == 2
    said = "s3://bucket/a is remote, and reading it needs fsspec and s3fs: pip install 'ckpt-doctor[remote]'"
    assert result.stderr == f"ckpt-doctor: {said}\n"


def test_a_scan_of_a_disk_imports_nothing_of_it() -> None:
    code = "import sys; from ckpt_doctor.cli import main; main(sys.argv[1:], standalone_mode=False)"
    code = f"import sys, atexit; atexit.register(lambda: print('imported', *sys.modules)); {code}"
    result = subprocess.run([sys.executable, "-c", code, "scan", PLAIN], capture_output=True, text=True, check=False)
    modules = set(result.stdout.rpartition("imported")[2].split())
    assert "ckpt_doctor.files.loader" in modules
    assert not modules & {"fsspec", "asyncio", "aiohttp", "huggingface_hub", "ckpt_doctor.files.remote"}
