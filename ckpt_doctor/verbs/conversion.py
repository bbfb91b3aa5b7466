"""Read what another tool wrote as the adapters of PEFT that it amounts to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from ..adapter import Adapter, AdapterError, Base, DamagedFile, Fault, NotRead, Origin, clean
from ..adapter.codes import OTHER_FORMAT
from ..conversions.peft import named
from ..files import checkpoint, foreign, recognise
from ..files.foreign import NO_WEIGHTS, SALVAGE
from ..files.formats import gguf, safetensors
from ..files.loader import WEIGHTS, Unlisted, is_there, load, locate, read_json, read_weights, regular, stamped

if TYPE_CHECKING:
    from ..conversions import Converted

MOST_PARTS = 16
"""Adapters of one file that are told apart."""
WITHOUT_CONFIG = (SALVAGE, "peft", "loralib")
"""The tools whose files may lie without the adapter_config.json of PEFT that is theirs."""
PART = re.compile(r"\w[\w-]{0,63}")
"""The name of an adapter of several, which becomes that of a folder."""


class Part(NamedTuple):
    """One adapter of a file that may hold several: its name among them, "" where it is the only one."""

    name: str
    adapter: Adapter


def below(path: str) -> list[str]:
    """The folders at and below a path that hold what another tool wrote and that is read here, or the file itself."""
    return [place for place in recognise.below(path) if (fault := recognise.fault_at(place)) and fault.tool]


def apart(places: Iterable[str]) -> list[str]:
    """What a fix makes adapters of at places where none of PEFT lies, sorted: a folder or file itself, or each of
    several files in the form of tools, unless the tool names the one that it loads. What is in the form of none is left
    out: a model or a training beside adapters is as usual.
    """
    return sorted(found for place in places for found in _apart(place))


def _apart(place: str) -> list[str]:
    fault = recognise.fault_at(place)
    if fault is None or not (fault.tool or (fault.name == OTHER_FORMAT.name and not fault.file.endswith(".gguf"))):
        return []  # a GGUF whose tensors tell no adapter is mostly a model
    names = [] if os.path.isfile(place) or fault.tool == SALVAGE else os.listdir(place)
    files = [os.path.join(place, name) for name in names if name.endswith(WEIGHTS) and not NO_WEIGHTS.match(name)]
    if len(files) < 2 or (fault.tool and _usual(fault.tool) in names):
        return [place]
    return apart(files) or [place]


def _usual(of: str) -> str:
    """The name of the file that a tool loads."""
    from ..conversions import tool

    return tool(of).weights


def located(path: str) -> str:
    """The folder, or the file, of the one adapter at or below a path, also where another tool wrote it. Raises
    AdapterError.
    """
    try:
        return locate(path)
    except Unlisted:
        raise
    except AdapterError:
        found = apart(below(path))
        if len(found) != 1:
            raise
        return found[0]


def opened(folder: str) -> Adapter:
    """The adapter that was located. Raises AdapterError."""
    first, *others = parts(load(folder), None)
    if others:
        raise AdapterError(f"{folder} holds {len(others) + 1} adapters: fix writes each to a folder of its own")
    refused = next((fault for fault in first.adapter.faults if fault.tool), None)
    if refused:
        raise AdapterError(f"{folder}: {refused.message}: {refused.remedy}")
    return first.adapter


def parts(adapter: Adapter, base: Base | None, config: str = "") -> list[Part]:
    """The adapters of PEFT that a folder or file amounts to: what was read itself, unless it is in the form of another
    tool that can be converted. Where that is refused, the fault says why. `config` is the file that the user names as
    the config of an adapter inside a model. Raises AdapterError where it is none, or none is asked for.
    """
    fault = next((fault for fault in adapter.faults if fault.tool), None) or _under_the_name_of_peft(adapter)
    given = checkpoint.named_config(config) if config else None
    if given and (fault is None or fault.tool not in WITHOUT_CONFIG):
        raise AdapterError(
            f"{adapter.path} is not in a form that may want --adapter-config, as a model with an adapter"
        )
    if fault is None:
        return [Part("", adapter)]
    from ..conversions import Mend, Refused, Wants

    try:
        if fault.tool in WITHOUT_CONFIG:
            return _by_configs(adapter, fault, base, given)
        return _converted(adapter, fault, base)
    except NotRead:
        raise
    except (Refused, AdapterError, DamagedFile) as error:
        reason = error.message if isinstance(error, DamagedFile) else str(error)
        if fault not in adapter.faults and fault.tool != "peft":
            return [Part("", adapter)]
        told = fault._replace(message=f"{fault.message}, and cannot be converted: {reason}")
        if isinstance(error, Wants) and clean(adapter.path) == adapter.path:
            told = told._replace(remedy=f"type `ckpt-doctor fix {quote(adapter.path)} OUT {error.option}`")
        elif isinstance(error, Mend):
            told = told._replace(remedy=error.remedy)
        return [Part("", adapter._replace(faults=(told, *(other for other in adapter.faults if other is not fault))))]


def _under_the_name_of_peft(adapter: Adapter) -> Fault | None:
    """What lies in files of PEFT's names, and is not of one adapter of PEFT."""
    if adapter.faults or len(adapter.weights) != 1:
        return None
    file = adapter.weights[0]
    names = {name for key in islice(adapter.tensors, foreign.MOST_TENSORS) if (name := named(key))}
    if len(names) > 1:
        few = ", ".join(sorted(names)[:3])
        return Fault(
            OTHER_FORMAT.name, f"{file} holds {len(names)} adapters of PEFT ({clean(few)[:80]})", "", "peft", file
        )
    form = foreign.of_another(adapter.tensors)
    return Fault(form.code.name, f"{file} is {form.what}", form.way, form.tool, file) if form and form.tool else None


