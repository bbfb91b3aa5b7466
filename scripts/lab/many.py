"""Many adapters of random draw, of which no release is asked: what is read, compared and repaired of them.

usage: python scripts/lab/many.py COUNT [--seed SEED] [--first INDEX] [--processes 2]
Each has a config and shapes that a real PEFT release saved (tests/data/lab.json.xz), numbers of chance in a type of chance, one
file or more, a LoRA often other scales and patterns, and every third an edit of edits.py. SEED and INDEX draw it again. Held are:

read     names, types, shapes and bytes are those that safetensors or torch reads
compare  of an adapter and a copy that was changed, "same" and "different" are what the dense deltas of PEFT's formula say
fix      of every eighth: what is written computes the same, has none of the findings that were repaired, is judged as was said,
         and is left as it is by a second fix; IN keeps its bytes

Printed is how many of each there were and all that does not hold; it ends with 1 where there is any.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import edits
import net
import numpy as np
import torch
from check_fixes import digest
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.adapter.findings import verdict
from ckpt_doctor.adapter.runtimes import PEFT_RELEASES
from ckpt_doctor.api import compare, fix, scan
from ckpt_doctor.files.loader import load
from ckpt_doctor.files.streams import Files, content

EDITED, REPAIRED = 1 / 3, 1 / 8
PART = 200
"""How many a process is given at a time."""
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64, "I64": torch.int64}
NAMES = {torch_type: name for name, torch_type in DTYPES.items()}
FACTOR = re.compile(r"^base_model\.model\.(.+)\.(lora_(?:embedding_)?[AB])(?:\.weight)?$")
TOLERANCE = 1e-6
"""That of `compare`; what is within a factor of two of it may be said to be either."""

Config = dict[str, Any]
Tensors = dict[str, np.ndarray[Any, Any]]


class Drawn(NamedTuple):
    """An adapter: numbers are float32 (int64 where they count) until they are written as `dtype`."""

    name: str
    config: Config
    tensors: Tensors
    dtype: str


@cache
def sources() -> list[tuple[str, dict[str, Any]]]:
    """Adapters as real releases saved them, without their numbers."""
    held = [corpus["adapters"] for corpus in net.read(net.LAB)["corpora"].values()]
    named = [(name, known["adapter"]) for adapters in held for name, known in adapters.items() if "+" not in name]
    return [(name, adapter) for name, adapter in named if adapter["tensors"]]


def drawn(rng: Random) -> Drawn:
    """One of the sources, with numbers; of a LoRA the config is as the PEFT that runs this writes it."""
    name, source = rng.choice(sources())
    noise = np.random.default_rng(rng.getrandbits(64))
    config = deepcopy(source["config"])
    tensors: Tensors = {}
    for key, form in source["tensors"].items():
        dtype, *shape = form.split()
        made = noise.standard_normal([*map(int, shape)], np.float32) * np.float32(0.3)
        tensors[key] = made if dtype.startswith(("F", "B")) else np.zeros(made.shape, np.int64)
    if config["peft_type"] == "LORA" and not config.get("target_parameters") and not config.get("layer_replication"):
        _as_lora(rng, config, tensors, noise)
    if rng.random() < 0.1:
        _emptied(rng, tensors)
    dtype = rng.choices(("F32", "F16", "BF16", "F64"), (70, 12, 12, 6))[0]
    return Drawn(name, config, tensors, dtype)


def layers(tensors: Tensors) -> dict[str, dict[str, str]]:
    """Module → lora_A or lora_B → the key of the tensor."""
    found: dict[str, dict[str, str]] = {}
    for key in tensors:
        if match := FACTOR.match(key):
            found.setdefault(match[1], {})[match[2][-1]] = key
    return found


def _as_lora(rng: Random, config: Config, tensors: Tensors, noise: np.random.Generator) -> None:
    """Other scales, ranks and patterns, in a config of the PEFT that runs this; factors get the ranks that it asks for."""
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    settings = {key: value for key, value in config.items() if key in known and value is not None}
    modules = layers(tensors)
    if not modules or not all(len(factors) == 2 for factors in modules.values()):
        return
    settings |= {"lora_alpha": rng.choice((1, 4, 8, 16, 24, 0.5)), "use_rslora": rng.random() < 0.25}
    settings |= {"r": rng.choice((1, 2, 4, 8)), "rank_pattern": {}, "alpha_pattern": {}}
    for key, values in (("rank_pattern", (1, 3, 6)), ("alpha_pattern", (1, 5, 32))):
        for _ in range(rng.choice((0, 0, 1, 2))):
            settings[key][_named(rng, rng.choice([*modules]))] = rng.choice(values)
    config.clear()
    config.update(LoraConfig(**settings).to_dict())
    config.update({key: sorted(value) for key, value in config.items() if isinstance(value, set)})
    for module, factors in modules.items():
        rank = rank_of(config, module)
        a, b = (tensors[factors[letter]].shape for letter in "AB")
        tensors[factors["A"]] = noise.standard_normal((rank, *a[1:]), np.float32) * np.float32(0.3)
        tensors[factors["B"]] = noise.standard_normal((b[0], rank, *b[2:]), np.float32) * np.float32(0.3)


def _named(rng: Random, module: str) -> str:
    """A key of a pattern for a module: its last name, its full one, or a regular expression."""
    tail = module.rpartition(".")[2]
    return rng.choice((tail, module, rf".*\.1\..*{re.escape(tail)}", rf"{re.escape(module)}", rf".*{tail}"))


def _emptied(rng: Random, tensors: Tensors) -> None:
    """Zeros at the end of a rank, of whole tensors, or a number that is none."""
    key = rng.choice(sorted(tensors))
    kind = rng.choice(("last", "all", "none", "vast"))
    if kind == "last":
        for factors in layers(tensors).values():
            for letter, form in (("A", np.s_[-1:]), ("B", np.s_[:, -1:])):
                if letter in factors:
                    tensors[factors[letter]][form] = 0
    elif tensors[key].dtype == np.float32 and tensors[key].size:
        values = {"all": 0.0, "none": rng.choice((math.nan, math.inf)), "vast": 1e30}
        tensors[key].flat[slice(None) if kind == "all" else 0] = values[kind]


def rank_of(config: Config, module: str) -> int:
    """As `tuners/lora/model.py: LoraModel._create_and_replace` has it."""
    return int(config["rank_pattern"].get(get_pattern_key(config["rank_pattern"], module), config["r"]))


def scale_of(config: Config, module: str) -> float:
    """As `tuners/lora/layer.py: LoraLayer.update_layer` has it."""
    alpha = config["alpha_pattern"].get(get_pattern_key(config["alpha_pattern"], module), config["lora_alpha"])
    rank = rank_of(config, module)
    return float(alpha / math.sqrt(rank) if config["use_rslora"] else alpha / rank)


def written(adapter: Drawn, folder: Path, rng: Random) -> None:
    """Write an adapter: one file of safetensors or of torch, or two with an index."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(adapter.config), encoding="utf-8")
    made = {key: _typed(value, adapter.dtype) for key, value in adapter.tensors.items()}
    form = rng.choices(("one", "bin", "shards"), (80, 15, 5))[0]
    if form == "one":
        save_file(made, folder / "adapter_model.safetensors", {"format": "pt"})
    elif form == "bin":
        torch.save(made, folder / "adapter_model.bin")
    else:
        places = {key: f"adapter_model-0000{1 + number % 2}-of-00002.safetensors" for number, key in enumerate(made)}
        for file in {*places.values()}:
            save_file({key: made[key] for key, at in places.items() if at == file}, folder / file, {"format": "pt"})
        index = json.dumps({"metadata": {}, "weight_map": places})
        (folder / "adapter_model.safetensors.index.json").write_text(index, encoding="utf-8")


