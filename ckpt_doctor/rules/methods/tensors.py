"""Rules about the tensors of PEFT's methods that are not LoRA's, held against what a method's record says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...adapter import Layer
from ...adapter.codes import (
    ADAPTER_NAME_IN_METHOD_KEY,
    METHOD_WITHOUT_LAYERS,
    MISSING_TENSOR,
    OTHER_SIZE,
    SHAPE_MISMATCH,
    STRANGE_TENSOR,
    TENSOR_WITHOUT_PLACE,
    UNKNOWN_SIZE,
    UNSAVED_BIAS,
)
from ...adapter.findings import THE_BASE, Finding, counted, several, spelled
from ...adapter.runtimes import NONE, PEFT
from ...facts.config_keys import knows
from ...facts.embeddings import SAVED
from ...facts.forms import Form, Group, Sizes, UnknownSize, nearest, parse, words
from ...facts.method_layers import divide, groups
from ...facts.methods import COUNTED
from ...facts.names import Names, is_all_linear, targets
from ...facts.record import Method
from ...facts.subject import Subject
from ...facts.tasks import HEADS
from ..base import tied
from ..saved import may_have_biases, may_lack_biases
from .review import of_methods


def named_layers(subject: Subject, method: Method) -> dict[str, Layer]:
    """The layers that target_modules names; all, where it names none or PEFT reads it in another way."""
    target, layers = subject.config.get("target_modules"), dict(subject.layers)
    if method.targets == COUNTED or not isinstance(target, (str, list)) or is_all_linear(target):
        return layers
    return {module: layer for module, layer in layers.items() if targets(target, module)} or layers


class Faults:
    """The layers whose tensors are not what the config says, by what is wrong: in the releases that read the config as
    it stands, or as older ones do.
    """

    def __init__(self, subject: Subject, method: Method) -> None:
        self.subject, self.method = subject, method
        self.sizes = subject.sizes
        self.earlier = method.earlier if any(map(subject.config.get, ("rank_pattern", "alpha_pattern"))) else None
        self.shape: dict[str, str] = {}
        self.old_shape: dict[str, str] = {}
        self.missing: dict[str, None] = {}
        self.extra: dict[str, None] = {}
        self.unsized: dict[str, None] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.shape) + len(self.old_shape) + len(self.missing) + len(self.extra) + len(self.unsized)

    def look_at(self, module: str, shapes: dict[str, tuple[int, ...]]) -> None:
        """Hold a layer against the method's tensors."""
        bound: dict[str, int] = {}
        old_bound: dict[str, int] = {}
        left = set(shapes)
        for group in groups(self.method.name):
            if self.sizes.active(group):
                way = self.sizes.spread(nearest(group, shapes), len(shapes))
                left -= way.keys()
                self._hold(way, module, shapes, bound, old_bound)
        if left:
            self.extra[module] = None

    def _hold(
        self, way: Form, module: str, shapes: dict[str, tuple[int, ...]], bound: dict[str, int], old: dict[str, int]
    ) -> None:
        if any(factor not in shapes and not optional for factor, (_, optional) in way.items()):
            self.missing[module] = None
        try:
            for factor in self.sizes.mismatch(way, shapes, module, bound):
                self.shape.setdefault(module, factor)
            if self.earlier:
                read = Sizes(self.earlier[1](self.subject.config, module), self.subject.defaults, {})
                for factor in read.mismatch(way, shapes, module, old):
                    self.old_shape.setdefault(module, factor)
        except UnknownSize:
            self.unsized[module] = None


def faults(subject: Subject, method: Method) -> Faults:
    """All faults. Most layers have the shapes of another one, which is looked at once where no pattern is set."""
    fault_kinds = Faults(subject, method)
    patterned = any(subject.config.get(pattern) for pattern in (*method.patterns.values(), "alpha_pattern"))
    fine: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
    for module, layer in named_layers(subject, method).items():
        shapes = subject.shapes(layer)
        alike = tuple(shapes.items())
        if alike not in fine:
            before = fault_kinds.count
            fault_kinds.look_at(module, shapes)
            if fault_kinds.count == before and not patterned:
                fine.add(alike)
    return fault_kinds


