"""Verdicts against what real PEFT releases did in the lab (scripts/lab), with adapters of random draw and edited ones.

What is known to be wrong is in data/lab_known_wrong.txt, as for the net; data/README.md says how the lab was run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import net
import pytest

LAB = Path(__file__).parent.parent / "scripts/lab"
MERGED = f"""
import sys
sys.path[:0] = [{str(LAB)!r}, {str(LAB / "servers")!r}]
import deltas, nets, numpy, safetensors.torch, served, torch
nets.NETS.update(served.NETS)
base, adapter, meaning = sys.argv[1:]
model, delta = nets.built(base), safetensors.torch.load_file(meaning)
if deltas.HEAD in delta:  # it may be tied
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
weights = deltas.added({{name: weight.detach() for name, weight in model.named_parameters()}}, delta)
model.load_state_dict(weights, strict=False)
expected = numpy.load(adapter + "/expected_output.npy")
print(len(delta), float(numpy.abs(nets.run(model, base).numpy() - expected).max()))
"""


def test_outcomes_are_wrong_only_where_that_is_known() -> None:
    net.hold(net.LAB)


def test_what_an_adapter_means_is_what_it_computed_when_it_was_saved(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-W", "ignore", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    (tmp_path / "adapters").mkdir()
    lines = run(str(LAB / "save.py"), "--served", "7", "0", "1", "2", "3").splitlines()
    rows = [row for row in map(json.loads, lines) if row]  # empty where this transformers cannot build the model
    assert len(rows) > 1
    for row in rows:
        base, adapter = f"base/{row['base']}", f"adapters/{row['name']}"
        run(str(LAB / "servers/meaning.py"), base, "meanings", adapter)
        count, off = run("-c", MERGED, row["base"], adapter, f"meanings/{row['name']}.safetensors").split()
        assert int(count) > 0
        assert float(off) < 1e-4, row


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(LAB)
    return import_module("many")


def test_many_adapters_of_random_draw_are_read_compared_and_repaired_right(many: Any) -> None:
    counts, wrong = many.many(200, "of the tests")
    assert wrong == []
    assert counts["read"] == 200
    assert min(counts[f"compared: {said}"] for said in ("same", "different")) > 20
    assert counts["repaired"] > 5


def test_a_false_answer_of_the_comparison_is_seen(many: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in ("same", "different"):
        monkeypatch.setattr(many, "compare", lambda *_, answer=answer: SimpleNamespace(verdict=answer))
        _, wrong = many.many(20, "of the tests")
        assert any(f"{answer}, and dense they are" in line for line in wrong)


def test_a_repair_that_changes_or_is_rejected_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(LAB)
    repairs = import_module("repairs")
    truth = {"peft": {"0.9.0": ["rejects", ""]}, "files_do_not_tell": False, "only_the_base_tells": True}
    repair = repairs.Repair("a", repairs.WITH, "fix", "a~1", {"0.9.0": "accepts"})

    def faults(outcome: str, **changed: Any) -> list[str]:
        one = repair._replace(**changed)
        return [one.fault for one in repairs.outcomes([one], {"a": truth}, {"a~1": {"0.9.0": [outcome, ""]}})]

    assert faults("accepts") == [""]
    assert faults("rejects") == ["does not load"]
    assert faults("misloads") == ["changed"]
    assert faults("misloads", verdicts={"0.9.0": "misloads"}) == ["changed"]  # it was rejected aloud before
    assert faults("misloads", verdicts={"0.9.0": "unknown"}) == [""]
    assert faults("misloads", base=repairs.WITHOUT) == []  # which the base model alone tells
