"""The Python that has a runtime: this one, or that of an environment which is made for it in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

from ..adapter import AdapterError
from ..adapter.runtimes import UnknownRuntimeError, installed, minor
from ..facts.servers.transformers import TRANSFORMERS
from ..files import cache

COMPANIONS = {
    (0, 9): (
        "numpy==1.26.4", "transformers==4.38.2", "accelerate==0.27.2", "safetensors==0.4.5", "huggingface_hub==0.23.5",
    ),
    (0, 14): (
        "numpy==1.26.4", "transformers==4.46.3", "accelerate==1.1.1", "safetensors==0.4.5", "huggingface_hub==0.26.5",
    ),
    (99, 0): (
        "numpy==2.2.6", "transformers==4.57.6", "accelerate==1.12.0", "safetensors==0.7.0", "huggingface_hub==0.36.0",
    ),
}  # fmt: skip
"""The last minor series of PEFT → releases of what it needs that it was run with."""

SECONDS = 3600
"""For the packages of an environment."""


OF_TRANSFORMERS = (
    "numpy==2.2.6", "accelerate==1.15.0", "safetensors==0.8.0", "huggingface_hub==1.33.0", TRANSFORMERS.peft or "peft",
)  # fmt: skip
"""What transformers is installed with."""


def companions(release: str) -> tuple[str, ...]:
    """What a release of PEFT is installed with."""
    return next(pins for last, pins in COMPANIONS.items() if minor(release) <= last)


def python_of(runtime: str, tell: Callable[[str], None]) -> str:
    """The Python with a release of PEFT or transformers, by its id; `tell` is told before one is fetched. Raises
    AdapterError.
    """
    library, _, release = runtime.partition("==")
    try:
        if library == "peft" and installed() == release:
            return sys.executable
    except UnknownRuntimeError:
        pass
    version = "{}.{}".format(*sys.version_info)
    name = f"{library}-{release}-python-{version}"
    folder = os.path.join(cache.root(), name)
    python = os.path.join(folder, "bin", "python")

    def make(place: str) -> None:
        what = f"{'PEFT' if library == 'peft' else library} {release}"
        tell(f"an environment with {what} is made in {place}, once: its packages are fetched")
        _make(place, runtime)

    cache.once(name, lambda place: os.path.exists(os.path.join(place, ".done")), make)
    return python


def _make(place: str, runtime: str) -> None:
    """An environment, whole or not at all; torch is that of this Python, if it has one. Raises AdapterError."""
    shutil.rmtree(place, ignore_errors=True)
    torch = find_spec("torch")
    try:
        _run([sys.executable, "-m", "venv", place])
        python = os.path.join(place, "bin", "python")
        site = _run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
        library, _, release = runtime.partition("==")
        wanted = list(companions(release) if library == "peft" else (*OF_TRANSFORMERS, runtime))
        if torch is not None and torch.origin:
            with open(os.path.join(site, "torch.pth"), "w", encoding="utf-8") as file:
                file.write(os.path.dirname(os.path.dirname(torch.origin)) + "\n")
        else:
            wanted.append("torch")
        uv = shutil.which("uv")
        install = [uv, "pip", "install", "-q", "--python", python] if uv else [python, "-m", "pip", "install", "-q"]
        _run([*install, *wanted])
        if library == "peft":
            _run([*install, "--no-deps", runtime])
        with open(os.path.join(place, ".done"), "w", encoding="utf-8"):
            pass
    except AdapterError:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own words
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise AdapterError(f"an environment cannot be made: {command[0]} took more than {SECONDS} s") from None
    except OSError as error:
        raise AdapterError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason is given"])[-1]
        raise AdapterError(
            f"an environment cannot be made ({' '.join(command[1:4])} …: {last[:200]}): is there a network?"
        )
    return done.stdout
