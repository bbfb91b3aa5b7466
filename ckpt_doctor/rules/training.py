"""Advice on how an AdaLoRA was trained, from its config, its ranks and the Trainer's state: notes, that stop nobody."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter.codes import (
    NEVER_ALLOCATED,
    OTHER_TOTAL_STEP,
    R_FOR_INIT_R,
    SHORT_OF_BUDGET,
    TRAINED_NO_FURTHER,
    VANISHED_MODULES,
)
from ..adapter.findings import Finding, counted, several
from ..facts.budget import HALF_WAY, NEVER, budget, schedule
from ..facts.subject import Subject
from .declared import rule

CALL = "call model.base_model.update_and_allocate(step) after each step"


@rule
def never_allocated(subject: Subject) -> Iterator[Finding]:
    """tuners/adalora/model.py: AdaLoraModel.update_and_allocate, which no Trainer calls; layer.py: RankAllocator."""
    found = budget(subject)
    if found is None or found.state != NEVER:
        return
    plan, saved = schedule(subject), subject.adapter.trained
    message, remedy = "nothing was pruned", CALL
    if found.target_r is not None and found.init_r is not None and found.target_r >= found.init_r:
        message += f": target_r {found.target_r} is no less than init_r {found.init_r}"
        remedy = "set target_r below init_r: on the average it is what is left of each layer"
    elif plan is None or saved is None:
        message += ": update_and_allocate was never called, as no Trainer does, or it was saved before pruning began"
        message += f", at step {plan.first}" if plan else ""
    elif saved[0] > plan.first:
        message += f" in {saved[0]} steps, and it begins at step {plan.first}: update_and_allocate was never called"
    else:
        message += f": it was saved after step {saved[0]}, and pruning begins at step {plan.first}"
        remedy = f"take a checkpoint from step {plan.end} on"
        if _is_too_short(subject):
            message += f", of a schedule for {plan.total} where the run has {saved[1]}"
            remedy = f"set total_step to {saved[1]}, and tinit below it"
    yield NEVER_ALLOCATED(message, keys=("rank_pattern", "tinit", "target_r"), remedy=remedy)


@rule
def short_of_budget(subject: Subject) -> Iterator[Finding]:
    """tuners/adalora/layer.py: RankAllocator.budget_schedule."""
    found, plan = budget(subject), schedule(subject)
    if found is None or plan is None or found.state != HALF_WAY or _is_too_short(subject):  # which CD109 says
        return
    message = f"{found.rank_sum} triplets are left after step {found.step} of {found.total_step}"
    message += f", and the budget is {found.budget}: it was saved before the pruning ended"
    remedy = f"take a checkpoint from step {plan.end} on, or set total_step to the steps of the run"
    yield SHORT_OF_BUDGET(message, keys=("total_step", "target_r"), remedy=remedy)


@rule
def other_total_step(subject: Subject) -> Iterator[Finding]:
    """tuners/adalora/layer.py: RankAllocator.budget_schedule. One that cannot be is CD302; what a repair wrote is
    not of the run.
    """
    plan, saved = schedule(subject), subject.adapter.trained
    if plan is None or saved is None or saved[1] == plan.total or (subject.adapter.record or {}).get("repairs"):
        return
    message = f"total_step is {plan.total}, and the run has {counted(saved[1], 'step')}: "
    if not _is_too_short(subject):
        message += f"pruning ends at step {plan.end}"
    elif saved[0] > plan.first:
        message += f"pruning goes on until step {plan.end}, which it never reaches"
    else:  # nothing was pruned, of which CD107 says the same
        return
    yield OTHER_TOTAL_STEP(message, keys=("total_step",), remedy=f"set total_step to {saved[1]}")


def _is_too_short(subject: Subject) -> bool:
    """Whether the run ends before its pruning does."""
    plan, saved = schedule(subject), subject.adapter.trained
    return plan is not None and saved is not None and saved[1] < plan.end


@rule
def vanished_modules(subject: Subject) -> Iterator[Finding]:
    """Triplets compete over all layers (tuners/adalora/layer.py: RankAllocator.mask_to_budget)."""
    if subject.method != "ADALORA":
        return
    ranks: dict[str, list[int | None]] = {}
    for module, layer in subject.layers.items():
        ranks.setdefault(module.rpartition(".")[2], []).append(layer.rank)
    for module in subject.pruned - subject.layers.keys():
        ranks.setdefault(module.rpartition(".")[2], []).append(0)
    gone = [leaf for leaf, of in ranks.items() if len(of) > 1 and not any(rank != 0 for rank in of)]
    if gone:
        count = counted(sum(len(ranks[leaf]) for leaf in gone), "layer")
        message = f"no triplet is left in any {several(gone)} ({count})"
        remedy = "raise target_r, or take them from target_modules: the others get what they cost"
        yield VANISHED_MODULES(message, keys=("target_r", "target_modules"), remedy=remedy)


@rule
def r_for_init_r(subject: Subject) -> Iterator[Finding]:
    """tuners/adalora/config.py: AdaLoraConfig.__post_init__ warns that r is not used; init_r is 12 if not set."""
    r, first = subject.config.get("r"), subject.config.get("init_r")
    if subject.method != "ADALORA" or type(r) is not int or r == subject.defaults.get("r"):
        return
    if first == subject.defaults.get("init_r") != r:
        message = f"r is {r}, which AdaLoRA does not read: it began with init_r, {first}"
        remedy = f"set init_r to {r} in the next training, if that was meant"
        yield R_FOR_INIT_R(message, keys=("r", "init_r"), remedy=remedy)


@rule
def trained_no_further(subject: Subject) -> Iterator[Finding]:
    """The allocator counts the triplets that all layers had, and finds what is left (RankAllocator.mask_to_budget): it
    stops with "kthvalue(): selected number k out of range", or where more is left than it takes away goes on, below the
    budget (trained in 0.12.0 and 0.21.2).
    """
    if subject.method != "ADALORA" or not subject.masks:
        return
    if any(isinstance(mask, list) and not all(mask) for mask in subject.masks.values()):
        message = "it was pruned: training it on fails (kthvalue(): selected number k out of range) or prunes too far"
        remedy = "write it for that with `ckpt-doctor fix IN OUT --for-training`"
        yield TRAINED_NO_FURTHER(message, keys=("rank_pattern",), remedy=remedy)
