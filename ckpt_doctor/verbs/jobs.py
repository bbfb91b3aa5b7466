"""What the runner is told of an adapter, and what it says: jobs of a process that has the runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from ..adapter import Layer, codes
from ..adapter.runtimes import SERVERS, minor
from ..facts.meaning import saved_meanings
from ..facts.methods import LORAS
from ..facts.names import PREFIX, pattern_value
from ..facts.servers.transformers import TRANSFORMERS
from ..facts.subject import Subject
from ..facts.targets import targeted
from ..facts.tasks import heads_of
from .report import Report
from .skeletons import MOST_MODULES, MOST_SIZE, PARTS, Unknown, add_whole, check, of_method, stage

SECONDS = 600
"""For all jobs of one process."""
MOST_PRINTED = 1 << 26
"""Bytes of answers, and of what the runtime prints."""
KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "OMP_NUM_THREADS")
"""Of the environment: where programs and their libraries are (a Python may be of a shared library), and threads."""
BYTES = 12 << 30
"""Of address space, beside eight times the files: torch alone takes some GB of it, and touches little."""
MOST_RANK = 1 << 14
MOST_REAL = 1 << 28
"""Random numbers that stand for the weights of a layer."""
MOST_FACTORED = 2048
"""Of a side of a matrix that the load factorises."""

UNLIKE = (
    "layer_replication", "target_parameters", "alora_invocation_tokens", "arrow_config", "use_qalora", "use_bdlora",
    "ensure_weight_tying", "trainable_token_indices", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip
"""Options that change more than a delta."""
LOADING = frozenset((codes.CONFIG_IMPORTS_CODE.number, codes.MEGATRON_CONFIG.number))
"""What is found of a config that makes PEFT import something."""


class Job(NamedTuple):
    """An adapter, its layers with what they mean, and what the runner is told of it."""

    subject: Subject
    layers: dict[str, Layer]
    told: dict[str, Any]


def job_of(report: Report, runtime: str, place: str) -> Job:
    """What the runner is told of an adapter, whose files are put in `place` for it. Raises Unknown, AdapterError."""
    subject = report.subject
    if subject is None:
        raise Unknown(report.error or "")
    if any(finding.code in LOADING for finding in report.findings):
        raise Unknown("its config makes PEFT import a module, so it is not loaded")
    if runtime in SERVERS and runtime not in (report.asked or ()):
        raise Unknown("the scan did not ask about transformers, so nothing tells what a skeleton does not show")
    if len(subject.layers) > MOST_MODULES:
        raise Unknown(f"the adapter has more than {MOST_MODULES} modules")
    library, of_its_models = runtime.partition("==")[0], _of_transformers(subject)
    release = minor(((TRANSFORMERS.peft or "") if library == "transformers" else runtime).partition("==")[2])
    layers, modules, unlike = dict[str, Layer](), dict[str, dict[str, Any]](), ""
    try:
        layers = _meant(subject)
        if library == "transformers" and (subject.base is None or not subject.base.config or not of_its_models):
            raise Unknown("transformers loads by the class of the model, which no config of a base model tells here")
        if library == "transformers" and subject.config.get("use_dora"):
            raise Unknown("use_dora is set, and transformers takes the magnitudes of the model's own weights")
        modules = _modules(subject, release) if subject.method in LORAS else of_method(subject)
        check(modules)
    except Unknown as reason:
        unlike = str(reason)
    config = dict(subject.base.config) if subject.base is not None else {}
    size = sum(os.path.getsize(os.path.join(subject.adapter.folder, name)) for name in subject.adapter.weights)
    probes = [module for module in modules if module in layers or modules[module].get("untold")]
    stage(subject.adapter, place, runtime)
    told: dict[str, Any] = {
        "adapter": place, "name": subject.question.adapter_name,
        "modules": modules, "config": config, "library": library, "transformers": of_its_models, "probes": probes,
        "beside": _beside(subject) if layers else [], "parts": _parts(subject) if layers else [],
        "apart": subject.method in LORAS and _from_base(subject), "memory": BYTES + 8 * size, "seconds": SECONDS,
        "outputs": f"{place}.npz", "unlike": unlike,
    }  # fmt: skip
    return Job(subject, layers, told)


def _meant(subject: Subject) -> dict[str, Layer]:
    """The layers as the release that saved the adapter reads them; none of a method whose deltas are not computed here.
    Raises Unknown.
    """
    config = subject.config
    if subject.method not in LORAS:
        return {}
    if subject.adapter.faults or subject.adapter.origin or not subject.layers:
        raise Unknown("the files tell no layer")
    for key in UNLIKE:
        if config.get(key):
            raise Unknown(f"{key} is set, which a skeleton does not stand for")
    biases = config.get("bias", "none") != "none"
    if biases and not any(key.endswith(".bias") for key in subject.others):
        raise Unknown(f"bias is {str(config['bias'])[:20]!r}, and the file has none: trained ones may be lost")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in ("gaussian", "orthogonal") and not _from_base(subject):
        raise Unknown(f"init_lora_weights is {init[:40]!r}, which reads the weights of the base model")
    if config.get("target_modules") is None and subject.base is None:
        raise Unknown("target_modules is not set, and the default hangs on the base model")
    if any(key.endswith(".bias") and _is_of_layer(subject, key) for key in subject.others) and not biases:
        raise Unknown("bias is not set, and the file has biases of layers")
    if config.get("lora_bias"):
        biased = sum(key.endswith(".lora_B.bias") for key in subject.others)
        if 0 < biased < len(subject.layers):
            raise Unknown("lora_bias is set, and not every layer has one: trained ones may be lost")
    named = config.get("rank_pattern") if subject.method == "LORA" else None
    for name in named if isinstance(named, dict) else ():
        if not any(pattern_value({name: True}, module, default=False) for module in subject.layers):
            raise Unknown(f"rank_pattern names {name[:80]}, which has no tensors")
    whole = {name for name in subject.saved_whole if not any(f".{name}." in f".{key}" for key in subject.others)}
    heads = heads_of(subject.task, subject.model_type)
    if heads and not any(f".{name}." in f".{key}" for name in heads for key in subject.others):
        raise Unknown("the head that its task has is not in the file")
    gone = sorted(whole.difference(heads))
    if gone:
        raise Unknown(f"{gone[0][:80]} of modules_to_save is not in the file")
    if any(f".{name}." in f".{module}." for name in (*subject.saved_whole, *heads) for module in subject.layers):
        raise Unknown("a head is adapted and saved whole")
    if any(subject.forms[key][0][0] in "IU" for layer in subject.layers.values() for key in layer.factors.values()):
        raise Unknown("factors are whole numbers, and nothing tells their scale")
    first, *others = saved_meanings(subject)
    if others:
        raise Unknown("releases that may have saved it make different things of it")
    return first.layers


def _is_of_layer(subject: Subject, key: str) -> bool:
    """Whether a tensor beside the factors lies in an adapted layer."""
    return key.removeprefix(PREFIX).rpartition(".")[0].removesuffix(".base_layer") in subject.layers


def _from_base(subject: Subject) -> bool:
    """Whether the load takes something off the base weights that hangs on them alone: random ones stand for them."""
    init = str(subject.config.get("init_lora_weights")).lower()
    sides = [side for shape in subject.tensor_shapes.values() for side in shape]
    return init in ("pissa", "olora") and max(sides, default=0) <= MOST_FACTORED


def _of_transformers(subject: Subject) -> bool:
    from ..rules.config import of_transformers

    return of_transformers(subject) is not False


def _modules(subject: Subject, release: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Path → kind and sizes of each module that the adapter needs, and of those that the base shows to be targeted."""
    base = subject.base.weights if subject.base is not None else {}
    base = {} if base.keys().isdisjoint(subject.layers) else base
    dora, read_whole = bool(subject.config.get("use_dora")), _from_base(subject)
    modules: dict[str, dict[str, Any]] = {}
    for module, layer in subject.layers.items():
        if ".base_layer." in f".{module}.":
            raise Unknown(f"{module} is of a MultiheadAttention, or of parameters")
        modules[module] = _sized(subject, layer, base.get(module))
        if dora and modules[module]["kind"] != "linear":
            raise Unknown("use_dora is set on what is no linear layer")
        if dora or read_whole:
            if modules[module]["in"] * modules[module]["out"] > MOST_REAL:
                raise Unknown(f"the weights of {module} would be random numbers, and are too many")
            modules[module]["real"] = 1 + len(modules)
    if subject.method == "ADALORA":
        if subject.gone:
            raise Unknown(f"rank_pattern gives {subject.gone[0]} a rank, and its tensors are gone")
        for module in subject.masks:
            if module not in subject.layers and (not base or module in base):
                modules[module] = {"kind": "linear", "in": 8, "out": 8}  # it was pruned
    roots = {module.partition(".")[0] for module in subject.layers}  # a file may have heads that the class lacks
    for module, shape in base.items():
        if module.partition(".")[0] not in roots:
            continue
        if module not in modules and len(shape) == 2 and targeted(subject.config, module, release):
            modules[module] = {"kind": "linear", "out": shape[0], "in": shape[1], "untold": True}
    add_whole(subject, modules)
    held = [module for module in subject.layers if modules[module].get("held")]
    if held and release < (0, 7):  # which has them in the place of the base model's
        raise Unknown(f"the file has the weight of {held[0]}, which is adapted")
    return modules


