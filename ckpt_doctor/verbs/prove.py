"""What a runtime really makes of an adapter: loaded there on a skeleton of its model, and each layer compared with what
the files say.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..adapter import AdapterError, Layer, codes
from ..adapter.findings import THE_BASE, Finding, counted, verdict, weighed
from ..adapter.runtimes import NEWEST, NONE, PEFT, RAN, SERVERS, UnknownRuntimeError, installed, ranges
from ..facts.names import PREFIX
from ..facts.subject import Subject
from ..files.loader import stamped
from ..files.streams import Files, content
from ..files.values import Array, read
from ..skeleton.runner import probe
from .compare import delta
from .jobs import Job, job_of, run
from .report import Report
from .skeletons import Unknown

KNOWN = PEFT | {RAN["transformers"]}
"""What the facts speak of among what is proved with."""
TOLERANCE = 1e-4
"""Of the norm of what a layer gives: the runtime computes in float32, what is expected in float64."""
OF_SKELETONS = ("'Module' object has no attribute", "refers to a single memory location")
"""Parts of errors that no real model raises: a plain module lacks something, zeros that are one number are written."""
SHOWN = (
    "CD0", "CD1", "CD2", "CD301", "CD302", "CD303", "CD304", "CD305", "CD306", "CD307", "CD309", "CD310", "CD311",
    "CD4",
)  # fmt: skip
"""Beginnings of the codes of what a load on a skeleton shows, as it stands in config, names and shapes alone."""
ALL_THERE = "it loads, and every tensor is in its place; that it computes the same is what the facts say"


class Proof(NamedTuple):
    """What a runtime made of an adapter. `layers` are those that compute something else, and by how much of the norm of
    what they give; `predicted` is what the facts say, `seconds` what the load took, environment and all.
    """

    runtime: str
    verdict: str
    why: str = ""
    layers: tuple[tuple[str, float], ...] = ()
    predicted: str = "unknown"
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether the facts say the same, or say nothing."""
        return "unknown" in (self.verdict, self.predicted) or self.verdict == self.predicted


def prove(report: Report, runtime: str, python: str) -> Proof:
    """Load the adapter of a report in the PEFT or transformers of a Python, under the name that was asked for.

    `runtime` is the id of that release. Never raises for what a file holds; AdapterError where that Python lacks
    PEFT or torch.
    """
    (proof,) = proofs([report], runtime, python)
    return proof


