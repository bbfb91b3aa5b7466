"""One function a repair: Adapter → Adapter, or a reason why not. A repair says which codes it heals."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..adapter import Adapter, Layer, NotExactError, codes
from ..adapter.findings import numbers
from ..adapter.runtimes import ranges
from ..facts.meaning import saved_meanings
from ..facts.subject import Subject

if TYPE_CHECKING:
    from ..adapter import TensorInfo

DROP = "drop config keys without meaning"
TARGETS = "take names off target_modules for which AdaLoRA has no layer"
DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
"""What factors can be written in, by the name that a user gives it."""


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The repair cannot be made without changing the function; the message says why."""


class Repair(NamedTuple):
    """`heals` are the codes of findings; `function` gives the repaired adapter, or the same one where it has nothing
    to do, or raises Refused. One that is made `always` is made also where it helps only runtimes that were not asked
    for; one that `narrows` may make others reject the adapter, which is a form of the server's own. One that is made
    `beside` another is made only there, for those whom the other would harm.
    """

    title: str
    heals: frozenset[str]
    function: Callable[[Subject], Adapter]
    always: bool = False
    narrows: bool = False
    beside: bool = False


def meant(subject: Subject) -> dict[str, Layer]:
    """The layers that the release which saved the adapter adapts, with the alpha and scale that it gives them.

    Raises Refused where more than one may have saved it, and these make different things of it.
    """
    if subject.config.get("target_parameters"):
        raise Refused(
            "target_parameters is set, and the tensors of a parameter do not tell rank and scale as a layer's"
        )
    first, *others = saved_meanings(subject)
    if not first.ids:
        raise Refused("the release that saved it does not take the tensors, so nothing tells the scale that was meant")
    if others:
        both = f"{ranges(first.ids)} and {ranges(others[0].ids)}"
        raise Refused(f"{both} adapt other layers, or scale them otherwise, and any of them may have saved it")
    return first.layers


def only(modules: Iterable[str]) -> str:
    """A regex that matches just these names in full, in every release. A list would also match longer names.

    It may be of megabytes, and each state that names these has it: as one object it is compared at once.
    """
    names = "|".join(re.escape(module) for module in sorted(modules))
    return sys.intern(f"(?:{names})" if "|" in names else names)


def check_rank(subject: Subject, rank: object) -> None:
    """Raises Refused for a rank of the config that no layer has: above every size of every tensor, or no number."""
    largest = max((size for _, shape in subject.forms.values() for size in shape), default=0)
    if type(rank) is not int or rank > largest:
        raise Refused(f"the config says a rank of {str(rank)[:20]}, and no tensor has a size above {largest}")


def resized(info: "TensorInfo", axis: int, rank: int) -> "TensorInfo":
    """A factor with zeros added up to another rank; its own numbers keep their bits."""
    from ..adapter import Computed

    shape = tuple(rank if at == axis else size for at, size in enumerate(info.shape))
    return info if shape == info.shape else info._replace(shape=shape, source=Computed(info))


def no_schedule(subject: Subject) -> Adapter:  # noqa: ARG001
    """Training hangs on the schedule, so nothing but its owner can set it."""
    raise Refused("training needs a schedule: set total_step above tinit + tfinal in adapter_config.json")


def with_config(adapter: Adapter, **values: Any) -> Adapter:
    """The adapter with some config values set."""
    return adapter._replace(config={**(adapter.config or {}), **values})


def readings(subject: Subject) -> Iterator[tuple[str, frozenset[str], Subject]]:
    """What the config is to say for the tensors to be read as they are: a title, the codes of what is then no more, and
    the subject (`names`).
    """
    from .names import ia3_modules, without_prefix

    for title, heals, function in (
        ("take PEFT's prefix off target_modules", numbers(codes.NO_TARGET), without_prefix),
        (
            "name IA3's modules as the shapes of the tensors say",
            numbers(codes.FEEDFORWARD_UNTARGETED, codes.SHAPE_MISMATCH, codes.NO_TARGET, codes.UNCLEAR_TARGET),
            ia3_modules,
        ),
    ):
        adapter = function(subject)
        if adapter is not None:
            subject = subject.changed(adapter)
            yield title, heals, subject


Pairs = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Module → the shape of each of LoRA's factors, of whatever rank."""


