"""Make ckpt_doctor/facts/config_keys.json from a dump of every config field of every PEFT release.

usage: python scripts/make_config_keys.py config_fields.json
The dump maps a release to {"configs": {PEFT_TYPE: {"fields": {key: {"default": …}}}}}.
"""

import json
import sys
from pathlib import Path

OUT = Path(__file__).parent.parent / "ckpt_doctor/facts/config_keys.json"


def main(dump: str) -> None:
    """Write the table: method → key → [first release, last release or null where it still exists, default]."""
    releases = json.loads(Path(dump).read_text())
    newest = list(releases)[-1]
    table: dict[str, dict[str, list[object]]] = {}
    for release, facts in releases.items():
        for method, config in facts["configs"].items():
            for key, field in config["fields"].items():
                row = table.setdefault(method, {}).setdefault(key, [release, None, None])
                row[1:] = [None if release == newest else release, field["default"]]
    write(table)


def write(table: dict[str, dict[str, list[object]]]) -> None:
    """Write the table, a key a line."""
    lines = ",\n".join(
        f" {json.dumps(method)}: {{\n"
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in sorted(keys.items()))
        + "\n }"
        for method, keys in sorted(table.items())
    )
    OUT.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
