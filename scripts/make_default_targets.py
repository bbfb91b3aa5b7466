"""Make ckpt_doctor/facts/default_targets.json: what a release adapts where the config names no target.

usage: python scripts/make_default_targets.py VENV...
VENV is an environment with one PEFT release. Its tables by model_type (TRANSFORMERS_MODELS_TO_…_MODULES_MAPPING in
peft/utils) are read by its own interpreter, for each method the one that its tuner names. Kept is what is so from a
release on, null where a model has no entry.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "ckpt_doctor/facts/default_targets.json"
READ = """
import inspect, json, re, peft, peft.utils.other as other
from importlib.util import find_spec
if find_spec("peft.utils.constants"):
    import peft.utils.constants as other
import peft.mapping as mapping, peft.peft_model as peft_model
names = ("PEFT_TYPE_TO_TUNER_MAPPING", "PEFT_TYPE_TO_MODEL_MAPPING")
found = [getattr(place, name) for name in names for place in (mapping, peft_model) if hasattr(place, name)]
tuners = found[0] if found else {}  # 0.2 has LoRA alone
pattern = r"TRANSFORMERS_MODELS_TO_(\\w+?)_TARGET_MODULES_MAPPING"
tables = {name[1]: getattr(other, name[0]) for name in map(re.compile(pattern).fullmatch, dir(other)) if name}
for kind, tuner in tuners.items():
    table = getattr(tuner, "target_module_mapping", None)
    if table is None:
        named = re.search(pattern, inspect.getsource(tuner))
        table = getattr(other, named[0]) if named else {}
    tables[str(kind).rpartition(".")[2]] = table
tables["IA3 feedforward"] = getattr(other, "TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING", {})
print(json.dumps([peft.__version__, tables], default=list))
"""


def main() -> None:
    """Write the table."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    releases: dict[tuple[int, ...], Any] = {}
    for venv in sys.argv[1:]:
        command = [f"{venv}/bin/python", "-W", "ignore", "-c", READ]
        version, tables = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        releases[tuple(map(int, version.split(".")[:2]))] = tables
    table: dict[str, dict[str, list[Any]]] = {}
    for name in sorted({name for tables in releases.values() for name in tables}):
        models = {model for tables in releases.values() for model in tables.get(name, {})}
        for model in sorted(models):
            rows = table.setdefault(name, {}).setdefault(model, [])
            for release in sorted(releases):
                names = releases[release].get(name, {}).get(model)
                if names != (rows[-1][1] if rows else None):
                    rows.append([".".join(map(str, release)), names])
    OUT.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