def _typed(value: np.ndarray[Any, Any], dtype: str) -> torch.Tensor:
    tensor = torch.from_numpy(value.copy())
    return tensor.to(DTYPES[dtype]) if tensor.is_floating_point() else tensor


def misread(folder: Path) -> str:
    """What is read otherwise than by safetensors and torch."""
    theirs: dict[str, torch.Tensor] = {}
    for file in folder.glob("adapter_model*.safetensors"):
        theirs |= load_file(file)
    for file in folder.glob("adapter_model.bin"):
        theirs |= torch.load(file, weights_only=True)
    ours = load(str(folder))
    if (ours.faults and theirs) or ours.tensors.keys() != theirs.keys():
        return f"read: {[*ours.faults, *(ours.tensors.keys() ^ theirs.keys())][:2]}"
    with Files() as files:
        for key, tensor in theirs.items():
            info = ours.tensors[key]
            data = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
            if (info.dtype, info.shape) != (NAMES[tensor.dtype], tuple(tensor.shape)) or content(info, files) != data:
                return f"read: {key} as {info.dtype} {info.shape}, safetensors or torch {tensor.dtype} {tensor.shape}"
    return ""


def deltas(config: Config, tensors: Tensors) -> dict[str, np.ndarray[Any, Any]] | None:
    """What PEFT adds to each module, dense, in float64, and every other tensor; None where PEFT would not load it so."""
    with np.errstate(all="ignore"):
        asked = LoraConfig(**{field.name: config[field.name] for field in dataclasses.fields(LoraConfig)
                              if field.name in config and field.name != "peft_type"})  # fmt: skip
        made: dict[str, np.ndarray[Any, Any]] = {}
        for module, factors in layers(tensors).items():
            if factors.keys() != {"A", "B"} or not _is_target(asked, module):
                return None
            a, b = (tensors[factors[letter]].astype(np.float64) for letter in "AB")
            if not a.shape[0] == b.shape[1] == rank_of(config, module):
                return None
            rank, scale = len(a), scale_of(config, module)
            made[module] = scale * b.reshape(len(b), rank) @ a.reshape(rank, -1)
            bias = f"base_model.model.{module}.lora_B.bias"
            if bias in tensors:
                made[f"{module}.bias"] = scale * tensors[bias].astype(np.float64)
    factors = {key for module in layers(tensors).values() for key in module.values()}
    others = {key: value for key, value in tensors.items() if key not in factors and not key.endswith("lora_B.bias")}
    return {**made, **{key: value.astype(np.float64) for key, value in others.items()}}


