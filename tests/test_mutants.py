"""No rule can be muted unseen: without its findings a case is not as it says, or a verdict in the net is another.

A muted rule takes its own findings away and no others, so each adapter is judged once, rule by rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import casefile
import judging
import net
import pytest

Held = dict[str, list[str]]
"""Rule → the cases, or the adapters of the net, that show that it is gone."""


def without(made: dict[str, tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    """Each rule that found something, and all findings but its own."""
    for muted in filter(None, made):
        yield muted, [finding for rule, findings in made.items() if rule != muted for finding in findings]


@pytest.fixture(scope="module")
def by_cases(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """What the cases hold."""
    held: Held = {}
    folder = tmp_path_factory.mktemp("cases")
    for path in casefile.PATHS:
        case = casefile.read(path, folder)
        made = judging.by_rule(case.adapter, case.asked)
        whole = [finding for findings in made.values() for finding in findings]
        assert Counter(whole) == Counter(judging.judge(case.adapter, case.asked)), path.name
        for rule, left in without(made):
            if case.faults(left):
                held.setdefault(rule, []).append(path.stem)
    return held


@pytest.fixture(scope="module")
def by_net() -> Held:
    """What the net holds."""
    held: Held = {}
    for question in net.questions(net.read()):
        made = judging.by_rule(question.adapter, question.servers)
        ours = judging.verdicts(question.real, (finding for findings in made.values() for finding in findings))
        for rule, left in without(made):
            if judging.verdicts(question.real, left) != ours:
                held.setdefault(rule, []).append(question.name)
    return held


def without_rows(adapter: Any, whole: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Each row of the adapter's method that found something, and all findings but its own."""
    for muted, own in judging.by_row(adapter).items():
        yield muted, list((Counter(whole) - Counter(own)).elements())


@pytest.fixture(scope="module")
def rows_held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """What cases and the net hold of the rows of methods."""
    held: Held = {}
    folder = tmp_path_factory.mktemp("rows")
    for path in casefile.PATHS:
        case = casefile.read(path, folder)
        for row, left in without_rows(case.adapter, list(judging.judge(case.adapter, case.asked))):
            if case.faults(left):
                held.setdefault(row, []).append(path.stem)
    for question in net.questions(net.read()):
        whole = list(judging.judge(question.adapter)) if judging.has_record(question.adapter) else []
        for row, left in without_rows(question.adapter, whole):
            if judging.verdicts(question.real, left) != judging.verdicts(question.real, whole):
                held.setdefault(row, []).append(question.name)
    return held


@pytest.mark.parametrize("row", judging.method_rows())
def test_a_row_is_held_or_said_to_be_read_alone(row: str, rows_held: Held) -> None:
    assert bool(rows_held.get(row)) is not judging.method_rows()[row]


@pytest.mark.parametrize("rule", judging.rule_names())
def test_a_rule_is_held(rule: str, by_cases: Held, by_net: Held) -> None:
    assert by_cases.get(rule) or by_net.get(rule)


def test_cases_hold_every_rule(by_cases: Held, by_net: Held) -> None:
    print()
    for rule in judging.rule_names():
        print(f"{rule:40} {len(by_cases.get(rule, ())):4} cases {len(by_net.get(rule, ())):4} in the net")
    assert by_cases.keys() == set(judging.rule_names())
