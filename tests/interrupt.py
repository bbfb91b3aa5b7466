"""Stop `ckpt-doctor fix` at every step that it takes on the disk, and look at what is left.

usage: python interrupt.py SCENARIO HOW FOLDER

SCENARIO is one of `SCENARIOS` ("fallback": as where the system cannot exchange two names), HOW a signal or "error" (the
step fails). Each run is a process of its own, forked, as starting Python takes most of the time.
Prints JSON: the number of runs, and a line for each that left what it must not.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from ckpt_doctor.cli import fix, main  # noqa: F401
from ckpt_doctor.files import exchange, renaming, staging, values, writer  # noqa: F401 - imported once, before the forks
from ckpt_doctor.files.replacing import REPLACED

FIXTURES = Path(__file__).parent.parent / "fixtures"
SCENARIOS = {
    "new": ["fix", "in", "out"],
    "force": ["fix", "in", "out", "--force"],
    "force fallback": ["fix", "in", "out", "--force"],
    "in place": ["fix", "--in-place", "in"],
}
MOVES, OTHERS = ("rename", "mkdir", "link"), ("fsync", "unlink", "rmdir")
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}

Tree = dict[str, bytes]


def copy(name: str, folder: str) -> None:
    """The two files of a fixture; each file more is some steps more."""
    os.mkdir(folder)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(FIXTURES / name / file, f"{folder}/{file}")


def prepare(scenario: str) -> None:
    """IN is a tree whose root is an adapter; OUT has earlier adapters at both places, and a file of its own."""
    for name in os.listdir():
        shutil.rmtree(name)
    name = "adalora-rank0-0.21.2" if scenario == "in place" else "lora-plain-0.21.2"
    for folder in ("in", "in/sub"):
        copy(name, folder)
    if scenario == "new":
        shutil.rmtree("in/sub")
    if scenario.startswith("force"):
        copy("adalora-rank0-0.17.1", "out")
        copy("adalora-rank0-0.17.1", "out/sub")
        Path("out/mine").write_text("mine")


def tree(folder: str = ".") -> Tree:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def forked(scenario: str, before: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """The exit code (less than 0: the signal) and the standard error of the command."""
    process = os.fork()
    if not process:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        staging._sweep.cache_clear()  # a process of its own knows of no folder that it was swept
        code: Any = 99
        try:
            with Path("../stderr").open("w") as stderr, redirect_stderr(stderr), redirect_stdout(io.StringIO()):
                before()
                main(SCENARIOS[scenario])
        except SystemExit as end:
            code = end.code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), Path("../stderr").read_text()


def stopping(how: str, at: int, after: bool) -> Callable[[], None]:
    """What has step number `at` send the signal to its own process, before it is taken or after; or fail.

    After a step only where that is a move: Python may run the handler before it notes that the move was made.
    """

    def set_up() -> None:
        count = 0

        def stop() -> None:
            Path("../stopped").touch()
            if how == "error":
                raise OSError(5, "Input/output error")
            os.kill(os.getpid(), getattr(signal, how))

        def step(real: Callable[..., Any]) -> Callable[..., Any]:
            def stepped(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                mine = count == at
                if mine and not after:
                    stop()
                try:
                    return real(*arguments, **options)
                finally:
                    if mine and after:
                        stop()

            return stepped

        for name in MOVES if after else (*MOVES, *OTHERS):
            setattr(os, name, step(getattr(os, name)))
        renaming._renamed = step(renaming._renamed)

    return set_up


def damage(scenario: str, how: str, old: Tree, new: Tree) -> list[str]:
    """What is there that must not be, or the reverse."""
    left, faults = tree(), []
    strange = [name for name in os.listdir() if name not in ("in", "out")]
    strange += [name for name in left if "/." in name or REPLACED in name]
    if how == "again":  # the old one that lies beside the new one is told of, and stays
        strange = [name for name in strange if REPLACED not in name]
    if how in ("SIGINT", "SIGTERM", "again") and strange:
        faults.append(f"left: {strange}")
    hidden = {name: data for name, data in left.items() if name.startswith(".") or "/." in name}
    aside = {name: data for name, data in left.items() if REPLACED in name}
    plain = {name: data for name, data in left.items() if name not in hidden and name not in aside}
    if scenario == "in place":
        config, weights = "adapter_config.json", "adapter_model.safetensors"
        for folder in ("in", "in/sub"):
            names = [f"{folder}/{config}", f"{folder}/{weights}"]
            state = [[name for name, of in (("old", old), ("new", new)) if plain.get(n) == of[n]] for n in names]
            whole = state[0] == state[1] and state[0] != []
            if not whole and (how in ("SIGINT", "SIGTERM") or names[0] in plain):
                faults.append(f"{folder} is neither: {state}")
            lost = [name for name in names if old[name] not in (plain.get(name), plain.get(f"{name}.bak"))]
            if lost:
                faults.append(f"lost: {lost}")
        return faults
    if {name: data for name, data in plain.items() if name.startswith("in/")} != {
        name: data for name, data in old.items() if name.startswith("in/")
    }:
        faults.append("IN was written to")
    for place, other in (("out/", "out/sub/"), ("out/sub/", None)):

        def of(files: Tree, place: str = place, other: str | None = other) -> Tree:
            return {n: d for n, d in files.items() if n.startswith(place) and not (other and n.startswith(other))}

        if of(plain) in (of(old), of(new)):
            continue
        saved = {f"out/{name.partition('/out/')[2]}": data for name, data in aside.items() if name.startswith("out.")}
        saved |= {f"out/sub/{n.partition('/sub/')[2]}": d for n, d in aside.items() if n.startswith("out/sub.")}
        if not (scenario.endswith("fallback") and how == "SIGKILL" and not of(plain) and of(saved) == of(old)):
            faults.append(f"{place} is neither the old one nor the new one: {sorted(of(plain))}")
    return faults


def again(scenario: str, new: Tree, run: Callable[[str], tuple[int, str]] = forked) -> list[str]:
    """What is wrong with the next run of the command."""
    aside = any(REPLACED in name for name in tree())
    done = scenario == "new" and os.path.exists("out")
    code, stderr = run(scenario)
    faults = damage(scenario, "again", new, new)
    if done:  # nothing is written, so nothing is looked for
        faults = [line for line in faults if not line.startswith("left: ")]
    if code != (2 if done else 0):
        faults.append(f"exit code {code}: {stderr}")
    if aside and "when a fix was killed" not in stderr:
        faults.append("it does not say where the old one is")
    return [f"again: {line}" for line in faults]


def run(scenario: str, how: str) -> dict[str, Any]:
    os.fsync = lambda _: None  # a step all the same; it matters to a power cut only, and takes most of the time
    if scenario.endswith("fallback"):
        renaming._renamed = lambda *_: False  # type: ignore[assignment]
    prepare(scenario)
    with suppress(SystemExit), redirect_stdout(io.StringIO()):
        main(SCENARIOS[scenario])  # all is imported before the forks
    prepare(scenario)
    old = tree()
    code, stderr = forked(scenario)
    assert code == 0, stderr
    new = tree()
    runs, report = 0, []
    for after in (False, True) if how == "SIGINT" else (False,):
        for at in range(1, 1000):
            prepare(scenario)
            Path("../stopped").unlink(missing_ok=True)
            code, stderr = forked(scenario, stopping(how, at, after))
            if not Path("../stopped").exists():
                break  # there are not so many steps
            runs += 1
            faults = damage(scenario, how, old, new)
            if code != CODES.get(how, code) or "Traceback" in stderr:
                faults.append(f"exit code {code}: {stderr}")
            if how == "SIGKILL" and scenario != "in place":
                faults += again(scenario, new)
            report += [f"{how} {'after' if after else 'before'} step {at}: {line}" for line in faults]
    return {"runs": runs, "wrong": report}


if __name__ == "__main__":
    scenario, how, folder = sys.argv[1:]
    work = Path(folder) / "work"
    work.mkdir()
    os.chdir(work)
    print(json.dumps(run(scenario, how)))