def proofs(reports: Iterable[Report], runtime: str, python: str) -> list[Proof]:
    """As `prove`, for several adapters in one process, which one of them can end for all that follow. Raises
    AdapterError.
    """
    every, jobs = list(reports), dict[int, Job]()
    answers: dict[int, Proof] = {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ckpt-doctor-") as folder:
        for at, report in enumerate(every):
            try:
                jobs[at] = job_of(report, runtime, os.path.join(folder, str(at)))
            except (Unknown, AdapterError) as reason:
                answers[at] = Proof(runtime, "unknown", str(reason), (), _predicted(report, runtime))
        found = list(run(python, [job.told for job in jobs.values()], folder))
        lacking = next((answer["lacks"] for answer in found if "lacks" in answer), None)
        if lacking:
            raise AdapterError(f"{python} cannot load adapters: {lacking} (the extra `prove` has what is needed)")
        each = (time.monotonic() - start) / max(len(jobs), 1)
        for (at, job), answer in zip(jobs.items(), found, strict=True):
            answers[at] = _proof(every[at], job, answer, runtime)._replace(seconds=each)
    return [answers[at] for at in range(len(every))]


def proved(report: Report, runtimes: Iterable[str], python_of: Callable[[str], str]) -> Report:
    """The report with what real releases of PEFT made of the adapter, which wins over what was predicted of them.

    `python_of` gives the Python of a runtime by its id. What the skeleton cannot stand for stays as it was predicted.
    Raises AdapterError where that Python cannot be had.
    """
    for id_ in sorted(runtimes):
        proof = prove(report, id_, python_of(id_))
        report = report._replace(proofs=(*report.proofs, proof))
        if proof.verdict == "unknown" or proof.agrees:
            continue
        alone = frozenset((id_,))
        findings = [
            f._replace(
                rejected_by=f.rejected_by - alone, misloaded_by=f.misloaded_by - alone,
                undecided_for=f.undecided_for - alone,
            )
            for f in report.findings
        ]  # fmt: skip
        if proof.verdict != "accepts":
            rejects = alone if proof.verdict == "rejects" else NONE
            message = f"{ranges(alone)} itself {proof.verdict} it, which ckpt-doctor did not predict: {proof.why}"
            findings.append(codes.PROVED(message, rejects=rejects, misloads=alone - rejects))
        if report.asked is not None:
            findings = [f._replace(severity=weighed(f, report.asked)) for f in findings]
        report = report._replace(findings=tuple(findings))
    return report


def releases(report: Report) -> frozenset[str]:
    """The releases of PEFT that a proof is to be had of: those asked for, else the one that is installed here.

    Raises AdapterError where there is none.
    """
    if report.asked is not None:
        asked = frozenset(id_ for id_ in report.asked if id_.startswith("peft=="))
        if not asked:
            raise AdapterError("--prove loads in PEFT, and --for names no release of it")
        return asked
    try:
        return frozenset((f"peft=={installed()}",))
    except UnknownRuntimeError as error:
        raise AdapterError(str(error)) from None


def _predicted(report: Report, runtime: str) -> str:
    """What the facts say; of a release that nobody reviewed they say nothing."""
    return verdict(runtime, report.findings) if runtime in KNOWN else "unknown"


def _proof(report: Report, job: Job, found: dict[str, Any], runtime: str) -> Proof:
    predicted = _predicted(report, runtime)
    try:
        word, why, differing = _judged(job, found, runtime, predicted)
    except (Unknown, AdapterError) as reason:
        return Proof(runtime, "unknown", str(reason), (), predicted)
    if word == "accepts":
        doubt = _doubt(report.findings, runtime if runtime in KNOWN else NEWEST)
        if doubt:
            needs = f": {doubt.needs} would tell" if doubt.needs else ""
            word, why = "unknown", f"it loads on a skeleton, which does not show this: {doubt.message}{needs}"
        elif why == ALL_THERE and predicted != "accepts":
            word, why = "unknown", f"{ALL_THERE.partition(';')[0]}; whether it computes the same is not seen"
    return Proof(runtime, word, why, tuple(differing), predicted)


def _doubt(findings: tuple[Finding, ...], runtime: str) -> Finding | None:
    """What was found of a release that a skeleton does not show: it hangs on the model, its files or its class."""
    for finding in findings:
        stops = runtime in finding.rejected_by | finding.misloaded_by and not finding.code.startswith(SHOWN)
        if stops or (runtime in finding.undecided_for and (finding.needs == THE_BASE or runtime in SERVERS)):
            return finding
    return None


def _judged(job: Job, found: dict[str, Any], runtime: str, predicted: str) -> tuple[str, str, list[tuple[str, float]]]:
    """The verdict, why, and the layers that compute something else. Raises Unknown, AdapterError."""
    if "over" in found:
        raise Unknown(found["over"])
    read = job.subject.adapter
    if stamped(read.folder, [name for name, *_ in read.stamps]) != read.stamps:
        raise Unknown("its files were changed after they were looked at")
    library, _, release = runtime.partition("==")
    has = found["versions"][library]
    if has != release:
        raise Unknown(f"that Python has {'PEFT' if library == 'peft' else library} {has}, and not {release}")
    if "error" in found:
        doubtful = predicted != "rejects" and (library == "transformers" or _of_skeleton(job, found["error"]))
        found["error"] = found["error"].replace(job.told["adapter"], job.subject.adapter.folder)
        if not found["config"] and (doubtful or any(part in found["error"] for part in OF_SKELETONS)):
            raise Unknown(f"it does not load on a skeleton, which may not stand for the model: {found['error'][:200]}")
        return "rejects", found["error"], []
    differing = list(_differing(job, found))
    if differing:
        worst = max(differing, key=lambda pair: pair[1])
        return (
            "misloads",
            f"{len(differing)} of {len(job.told['probes'])} layers compute something else: {worst[0]}",
            differing,
        )
    left = job.subject.layers.keys() - job.layers.keys() if job.layers else ()
    if left and predicted != "accepts":
        word = "misloads" if predicted == "misloads" else "unknown"
        return word, f"{counted(len(left), 'layer')} with tensors that target_modules leaves out: {min(left)}", []
    if found["changed"]:
        return "misloads", f"{found['changed'][0]} is not applied", []
    if not job.layers or job.told["apart"]:
        return "accepts", ALL_THERE, []
    return "accepts", "", []


def _of_skeleton(job: Job, error: str) -> bool:
    """Whether an error may be the skeleton's: about its structure, or sizes that the tensors do not tell."""
    kinds = {spec["kind"] for spec in job.told["modules"].values()}
    unsized = not job.layers or any(kind.startswith("conv") for kind in kinds)
    if "not found in the base model" in error and job.subject.base is not None:
        return True  # it was left out, as the class of the model may lack it
    structure = error.startswith(("AttributeError", "KeyError", "TypeError", "IndexError", "NotImplementedError"))
    return structure or "While copying" in error or "Please specify" in error or (unsized and "size mismatch" in error)


def _differing(job: Job, found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    subject, layers, told = job[:3]
    absent = set(found["absent"])
    with Files() as files, np.load(told["outputs"]) as outputs:
        for at, module in enumerate(told["probes"]):
            if module in found["failed"]:
                raise Unknown(f"{module} cannot be fed: {found['failed'][module]}")
            spec = told["modules"][module]
            wanted = _expected(subject, layers.get(module), spec, module, files)
            size = float(np.linalg.norm(wanted))
            if module in absent:
                if size > 0:
                    yield module, 1.0
                continue
            given = outputs[str(at)].astype(np.float64).reshape(wanted.shape)
            gap = float(np.linalg.norm(given - wanted))
            if not gap <= TOLERANCE * size + 1e-9:
                yield module, gap / size if size else math.inf


def _expected(subject: Subject, layer: Layer | None, spec: dict[str, Any], module: str, files: Files) -> Array:
    """What a layer gives for its probe, in float64."""
    fed = probe(spec, module, np)
    kind = spec["kind"]
    if layer is None or layer.rank == 0:
        shape = (len(fed), spec["out"]) if not kind.startswith("conv") else (1, spec["out"])
        return np.zeros(shape)
    made = delta(subject, layer, files)
    if made is None:
        raise Unknown(f"{module} holds NaN or infinity")
    scale = 2.0**made.exponent
    if kind == "embedding":
        return np.asarray(made.a[:, fed].T @ made.b.T * scale)
    flat = fed.reshape(len(fed), -1).astype(np.float64)
    given = flat @ made.a.T @ made.b.T * scale
    if subject.config.get("lora_bias"):
        key = f"{PREFIX}{module}.lora_B.bias"
        if key in subject.tensors and layer.scaling is not None:
            info = subject.tensors[key]
            given = given + layer.scaling * read(info, content(info, files))
    if subject.config.get("use_dora"):
        weight = np.random.RandomState(spec["real"]).standard_normal((spec["out"], spec["in"]))
        weight = weight.astype("float32").astype(np.float64)
        named = [key for key in subject.tensors if key.startswith(f"{PREFIX}{module}.lora_magnitude_vector")]
        if not named:
            raise Unknown(f"{module} has no magnitudes")
        magnitude = read(subject.tensors[named[0]], content(subject.tensors[named[0]], files)).reshape(-1)
        norm = np.linalg.norm(weight + made.b @ made.a * scale, axis=1)
        given = (flat @ weight.T + given) * (magnitude / norm)
    return np.asarray(given)