def forms(
    subject: Subject, *, training: bool, to_lora: bool, rank: int | None = None, modules: Pairs | None = None
) -> Iterator[tuple[str, Subject]]:
    """Forms that were asked for by name, each with a title. Raises NotExactError where one cannot be made."""
    if not training and not to_lora and modules is None:
        return
    from . import lora
    from .rank import unprune

    steps: list[tuple[object, str, Callable[[Subject], Adapter]]] = [
        (training, "give every layer init_r triplets and no rank_pattern, for training", unprune),
        (to_lora, "convert AdaLoRA to LoRA", lora.to_lora),
        (to_lora, "give all layers one rank and scale", lora.flatten),
        (rank is not None, f"give all layers rank {rank}", lambda it: lora.at_rank(it, rank or 0)),
        (
            modules is not None,
            "add zero pairs for the modules of the others",
            lambda it: lora.with_modules(it, modules or {}),
        ),
    ]
    for wanted, title, function in steps:
        if wanted:
            try:
                adapter = function(subject)
            except Refused as error:
                raise NotExactError(f"{subject.adapter.path}: {error}") from None
            if adapter is not subject.adapter:
                subject = subject.changed(adapter)
                yield title, subject


def sizes(subject: Subject, *, trim: bool, dtype: str | None) -> Iterator[tuple[str, Subject]]:
    """Smaller or larger factors that were asked for, after all repairs."""
    if not trim and dtype is None:
        return
    from . import lora

    if trim:
        adapter = lora.trimmed(subject)
        if adapter is not subject.adapter:
            subject = subject.changed(adapter)
            yield "trim trailing zeros off the rank", subject
    if dtype is not None:
        adapter = lora.with_dtype(subject, DTYPES[dtype])
        if adapter.tensors != subject.tensors:
            yield f"write the factors in {dtype}", subject.changed(adapter)


