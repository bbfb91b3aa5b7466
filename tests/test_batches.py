"""Adapters that the workers of an executor examine, some of which are lost: a pool of processes, one of ours, Dask."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import FIXTURES

import ckpt_doctor
from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.cli.cluster import _Width
from ckpt_doctor.verbs import batches
from ckpt_doctor.verbs.batches import Batches, Job

NAMES = ("adalora-rank0-0.17.1", "lora-plain-0.21.2", "adalora-rank0-0.9.0")


class Losing(Executor):
    """Does a batch when it is asked how it went, and loses those that `loses` says, by their tasks."""

    def __init__(self, loses: Callable[[list[str]], bool]) -> None:
        self.loses = loses
        self.begun: list[list[str]] = []
        self.going: list[Future[Any]] = []
        self.most = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        future = Future[Any]()
        tasks = args[-1]
        self.begun.append(tasks)
        self.going.append(future)
        self.most = max(self.most, len([one for one in self.going if not one.done()]))
        if self.loses(tasks):
            future.set_exception(RuntimeError("the worker is gone\nand more"))
        else:
            future.set_result(fn(*args))
        return future


def echo() -> Callable[[str], str]:
    return lambda task: task


def tell(executor: Executor, tasks: list[str], width: int = 2) -> list[Job[str]]:
    jobs = list(Batches(executor, echo, lambda: width, len(tasks)).told(map(Job[str], tasks)))
    assert [job.task for job in jobs] == tasks
    return jobs


def test_what_ends_its_worker_is_told_of_alone_and_no_other_is() -> None:
    executor = Losing(lambda tasks: "7" in tasks or "15" in tasks)
    jobs = tell(executor, [f"/{n}" for n in range(40)])
    assert not any(job.lost for job in jobs)
    executor = Losing(lambda tasks: "/7" in tasks or "/15" in tasks)
    jobs = tell(executor, [f"/{n}" for n in range(40)])
    assert [job.lost for job in jobs if job.lost] == [
        f"/{n}: the worker that examined it was lost (RuntimeError: the worker is gone)" for n in (7, 15)
    ]
    assert [job.answer for job in jobs] == [None if n in (7, 15) else f"/{n}" for n in range(40)]
    tries = Counter(task for tasks in executor.begun for task in tasks)
    assert max(tries.values()) == tries["/7"] == 2 * batches.TRIES
    assert executor.begun.count(["/7"]) == batches.TRIES


def test_workers_that_are_lost_for_other_reasons_cost_nothing_but_time() -> None:
    times = Counter[tuple[str, ...]]()

    def loses(tasks: list[str]) -> bool:
        times[tuple(tasks)] += 1
        return times[tuple(tasks)] < batches.TRIES

    jobs = tell(Losing(loses), [f"/{n}" for n in range(300)])
    assert [job.answer for job in jobs] == [f"/{n}" for n in range(300)]


def test_an_executor_that_loses_all_is_not_asked_for_ever() -> None:
    executor = Losing(lambda _: True)
    jobs = tell(executor, [f"/{n}" for n in range(10)])
    assert all(job.lost for job in jobs)
    assert max(Counter(task for tasks in executor.begun for task in tasks).values()) == 2 * batches.TRIES


def test_where_nothing_is_done_any_more_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Executor):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            return Future()

    monkeypatch.setattr(batches, "LOOK", 0.05)
    width = _Width(client := SimpleNamespace(status="running", nthreads=lambda: {"one": 1}), "tcp://head:8786")  # type: ignore[arg-type]
    told = Batches(Silent(), echo, width, 1).told([Job[str]("/0")])
    Timer(0.2, setattr, (client, "status", "closed")).start()
    try:
        with pytest.raises(AdapterError, match="the Dask scheduler at tcp://head:8786 is gone"):
            next(told)
    finally:
        logging.disable(logging.NOTSET)


def test_no_more_is_begun_than_a_window_holds_and_batches_are_as_large_as_time_says() -> None:
    executor = Losing(lambda _: False)
    tasks = [f"/{n}" for n in range(9_000)]
    told = Batches(executor, echo, lambda: 3, len(tasks)).told(map(Job[str], tasks))
    assert next(told).answer == "/0"
    assert sum(map(len, executor.begun)) <= 3 * batches.WINDOW * batches.FIRST
    assert [job.answer for job in told] == tasks[1:]
    sizes = [len(tasks) for tasks in executor.begun]
    assert sizes[0] == batches.FIRST
    assert max(sizes) <= batches.MOST
    assert max(sizes) > 500  # these tasks take no time
    assert sizes[-1] < max(sizes) / 10  # in the end all have something to do
    assert len(sizes) < 200


def test_slow_and_large_answers_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "SECONDS", 0.02)
    for each, most in ((None, batches.FIRST), (16, 16)):  # those that are done at once may be slow
        executor = Losing(lambda _: False)
        jobs = Batches(executor, slow, lambda: 1, 60, each=each).told(map(Job[str], map("/{}".format, range(60))))
        assert len(list(jobs)) == 60
        assert max(map(len, executor.begun)) == most
    monkeypatch.setattr(batches, "ROOM", 3_000_000)
    executor = Losing(lambda _: False)
    jobs = Batches(executor, large, lambda: 1, 60).told(map(Job[str], map("/{}".format, range(60))))
    assert len(list(jobs)) == 60
    assert max(map(len, executor.begun[6:])) == 1


def slow() -> Callable[[str], str]:
    return lambda task: time.sleep(0.01) or task


def large() -> Callable[[str], str]:
    return lambda _: "x" * 1_000_000


@pytest.mark.parametrize("error", [ImportError("No module named 'ckpt_doctor'"), AttributeError("no attribute 'done'")])
def test_a_worker_without_this_program_is_one_sentence(error: Exception) -> None:
    class Bare(Losing):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            future = Future[Any]()
            future.set_exception(error)
            return future

    with pytest.raises(AdapterError, match=rf"a worker has not the ckpt-doctor .* \({type(error).__name__}: "):
        tell(Bare(lambda _: False), ["/a"])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Few adapters, many times."""
    for number in range(300):
        folder = tmp_path / f"tree/{number:03}"
        folder.mkdir(parents=True)
        for file in (FIXTURES / NAMES[number % len(NAMES)]).iterdir():
            os.link(shutil.copy(file, tmp_path / file.name) if number < len(NAMES) else
                    tmp_path / f"tree/{number % len(NAMES):03}" / file.name, folder / file.name)  # fmt: skip
            if number < len(NAMES):
                (tmp_path / file.name).unlink()
            os.utime(folder / file.name, (1_700_000_000, 1_700_000_000))
    return tmp_path / "tree"


