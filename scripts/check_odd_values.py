"""Put every odd JSON value of tests/hostile.py at every key of every file that is read, and run the commands on it.

    python scripts/check_odd_values.py [FILE…]

FILE is one of config, adalora, ia3, vera, index, record, base, state, project, baseline, base index; all without. What is
printed are crashes: exceptions, requests to report one, and JSON output that is none; and of each kind of file how many
values were tried. It ends with 1 where there are any crashes.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import hostile
from click.testing import CliRunner

from ckpt_doctor.cli import main as command
from ckpt_doctor.facts.config_keys import defaults

ODD = {**hostile.ODD, "deep": "@deep"}
WITHIN = {f"q: {word}": {"q": value} for word, value in ODD.items()} | {
    f"[{word}]": [value] for word, value in ODD.items()
}
"""What a pattern or a list may hold."""
DEEP = hostile.nested(900)


TRIED: Counter[str] = Counter()
"""Files that were made, by what kind they are of."""


def text_of(name: str, value: Any) -> str:
    """JSON of a value, deep ones too, which Python's json does not write."""
    TRIED[name] += 1
    return json.dumps(value).replace('"@deep"', DEEP)


def run(*arguments: object) -> list[str]:
    """What crashed in one command."""
    texts = [str(argument) for argument in arguments]
    result = CliRunner().invoke(command, texts)
    said = result.output
    crashes = [line for line in said.splitlines() if "please report it" in line]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        crashes.append(repr(result.exception))
    if "json" in texts and "please report it" not in said:
        with suppress(IndexError):
            body = result.stdout
            try:
                json.loads(body, parse_constant=lambda constant: int(constant)) if body.strip() else None
            except ValueError as error:
                crashes.append(f"no JSON: {error}")
    return [f"{' '.join(texts[:1] + [t for t in texts if t.startswith('--')])}: {line[:300]}" for line in crashes]


FORMATS = ("table", "json", "jsonl", "sarif", "junit", "github", "markdown")


def of_configs(name: str, keys: list[str], values: dict[str, Any], deeper: bool) -> Iterator[str]:
    """Crashes on configs of a method with an odd value at a key."""
    source = hostile.ADALORA if name == "adalora" else hostile.LORA
    plain = json.loads((source / hostile.CONFIG).read_text())
    if name not in ("config", "adalora"):
        plain = {**dict(defaults(name.upper())), "peft_type": name.upper(), "target_modules": ["q", "v"]}
    for key in keys:
        with tempfile.TemporaryDirectory() as folder:
            tree, out = Path(folder, "in"), Path(folder, "out")
            for at, (_, value) in enumerate(values.items()):
                shutil.copytree(source, tree / f"{at:02}")
                (tree / f"{at:02}" / hostile.CONFIG).write_text(text_of(name, {**plain, key: value}))
            sinks = [f"--format={one}={folder}/x.{one}" for one in FORMATS]
            crashes = run("scan", tree, "-v", "--layers", *sinks)
            crashes += run("scan", tree, "--for", "servers", "--for", "peft==*", "--format", "json")
            crashes += run("fix", tree, out, "--dry-run", "-v")
            crashes += run("fix", tree, out, "--for", "servers", "--dry-run", "--format", "json")
            if deeper:
                crashes += run("fix", tree, out, "--to", "lora", "--dry-run", "--format", "json")
            names = list(values)
            for at in range(len(values)):
                one = tree / f"{at:02}"
                for pair in ((one, hostile.LORA), (hostile.LORA, one)):
                    crashes += [f"{line} [{names[at]}]" for line in run("together", *pair, "--format", "json")]
                crashes += [f"{line} [{names[at]}]" for line in run("compare", one, hostile.LORA, "--format", "json")]
            for crash in dict.fromkeys(crashes):
                place = re.search(r"/in/(\d+)", crash)
                word = f" [{names[int(place[1])]}]" if place else ""
                yield f"{name}: {key}{word}: {crash.replace(folder, '')}"


