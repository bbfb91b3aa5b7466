"""The specification of the rules, one file a case: cases/CODE-name.toml, an adapter and what is found of it.

`like` names a healthy adapter in cases/like/, which the case changes: `[config]` sets keys, `null` and `absent` list
those that are null or not there; `[layers]` ("module" = "factor shape, factor shape") and `[tensors]` ("name" = "dtype
shape") set tensors, and "" takes them away. `{a,b}` in a name stands for several. `base` names a model in cases/like/,
and `model_type` what it is instead. `format`, `weights`, `files`, `bin_agrees`, `trained` say what the loader found;
with `[bytes]` the loader itself reads a folder with the config and these files alone, each character of whose text is a
byte. `for`, `adapter_name` and `max_rank` are what is asked.

`[values]` has what tensors hold, for a folder with these and ones for all others, whose numbers are read: "0*16 nan 1"
is sixteen zeros, then NaN, and ones for the rest.

`[[fires]]` is a code that is found, with the runtimes that all its findings stop together, and the gravest `severity`
that a scan shows of it; `quiet` are codes that are not found, and `accepts` are all runtimes that take the adapter, of
PEFT and of those asked for. `# known wrong:` in a case says where real runtimes do otherwise.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import judging
import numpy as np

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

FOLDER = Path(__file__).parent / "cases"
PATHS = sorted(FOLDER.glob("*.toml"))
PREFIX = "base_model.model."
KEYS = {
    "like", "config", "null", "absent", "layers", "tensors", "base", "format", "weights", "files", "bin_agrees",
    "bytes", "values", "for", "model_type", "trained", "adapter_name", "max_rank", "fires", "quiet", "accepts",
}  # fmt: skip
KINDS = ("rejects", "misloads", "undecided")


class Case(NamedTuple):
    """A case: an adapter, which runtimes are asked for, the codes that are found, and those that are not.

    `accepts` is None where the case does not say who takes it.
    """

    name: str
    adapter: Any
    asked: frozenset[str]
    fires: dict[str, judging.Stopped]
    severities: dict[str, str]
    quiet: frozenset[str]
    accepts: frozenset[str] | None

    @property
    def code(self) -> str:
        """The code that the file is about."""
        return self.name.partition("-")[0]

    @property
    def is_near(self) -> bool:
        """Whether the code is one that nearly fires."""
        return self.name.endswith("-near")

    def faults(self, findings: Iterable[Any]) -> list[str]:
        """Where the findings are not those wanted."""
        findings = tuple(findings)
        stopped = judging.stopped(findings)
        severities = judging.severities(findings, self.asked)
        faults = [f"{code} is found" for code in sorted(self.quiet & stopped.keys())]
        for code, wanted in self.fires.items():
            if code not in stopped:
                faults.append(f"{code} is not found")
            for kind, right, ours in zip(KINDS, wanted, stopped.get(code, wanted), strict=True):
                if ours != right:
                    faults.append(f"{code} {_difference(kind, ours, right)}")
            if severities.get(code) != self.severities.get(code, severities.get(code)):
                faults.append(f"{code} is {severities.get(code)}, and {self.severities[code]} is wanted")
        verdicts = judging.verdicts(judging.PEFT | self.asked, findings)
        accepts = frozenset(id_ for id_, verdict in verdicts.items() if verdict == "accepts")
        if self.accepts is not None and accepts != self.accepts:
            faults.append(_difference("accepts", accepts, self.accepts))
        return faults


def _difference(kind: str, ours: frozenset[str], right: frozenset[str]) -> str:
    return f"{kind}: {_names(ours - right)} too many, {_names(right - ours)} missing"


def _names(ids: frozenset[str]) -> str:
    return " ".join(judging.specs(ids)) or "none"


def read(path: Path, folder: Path) -> Case:
    """A case; what needs a folder of files is written to `folder`."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert table.keys() <= KEYS, f"{path.name}: {table.keys() - KEYS}"
    fires = table.get("fires", [])
    assert all(fire.keys() <= {"code", "severity", *KINDS} for fire in fires), path.name
    stopped: dict[str, judging.Stopped] = {}
    for fire in fires:
        rejects, misloads, undecided = (judging.ids(fire.get(kind, "")) for kind in KINDS)
        stopped[fire["code"]] = rejects, misloads, undecided
    assert len(stopped) == len(fires), f"{path.name}: a code is there twice"
    adapter = _adapter(table, folder / path.stem)
    accepts = judging.ids(table["accepts"]) if "accepts" in table else None
    severities = {fire["code"]: fire["severity"] for fire in fires if "severity" in fire}
    quiet = frozenset(table.get("quiet", ()))
    return Case(path.stem, adapter, judging.ids(table.get("for", "")), stopped, severities, quiet, accepts)