def _sized(subject: Subject, layer: Layer, real: tuple[int, ...] | None) -> dict[str, Any]:
    """The kind of a layer, and its sizes by its factors, or by the base model."""
    shapes = {factor: subject.tensors[key].shape for factor, key in layer.factors.items()}
    if any(not len(shape) or max(shape, default=0) > MOST_SIZE for shape in shapes.values()):
        raise Unknown(f"the factors of {layer.module} have no shape of a layer")
    if (layer.rank or 0) > MOST_RANK:
        raise Unknown(f"the rank of {layer.module} is above {MOST_RANK}")
    if "lora_embedding_A" in shapes or "lora_embedding_B" in shapes:
        a, b = shapes.get("lora_embedding_A", (0, 8)), shapes.get("lora_embedding_B", (8, 0))
        rows, width = real if real and len(real) == 2 else (a[-1], b[0])
        return {"kind": "embedding", "in": rows, "out": width}
    a, b = shapes.get("lora_A", (0, 8)), shapes.get("lora_B", (8, 0))
    if len(a) > 2:
        return {"kind": f"conv{len(a) - 2}d", "in": a[1], "out": b[0], "kernel": list(a[2:])}
    out, inner = b[0], a[-1]
    if real and len(real) == 2:
        out, inner = real if not subject.config.get("fan_in_fan_out") else (real[1], real[0])
    return {"kind": "linear", "out": out, "in": inner}


