"""The load, followed, and the verdicts say the same: where an adapter is accepted, each of its tensors is applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import judging
import net
import pytest


def applied(subject: Any, id_: str) -> Iterator[tuple[str, bool]]:
    """Each tensor that can mean something, and whether a release finds it and adapts its layer."""
    era = next(era for era in subject.eras if id_ in era.ids)
    layer_of = {key: module for module, layer in subject.layers.items() for key in layer.factors.values()}
    whole = subject.config.get("target_modules") is None or subject.config.get("target_parameters")
    for key in subject.tensors:
        module = layer_of.get(key)
        hit = module is None or whole or module in era.hit
        yield key, hit and id_ not in subject.unread.get(key, frozenset())


def means_nothing(subject: Any, key: str) -> bool:
    """A tensor without elements, AdaLoRA's E in a LoRA, the base model's own weight, and the parts of a head that is
    wrapped twice, of which a rule says which release reads which.
    """
    wrapped = ".modules_to_save." in key or ".original_module." in key
    own = key in subject.lookup.stray or key.endswith(".base_layer.weight")
    return subject.is_empty(key) or own or wrapped


@pytest.mark.parametrize("path", [net.NET, net.LAB], ids=["net", "lab"])
def test_what_is_accepted_is_applied(path: Any) -> None:
    """A single layer that is left over is no loss where no other is of its kind: the rules say so."""
    looked_at = 0
    for question in net.questions(net.read(path)):
        subject = question.adapter
        if subject.method not in ("LORA", "ADALORA"):
            continue
        verdicts = judging.verdicts(question.real, judging.judge(subject))
        for id_ in (id_ for id_, verdict in verdicts.items() if verdict == "accepts" and id_ in judging.PEFT):
            fates = dict(applied(subject, id_))
            assert fates.keys() == subject.tensors.keys()
            left = [key for key, is_applied in fates.items() if not is_applied and not means_nothing(subject, key)]
            strays = {subject_of(subject, key) for key in left}
            assert len(strays) < 2, (question.key, id_, left[:3])
            looked_at += 1
    assert looked_at > 500


def subject_of(subject: Any, key: str) -> str:
    """The layer that a tensor is of, or the tensor itself."""
    return next((module for module, layer in subject.layers.items() if key in layer.factors.values()), key)
