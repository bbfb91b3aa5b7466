"""Verdicts against what real PEFT releases did in the lab (scripts/lab), with adapters of random draw and edited ones.

What is known to be wrong is in data/lab_known_wrong.txt, as for the net; data/README.md says how the lab was run.
"""

from __future__ import annotations

import net


def test_outcomes_are_wrong_only_where_that_is_known() -> None:
    net.hold(net.LAB)