def all_of(
    rank_zero: str, *, asked: frozenset[str] | None, training: bool = False, serving: bool = False
) -> list[Repair]:
    """The repairs in the order in which they are tried; with `asked` also those that only an asked runtime justifies.

    `asked` are the ids of the runtimes, None where none was named.
    """
    from . import config, rank

    prune = rank_zero == "prune"
    title = "prune rank-0 layers" if prune else "pad rank-0 layers with zeros"
    repairs = [
        Repair(title, numbers(codes.ADALORA_RANK_ZERO), rank.prune if prune else rank.pad_adalora),
        Repair(title, numbers(codes.LORA_RANK_ZERO), rank.prune if prune else rank.pad_lora),
        Repair(
            "set total_step for inference",
            numbers(codes.ADALORA_SCHEDULE),
            no_schedule if training else config.schedule,
        ),
        Repair("spell each bias key both ways", numbers(codes.BIAS_SPELLING), config.both_bias_spellings),
        Repair(
            "import no module for Megatron",
            numbers(codes.CONFIG_IMPORTS_CODE, codes.MEGATRON_CONFIG),
            config.without_megatron,
        ),
        Repair(TARGETS, numbers(codes.ADALORA_TARGET_KIND), config.with_layers_of_adalora),
        Repair(DROP, numbers(codes.UNKNOWN_CONFIG_KEY), config.drop_neutral_keys, serving),
    ]
    if asked is None:
        return repairs
    repairs.append(Repair(DROP, numbers(codes.UNKNOWN_CONFIG_KEY), partial(config.drop_keys_in_the_way, asked)))
    from . import keys, lora

    if serving:
        from . import experts, fused, paths, servers

        repairs = [
            Repair(
                "say the experts one by one",
                numbers(codes.SERVER_EXPERTS, codes.SERVER_NOT_IN_BASE),
                experts.one_by_one,
            ),
            Repair("name the layers as the model does", numbers(codes.SERVER_NOT_IN_BASE), paths.renamed),
            Repair(
                "cut gate_up_proj into gate_proj and up_proj",
                numbers(codes.SERVER_CLASS),
                fused.halves,
                narrows=True,
            ),
            Repair(
                "cut projections into the parts that the model has",
                numbers(codes.SERVER_CLASS, codes.SERVER_NOT_IN_BASE, codes.SERVER_FUSED_GROUP),
                fused.parted,
            ),
            Repair(
                "put projections together as the model has them",
                numbers(codes.SERVER_CLASS, codes.SERVER_NOT_IN_BASE, codes.SERVER_FUSED_GROUP),
                fused.whole,
            ),
            Repair("add zero pairs to experts", numbers(codes.SERVER_EXPERTS), experts.completed),
            Repair("convert AdaLoRA to LoRA", numbers(codes.NOT_LORA), lora.to_lora),
            *repairs,
            Repair(
                "give all layers one rank and scale",
                numbers(codes.SERVER_CONFIG, codes.SERVER_SCALE, codes.SERVER_UNEVEN_RANK, codes.SERVER_EXPERTS),
                lora.flatten,
            ),
            Repair("fill in what is null", numbers(codes.SERVER_CONFIG), config.without_nulls),
            Repair("list the targets", numbers(codes.SERVER_TARGETS), servers.listed_targets),
            Repair("add zero pairs to fused groups", numbers(codes.SERVER_FUSED_GROUP), servers.fused_pairs),
            Repair("name the tensors as PEFT does", numbers(codes.SERVER_KEY), keys.peft_names),
            Repair("say that there is no bias", numbers(codes.SERVER_BIAS), servers.no_bias),
            Repair(
                "say that no module is saved whole", numbers(codes.SERVER_MODULES_TO_SAVE), servers.no_modules_to_save
            ),
            Repair("set init_lora_weights to true", numbers(codes.SERVER_OPTION), config.plain_init),
            Repair("say the targets as a regex", numbers(codes.SERVER_CLASS), servers.regex_targets, beside=True),
            Repair(
                "name a target that no model has",
                numbers(codes.SERVER_EXPERTS),
                servers.no_target,
                narrows=True,
                beside=True,
            ),
        ]
    return [
        Repair(
            "rebuild rank_pattern from the tensors",
            numbers(codes.ADALORA_PATTERN_MISMATCH, codes.ADALORA_RANK_ZERO),
            keys.rebuilt_pattern,
        ),
        *repairs,
        Repair(DROP, numbers(codes.ADALORA_OPTION), config.drop_neutral_keys),
        Repair(
            "name the tensors as PEFT does", numbers(codes.FOREIGN_PREFIX, codes.ADAPTER_NAME_IN_KEY), keys.peft_names
        ),
        Repair(TARGETS, numbers(codes.ADALORA_CONVOLUTION), config.with_layers_of_adalora),
        Repair("fill in what is null", numbers(codes.IMPOSSIBLE_VALUE), config.without_nulls),
        Repair(
            "set init_lora_weights to true", numbers(codes.BASE_CHANGING_INIT, codes.UNKNOWN_INIT), config.plain_init
        ),
        Repair("set init_lora_weights to true", numbers(codes.UNKNOWN_INIT), config.plain_init, serving),
        Repair(
            "drop config keys that no release has", numbers(codes.STRANGE_CONFIG_KEY), config.drop_strange_keys, serving
        ),
        Repair("set task_type to null", numbers(codes.UNKNOWN_TASK), config.known_task),
        Repair(
            "say the rsLoRA scale in lora_alpha",
            numbers(codes.FUNCTION_CONFIG_KEY, codes.OTHER_SCALE),
            config.rslora_as_alpha,
        ),
        Repair(
            "name patterns in full",
            numbers(codes.RANK_MISMATCH, codes.FUNCTION_CONFIG_KEY, codes.OTHER_SCALE),
            config.full_patterns,
        ),
        Repair(
            "name the targets in full",
            numbers(
                codes.FUNCTION_CONFIG_KEY, codes.ALL_LINEAR, codes.NO_TARGET, codes.IGNORED_LAYER, codes.LAYERS_OPTIONS
            ),
            config.full_targets,
        ),
        Repair("name the targets in full", numbers(codes.MISSING_LAYER), config.without_pruned_targets),
        Repair(
            "give all layers one rank and scale",
            numbers(codes.RANK_MISMATCH, codes.FUNCTION_CONFIG_KEY, codes.OTHER_SCALE),
            lora.flatten,
        ),
        Repair(
            "convert AdaLoRA to LoRA",
            numbers(codes.ADALORA_UNSUPPORTED, codes.ADAPTER_NAME, codes.ADALORA_OPTION),
            lora.to_lora,
        ),
    ]
