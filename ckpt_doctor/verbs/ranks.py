"""The ranks of adapters, as people look at them: of one, of the checkpoints of a run, of several side by side."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from ..adapter import NOTHING_ASKED, Adapter, AdapterError
from ..adapter.findings import counted
from ..facts.budget import BELOW, HALF_WAY, NEVER, TO, UNKNOWN, Budget, Schedule, planned, schedule
from ..facts.places import Place, natural, places
from ..facts.subject import Subject
from ..files.loader import Unlisted, find, is_remote, nothing_in, reading, regular
from .report import Report
from .scan import examine_all

if TYPE_CHECKING:
    from .spectra import Spectrum

_CHECKPOINT = re.compile(r"((?:.*/)?)checkpoint-([0-9]{1,12})((?:/.*)?)", re.DOTALL)
"""The folder of a run, a step (transformers trainer_utils.py: PREFIX_CHECKPOINT_DIR), and what an adapter with a name
lies in below it (PEFT peft_model.py: PeftModel.save_pretrained).
"""
LOG = ".jsonl"
"""How the name of a log of ranks ends (integrations/)."""
_LONGEST_LOG = 1 << 26
"""Bytes of a log that are read."""
_MOST_STEPS, _MOST_RANK = 1 << 40, 1 << 20
"""A line of a log with more is of no training."""


class Ranked(NamedTuple):
    """A layer: its place, its rank (None: shapes do not tell), and with values its spectrum, or why there is none."""

    place: Place
    rank: int | None
    spectrum: Spectrum | str | None = None


class Kind(NamedTuple):
    """The layers of one kind: how many they are, the sum of their ranks and its share of that of all, how many are at 0
    and at the largest rank, their numbers in all; and with values their energy, its share, and the mean effective rank.
    """

    name: str
    layers: int
    ranks: int
    share: float
    at_zero: int
    at_most: int
    parameters: int
    energy: float | None = None
    energy_share: float | None = None
    effective: float | None = None


class Ranks:
    """The ranks of the layers of one adapter, in the order of their numbers.

    `step` is when it was saved, in steps of the training, None where nothing tells. `most` is the rank that layers
    began with (AdaLoRA's init_r), else the largest there is. `advice` are sentences on how to train another time.
    `parameters` are those of each layer's factors; `has_more` is whether it changes more than their deltas do: biases,
    magnitudes, whole modules, the base itself.
    """

    def __init__(
        self, path: str, method: str, layers: dict[str, Ranked], *, step: int | None = None, most: int | None = None,
        budget: Budget | None = None, plan: Schedule | None = None, advice: tuple[str, ...] = (),
        parameters: dict[str, int] | None = None, has_more: bool = False,
    ) -> None:  # fmt: skip
        self.path = path
        self.method = method
        self.layers = layers
        self.step = step
        self.budget = budget
        self.plan = plan
        self.advice = advice
        self.parameters = parameters or {}
        self.has_more = has_more
        self.most = max([most or 0, *(layer.rank or 0 for layer in layers.values())])

    @cached_property
    def known(self) -> dict[str, int]:
        """The rank of each layer that tells one."""
        return {module: layer.rank for module, layer in self.layers.items() if layer.rank is not None}

    @property
    def sum(self) -> int:
        """The ranks of all layers together: AdaLoRA's triplets that are left."""
        return sum(self.known.values())

    @property
    def at_zero(self) -> int:
        """How many layers have rank 0."""
        return sum(rank == 0 for rank in self.known.values())

    @property
    def histogram(self) -> dict[int, int]:
        """Rank → how many layers have it, the smallest first."""
        return dict(sorted(Counter(self.known.values()).items()))

    @cached_property
    def spectra(self) -> dict[str, Spectrum]:
        """The spectrum of each layer that has one."""
        found = {module: layer.spectrum for module, layer in self.layers.items()}
        return {module: one for module, one in found.items() if one is not None and not isinstance(one, str)}

    @property
    def broken(self) -> tuple[str, ...]:
        """The layers with NaN or infinity in a factor, as far as values were read."""
        return tuple(module for module, one in self.spectra.items() if math.isnan(one.norm))

    @cached_property
    def unseen(self) -> dict[str, str]:
        """Why a layer has no spectrum, as far as values were read."""
        return {module: layer.spectrum for module, layer in self.layers.items() if isinstance(layer.spectrum, str)}

    @property
    def energy(self) -> float | None:
        """Of all deltas together; None where no values were read, or not of all, or some are no numbers."""
        return self._energy_of(self.layers)

    def _energy_of(self, modules: Iterable[str]) -> float | None:
        found = [self.spectra[module] for module in modules if module in self.spectra]
        if not found or not self.unseen.keys().isdisjoint(modules):
            return None
        whole = sum(one.energy for one in found)
        return whole if math.isfinite(whole) else None

    @property
    def smallest(self) -> int | None:
        """The smallest rank of all layers alike that keeps 99 % of the energy; None as in `energy`."""
        if self.energy is None:
            return None
        from .spectra import smallest_rank

        return smallest_rank(self.spectra.values())

    @cached_property
    def kinds(self) -> list[Kind]:
        """The kinds of layers, as they come in a block."""
        alike: dict[str, list[str]] = {}
        for module, layer in self.layers.items():
            alike.setdefault(layer.place.kind, []).append(module)
        return [self._kind(name, modules) for name, modules in alike.items()]

    def _kind(self, name: str, modules: list[str]) -> Kind:
        ranks = [self.known[module] for module in modules if module in self.known]
        found = [self.spectra[module] for module in modules if module in self.spectra]
        energy = self._energy_of(modules)
        return Kind(
            name,
            len(modules),
            sum(ranks),
            sum(ranks) / self.sum if self.sum else 0.0,
            ranks.count(0),
            ranks.count(self.most) if self.most else 0,
            sum(self.parameters.get(module, 0) for module in modules),
            energy,
            energy / self.energy if energy is not None and self.energy else None,
            sum(one.effective for one in found) / len(found) if energy is not None else None,
        )

    @property
    def verdict(self) -> str:
        """What is to be seen, in one line."""
        if self.method == "ADALORA":
            return self._pruned()
        if not self.known:
            return f"{counted(len(self.layers), 'layer')} of {self.method}, which has no rank"
        count, ranks = counted(len(self.known), "layer"), list(self.histogram)
        if len(ranks) == 1:
            return f"all {count} have rank {ranks[0]}" if len(self.known) > 1 else f"{count} of rank {ranks[0]}"
        return f"{count} of rank {ranks[0]} – {ranks[-1]}, {self.sum / len(self.known):.1f} on average"

    def _pruned(self) -> str:
        found, count = self.budget, counted(len(self.layers), "layer")
        state = found.state if found else UNKNOWN
        if found is None or state == UNKNOWN:
            ranks = " – ".join(map(str, dict.fromkeys([*self.histogram][:1] + [*self.histogram][-1:])))
            return (
                f"{count}{ranks and f' of rank {ranks}'}, {self.sum} triplets: how far it was to be pruned is not told"
            )
        if state == NEVER:
            all_of = f"all {count} have" if len(self.layers) > 1 else f"{count} has"
            return f"never allocated: {all_of} init_r {found.init_r}"
        if state == HALF_WAY:
            when = f"step {found.step:,} of {found.total_step:,}"
            return f"stopped at {when}: {found.rank_sum} triplets are left, for a budget of {found.budget}"
        assert state in (TO, BELOW)  # noqa: S101 - there are no others
        zero = f", {counted(self.at_zero, 'layer')} at 0" if self.at_zero else ""
        return f"{state}: {found.rank_sum} of {found.budget} triplets{zero}"


class Run(NamedTuple):
    """The checkpoints of one training, by their steps; the last may be what was saved in the end, without a step."""

    path: str
    steps: tuple[Ranks, ...]

    @property
    def last(self) -> Ranks:
        """Where it ended."""
        return self.steps[-1]

    @property
    def modules(self) -> list[str]:
        """All layers, in the order of their numbers."""
        return sorted({module for ranks in self.steps for module in ranks.layers}, key=natural)

    def ranks_of(self, module: str) -> list[int | None]:
        """The rank of a layer at each step; None where it is not there, or not known."""
        return [ranks.known.get(module) for ranks in self.steps]

    @property
    def died(self) -> dict[str, int | None]:
        """The layers that ended at 0, and the step from which on they were seen there."""
        return {m: step for m, step in self.settled.items() if self.last.known.get(m) == 0}

    @property
    def settled(self) -> dict[str, int | None]:
        """The step from which on a layer was seen at the rank that it ended with."""
        found = {}
        for module in self.last.known:
            ranks = self.ranks_of(module)
            at = len(ranks) - 1
            while at and ranks[at - 1] == ranks[-1]:
                at -= 1
            found[module] = self.steps[at].step
        return found

    def planned(self, ranks: Ranks) -> int | None:
        """How many triplets the schedule of the config leaves at a step."""
        plan, found = self.last.plan, ranks.budget
        if plan is None or ranks.step is None or found is None or not found.init_r or found.budget is None:
            return None
        return planned(plan, ranks.step, found.init_r * len(ranks.layers), found.budget)

    @property
    def verdict(self) -> str:
        """What became of the ranks, in one line."""
        first, last = self.steps[0], self.last
        where = f"{len(self.steps)} checkpoints"
        if first.step is not None and self.last_step is not None:
            where += f", step {first.step:,} to {self.last_step:,}"
        if first.sum == last.sum and first.known == last.known:
            return f"{where}: no rank changed; {last.verdict}"
        return f"{where}: {first.sum} → {last.sum} triplets; {last.verdict}"

    @property
    def last_step(self) -> int | None:
        """The last step that is known."""
        return max((ranks.step for ranks in self.steps if ranks.step is not None), default=None)

    @property
    def advice(self) -> tuple[str, ...]:
        """What to change: what the whole run shows, or else its end."""
        return tuple(_of_run(self)) or self.last.advice


def _of_run(run: Run) -> Iterator[str]:
    last, found, plan, step = run.last, run.last.budget, run.last.plan, run.last_step
    if found is None or plan is None or step is None:
        return
    if found.state == NEVER and step > plan.first and (found.target_r or 0) < (found.init_r or 0):
        yield (
            f"no rank changed in {step:,} steps, and pruning begins at step {plan.first:,}: update_and_allocate "
            "was not called; call it after each step, or use RankMonitor of ckpt_doctor.integrations.transformers"
        )
    elif found.state == NEVER and last.step is not None and step <= plan.first:
        yield (
            f"the run ended at step {step:,}, and pruning begins at step {plan.first:,}: set total_step to {step:,}, "
            "and lower tinit and tfinal until their sum is less"
        )
    elif found.state == HALF_WAY and last.step is not None and step < plan.end:
        yield (
            f"the run ended at step {step:,}, and pruning goes on until step {plan.end:,}: set total_step to "
            f"{step + plan.total - plan.end:,} or less"
        )
    if len(run.died) * 2 > len(last.layers):
        yield f"{len(run.died)} of {len(last.layers)} layers ended at 0: raise target_r, or name fewer target_modules"


def look(paths: Iterable[str], *, values: bool = False) -> list[Ranks | Run]:
    """The ranks of the adapters at and below paths; checkpoints of one training are one run. Raises AdapterError."""
    found: list[Ranks | Run] = []
    for path in paths:
        if path.endswith(LOG) and os.path.isfile(path):
            found.append(logged(path))
            continue
        for name, group in _groups(_below(path)):
            with reading(*(folder for folder, _ in group), whole=values):
                found += _seen(name, group, values=values)
    return found


def _below(path: str) -> list[str]:
    """The adapters at and below a path; where there is none, what another tool wrote there. Raises AdapterError."""
    try:
        folders = find(path)
        if folders:
            return folders
        raise nothing_in(path)
    except Unlisted:
        raise
    except AdapterError:
        from ..files import recognise
        from .conversion import apart

        others = apart(recognise.below(path))
        if not others:
            raise
        return others


def _groups(folders: list[str]) -> list[tuple[str, list[tuple[str, int | None]]]]:
    """The adapters of each training, by their steps, and where they lie; one that is of none is a group of its own."""
    plain = {folder if is_remote(folder) else os.path.normpath(folder): folder for folder in folders}
    runs: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for path, folder in plain.items():
        match = _CHECKPOINT.fullmatch(path)
        if match:
            runs.setdefault((match[1], match[3]), []).append((int(match[2]), folder))
    groups: list[tuple[str, list[tuple[str, int | None]]]] = []
    taken = set[str]()
    for (above, name), steps in runs.items():
        if len(steps) < 2:
            continue
        end = f"{above}.{name}"
        end = end.rstrip("./") if is_remote(end) else os.path.normpath(end)  # where a Trainer saves in the end
        in_order: list[tuple[str, int | None]] = [(folder, step) for step, folder in sorted(steps)]
        in_order += [(plain[end], None)] if end in plain else []
        groups.append((f"{above}checkpoint-*{name}" if name else end, in_order))
        taken.update(folder for folder, _ in in_order)
    groups += [(folder, [(folder, None)]) for folder in folders if folder not in taken]
    return sorted(groups, key=lambda group: group[1][0][0])


def _seen(path: str, group: list[tuple[str, int | None]], *, values: bool) -> list[Ranks | Run]:
    """One adapter or run; of files of other tools that hold several one for each of these."""
    parts: dict[str, list[Ranks]] = {}
    for folder, step in group:
        for report in examine_all(folder, NOTHING_ASKED, repairs=False):
            subject = report.subject
            if subject is None:
                raise AdapterError(report.error)
            if not (subject.tensors or subject.pruned):
                raise _unread(folder, subject)
            parts.setdefault(report.part, []).append(ranks_of(report, step, values=values))
    named = {f"{path} ({part})" if part else path: steps for part, steps in parts.items()}
    return [steps[0] if len(steps) == 1 else Run(name, tuple(steps)) for name, steps in named.items()]


def _unread(folder: str, subject: Subject) -> AdapterError:
    """What to raise for an adapter of which no tensor is read."""
    for fault in subject.adapter.faults:
        if fault.tool:
            return AdapterError(f"{folder}: {fault.message}: {fault.remedy}")
    return AdapterError(f"no tensor of {folder} can be read: `ckpt-doctor scan {folder}` says why")


def ranks_of(report: Report, step: int | None = None, *, values: bool = False) -> Ranks:
    """The ranks of an adapter that was examined; with `values` its numbers are read. Raises AdapterError."""
    subject = report.subject
    assert subject is not None  # noqa: S101 - callers examined it
    adapter = subject.adapter
    if step is None and adapter.trained:
        step = adapter.trained[0]
    spectra: dict[str, Spectrum | str] = {}
    if values:
        from .spectra import spectra as worked_out

        spectra = dict(worked_out(subject))
    ranks = {module: layer.rank for module, layer in subject.layers.items()}
    ranks |= dict.fromkeys(sorted(subject.pruned - ranks.keys()), 0)
    layers = {module: Ranked(place, ranks[module], spectra.get(module)) for module, place in places(ranks).items()}
    budget = report.budget
    return Ranks(
        f"{report.path} ({report.part})" if report.part else report.path,
        subject.method or "no method that is known",
        layers,
        step=step,
        most=budget.init_r if budget else None,
        budget=budget,
        plan=schedule(subject) if budget else None,
        advice=tuple(_advice(report)),
        parameters=_parameters(subject),
        has_more=bool(subject.others) or subject.changes_base,
    )


_OF_TRAINING = ("CD107", "CD108", "CD109", "CD110", "CD111")
"""Codes of notes on how an AdaLoRA was trained (rules/training.py)."""


def _advice(report: Report) -> Iterator[str]:
    for finding in report.findings:
        if finding.code in _OF_TRAINING:
            yield f"{finding.message}" + (f": {finding.remedy}" if finding.remedy else "")


def _parameters(subject: Subject) -> dict[str, int]:
    """How many numbers the factors of each layer have."""
    counts = {}
    for module, layer in subject.layers.items():
        counts[module] = sum(math.prod(shape) for shape in subject.shapes(layer).values())
    return counts


def logged(path: str) -> Ranks | Run:
    """The run that a log of ranks tells: a line of JSON a step, after one on the config. Raises AdapterError."""
    head: dict[str, object] = {}
    steps: dict[int, dict[str, int]] = {}
    file, size = regular(path)
    with file:
        if size > _LONGEST_LOG:
            raise AdapterError(f"{path} is larger than a log of ranks ({_LONGEST_LOG >> 20} MiB)")
        lines = file.read(_LONGEST_LOG).decode("utf-8", "replace").splitlines()
    for line in lines:
        try:
            entry: object = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            continue  # the last line of a run that was killed
        if not isinstance(entry, dict):
            continue
        step, ranks = entry.get("step"), entry.get("ranks")
        if (
            _is_below(step, _MOST_STEPS)
            and ranks
            and isinstance(ranks, dict)
            and all(_is_below(rank, _MOST_RANK) for rank in ranks.values())
        ):
            steps.pop(step, None)  # a run that was resumed goes over it again
            steps[step] = ranks
        elif "method" in entry:
            head = entry
    if not steps:
        raise AdapterError(f"{path} has no line with a step and ranks: name a log that RankMonitor or log_ranks wrote")
    seen = [_of_log(path, head, step, steps[step]) for step in sorted(steps)]
    return seen[0] if len(seen) == 1 else Run(path, tuple(seen))


def _is_below(number: object, bound: int) -> TypeGuard[int]:
    return type(number) is int and 0 <= number < bound


def _of_log(path: str, head: dict[str, object], step: int, ranks: dict[str, int]) -> Ranks:
    """What a line says, as an adapter that was saved at that step would."""
    config = {key: head.get(key) for key in ("init_r", "target_r", "tinit", "tfinal", "deltaT", "total_step")}
    subject = Subject(Adapter(path, os.path.dirname(path), {"peft_type": "ADALORA", **config}, {}))
    method = head.get("method") if isinstance(head.get("method"), str) else "ADALORA"
    plan = schedule(subject)
    sizes = (head.get("init_r"), head.get("target_r"))
    first, target = (size if _is_below(size, _MOST_RANK) and size else None for size in sizes)
    left, budget = sum(ranks.values()), None
    if method == "ADALORA" and first:
        goal = target * len(ranks) if target else None
        whole = first * len(ranks)
        state = UNKNOWN
        if goal is not None:
            state = NEVER if left == whole else TO if left == goal else BELOW if left < goal else HALF_WAY
        budget = Budget(first, target, left, goal, state, step, plan.total if plan else None)
        if state == HALF_WAY and plan is None:
            budget = budget._replace(state=UNKNOWN)
    layers = {module: Ranked(place, ranks[module]) for module, place in places(ranks).items()}
    return Ranks(path, str(method), layers, step=step, most=first, budget=budget, plan=plan)