def _is_target(config: LoraConfig, module: str) -> bool:
    if config.target_modules in (None, "all-linear"):  # which of them are, the model says
        return not config.exclude_modules and config.layers_to_transform is None
    return bool(check_target_module_exists(config, module))


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference, relative to a norm; NaN where both hold the same numbers that are none."""
    gone = [side[key] for key in one.keys() ^ other.keys() for side in (one, other) if key in side]
    if any(part.any() for part in gone):
        return 1.0
    largest = 0.0
    for key in one.keys() & other.keys():
        first = one[key]
        if first.shape != other[key].shape:
            return 1.0
        if not (np.isfinite(first).all() and np.isfinite(other[key]).all()):
            return math.nan if np.array_equal(first, other[key], equal_nan=True) else math.inf
        norm, difference = np.linalg.norm(first), np.linalg.norm(first - other[key])
        largest = max(largest, difference / norm if norm else float(difference > 0))
    return largest


Variation = Callable[[Random, Config, Tensors], None]


def scaled(rng: Random, config: Config, tensors: Tensors) -> None:
    """The scale in the factors: the same where no pattern has one of its own."""
    config["lora_alpha"] = config["lora_alpha"] * 2
    for factors in layers(tensors).values():
        tensors[factors[rng.choice("AB")]] *= np.float32(0.5)


def padded(rng: Random, config: Config, tensors: Tensors) -> None:
    """Two ranks of zeros, and sometimes the alpha that goes with them."""
    more = config["r"] + 2
    config["lora_alpha"] = config["lora_alpha"] * rng.choice((1, more / config["r"], math.sqrt(more / config["r"])))
    config["r"] = more
    for module, factors in layers(tensors).items():
        for letter, axis in (("A", 0), ("B", 1)):
            key = factors[letter]
            short = rank_of(config, module) - tensors[key].shape[axis]
            widths = [(0, short if at == axis else 0) for at in range(tensors[key].ndim)]
            tensors[key] = np.pad(tensors[key], widths) if short > 0 else tensors[key]


def turned(rng: Random, _: Config, tensors: Tensors) -> None:
    """The ranks in another order, of both factors or, which is another function, of one."""
    factors = rng.choice([*layers(tensors).values()])
    both = rng.random() < 0.7
    tensors[factors["A"]] = tensors[factors["A"]][::-1]
    if both:
        tensors[factors["B"]] = tensors[factors["B"]][:, ::-1]


def negated(rng: Random, _: Config, tensors: Tensors) -> None:
    for factors in layers(tensors).values():
        for letter in "AB" if rng.random() < 0.9 else "A":
            tensors[factors[letter]] *= np.float32(-1)


def nudged(rng: Random, _: Config, tensors: Tensors) -> None:
    """One number of one tensor is another."""
    key = rng.choice([key for key in tensors if tensors[key].dtype == np.float32 and tensors[key].size] or [""])
    if key:
        at = rng.randrange(tensors[key].size)
        tensors[key].flat[at] *= np.float32(1 + rng.choice((1e-6, 1e-4, 1e-2, 1)))


def valued(rng: Random, config: Config, _: Tensors) -> None:
    """Another value of a key that scales."""
    key = rng.choice(("lora_alpha", "use_rslora", "alpha_pattern"))
    config[key] = {"lora_alpha": config["lora_alpha"] * 3, "use_rslora": not config["use_rslora"], "alpha_pattern": {}}[
        key
    ]


def spelled(_: Random, config: Config, tensors: Tensors) -> None:
    """Each alpha by the full name of its module, in a pattern: the same."""
    config["alpha_pattern"] = {
        re.escape(module): scale_of({**config, "use_rslora": False}, module) * rank_of(config, module)
        for module in layers(tensors)
    }


def less(rng: Random, _: Config, tensors: Tensors) -> None:
    """A layer is gone."""
    found = layers(tensors)
    if len(found) > 1:
        module = rng.choice([*found])
        for key in (*found[module].values(), f"base_model.model.{module}.lora_B.bias"):
            tensors.pop(key, None)


VARIATIONS: tuple[Variation, ...] = (scaled, padded, turned, negated, nudged, valued, spelled, less)


def miscompared(rng: Random, adapter: Drawn, folder: Path) -> tuple[str, str]:
    """What is said of an adapter and a copy that is otherwise, and what is wrong with that."""
    one_dense = deltas(adapter.config, _rounded(adapter))
    if one_dense is None or not layers(adapter.tensors):
        return "", ""
    config, tensors = deepcopy(adapter.config), {key: value.copy() for key, value in adapter.tensors.items()}
    variation = rng.choice(VARIATIONS)
    variation(rng, config, tensors)
    other = Drawn(adapter.name, config, tensors, adapter.dtype if rng.random() < 0.8 else "F64")
    other_dense = deltas(other.config, _rounded(other))
    if other_dense is None:
        return "", ""
    copy = folder.with_name("copy")
    written(other, copy, rng)
    said = compare(folder, copy)
    distance = apart(one_dense, other_dense)
    wrong = {"same": distance > 2 * TOLERANCE, "different": distance < TOLERANCE / 2}.get(said.verdict, False)
    name = variation.__name__
    return said.verdict, f"compare: {name}: {said.verdict}, and dense they are {distance:.2g} apart" if wrong else ""


def _rounded(adapter: Drawn) -> Tensors:
    """The numbers as they are read from the file."""
    return {key: _typed(value, adapter.dtype).to(torch.float64).numpy() for key, value in adapter.tensors.items()}


WAYS: tuple[dict[str, Any], ...] = ({}, {"trim": True}, {"to_lora": True}, *(
    {"for_": f"peft=={release}"} for release in PEFT_RELEASES
))  # fmt: skip


def misrepaired(rng: Random, folder: Path) -> tuple[str, str]:
    """What became of a fix, and what is wrong with it."""
    how = rng.choice((*WAYS[:3], rng.choice(WAYS[3:])))
    out, before = folder.with_name("out"), digest(folder)
    try:
        result = fix(folder, out, base="none", **how)
    except AdapterError as error:
        return "refused", f"fix {how}: {error}" if "please report" in str(error) else ""
    wrong = []
    if digest(folder) != before:
        wrong.append("IN is another")
    if result.out is None:
        return "refused", f"fix {how}: {wrong[0]}" if wrong else ""
    judged = scan(out, how.get("for_"), base="none", values=True)
    healed = {code for step in result.repairs for code in step.codes}
    left = healed & {finding.code for finding in judged.findings if finding.severity == "error"}
    said = {release: verdict(f"peft=={release}", result.remaining) for release in PEFT_RELEASES}
    now = {release: judged.verdicts[f"peft=={release}"] for release in PEFT_RELEASES}
    # who saved it, which may decide, is told no more by the keys of OUT
    otherwise = [release for release in said if now[release] not in (said[release], "unknown")]
    if left:
        wrong.append(f"{sorted(left)} are still there")
    if otherwise:
        wrong.append(f"is judged otherwise than was said for {', '.join(otherwise)}")
    if compare(folder, out).verdict == "different":
        wrong.append("computes something else")
    again = fix(out, folder.with_name("again"), base="none", dry_run=True, **how)
    if again.repairs and now == said:
        wrong.append(f"is fixed again: {[step.title for step in again.repairs]}")
    return "repaired" if result.repairs else "had nothing to repair", f"fix {how}: {'; '.join(wrong)}" if wrong else ""


def tried(seed: str, index: int) -> Iterator[tuple[str, str]]:
    """What was held of one of them, and what does not hold."""
    rng = Random(f"{seed}-{index}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "in")
        adapter = drawn(rng)
        plain = adapter.config["peft_type"] == "LORA" and "alpha_pattern" in adapter.config
        if rng.random() < EDITED:
            edit = rng.choice(sorted(edits.EDITS))
            if edits.EDITS[edit](rng, adapter.config, adapter.tensors) is not False:
                adapter, plain = adapter._replace(name=f"{adapter.name}+{edit}"), False
        written(adapter, folder, rng)
        yield "read", misread(folder)
        if plain and not adapter.config.get("target_parameters") and not adapter.config.get("layer_replication"):
            said, wrong = miscompared(rng, adapter, folder)
            if said:
                yield f"compared: {said}", wrong
        if rng.random() < REPAIRED:
            yield misrepaired(rng, folder)


def _counted(seed: str, indices: range) -> tuple[Counter[str], list[str]]:
    counts, wrong = Counter[str](), []
    warnings.simplefilter("ignore")  # of PEFT, about values that it takes
    for index in indices:
        for what, fault in tried(seed, index):
            counts[what] += 1
            wrong += [f"{seed}-{index}: {fault}"] if fault else []
    return counts, wrong


def many(count: int, seed: str = "1", first: int = 0, processes: int = 1) -> tuple[Counter[str], list[str]]:
    """How many of what were tried, and what does not hold, which is printed as it is found."""
    parts = [range(at, min(at + PART, first + count)) for at in range(first, first + count, PART)]
    counts, wrong = Counter[str](), []
    with ProcessPoolExecutor(processes) as pool:
        for some, faults in (map if processes == 1 else pool.map)(partial(_counted, seed), parts):
            counts += some
            wrong += faults
            print(*faults, sep="\n", end="\n" if faults else "", flush=True)
            print(f"\r{counts['read']} of {count}", end="", file=sys.stderr, flush=True)
    return counts, wrong


def main() -> None:
    """Draw, hold, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--first", type=int, default=0, help="the index of the first, to draw one again")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    start = time.monotonic()
    counts, wrong = many(asked.count, asked.seed, asked.first, asked.processes)
    print(f"{asked.count} adapters in {time.monotonic() - start:.0f} s: {len(wrong)} wrong")
    print(*(f"{count:8} {what}" for what, count in sorted(counts.items())), sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
