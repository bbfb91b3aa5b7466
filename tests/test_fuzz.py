"""Files of chance: whatever a reader, the rules, the planner and the comparison are given, they end, and say something.

`scripts/fuzz.py` looks for such files for as long as it is told; here the same functions are given a few, the same each
time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fuzz
import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.adapter.runtimes import NEWEST
from ckpt_doctor.cli.journal import Journal
from ckpt_doctor.facts.config_keys import defaults
from ckpt_doctor.files.pins import ids
from ckpt_doctor.verbs.scan import examine
from ckpt_doctor.verbs.verify import verify

KEYS = st.sampled_from(sorted({*defaults("LORA"), *defaults("ADALORA"), "peft_type"}))
VALUES = st.sampled_from([*hostile.ODD.values(), 0.5, "q", ["q"], {"q": 4}, {"q": [True]}, "ADALORA", "LORA", "IA3"])


@pytest.mark.parametrize("name", fuzz.READERS)
def test_what_is_near_a_real_file_is_no_crash(name: str) -> None:
    reader, chance = fuzz.READERS[name], fuzz.Chance(1)
    seeds = reader.seeds()
    for data in [*seeds, *fuzz.kept(name), *(chance.of(seeds) for _ in range(5))]:
        assert fuzz.outcome(reader, data) == ""


def test_what_is_kept_is_small() -> None:
    paths = [*fuzz.KEPT.iterdir()]
    assert {path.stem for path in paths} <= {name.replace(" ", "-") for name in fuzz.READERS}
    assert sum(path.stat().st_size for path in paths) <= 200_000


DEEP = b"a = " + b"[" * 5_000 + b"]" * 5_000
LONG = b"max-rank = " + b"9" * 5_000
HEX = b"max-rank = 0x" + b"9" * 5_000


@pytest.mark.parametrize("text", [DEEP, LONG, HEX, b"jobs = 0x" + b"9" * 5_000], ids=["deep", "long", "hex", "jobs"])
def test_a_number_or_a_list_that_python_cannot_read_in_the_project_file(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(AdapterError):
        fuzz.READERS["project"].read(text, tmp_path)


def test_an_override_for_no_runtime_asks_for_none(run: Any, tmp_path: Path) -> None:
    """Where nothing is asked for by name there was no outcome: RuntimeError, generator raised StopIteration."""
    (tmp_path / "ckpt-doctor.toml").write_text('[[overrides]]\npaths = ["*"]\nfor = []\n')
    result = run("scan", hostile.LORA, "--config", tmp_path / "ckpt-doctor.toml", "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["summary"]["accepted"] == 1


@pytest.mark.parametrize("text", [DEEP, LONG])
def test_the_same_in_a_file_of_pins(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "uv.lock").write_bytes(text)
    with pytest.raises(ValueError, match="not valid TOML"):
        ids([str(tmp_path / "uv.lock")])


MARKS = [
    [["healthy"], False, False, []], ["healthy", "x", False, []], ["healthy", False, False, [["a", "b", ["c"]]]],
    ["healthy", False, False, [["a", "b"]]], ["healthy", False, False, 5], {}, None,
]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS, ids=str)
def test_a_row_of_a_journal_that_no_run_wrote_is_not_told(mark: object) -> None:
    """Tally.count adds to what is not a number, and counts what cannot be hashed."""
    row = json.dumps({"model": None, "mark": mark}).encode()
    assert fuzz.outcome(fuzz.READERS["journal row"], row) == ""


def test_a_journal_whose_tables_are_no_text_cannot_be_used(tmp_path: Path) -> None:
    """SQLite quotes them in its message, of which Python makes no text: UnicodeDecodeError."""
    path = fuzz._journal_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE adapters", b"CREATE \xce\xceBLE adapters"))
    with pytest.raises(AdapterError, match="damaged"):
        Journal(str(path)).known("adapter", fuzz.STATE)


def test_an_index_of_a_base_that_names_half_a_character_is_none(tmp_path: Path) -> None:
    """UnicodeEncodeError where the file is looked for."""
    with pytest.raises(AdapterError, match="no weight_map from tensors to files"):
        fuzz.READERS["base index"].read(b'{"weight_map": {"a": "\\ud800"}}', tmp_path)


def test_a_row_of_a_journal_is_told_again(tmp_path: Path) -> None:
    path = fuzz._journal_file(tmp_path)
    journal = Journal(str(path))
    assert journal.known("adapter", fuzz.STATE) is not None
    journal.close()


def test_a_proof_beyond_what_is_printed_is_no_record(tmp_path: Path) -> None:
    """`{worst:.2g}` of a whole number beyond a float: OverflowError."""
    record = json.loads(fuzz.READERS["record"].seeds()[0])
    record["proof"].update(largest_relative_difference=10**400, tolerance=10**400)
    (tmp_path / fuzz.RECORD).write_text(json.dumps(record))
    with pytest.raises(AdapterError, match="the error of the proof"):
        verify(str(tmp_path))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=st.dictionaries(KEYS, VALUES, min_size=2, max_size=4), reader=st.sampled_from(["config", "adalora"]))
def test_odd_values_at_several_keys_are_no_crash(values: dict[str, Any], reader: str) -> None:
    source = hostile.LORA if reader == "config" else hostile.ADALORA
    plain = json.loads((source / hostile.CONFIG).read_text())
    assert fuzz.outcome(fuzz.READERS[reader], json.dumps({**plain, **values}).encode()) == ""


@pytest.mark.parametrize(
    ("source", "values"),
    [
        # `for pattern in 5`, read only where layers_to_transform is set
        ("config", {"layers_to_transform": [0], "layers_pattern": 5}),
        # a whole number beyond a float less a fraction: OverflowError
        ("adalora", {"total_step": 10**400, "tinit": 1, "tfinal": 1.5}),
    ],
)
def test_values_that_only_others_have_read_are_no_crash(source: str, values: dict[str, Any]) -> None:
    folder = hostile.LORA if source == "config" else hostile.ADALORA
    plain = json.loads((folder / hostile.CONFIG).read_text())
    assert fuzz.outcome(fuzz.READERS[source], json.dumps({**plain, **values}).encode()) == ""


def test_a_layers_pattern_that_is_a_number_is_not_accepted(tmp_path: Path) -> None:
    adapter = hostile.built(tmp_path / "in", hostile.Input(hostile.config(layers_to_transform=[0], layers_pattern=5)))
    assert examine(str(adapter)).verdicts[NEWEST] == "rejects"


def test_what_fails_in_a_reader_is_seen() -> None:
    def broken(_: bytes, __: Path) -> str:
        raise ZeroDivisionError

    assert "ZeroDivisionError" in fuzz.outcome(fuzz.Reader(broken, lambda: [b""]), b"")