def _beside(subject: Subject) -> list[str]:
    """The tensors beside factors that the saver applies: modules saved whole, and trained biases."""
    whole = [f".{name}." for name in subject.saved_whole]
    biases = subject.config.get("bias", "none") != "none"
    tensors, copied = subject.tensors, f".modules_to_save.{subject.question.adapter_name}."
    return [
        key for key in subject.others
        if key.startswith(PREFIX) and not any(part in key for part in PARTS)
        and key.replace(copied, ".").replace(".modules_to_save.", ".") not in tensors.keys() - {key}
        and (any(name in f".{key}" for name in whole) or (biases and key.endswith(".bias")))
    ]  # fmt: skip


def _parts(subject: Subject) -> list[str]:
    """Tensors that an option adds: magnitudes, biases of lora_B, trained tokens."""
    return [key for key in subject.tensor_shapes if key.startswith(PREFIX) and any(part in key for part in PARTS)]


def run(python: str, jobs: list[dict[str, Any]], folder: str) -> Iterator[dict[str, Any]]:
    """What the runner says of each job, in a process of its own; `over` says why it says no more.

    It speaks to files in `folder`, so that nothing that it starts and leaves behind can hold up who waits for it.
    """
    from .. import skeleton

    if not jobs:
        return
    script = os.path.join(os.path.dirname(skeleton.__file__), "runner.py")
    if os.path.dirname(python):
        python = os.path.abspath(python)
    told, answered, printed = (os.path.join(folder, name) for name in ("jobs", "answers", "words"))
    with open(told, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(job) + "\n" for job in jobs)
    with open(told, "rb") as given, open(answered, "wb") as answers, open(printed, "wb") as words:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own words
                [python, "-I", "-W", "ignore", script], stdin=given, stdout=answers, stderr=words, cwd=folder,
                env=_environment(folder), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            over = f"{python} cannot be run: {error.strerror}"
        else:
            over = _waited(process, (answered, printed))
    over = over or f"the load ended without an answer: {_last_line(printed) or f'exit code {process.returncode}'}"
    with open(answered, "rb") as file:
        lines = file.read(MOST_PRINTED).split(b"\n")
    for at in range(len(jobs)):
        try:
            yield json.loads(lines[at])
        except (IndexError, ValueError):
            yield {"over": over}


def _environment(folder: str) -> dict[str, str]:
    """What a load sees of this environment: no token, no option of a library, no cache, and no device but the CPU."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {
        **kept, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "",
        **dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), folder),
    }  # fmt: skip


def _waited(process: subprocess.Popen[bytes], written: tuple[str, ...]) -> str:
    """Wait for a process, and end it with all that it started. Returns what it did beyond its bounds, or ""."""
    end = time.monotonic() + SECONDS
    try:
        while process.poll() is None:
            if time.monotonic() > end:
                return f"the load took more than {SECONDS} s"
            if sum(map(os.path.getsize, written)) > MOST_PRINTED:
                return f"the load printed more than {MOST_PRINTED >> 20} MB"
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        return ""
    finally:
        if hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # its session is its own
        process.kill()
        process.wait()


def _last_line(path: str) -> str:
    with open(path, "rb") as file:
        file.seek(max(os.path.getsize(path) - 4096, 0))
        lines = file.read(4096).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
