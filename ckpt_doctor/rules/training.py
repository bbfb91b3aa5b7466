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
from ..facts.budget import HALF_WAY, NEVER, budget
from ..facts.subject import Subject
from .declared import rule


@rule
def allocation(subject: Subject) -> Iterator[Finding]:
    """tuners/adalora/model.py: AdaLoraModel.update_and_allocate, which no Trainer calls; layer.py: RankAllocator."""
    found = budget(subject)
    if found is None:
        return
    saved = subject.adapter.trained
    first, goal, left = found.init_r, found.budget, found.rank_sum
    if found.state == NEVER and first is not None and goal is not None and left is not None:
        tinit = subject.value("tinit")
        message, remedy = "nothing was pruned", "call model.base_model.update_and_allocate(step) after each step"
        if left <= goal:
            message += f": target_r {found.target_r} is no less than init_r {first}"
            remedy = "set target_r below init_r: on the average it is what is left of each layer"
        elif saved and isinstance(tinit, int) and saved[0] <= tinit:
            message += f": it was saved after step {saved[0]}, and pruning begins after tinit, step {tinit}"
            remedy = "train beyond tinit, or set a lower one"
        else:
            message += ": update_and_allocate was never called, as no Trainer does, or it was saved before tinit"
        yield NEVER_ALLOCATED(message, keys=("rank_pattern", "tinit", "target_r"), remedy=remedy)
    elif found.state == HALF_WAY:
        at = f" after step {found.step} of {found.total_step}" if found.step is not None else ""
        message = f"{left} triplets are left{at}, and the budget is {goal}: it was saved before the pruning ended"
        remedy = "train to total_step - tfinal at the least, or set total_step to the steps of the run"
        yield SHORT_OF_BUDGET(message, keys=("total_step", "target_r"), remedy=remedy)
    total = subject.config.get("total_step")
    if saved and type(total) is int and saved[1] != total:
        message = f"total_step is {total}, and the run has {saved[1]} steps: the schedule does not fit it"
        remedy = f"set total_step to {saved[1]}"
        yield OTHER_TOTAL_STEP(message, keys=("total_step",), remedy=remedy)


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
    """The allocator sorts as many scores as all layers had, and finds what is left (RankAllocator.mask_to_budget:
    "kthvalue(): selected number k out of range").
    """
    if subject.method != "ADALORA" or not subject.masks:
        return
    if any(isinstance(mask, list) and not all(mask) for mask in subject.masks.values()):
        message = "it was pruned, and training it on fails (kthvalue(): selected number k out of range)"
        remedy = "write it for that with `ckpt-doctor fix IN OUT --for-training`"
        yield TRAINED_NO_FURTHER(message, keys=("rank_pattern",), remedy=remedy)