def of_others(name: str, values: dict[str, Any]) -> Iterator[str]:
    """Crashes on other files with an odd value in them."""
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder, "in")
        shutil.copytree(hostile.ADALORA if name == "state" else hostile.LORA, adapter)
        base = Path(folder, "base")
        base.mkdir()
        CliRunner().invoke(command, ["fix", str(hostile.ADALORA), f"{folder}/fixed"])
        record = json.loads(Path(folder, "fixed/ckpt-doctor.json").read_text())
        model = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_hidden_layers": 2,
                 "vocab_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2,
                 "quantization_config": {}, "text_config": {}, "vision_config": {}, "head_dim": 4, "_name_or_path": "a/b",
                 "num_experts": 2, "num_local_experts": 2, "tie_word_embeddings": True}  # fmt: skip
        state = {"global_step": 1, "max_steps": 2}
        known = {"path": "a", "code": "CD101", "name": "x", "severity": "error", "fingerprint": "0"}
        contents: dict[str, tuple[dict[str, Any], Path]] = {
            "record": (record, Path(folder, "fixed/ckpt-doctor.json")),
            "base": (model, base / "config.json"),
            "state": (state, adapter / "trainer_state.json"),
            "baseline": (known, Path(folder, "known.json")),
            "index": ({"weight_map": {}, "metadata": {}}, adapter / "adapter_model.safetensors.index.json"),
            "base index": ({"weight_map": {}, "metadata": {}}, base / "model.safetensors.index.json"),
        }
        plain, path = contents[name]
        if name == "index":
            (adapter / hostile.WEIGHTS).unlink()
        for key in plain:
            for word, value in values.items():
                changed = text_of(name, {**plain, key: value})
                path.write_text(f'{{"schema_version": 1, "findings": [{changed}]}}' if name == "baseline" else changed)
                crashes = []
                if name == "record":
                    crashes += run("verify", path.parent, "--format", "json") + run(
                        "scan", path.parent, "--format", "json"
                    )
                    crashes += run("fix", path.parent, f"{folder}/out", "--dry-run", "--format", "json")
                elif name in ("base", "base index"):
                    crashes += run("scan", adapter, "--base", path, "--for", "servers", "--format", "json")
                    crashes += run(
                        "fix",
                        adapter,
                        f"{folder}/out",
                        "--base",
                        path,
                        "--for",
                        "servers",
                        "--dry-run",
                        "--format",
                        "json",
                    )
                elif name == "baseline":
                    crashes += run("scan", adapter, "--baseline", path, "--format", "json")
                else:
                    crashes += run("scan", adapter, "--format", "json") + run(
                        "fix", adapter, f"{folder}/out", "--dry-run", "--format", "json"
                    )
                yield from (f"{name}: {key} [{word}]: {crash.replace(folder, '')}" for crash in crashes)


def of_projects() -> Iterator[str]:
    """Crashes on a project file with an odd value."""
    from ckpt_doctor.cli.settings import _KEYS

    texts = {"true": "true", "-1": "-1", "1.5": "1.5", "nan": "nan", "''": '""', "[]": "[]", "[[]]": "[[]]", "{}": "{}",
             "date": "1979-05-27", "[1]": "[1]", "ugly": '"\\u001b\\u202e"', "NUL": '"\\u0000"'}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ckpt-doctor.toml")
        for key in (*_KEYS, "overrides", "unknown"):
            for word, text in texts.items():
                for body in (
                    f"{key} = {text}\n",
                    f'[[overrides]]\npaths = ["*"]\n{key} = {text}\n',
                    f"[[overrides]]\npaths = {text}\n",
                ):
                    TRIED["project"] += 1
                    path.write_text(body)
                    crashes = run("scan", hostile.LORA, "--config", path, "--format", "json")
                    yield from (f"project: {key} [{word}]: {crash}" for crash in crashes)


METHODS = ("ia3", "vera", "loha", "lokr", "oft", "prompt_tuning")


def check(
    name: str, *, keys: list[str] | None = None, values: dict[str, Any] | None = None, deeper: bool = True
) -> Iterator[str]:
    """The crashes on one kind of file."""
    if name in ("config", "adalora", *METHODS):
        method = {"config": "LORA", "adalora": "ADALORA"}.get(name, name.upper())
        yield from of_configs(name, keys or [*defaults(method), "peft_type"], values or ODD | WITHIN, deeper)
    elif name == "project":
        yield from of_projects()
    else:
        yield from of_others(name, values or ODD)


NAMES = ("config", "adalora", "record", "base", "state", "baseline", "index", "base index", "project", *METHODS)


def main() -> None:
    """Check what is named, or all."""
    found = 0
    for name in sys.argv[1:] or NAMES:
        for line in check(name):
            found += 1
            print(line, flush=True)
        print(f"{name}: {TRIED[name]} values", flush=True)
    print(f"{sum(TRIED.values())} values, {found} crashes")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
