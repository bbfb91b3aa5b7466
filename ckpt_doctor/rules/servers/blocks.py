"""Of blocks that are alike the first speaks for all, where nothing is found of it: most adapters are healthy."""

from __future__ import annotations

from functools import lru_cache

from ...adapter import Base
from ...facts.kinds import Stacks, reads_numbers, stacks
from ...facts.servers.loads import Load
from ...facts.subject import Subject


def first_block(subject: Subject) -> Subject | None:
    """An adapter, and its base, with the first block of each stack alone, of which a server makes the same as of all.

    None where it may make something else of it: where a release may read the number of a layer, where blocks differ in
    names, dtypes or shapes, or are not as many as the model has.
    """
    found = None if reads_numbers(subject.config) else stacks(subject.forms)
    if found is None or not found.counts:
        return None
    base = subject.question.base
    if base is not None:
        model = _stacks(base)
        most = Load(subject.config, {}, base).layers
        if model is None or not _are_as_many(found, model) or max(found.counts.values()) > (most or 0):
            return None
        base = _first_of(base)
    adapter = subject.adapter._replace(tensors={key: subject.tensors[key] for key in found.first})
    return Subject(adapter, subject.question._replace(base=base), subject.saved_by)


@lru_cache(8)
def _stacks(base: Base) -> Stacks | None:
    return stacks(base.parameters)


@lru_cache(8)
def _first_of(base: Base) -> Base:
    model = _stacks(base)
    first = {name: base.parameters[name] for name in model.first} if model else {}
    return Base(first, base.config, base.name, base.revision, base.path)


def _are_as_many(ours: Stacks, model: Stacks) -> bool:
    """Whether each stack of the file has as many blocks as the model's that has the same modules, or as all of them."""
    if not model.counts:  # nothing is known of its parameters
        return True
    every = {*model.counts.values()}
    heights: dict[str, set[int]] = {}
    for name, count in model.counts.items():
        heights.setdefault(_end(name).rpartition(".")[0], set()).add(count)
    return all(heights.get(_end(name).rpartition(".lora_")[0], every) == {count} for name, count in ours.counts.items())


def _end(name: str) -> str:
    """A name behind the number of its block."""
    return name.partition(".0.")[2]
