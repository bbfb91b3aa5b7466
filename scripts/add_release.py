"""Teach ckpt-doctor a new PEFT release: its config keys, its number, and what it makes of the fixtures.

usage: python scripts/add_release.py PYTHON      PYTHON: the interpreter of an environment with that PEFT
Updates ckpt_doctor/data/config_keys.json and PEFT_RELEASES; then loads every fixture there and prints where the verdicts, which
until then are those of the release before, are wrong: that is where a rule has to change.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from make_config_keys import OUT, write

ROOT = Path(__file__).parent.parent
INTROSPECT = """
import dataclasses, json, peft
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as mapping
def plain(field):
    value = field.default if field.default is not dataclasses.MISSING else None
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    value = sorted(value) if isinstance(value, set) else value
    try:
        json.dumps(value)
    except TypeError:
        value = None
    return value
print(json.dumps([peft.__version__, {
    getattr(kind, "value", kind): {field.name: plain(field) for field in dataclasses.fields(config)}
    for kind, config in mapping.items()
}]))
"""


def merge(release: str, before: str, configs: dict[str, dict[str, object]]) -> None:
    """Add a release to the table of config keys: new rows, new defaults, and an end for keys that are gone."""
    table = json.loads(OUT.read_text())
    for method in table.keys() | configs.keys():
        rows, fields = table.setdefault(method, {}), configs.get(method, {})
        for key, row in rows.items():
            if row[1] is None and key not in fields:
                row[1] = before
        for key, default in fields.items():
            rows.setdefault(key, [release, None, default])[1:] = [None, default]
    write(table)


def main(python: str) -> None:
    """Introspect, write, load the fixtures."""
    out = subprocess.run([python, "-W", "ignore", "-c", INTROSPECT], capture_output=True, text=True, check=True).stdout
    release, configs = json.loads(out.splitlines()[-1])
    path = ROOT / "ckpt_doctor/runtimes.py"
    source = path.read_text()
    known = re.findall(r'"(\d+\.\d+\.\d+)"', source[source.index("PEFT_RELEASES") : source.index(")  # fmt: skip")])
    if release not in known:
        merge(release, known[-1], configs)
        path.write_text(source.replace(f'"{known[-1]}",\n)', f'"{known[-1]}",\n    "{release}",\n)', 1))
    adapters = sorted(str(folder.parent) for folder in (ROOT / "fixtures").glob("*/adapter_config.json"))
    said = subprocess.run(
        [sys.executable, "-m", "ckpt_doctor.cli", "scan", "--format", "json", *adapters],
        capture_output=True, text=True, check=False, cwd=ROOT,
    ).stdout  # fmt: skip
    verdicts = {report["path"]: report["verdicts"].get(f"peft=={release}") for report in json.loads(said)["reports"]}
    command = [python, "-W", "ignore", str(ROOT / "fixtures/load.py"), *adapters]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        row = json.loads(line)
        if row["verdict"] != verdicts[row["folder"]]:
            print(f"{row['folder']}: {row['verdict']}, not {verdicts[row['folder']]}  {row.get('error', '')}")


if __name__ == "__main__":
    main(sys.argv[1])