def _adapter(table: dict[str, Any], folder: Path) -> Any:
    like = _like(table["like"]) if "like" in table else {}
    config = None
    if "config" in table or "config" in like:
        keys = {**_config(like), **_config(table)}
        config = {key: value for key, value in keys.items() if key not in table.get("absent", ())}
    shaped = {name: shape for name, shape in {**tensors(like), **tensors(table)}.items() if shape}
    options: dict[str, Any] = {key: table[key] for key in ("adapter_name", "max_rank") if key in table}
    if "base" in table:
        options["base"] = _base(_like(table["base"]), table.get("model_type"))
    if "values" in table:
        numbers = {name: text for names, text in table["values"].items() for name in expanded(names)}
        assert numbers.keys() <= shaped.keys(), folder.name
        data = {name: encoded(form, numbers.get(name, "1")) for name, form in shaped.items()}
        _write(folder, config, {"adapter_model.safetensors": safetensors(shaped, data).decode("latin-1")})
        return judging.read(str(folder), values=True, **options)
    if "bytes" in table:
        _write(folder, config, table["bytes"])
        return judging.read(str(folder), **options)
    known = {key: table[key] for key in ("weights", "files", "bin_agrees") if key in table}
    known |= {"trained": tuple(table["trained"])} if "trained" in table else {}
    return judging.adapter(config, shaped, file_format=table.get("format", "safetensors"), **known, **options)


def _config(table: dict[str, Any]) -> dict[str, Any]:
    return {**table.get("config", {}), **dict.fromkeys(table.get("null", ()))}


def _like(name: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((FOLDER / "like" / f"{name}.toml").read_text(encoding="utf-8"))
    return table


def tensors(table: dict[str, Any]) -> dict[str, str]:
    """Name → dtype and shape, or "" for one that is taken away."""
    forms = {}
    for module, factors in table.get("layers", {}).items():
        for name in expanded(module):
            for factor, _, shape in (part.strip().partition(" ") for part in factors.split(",")):
                forms[f"{PREFIX}{name}.{factor}"] = f"F32 {shape}"
    for names, form in table.get("tensors", {}).items():
        forms |= dict.fromkeys(expanded(names), form)
    return forms


def expanded(name: str) -> Iterator[str]:
    """`a.{b,c}` → a.b and a.c."""
    parts = re.split(r"\{([^}]*)\}", name)
    choices = [[part] if at % 2 == 0 else part.split(",") for at, part in enumerate(parts)]
    return map("".join, itertools.product(*choices))


def _base(table: dict[str, Any], model_type: str | None) -> Any:
    weights = {
        name: [*map(int, sizes.split())] for names, sizes in table["weights"].items() for name in expanded(names)
    }
    biases = {name: weights[name][:1] for names in table["biases"] for name in expanded(names)}
    config = {**table["config"], **({"model_type": model_type} if model_type else {})}
    parameters = {f"{name}.{part}": shape for part, of in (("weight", weights), ("bias", biases))
                  for name, shape in of.items()}  # fmt: skip
    parameters |= {name: [*map(int, sizes.split())] for name, sizes in table.get("parameters", {}).items()}
    return judging.base(parameters, config)


_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def encoded(form: str, text: str) -> bytes:
    """The bytes of a tensor: numbers in a row, `number*times` several, the last of them to the end."""
    dtype, *sizes = form.split()
    count = math.prod(map(int, sizes))
    parts = [part.partition("*") for part in text.split()]
    numbers = [float(number) for number, _, times in parts for _ in range(int(times or 1))]
    numbers += numbers[-1:] * (count - len(numbers))
    assert len(numbers) == count, text
    if dtype == "BF16":
        return (np.array(numbers, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return np.array(numbers, _FLOATS[dtype]).tobytes()


def safetensors(forms: dict[str, str], data: dict[str, bytes]) -> bytes:
    """A safetensors file of tensors, each with its dtype and shape and its bytes."""
    header: dict[str, Any] = {}
    at = 0
    for name, form in forms.items():
        dtype, *sizes = form.split()
        header[name] = {"dtype": dtype, "shape": [*map(int, sizes)], "data_offsets": [at, at + len(data[name])]}
        at += len(data[name])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(data[name] for name in forms)


def _write(folder: Path, config: dict[str, Any] | None, files: dict[str, str]) -> None:
    """A folder with the config, if there is one, and the files given."""
    folder.mkdir()
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
