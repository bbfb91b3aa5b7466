"""What to type so that a server has an adapter, beside its options: the conversion for llama.cpp, and the merge."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..adapter import Base, clean, codes
from ..adapter.findings import Finding, verdict
from ..adapter.runtimes import NEWEST, RAN
from ..facts.subject import Subject
from ..files.loader import is_remote
from .report import Report

LLAMA = RAN["llama.cpp"]


class Command(NamedTuple):
    """A command for a server: what it is for (convert, serve, merge), and the text as it is typed; for a merge that is
    not to be done, "" and the reason.
    """

    server: str
    purpose: str
    text: str
    reason: str = ""


def conversion(path: str, subject: Subject | None, findings: Iterable[Finding]) -> Iterator[Command]:
    """How llama.cpp gets an adapter that it was asked about and takes (convert_lora_to_gguf.py: parse_args;
    common/arg.cpp: --lora, where a comma parts two files).
    """
    base = subject.question.base if subject else None
    asked = subject.question.runtimes if subject else None
    if base is None or LLAMA not in (asked or ()) or verdict(LLAMA, findings) != "accepts":
        return
    if clean(path) != path or "," in path or is_remote(path):  # which the converter cannot read
        return
    place, out = _typed(path), f"{_typed(path).rstrip('/')}.gguf"
    model = _model(base)
    yield Command(
        "llama.cpp", "convert", shlex.join(["python", "convert_lora_to_gguf.py", *model, "--outfile", out, place])
    )
    yield Command("llama.cpp", "serve", shlex.join(["llama-server", "-m", "MODEL.gguf", "--lora", out]))


def _typed(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path


def _model(base: Base) -> list[str]:
    """The model as the converter takes it: the folder of its config, else its id on the Hub."""
    folder = base.path if os.path.isdir(base.path) else os.path.dirname(base.path) or "."
    looked_up = base.name and base.revision and f"{os.sep}snapshots{os.sep}" in base.path
    return ["--base-model-id", base.name] if looked_up or not base.path else ["--base", _typed(folder)]


def merges(report: Report) -> Iterator[Command]:
    """The end for a server that has the model's class, where no option and no repair makes it take the adapter."""
    subject = report.subject
    if subject is None or subject.question.base is None or clean(report.path) != report.path:
        return
    if not report.servers:
        return
    from ..facts.merging import TABLES, model_class, served, unmergeable

    for server in TABLES:
        id_ = RAN[server]
        stops = [f for f in report.findings if id_ in f.rejected_by | f.misloaded_by]
        lost = any(not f.option and not f.fixable for f in stops)
        if id_ not in report.servers or not lost or not served(server, subject):
            continue
        if server == "llama.cpp" and any(f.code == codes.SERVER_MODEL.number for f in stops):
            continue
        taken = verdict(NEWEST, report.findings) == "accepts"
        reason = unmergeable(subject) or ("" if taken else "the newest PEFT is not known to take it as it is")
        reason = reason or ("it is remote: download it first" if is_remote(report.path) else "")
        yield Command(
            server, "merge", "" if reason else _merge(report.path, model_class(subject), subject.question.base), reason
        )


def _merge(path: str, name: str, base: Base) -> str:
    """In float32, where it is exact but for the last digits of a sum (tuners/tuners_utils.py: merge_and_unload)."""
    folder = base.path if os.path.isdir(base.path) else os.path.dirname(base.path) or "."
    texts = (base.name if base.name and base.revision else folder, path, f"{path.rstrip('/')}-merged")
    model, adapter, out = (json.dumps(text, ensure_ascii=False) for text in texts)
    program = (
        f"from peft import PeftModel; from transformers import AutoTokenizer, {name} as Model; "
        f"model = PeftModel.from_pretrained(Model.from_pretrained({model}).float(), {adapter}); "
        f"model.merge_and_unload().save_pretrained({out}); "
        f"AutoTokenizer.from_pretrained({model}).save_pretrained({out})"
    )
    return shlex.join(["python", "-c", program])


def together(commands: Iterable[Command]) -> Iterator[Command]:
    """Commands for a person; servers that want the same in one."""
    servers: dict[tuple[str, str, str], list[str]] = {}
    for command in commands:
        servers.setdefault(command[1:], []).append(command.server)
    for rest, names in servers.items():
        yield Command(" and ".join(names), *rest)
