"""Teach the facts a PEFT release: which config keys its methods have, and that it exists.

usage: python scripts/add_release.py PYTHON [--write]
PYTHON is the interpreter of an environment with that release (scripts/make_peft_venvs.sh makes one). First everything
is looked at: the release, how the table of config keys would change, and what it makes of each fixture. Only with
--write, and only if all of that worked, are the tables written: whole, or not at all. Until someone has looked at a method
in the release and put the pair into REVIEWED (ckpt_doctor/facts/methods/__init__.py), nothing is accepted there.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from make_config_keys import OUT, write

ROOT = Path(__file__).parent.parent
RUNTIMES = ROOT / "ckpt_doctor/adapter/runtimes.py"
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
        value = str(value)
    return value
print(json.dumps([peft.__version__, {
    getattr(kind, "value", kind): {field.name: plain(field) for field in dataclasses.fields(config)}
    for kind, config in mapping.items()
}]))
"""

Table = dict[str, dict[str, list[Any]]]


def introspected(python: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The release of an environment, and method → config key → default."""
    out = subprocess.run([python, "-W", "ignore", "-c", INTROSPECT], capture_output=True, text=True, check=True).stdout
    release, configs = json.loads(out.splitlines()[-1])
    if not re.fullmatch(r"\d+\.\d+\.\d+", release):
        raise SystemExit(f"{release} is no final release")
    return release, configs


def merged(old: Table, release: str, before: str, configs: dict[str, dict[str, Any]]) -> Table:
    """The table of config keys with a release: new rows, new defaults, and an end for keys that are gone."""
    table = copy.deepcopy(old)
    for method in table.keys() | configs.keys():
        rows, fields = table.setdefault(method, {}), configs.get(method, {})
        for key, row in rows.items():
            if row[1] is None and key not in fields:
                row[1] = before
        for key, default in fields.items():
            row = rows.setdefault(key, [release, None, default])
            rows[key] = [row[0], None, default]
    return table


def changes(old: Table, new: Table) -> list[str]:
    """What differs between two tables, a line each."""
    lines = []
    for method in sorted(new):
        for key in sorted(new[method]):
            was, becomes = old.get(method, {}).get(key), new[method][key]
            if was is None:
                lines.append(f"+ {method}.{key}: {json.dumps(becomes[2])}")
            elif was[1] != becomes[1]:
                lines.append(f"- {method}.{key}: the last release with it is {becomes[1]}")
            elif was[2] != becomes[2]:
                lines.append(f"~ {method}.{key}: the default was {json.dumps(was[2])} and is {json.dumps(becomes[2])}")
    return lines


def with_release(source: str, release: str) -> tuple[str, str]:
    """The text of runtimes.py with a release behind the newest that it knows, and that one."""
    known = re.findall(r'"(\d+\.\d+\.\d+)"', source[source.index("PEFT_RELEASES") : source.index(")  # fmt: skip")])
    numbers = [tuple(map(int, one.split("."))) for one in known]
    if release in known:
        raise SystemExit(f"{release} is known already")
    if tuple(map(int, release.split("."))) < max(numbers):
        raise SystemExit(f"{release} is older than {known[-1]}, the newest that is known")
    changed = source.replace(f'"{known[-1]}",\n)', f'"{known[-1]}",\n    "{release}",\n)', 1)
    if changed == source:
        raise SystemExit(f"{RUNTIMES} does not list the releases as it did")
    return changed, known[-1]


def outcomes(python: str) -> list[str]:
    """What the release makes of each fixture, against what the newest known one is said to make of it."""
    from ckpt_doctor.adapter.runtimes import NEWEST
    from ckpt_doctor.verbs.scan import examine

    adapters = sorted(str(folder.parent) for folder in (ROOT / "fixtures").glob("*/adapter_config.json"))
    command = [python, "-W", "ignore", str(ROOT / "fixtures/load.py"), *adapters]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    if len(rows) != len(adapters):
        raise SystemExit("not every fixture was tried")
    verdicts = {row["folder"]: examine(row["folder"]).verdicts[NEWEST] for row in rows}
    return [
        f"{Path(row['folder']).name}: {row['verdict']}, where {NEWEST} {verdicts[row['folder']]}  {row.get('error', '')}"
        for row in rows if row["verdict"] != verdicts[row["folder"]]
    ]  # fmt: skip


def main(python: str, *, writing: bool) -> None:
    """Look, tell, and write if that is wanted."""
    release, configs = introspected(python)
    runtimes, before = with_release(RUNTIMES.read_text(), release)
    old = json.loads(OUT.read_text())
    new = merged(old, release, before, configs)
    print(f"PEFT {release}, behind {before}\n", *changes(old, new), sep="\n")
    print("\nfixtures with another outcome:", *(outcomes(python) or ["none"]), sep="\n")
    if writing:
        write(new)
        RUNTIMES.write_text(runtimes)
        print(f"\nwritten; {release} is unknown until the methods that were looked at in it are in REVIEWED")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    main(given.python, writing=given.write)
