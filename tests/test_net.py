"""Verdicts against what real runtimes did, with adapters that real PEFT releases saved, and with broken ones.

An outcome that is known to be wrong is in data/net_known_wrong.txt; any other fails, and so does one that is right now:
the list only gets shorter. With -s, how many there are of each kind.
"""

from __future__ import annotations

from collections import Counter

import net
import pytest
from tabulate import tabulate

SHRINK = "right now, and still listed: run `python scripts/make_net.py --known`"


@pytest.fixture(scope="module")
def judged() -> list[tuple[net.Question, dict[str, str]]]:
    """Every question of the net, and the verdicts on it."""
    return [(question, net.judged(question)) for question in net.questions(net.read())]


def test_outcomes_are_wrong_only_where_that_is_known(judged: list[tuple[net.Question, dict[str, str]]]) -> None:
    mistakes = {question.key: net.mistakes(question, ours) for question, ours in judged}
    recorded = {question.key: list(question.real) for question, _ in judged}
    known = net.known(net.KNOWN.read_text(encoding="utf-8"), recorded)
    print("\n" + table(judged))
    new, gone = net.difference(mistakes, known)
    assert not new, f"{net.count(new)} outcomes are wrong that were not: real, ours\n{net.listing(new, recorded)}"
    assert not gone, f"{net.count(gone)} outcomes are {SHRINK}\n{net.listing(gone, recorded)}"
    text = net.KNOWN_HEAD + net.listing({key: ids for key, ids in mistakes.items() if ids}, recorded)
    assert text == net.KNOWN.read_text(encoding="utf-8"), f"what is unknown now is listed as worse: {SHRINK}"


def table(judged: list[tuple[net.Question, dict[str, str]]]) -> str:
    """How many verdicts are of which kind, by corpus."""
    rows: dict[str, Counter[str]] = {}
    for question, ours in judged:
        for id_, real in question.real.items():
            kind = "servers" if id_ in question.servers else "PEFT"
            counts = rows.setdefault(f"{question.corpus}, {kind}", Counter())
            right = net.is_right(id_, real, ours[id_], question.unsaid)
            counts.update({
                "outcomes": 1, "right": right, "unknown": ours[id_] == "unknown", "wrong": not right,
                "false accepts": not right and ours[id_] == "accepts",
            })  # fmt: skip
    kinds = ("outcomes", "right", "unknown", "wrong", "false accepts")
    return tabulate([(corpus, *(counts[kind] for kind in kinds)) for corpus, counts in rows.items()], ("", *kinds))


def test_the_list_reads_as_it_is_written() -> None:
    order = [f"peft=={release}" for release in ("0.5.0", "0.6.2", "0.9.0", "0.10.0")] + ["vllm==0.33.0"]
    mistakes: net.Mistakes = {
        ("a", "x"): dict.fromkeys((*order[:2], order[3], order[4]), ("rejects", "accepts")) | {order[2]: ("a", "b")}
    }
    text = net.listing(mistakes, {("a", "x"): order})
    assert "x | rejects accepts 0.5.0-0.6.2 0.10.0 vllm==0.33.0 | a b 0.9.0\n" in text
    assert net.known(text, {("a", "x"): order}) == mistakes


def test_only_what_is_worse_is_new() -> None:
    def says(ours: str) -> net.Mistakes:
        return {("a", "x"): {"peft==0.9.0": ("rejects", ours)}}

    assert net.difference(says("accepts"), says("accepts")) == ({}, {})
    assert net.difference(says("unknown"), says("accepts")) == ({}, {})
    assert net.difference({}, says("accepts")) == ({}, says("accepts"))
    assert net.difference(says("accepts"), says("unknown")) == (says("accepts"), {})
    assert net.difference(says("accepts"), {}) == (says("accepts"), {})
