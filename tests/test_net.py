"""Verdicts against what real runtimes did, with adapters that real PEFT releases saved, and with broken ones.

An outcome that is known to be wrong is in data/net_known_wrong.txt; any other fails, and so does one that is right now:
the list only gets shorter. With -s, how many there are of each kind.
"""

from __future__ import annotations

import net


def test_outcomes_are_wrong_only_where_that_is_known() -> None:
    net.hold(net.NET)


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
