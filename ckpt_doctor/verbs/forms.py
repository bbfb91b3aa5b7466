"""Two adapters in one form, where servers want the same layers under other names, or in other pieces."""

from __future__ import annotations

from ..facts.subject import Subject


def in_one_form(a: Subject, b: Subject) -> tuple[Subject, Subject]:
    """The adapters with their experts one by one, and layers named as the model does, where they name other layers."""
    a, b = _opened(a), _opened(b)
    if a.method != "LORA" or b.method != "LORA" or a.layers.keys() == b.layers.keys():
        return a, b
    if not any(".experts" in module for module in (*a.layers, *b.layers)) and a.question.base is None:
        return a, b
    from ..repairs import Refused
    from ..repairs.experts import split
    from ..repairs.fused import apart
    from ..repairs.paths import renamed

    forms = []
    for subject in (a, b):
        for step in (split, renamed, apart):
            try:
                subject = subject.changed(step(subject))
            except Refused:
                continue
        forms.append(subject)
    return forms[0], forms[1]


def _opened(subject: Subject) -> Subject:
    """The adapter with its layers among its targets, where a repair named one that no model has."""
    from ..repairs.servers import NOWHERE, opened

    return subject.changed(opened(subject)) if subject.config.get("target_modules") == [NOWHERE] else subject
