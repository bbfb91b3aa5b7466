"""AdaLoRA under transformers' Trainer, which does not prune it: a callback that has it pruned, and watches."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..adapter.findings import counted
from ..facts.budget import Schedule, planned
from . import torch as adalora

_LOG = logging.getLogger(__name__)


class RankMonitor(TrainerCallback):
    """Has an AdaLoRA pruned while a Trainer trains it, logs its ranks, and warns where pruning comes to nothing.

        RankMonitor().attach(trainer)
        trainer.train()

    It calls `model.base_model.update_and_allocate(step)` once after each optimiser step, while the gradients are there
    by which triplets are scored, unless something else is seen to call it. What the Trainer logs gets `ranks/sum`,
    `ranks/planned` (by the schedule, at that step), `ranks/at_zero` and `ranks/mean/q_proj` for each kind of modules;
    `file` (`ranks.jsonl` in output_dir, if not given) gets the rank of each layer, for `ckpt-doctor ranks`. Warnings
    are of the logger `ckpt_doctor.integrations.transformers`.

    In `Trainer(callbacks=[RankMonitor()])` it does the same, but TensorBoard, W&B and the like come before it there and
    do not see the ranks. Where a gradient is not there or not whole (DeepSpeed, FSDP) it does not prune, and says so.
    Raises RuntimeError where transformers is older than 4.42.
    """

    def __init__(self, file: str | os.PathLike[str] | None = None) -> None:
        if not hasattr(TrainerCallback, "on_optimizer_step"):
            raise RuntimeError("RankMonitor needs transformers 4.42: older ones clear gradients before callbacks")
        self.file = file
        self._is_first = False
        self._reset()

    def _reset(self) -> None:
        self._begun = False
        self._path: str | os.PathLike[str] = ""
        self._tuner: Any = None
        self._allocate: Any = None  # PEFT's own
        self._instance_had: Any = None
        self._by_others = False
        self._allocated = False  # by the monitor, in this step
        self._logged: int | None = None
        self._pattern: Any = None
        self._warned: set[str] = set()

    def attach(self, trainer: Trainer) -> None:
        """Join a Trainer, before the callbacks that report what is logged."""
        trainer.callback_handler.callbacks.insert(0, self)
        self._is_first = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget a training before this."""
        self._release()
        self._reset()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch, and warn of what can be known: only now, for other callbacks set total_step as it begins."""
        if self._begun:
            return
        self._begun = True
        self._tuner = adalora.tuner_of(kwargs["model"])
        if self._tuner is None:
            self._warn(state, f"nothing to watch: {adalora.why_none(kwargs['model'])}")
            return
        self._watch_calls()
        self._pattern = self._config.rank_pattern
        self._path = self.file or os.path.join(str(args.output_dir), "ranks.jsonl")
        if state.is_world_process_zero:
            os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
            with open(self._path, "a" if state.global_step else "w", encoding="utf-8") as log:
                log.write(json.dumps(adalora.head(self._tuner)) + "\n")
        for warning in self._foreseen(state.max_steps):
            self._warn(state, warning)
        if args.report_to and not self._is_first:
            blind = ", ".join(args.report_to)
            self._warn(state, f"{blind} will not see the ranks: use RankMonitor().attach(trainer) and no callbacks=")

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Allocate: between the optimiser's step and zero_grad (transformers trainer.py: Trainer._inner_training_loop),
        as tuners/adalora/model.py: AdaLoraModel.update_and_allocate asks for.
        """
        plan = self._plan
        if plan is None or self._by_others:
            return
        step = state.global_step + 1  # the Trainer counts it after this
        skipped = bool(getattr(kwargs.get("optimizer"), "step_was_skipped", False))
        if obstacle := self._obstacle(plan, step):
            self._warn(state, f"not pruned: {obstacle}")
        elif not skipped or step >= plan.end:
            # the scaler of fp16 skips gradients that are no numbers, which would stay in the allocator's averages
            # (accelerate optimizer.py: AcceleratedOptimizer.step_was_skipped); from `end` on none is read
            self._allocated = True
            self._allocate(step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Warn of what the allocation made of the ranks."""
        self._allocated = False
        if self._tuner is None:
            return
        step, plan, pattern = state.global_step, self._plan, self._config.rank_pattern
        if pattern is not self._pattern:
            self._pattern = pattern
            for kind, ranks in self._kinds().items():
                if len(ranks) > 1 and not any(ranks):
                    count = counted(len(ranks), "layer")
                    remedy = f"raise target_r, or take {kind} from target_modules"
                    self._warn(state, f"no triplet is left in any {kind} ({count}): {remedy}")
        if plan and plan.first <= step and not pattern:
            self._warn(state, f"nothing is pruned, and it was to begin at step {plan.first}")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Add the ranks to what is logged, once a step."""
        if self._tuner is None or logs is None or self._logged == state.global_step:
            return
        values = self._values(state.global_step)
        logs.update(values)
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(values)  # of which `logs` is a copy (transformers trainer.py: Trainer.log)
        self._write(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the last ranks, and warn where they are above the budget."""
        if self._tuner is None:
            return
        if self._logged != state.global_step:
            self._write(state)
        left, goal = sum(adalora.ranks_of(self._tuner).values()), self._goal
        if left > goal:
            self._warn(state, f"the training ended with {left} triplets, for a budget of {goal}")
        self._release()

    def _watch_calls(self) -> None:
        self._allocate = self._tuner.update_and_allocate
        self._instance_had = vars(self._tuner).get("update_and_allocate")
        self._tuner.update_and_allocate = self._called

    def _called(self, global_step: int) -> None:
        """In place of update_and_allocate while it is trained: who calls it once does so at each step, and all steps
        are left to them; but not one that the monitor allocated before it could know.
        """
        self._by_others = True
        if not self._allocated:
            self._allocate(global_step)

    def _release(self) -> None:
        if self._allocate is not None:
            del self._tuner.update_and_allocate
            if self._instance_had is not None:
                self._tuner.update_and_allocate = self._instance_had
            self._tuner = self._allocate = None

    @property
    def _config(self) -> Any:
        return self._tuner.peft_config[self._tuner.trainable_adapter_name]

    @property
    def _plan(self) -> Schedule | None:
        """None where the allocator would fail at it: it asks for the k-th smallest score, and k is 0
        (tuners/adalora/layer.py: RankAllocator.mask_to_budget).
        """
        if self._tuner is None or self._config.target_r >= self._config.init_r:
            return None
        return adalora.schedule_of(self._tuner)

    @property
    def _goal(self) -> int:
        return int(self._config.target_r) * sum(1 for _ in adalora.triplets_of(self._tuner))

    def _foreseen(self, steps: int) -> Iterator[str]:
        """What can be known before the first of so many optimiser steps."""
        config, plan = self._config, self._plan
        remedy = f"set total_step to {steps}"
        if steps - config.tfinal <= config.tinit:
            remedy += ", and tinit and tfinal so that their sum is less"
        if config.target_r >= config.init_r:
            yield f"nothing to prune: target_r {config.target_r} is no less than init_r {config.init_r}"
        elif plan is None:
            yield (
                f"not pruned: there is no schedule from tinit {config.tinit} to total_step {config.total_step} less "
                f"tfinal {config.tfinal}: {remedy}"
            )
        elif steps < plan.end:
            until = f"begins at step {plan.first}" if steps < plan.first else f"goes on until step {plan.end}"
            yield (
                f"the budget will not be reached: the training has {counted(steps, 'step')}, and pruning {until}: "
                f"{remedy}"
            )
        if any(len(triplets) != config.init_r for _, triplets in adalora.triplets_of(self._tuner)):
            yield (
                "it was pruned before, and the allocator counts triplets that are gone: write it for training with "
                "`ckpt-doctor fix IN OUT --for-training`"
            )

    def _obstacle(self, plan: Schedule, step: int) -> str | None:
        """Why update_and_allocate would fail at a step."""
        if step > plan.end:
            return None if self._config.rank_pattern else f"step {plan.end}, at which pruning ends, went by without it"
        if step == plan.end:
            return None if self._tuner.rankallocator.exp_avg_ipt else "no gradient was seen before pruning ends"
        if all(map(_has_gradient, self._factors())):
            return None
        return (
            "not every factor has its gradient, whole, after the optimiser's step (it was no part of the step, or "
            "DeepSpeed or FSDP hold it)"
        )

    def _factors(self) -> Iterator[nn.Parameter]:
        """What tuners/adalora/layer.py: RankAllocator.update_ipt reads."""
        name = self._tuner.trainable_adapter_name
        return (p for n, p in self._tuner.model.named_parameters() if "lora_" in n and name in n)

    def _kinds(self) -> dict[str, list[int]]:
        """The ranks by the last part of the modules' names."""
        kinds = defaultdict(list)
        for module, rank in adalora.ranks_of(self._tuner).items():
            kinds[module.rpartition(".")[2]].append(rank)
        return kinds

    def _values(self, step: int) -> dict[str, float]:
        kinds, plan = self._kinds(), self._plan
        ranks = [rank for of in kinds.values() for rank in of]
        values: dict[str, float] = {"ranks/sum": sum(ranks), "ranks/at_zero": ranks.count(0)}
        if plan:
            values["ranks/planned"] = planned(plan, step, self._config.init_r * len(ranks), self._goal)
        return values | {f"ranks/mean/{kind}": sum(of) / len(of) for kind, of in kinds.items()}

    def _write(self, state: TrainerState) -> None:
        self._logged = state.global_step
        if state.is_world_process_zero:
            adalora.write(self._tuner, state.global_step, self._path)

    def _warn(self, state: TrainerState, message: str) -> None:
        """Once a training, in one process."""
        if message not in self._warned and state.is_world_process_zero:
            self._warned.add(message)
            _LOG.warning("AdaLoRA, step %s: %s", f"{state.global_step:,}", message)


def _has_gradient(factor: nn.Parameter) -> bool:
    """Whether it is there, and whole: a shard is flat, or of a type of its own."""
    return type(factor.grad) is Tensor and factor.grad.dim() == 2 and factor.grad.shape == factor.shape
