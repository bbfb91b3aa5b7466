"""How far AdaLoRA's allocator came: the ranks that are left against those that it was to leave."""

from bisect import bisect_left
from typing import NamedTuple

from .subject import Subject

NEVER, TO, BELOW, HALF_WAY, UNKNOWN = (
    "never pruned", "pruned to the budget", "pruned below the budget", "stopped half-way", "unknown",
)  # fmt: skip
_LARGEST = 1 << 40
"""Of ranks, layers and steps; floats are exact far beyond it."""


class Schedule(NamedTuple):
    """AdaLoRA's schedule, in steps: `first` is the first that prunes, then multiples of `every` do, and last `end`,
    from which on the ranks stay, up to `total`.
    """

    tinit: int
    first: int
    end: int
    total: int
    every: int = 1


class Budget(NamedTuple):
    """The budget of an AdaLoRA, as far as its files tell; what they do not is None.

    Every layer begins with `init_r` triplets; `rank_sum` of all of them are left, and `budget`, which is target_r times
    the number of layers, are to be. `state` is one of "never pruned", "pruned to the budget", "pruned below the
    budget" (where scores are alike, the allocator masks more of them), "stopped half-way" and "unknown"; `step` of
    `total_step` is, where it stopped half-way, the first after which that many are left.
    """

    init_r: int | None
    target_r: int | None
    rank_sum: int | None
    budget: int | None
    state: str
    step: int | None = None
    total_step: int | None = None


def budget(subject: Subject) -> Budget | None:
    """The budget of an adapter; None for another method than AdaLoRA (tuners/adalora/layer.py: RankAllocator)."""
    if subject.method != "ADALORA":
        return None
    first, target = _number(subject, "init_r"), _number(subject, "target_r")
    ranks = [layer.rank for layer in subject.layers.values()]
    left = sum(rank for rank in ranks if rank is not None) if None not in ranks else None
    goal = None if target is None else target * len(ranks)
    state, step = UNKNOWN, None
    # a repair gives layers other ranks than the allocator left, or takes them out
    if first and goal and left is not None and not (subject.adapter.record or {}).get("repairs"):
        state, step = _state(subject, first, left, goal)
    return Budget(first, target, left, goal, state, step, _number(subject, "total_step"))


def _state(subject: Subject, first: int, left: int, goal: int) -> tuple[str, int | None]:
    start = first * len(subject.layers)
    if not subject.config.get("rank_pattern"):
        whole = all(layer.rank == first for layer in subject.layers.values())
        return (NEVER if whole else UNKNOWN), None
    if not _is_of_the_file(subject, first) or start <= goal or left == start:
        return UNKNOWN, None
    if left <= goal:
        return (TO if left == goal else BELOW), None
    step = _step(subject, start, goal, left)
    return (UNKNOWN if step is None else HALF_WAY), step


def _is_of_the_file(subject: Subject, first: int) -> bool:
    """Whether the pattern has a mask of `first` triplets for each layer, that leaves as many as there are."""
    masks = subject.masks
    return masks.keys() == subject.layers.keys() and all(
        isinstance(mask, list)
        and len(mask) == first
        and all(isinstance(kept, bool) for kept in mask)
        and sum(mask) == subject.layers[module].rank
        for module, mask in masks.items()
    )


def schedule(subject: Subject) -> Schedule | None:
    """The schedule of an AdaLoRA; None where the config tells none, or one that cannot be
    (tuners/adalora/layer.py: RankAllocator.budget_schedule; tuners/adalora/model.py: update_and_allocate).
    """
    tinit, tfinal, total, every = (_number(subject, key) for key in ("tinit", "tfinal", "total_step", "deltaT"))
    if tinit is None or tfinal is None or total is None or not every or tinit >= total - tfinal:
        return None
    end = total - tfinal
    return Schedule(tinit, min((tinit // every + 1) * every, end), end, total, every)


def planned(plan: Schedule, step: int, start: int, goal: int) -> int:
    """How many of `start` triplets the allocator has left after a step, for a budget of `goal`: as many as the last
    step that prunes (tuners/adalora/layer.py: RankAllocator.budget_schedule).
    """
    if step < plan.first:
        return start
    if step >= plan.end:
        return goal
    remaining = 1 - (step - step % plan.every - plan.tinit) / (plan.end - plan.tinit)
    return int((start - goal) * (remaining**3) + goal)


def _step(subject: Subject, start: int, goal: int, left: int) -> int | None:
    """The first step at which the allocator masks down to `left` triplets, which fall from step to step; None where no
    step does, or the schedule is not told.
    """
    plan = schedule(subject)
    if plan is None:
        return None
    steps = range(plan.first, plan.end, plan.every)

    def fallen(step: int) -> int:
        return -planned(plan, step, start, goal)

    at = bisect_left(steps, -left, key=fallen)
    return steps[at] if at < len(steps) and -fallen(steps[at]) == left else None


def _number(subject: Subject, key: str) -> int | None:
    value = subject.config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST else None