def _converted(adapter: Adapter, fault: Fault, base: Base | None) -> list[Part]:
    from ..conversions import Foreign, Refused, tool

    _, config_name, usual, to_peft, *_ = tool(fault.tool)
    file = usual if usual in adapter.files else fault.file
    others = [name for name in adapter.files if name.endswith(WEIGHTS) and name != file and not NO_WEIGHTS.match(name)]
    if others and file not in (usual, *adapter.weights):
        raise Refused(f"{others[0]} lies beside it: name the file that is meant")
    path = os.path.join(adapter.folder, file)
    tensors = read_weights(path)
    metadata = {}
    if file.endswith(".safetensors"):
        opened, _ = regular(path)
        with opened:
            metadata = safetensors.metadata(opened)
    config = adapter.config or {}
    if file.endswith(".gguf"):
        opened, size = regular(path)
        with opened:
            config = gguf.values(opened, path, size)
    names = [file]
    if config_name and is_there(os.path.join(adapter.folder, config_name)):
        names.append(config_name)
        found, wrong = read_json(adapter.folder, config_name)
        if found is None:
            raise Refused(f"{config_name}: {wrong}")
        config = found
    converted = to_peft(Foreign(config, metadata, tensors, base))
    _check_parts(converted)
    origin = Origin(fault.tool, file, fault.message.replace(fault.file, file, 1), adapter)
    read = adapter._replace(
        format="safetensors" if file.endswith(".safetensors") else None, weights=(file,), origin=origin,
        faults=(), stamps=stamped(adapter.folder, names),
    )  # fmt: skip
    return [Part(one.part, read._replace(config=one.config, tensors=one.tensors)) for one in converted]


def _by_configs(adapter: Adapter, fault: Fault, base: Base | None, given: checkpoint.Config | None) -> list[Part]:
    """The adapters of PEFT in a model or in one file: each with the config that lies there for it, or with the one that
    the user names.
    """
    from ..conversions import Foreign, Refused, loralib, peft, salvage

    kind = {SALVAGE: salvage, "loralib": loralib}.get(fault.tool, peft)
    beside = () if fault.file in adapter.weights else adapter.files
    files, tensors = checkpoint.weights(adapter.folder, fault.file, beside)
    names = kind.adapters(tensors)
    configs = dict.fromkeys(names, given) if given else checkpoint.configs(adapter.folder, names)
    for config in configs.values():
        if not config.beside and config.content.get("rank_pattern") and config.content.get("peft_type") == "ADALORA":
            raise Refused(
                f"the rank_pattern of {config.path} is of another step: name the config with --adapter-config"
            )
    converted = kind.to_peft(Foreign({name: config.content for name, config in configs.items()}, {}, tensors, base))
    _check_parts(converted)
    by = {name: os.path.relpath(config.path, adapter.folder) for name, config in configs.items()}
    there = [path for path in by.values() if path in adapter.files]
    parts_ = []
    for one in converted:
        config_said = f", by {by[one.part or names[0]]}"
        told = fault._replace(message=fault.message + config_said)
        origin = Origin(fault.tool, fault.file + config_said, told.message, adapter._replace(faults=(told,)))
        read = adapter._replace(
            format="safetensors" if fault.file.endswith(".safetensors") else None, weights=files, origin=origin,
            faults=(), stamps=stamped(adapter.folder, dict.fromkeys([*files, *there])),
        )  # fmt: skip
        parts_.append(Part(one.part, read._replace(config=one.config, tensors=one.tensors)))
    return parts_


def _check_parts(converted: Sequence[Converted]) -> None:
    """Raises Refused for adapters of one file that become no folders."""
    from ..conversions import Refused

    if len(converted) > MOST_PARTS:
        raise Refused(f"it holds {len(converted)} adapters, which are too many to be told apart")
    names_of_parts = {one.part.casefold() for one in converted}
    if len(converted) > 1 and (len(names_of_parts) < len(converted) or not all(map(PART.fullmatch, names_of_parts))):
        raise Refused("its adapters have names that are no names of folders")