def test_a_pool_of_processes_reports_what_this_process_does(tree: Path) -> None:
    for folder in sorted(tree.iterdir())[30:]:
        shutil.rmtree(folder)
    (tree / "a").mkdir()
    (tree / "a/adapter_config.json").mkdir()
    alone = list(ckpt_doctor.scan_tree(tree, "vllm", base="none"))
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        several = list(ckpt_doctor.scan_tree(tree, "vllm", base="none", executor=executor))
    assert [(r.path, r.error, r.findings, r.next) for r in several] == [
        (r.path, r.error, r.findings, r.next) for r in alone
    ]
    with ThreadPoolExecutor(2) as executor:
        assert [report.path for report in ckpt_doctor.scan_tree(tree, executor=executor, workers=1)] == [
            report.path for report in alone
        ]
    with pytest.raises(ValueError, match="workers=0"):
        ckpt_doctor.scan_tree(tree, executor=executor, workers=0)
    with pytest.raises(AdapterError, match="the workers take no more work"):
        list(ckpt_doctor.scan_tree(tree, executor=executor))


# Dask

SCAN = [sys.executable, "-m", "ckpt_doctor", "scan", "--format", "jsonl"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two processes, in a process of its own, as its threads would be in the way of the other tests."""
    code = (
        "import sys\nfrom distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:\n"
        "        print(cluster.scheduler_address, *[w.pid for w in cluster.workers.values()], flush=True)\n"
        "        sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address, *workers = process.stdout.readline().split()
        yield address, list(map(int, workers))
        process.stdin.close()


def test_a_cluster_tells_what_this_process_does(tree: Path, cluster: Any, tmp_path: Path) -> None:
    """It loses a worker on the way, then its client, and is interrupted."""
    address, workers = cluster
    options = [tree, tmp_path / "none", "--for", "vllm", "--base", "none"]
    alone = subprocess.run([*SCAN, *options], capture_output=True, text=True)
    # a worker is lost
    with subprocess.Popen([*SCAN, *options, "--dask", address], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        os.kill(workers[0], signal.SIGKILL)
        rest = process.stdout.read()
    assert (process.returncode, first + rest) == (alone.returncode, alone.stdout)
    # the client is lost
    resumed = [*SCAN, *options, "--dask", address, "--resume", tmp_path / "journal"]
    slow = [sys.executable, "-c", SLOW, *resumed[3:]]
    with subprocess.Popen(slow, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(100):
            process.stdout.readline()
        process.kill()
    again = subprocess.run(resumed, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (alone.returncode, alone.stdout)
    known = re.search(r"(\d+) of 300 adapters are unchanged", again.stderr)
    assert known
    assert 0 < int(known[1]) < 300
    # it is interrupted
    with subprocess.Popen(
        [*slow[:-2], "--dask", address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "ckpt-doctor: interrupted\n")


SLOW = """
import sys, time
from ckpt_doctor.cli import fleet, journal, main
journal.PAUSE = 0.01
lines = fleet.lines
fleet.lines = lambda *given: (time.sleep(0.01) or line for line in lines(*given))
main(sys.argv[1:], prog_name="ckpt-doctor")
"""


def test_what_a_cluster_cannot_do_is_one_sentence(
    run: Any, tree: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*options: object) -> str:
        result = run("scan", tree, "--format", "jsonl", *options)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        return str(result.stderr)

    address, _ = cluster
    monkeypatch.setattr(batches, "ourselves", lambda: "another")
    assert "a worker has another build of it: install the same for all" in said("--dask", address)
    monkeypatch.setattr(batches, "__version__", "9.0")
    assert "here is ckpt-doctor 9.0, and a worker has ckpt-doctor 0." in said("--dask", address)
    monkeypatch.undo()
    monkeypatch.chdir(tree)
    result = run("scan", "000", "--format", "jsonl", "--dask", address)
    assert (result.exit_code, "name paths from the root on" in result.stderr) == (2, True)
    monkeypatch.setattr("ckpt_doctor.cli.cluster.SECONDS", 1)
    assert "no Dask scheduler answers at tcp://127.0.0.1:9 (" in said("--dask", "tcp://127.0.0.1:9")
    assert "no Dask scheduler answers at nothing" in said("--dask", "nothing")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'ckpt-doctor[dask]'" in said("--dask", address)


def test_a_cluster_and_processes_are_two_ways(run: Any, tree: Path) -> None:
    result = run("scan", tree, "--format", "jsonl", "--dask", "tcp://a:1", "--jobs", "2")
    assert result.exit_code == 2
    assert "name one" in result.stderr
    assert json.loads(run("scan", tree / "000", "--format", "json", "--exit-zero").stdout)["reports"]