@of_methods
def form(subject: Subject, method: Method) -> Iterator[Finding]:
    """A layer's tensors are not those that PEFT builds from the config.

    A shape that differs raises "size mismatch" in every release (load_state_dict); a tensor that is missing leaves
    what its layer was initialised with, in silence up to 0.13; one that has no place is ignored.
    """
    if not groups(method.name):
        return
    fault_kinds = faults(subject, method)
    old = fault_kinds.earlier[0] if fault_kinds.earlier else NONE
    misfits = list(fault_kinds.shape) or list(fault_kinds.old_shape)
    if misfits:
        rejects = (PEFT - old if fault_kinds.shape else NONE) | (old if fault_kinds.old_shape else NONE)
        factor = (fault_kinds.shape or fault_kinds.old_shape)[misfits[0]]
        shape = list(subject.shapes(subject.layers[misfits[0]])[factor])
        sized = [key for key in dict.fromkeys(words(method.tensors)) if key in subject.defaults]
        sized = [key for key in sized if type(subject.value(key)) is int and subject.value(key)][:3]
        config = ", ".join(f"{key} {subject.value(key)}" for key in sized) or "the config"
        more = f" (and {counted(len(misfits) - 1, 'layer')} more)" if len(misfits) > 1 else ""
        message = f"{misfits[0]}: {factor} is {shape}, another size than {config} makes it{more}"
        remedy = f"set {' and '.join(sized)} to what the training had, as the shapes say" if sized else ""
        yield SHAPE_MISMATCH(message, tensors=subject.keys_of(misfits), rejects=rejects, remedy=remedy)
    if fault_kinds.missing:
        lost = list(fault_kinds.missing)
        message = (
            f"{counted(len(lost), 'layer')} without a tensor that it needs ({several(lost)}): it stays as initialised"
        )
        yield MISSING_TENSOR(message, tensors=subject.keys_of(lost), misloads=PEFT)
    if fault_kinds.extra:
        placeless = list(fault_kinds.extra)
        message = f"the config has no place for tensors of {several(placeless)}: they are ignored"
        yield TENSOR_WITHOUT_PLACE(message, tensors=subject.keys_of(placeless), misloads=PEFT)
    if fault_kinds.unsized:
        yield UNKNOWN_SIZE("the config has a word or null where PEFT wants the size of a layer", rejects=PEFT)


@of_methods
def other_sizes(subject: Subject, method: Method) -> Iterator[Finding]:
    """A linear layer's tensors are of other sizes than the weight of the base model that they adapt, `[out, in]` or, of
    a Conv1D, `[in, out]` (load_state_dict: "size mismatch").
    """
    weights = subject.base.weights if subject.base is not None else {}
    told: dict[object, tuple[int, ...]] = {}
    unfit = []
    for module, layer in named_layers(subject, method).items() if weights else ():
        weight, shapes = weights.get(module) or tied(subject, f"{module}.weight") or (), subject.shapes(layer)
        if len(weight) == 2:
            alike = tuple(shapes.items())
            if alike not in told:
                told[alike] = _sides(subject, method, module, shapes)
            sides = told[alike]
            turned = len(sides) == 2 and sides == weight[::-1] and subject.may_have_conv1d
            if not {*sides} <= {*weight} or (len(sides) == 2 and sides != weight and not turned):
                unfit.append(module)
    if unfit:
        count = f"{counted(len(unfit), 'layer')} of {len(subject.layers)}"
        message = f"the tensors do not have the size of the base model's weights in {count}: {several(unfit)}"
        yield OTHER_SIZE(message, tensors=subject.keys_of(unfit), rejects=PEFT)


