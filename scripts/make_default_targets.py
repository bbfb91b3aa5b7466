"""Make ckpt_doctor/facts/default_targets.json: what a release adapts where the config names no target.

usage: python scripts/make_default_targets.py VENV...
VENV is an environment with one PEFT release. Its tables by model_type (TRANSFORMERS_MODELS_TO_…_MODULES_MAPPING in
peft/utils) are read by its own interpreter. Kept is what is so from a release on, null where a model has no entry.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "ckpt_doctor/facts/default_targets.json"
TABLES = {
    "LORA": "LORA_TARGET", "ADALORA": "ADALORA_TARGET", "IA3": "IA3_TARGET", "IA3 feedforward": "IA3_FEEDFORWARD",
}  # fmt: skip
READ = """
import json, peft, peft.utils.other as other
from importlib.util import find_spec
if find_spec("peft.utils.constants"):
    import peft.utils.constants as other
tables = {name: getattr(other, name) for name in dir(other) if name.startswith("TRANSFORMERS_MODELS_TO_")}
plain = {name: {key: list(value) for key, value in table.items()} for name, table in tables.items() if "MODULES" in name}
print(json.dumps([peft.__version__, plain]))
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
    table: dict[str, dict[str, list[Any]]] = {name: {} for name in TABLES}
    for name, part in TABLES.items():
        key = f"TRANSFORMERS_MODELS_TO_{part}_MODULES_MAPPING"
        models = {model for tables in releases.values() for model in tables.get(key, {})}
        for model in sorted(models):
            rows = table[name].setdefault(model, [])
            for release in sorted(releases):
                names = releases[release].get(key, {}).get(model)
                if names != (rows[-1][1] if rows else None):
                    rows.append([".".join(map(str, release)), names])
    OUT.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
