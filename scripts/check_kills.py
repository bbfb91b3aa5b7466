"""Stop `ckpt-doctor fix` at every system call that it makes on files, by strace, and look at what is left.

usage: check_kills.py [--every N] [--errors] [SCENARIO …]

Each run is a process of its own, which is killed when it enters a call (`--errors`: the call fails instead, as a full
disk, a failing one and one without rights do). Then IN must be as it was, OUT the old one, the new one or absent, and
the next run must succeed and leave nothing staged. Where names cannot be exchanged in one step ("force fallback": the
call for it fails in every run), the old one may lie beside OUT, under a name that the next run tells.
Prints a line for each stop that left what it must not, then how many there were; exits with 1 where there is one.
tests/interrupt.py does the same at each step of the code, for signals that Python sees.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import interrupt  # noqa: E402

CALLS = (
    "openat,open,creat,newfstatat,stat,lstat,statx,fstat,read,pread64,write,pwrite64,writev,close,lseek,mkdir,mkdirat,rmdir,unlink,"
    "unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,fsync,fdatasync,fchmod,chmod,utimensat,ftruncate,flock,"
    "fcntl,getdents64,copy_file_range,sendfile,readlink,ioctl"
)
ERRORS = {
    "write": "ENOSPC EIO", "pwrite64": "ENOSPC", "fsync": "EIO ENOSPC", "read": "EIO", "openat": "EACCES EMFILE EIO", "mkdir": "ENOSPC EROFS",
    "rename": "EIO EXDEV", "renameat2": "EIO", "unlink": "EACCES", "unlinkat": "EACCES", "rmdir": "EBUSY", "getdents64": "EIO", "newfstatat": "EIO",
    "link": "EPERM", "close": "EIO", "flock": "ENOLCK", "copy_file_range": "EIO", "sendfile": "EIO",
}  # fmt: skip


def call(scenario: str, *inject: str, log: Path | None = None) -> tuple[int, str]:
    """The exit code of the command under strace (less than 0: the signal), and what it says of errors."""
    rules = [f"--inject={rule}" for rule in inject]
    if scenario.endswith("fallback") and not any(rule.startswith("renameat2") for rule in inject):
        rules.append("--inject=renameat2:error=ENOSYS")
    # so that a call has the same number each time
    environ = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONSAFEPATH": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = ["strace", "-f", "-qq", "-y", "-e", f"trace={CALLS}", *rules, "-o", str(log or os.devnull)]
    command += [sys.executable, "-m", "ckpt_doctor", *interrupt.SCENARIOS[scenario]]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=120)
    return run.returncode, run.stderr


def points(scenario: str, log: Path) -> list[tuple[str, int]]:
    """Each call on IN, OUT and what is staged, as its name and its number among those of that name."""
    interrupt.prepare(scenario)
    code, stderr = call(scenario, log=log)
    if code:
        sys.exit(f"{scenario}: {stderr}")
    count: collections.Counter[str] = collections.Counter()
    here = re.escape(str(Path.cwd()))
    ours = re.compile(rf'"{here}|\d<{here}|AT_FDCWD<{here}>, "[^/]')
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"\d+ +(\w+)\(", line)
        if not match:
            continue  # the end of a call that another thread came in between of, or of a process
        name = match[1]
        count[name] += 1
        if ours.search(line):
            found.append((name, count[name]))
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(interrupt.SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth call")
    parser.add_argument("--errors", action="store_true", help="have the calls fail")
    options = parser.parse_args()
    runs = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        work.mkdir()
        os.chdir(work)
        for scenario in options.scenarios:
            all_of = points(scenario, Path(folder) / "log")
            new = interrupt.tree()
            interrupt.prepare(scenario)
            old = interrupt.tree()
            print(f"{scenario}: {len(all_of)} calls", flush=True)
            for name, at in all_of[:: options.every]:
                faults = ERRORS.get(name, "").split() if options.errors else ["SIGKILL"]
                for fault in faults:
                    interrupt.prepare(scenario)
                    rule = f"{name}:{'error' if options.errors else 'signal'}={fault}:when={at}"
                    code, stderr = call(scenario, rule)
                    how = "error" if options.errors else fault
                    if how == "SIGKILL" and code == 0:
                        continue  # threads: there was no such call this time
                    runs += 1
                    left = interrupt.damage(scenario, how, old, new)
                    if "Traceback" in stderr or (how == "error" and code not in (0, 1, 2)):
                        left.append(f"exit code {code}: {stderr[-300:]}")
                    if how == "error" and code == 0 and seen(interrupt.tree()) != seen(new):
                        left.append("it is said to be done, and is not")
                    if scenario != "in place":
                        left += interrupt.again(scenario, new, call)
                    wrong += bool(left)
                    for line in left:
                        print(f"{scenario}, {rule}: {line}", flush=True)
    print(f"{runs} stops, {wrong} of them left what they must not")
    sys.exit(bool(wrong))


def seen(files: interrupt.Tree) -> interrupt.Tree:
    """Those that are not staged: where a folder cannot be removed it stays until the next run."""
    return {name: data for name, data in files.items() if ".ckpt-doctor-" not in name}


if __name__ == "__main__":
    main()