def _sides(subject: Subject, method: Method, module: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The sizes of a layer's weight, as far as its tensors tell them."""
    if method.sides is not None:
        return method.sides(shapes)
    bound: dict[str, int] = {}
    for group in groups(method.name):
        if subject.sizes.active(group):
            try:
                subject.sizes.mismatch(nearest(group, shapes), shapes, module, bound)
            except UnknownSize:
                return ()
    return tuple(bound[side] for side in ("out", "in") if side in bound)


def shared(subject: Subject, method: Method) -> Iterator[Group]:
    """The tensors that belong to no layer and that the config asks for."""
    return filter(subject.sizes.active, parse(method.shared))


@of_methods
def shared_tensors(subject: Subject, method: Method) -> Iterator[Finding]:
    """The tensors that belong to no layer: an embedded prompt, VeRA's projection, the vector bank of VB-LoRA …"""
    shapes = subject.tensor_shapes
    missing, misfits, unsized = Names(), Names(), False
    for group in shared(subject, method):
        way = group.ways[0]
        missing += [key for key, (_, optional) in way.items() if key not in shapes and not optional]
        try:
            misfits += subject.sizes.mismatch(way, shapes, "", {})
        except UnknownSize:
            unsized = True
    if missing:
        is_demanded = bool({*missing} & {*method.demanded})
        rejects, misloads = (PEFT, NONE) if is_demanded else (NONE, PEFT)
        yield MISSING_TENSOR(f"{missing[0]} is missing", rejects=rejects, misloads=misloads)
    if misfits:
        yield SHAPE_MISMATCH(
            f"the shape of {misfits[0]} is not what the config says", tensors=misfits, rejects=method.shared_sized
        )
    if unsized:
        message = "the config does not tell the size of the prompt or of what the layers share"
        yield UNKNOWN_SIZE(message, undecided=PEFT, needs="a config with numbers")


@of_methods
def without_layers(subject: Subject, method: Method) -> Iterator[Finding]:
    """The file has no tensor of a layer: nothing is adapted."""
    if method.tensors and not subject.layers and not method.layers_optional and not subject.adapter.faults:
        yield METHOD_WITHOUT_LAYERS(f"no tensor is one of {method.name}: nothing is adapted", misloads=PEFT)


@of_methods
def key_names(subject: Subject, method: Method) -> Iterator[Finding]:
    """Keys with an adapter's name in them (`.lily_A.default.weight`): ignored up to PEFT 0.20.

    0.21 takes them under the name "default", save where a method's keys are remapped in another way.
    """
    divided = {key: divide(method.name, key) for layer in subject.layers.values() for key in layer.factors.values()}
    names = {key: parts[2] for key, parts in divided.items() if parts and parts[2]}
    if names:
        taken = method.takes_default if {*names.values()} == {"default"} else NONE
        message = (
            f"an adapter's name stands inside {counted(len(names), 'key')} ({next(iter(names))}): ignored in silence"
        )
        yield ADAPTER_NAME_IN_METHOD_KEY(message, tensors=names, misloads=PEFT - taken)


@of_methods
def saved_beside(subject: Subject, method: Method) -> Iterator[Finding]:
    """Biases that the config says were trained beside the method, and that are not in the file.

    Up to 0.20 most methods train their biases and do not save them (BaseTuner._get_learnable_bias_state_dict is of
    0.21): such an adapter computes something else in the very release that saved it.
    """
    name, bias = method.name, subject.config.get("bias", "none")
    whole = [*subject.saved_whole, *HEADS.get(subject.task, ())]
    biases = [key for key in subject.tensors if key.endswith(".bias")]
    biases = [key for key in biases if not any(f".{module}." in key for module in whole)]
    if bias not in ("none", None) and knows(name, "bias") and not biases:
        if not (subject.base.biases if bias == "all" and subject.base else may_have_biases(subject)):
            return
        message, doubt = f"bias is {spelled(bias)}, and no bias is in the file", may_lack_biases(subject)
        none = frozenset[str]()
        yield UNSAVED_BIAS(
            message, keys=("bias",), misloads=none if doubt else PEFT, undecided=PEFT if doubt else none,
            needs=THE_BASE if doubt else None,
        )  # fmt: skip


@of_methods
def strange_tensors(subject: Subject, method: Method) -> Iterator[Finding]:
    """Tensors that are not the method's, nor of what the config says was trained beside it.

    One that names a parameter of the base model overwrites it; any other is ignored (load_state_dict, not strict).
    """
    # PEFT compares the ends of names, and no dot (utils/other.py: _set_trainable)
    beside = [f"{name}." for name in subject.saved_whole]
    beside += [f".{name}." for name in HEADS.get(subject.task, ())]
    own = {key for layer in subject.layers.values() for key in layer.factors.values()}
    own |= {key for group in parse(method.shared) for way in group.ways for key in way}
    strange = [
        key for key in subject.tensor_shapes
        if key not in own and not re.match(method.buffers, key) and not re.search(SAVED, key)
        and not any(name in f".{key}" for name in beside)
        and not (key.endswith(".bias") and subject.config.get("bias", "none") != "none")
    ]  # fmt: skip
    if strange:
        count = counted(len(strange), "tensor")
        message = f"{count} that {method.name} does not have ({strange[0]}): what comes of it hangs on the base"
        yield STRANGE_TENSOR(message, tensors=strange, undecided=PEFT, needs=THE_BASE)
