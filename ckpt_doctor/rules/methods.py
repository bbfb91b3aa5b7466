"""Rules about PEFT's methods that are not LoRA's: which release has which, their config values, and their rows.

What is known of a method is in its record in `facts/methods/`; here is what holds for every method. What is about
layers and tensors is in `method_layers.py` and `method_tensors.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import chain

from ..adapter import Adapter
from ..codes import (
    CONTRADICTING_SIZES,
    METHOD_OF_OTHER_RELEASES,
    NOT_JUDGED,
    NULL_VALUE,
    ODD_VALUE,
    RANK_ZERO,
    UNKNOWN_METHOD,
    UNKNOWN_TASK,
)  # fmt: skip
from ..facts.forms import words
from ..facts.methods import record
from ..facts.record import Method, Seen, refusing_bias
from ..findings import Finding, Rule, rule
from ..layers import Layer
from ..runtimes import PEFT
from .keys import knows, neutral, savers, table, written_by

LORAS = ("LORA", "ADALORA")

TASKS = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
"""PEFT's task types (utils/peft_types.py: TaskType), the same in every release that checks them."""

FOLLOWED = frozenset({
    "peft_type", "task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "modules_to_save", "bias",
})  # fmt: skip
"""Keys that rules about all methods follow."""

HARMLESS = frozenset({"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"})
"""Keys of every method that say where an adapter comes from: config.py: PeftConfigMixin; no layer reads them."""

KINDS: dict[str, tuple[type, ...]] = {
    "auto_mapping": (dict,), "base_model_name_or_path": (str,), "exclude_modules": (list, str),
    "layers_pattern": (list, str), "layers_to_transform": (list, int), "modules_to_save": (list,),
    "peft_type": (str,), "peft_version": (str,), "revision": (str,), "target_modules": (list, str), "task_type": (str,),
}  # fmt: skip
"""The types of keys of every method whose default is null."""


def seen(adapter: Adapter, layers: dict[str, Layer]) -> Seen | None:
    """An adapter as the rules about methods look at it; None where it is none of a method that has a record."""
    method = record(adapter.peft_type)
    if method is None or adapter.config is None:
        return None
    keys = {key: default for key, (_, _, default) in table(method.name).items()}
    return Seen(adapter, layers, method, keys, savers(adapter))


def of_methods(check: Callable[[Seen], Iterable[Finding]]) -> Rule:
    """Declare a rule about methods with a record: what it finds holds for the releases in which they were reviewed."""

    @rule
    @wraps(check)
    def within(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
        looked = seen(adapter, layers)
        if looked is not None and looked.method.reviewed:
            yield from (reviewed(finding, looked.method) for finding in check(looked))

    return within


def reviewed(finding: Finding, method: Method) -> Finding:
    """A finding, of the releases alone in which the method was reviewed."""
    return finding._replace(
        rejected_by=finding.rejected_by & method.reviewed, misloaded_by=finding.misloaded_by & method.reviewed,
        undecided_for=finding.undecided_for & method.reviewed,
    )  # fmt: skip


@rule
def method_unknown(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """peft_type is none that a release knows: KeyError from its PEFT_TYPE_TO_CONFIG_MAPPING, in every release.

    The name is in upper case; "lora" is no method. BONE was removed in PEFT 0.19, where MiSS took its place.
    """
    if adapter.config is None:
        return
    method = adapter.config.get("peft_type")
    if not isinstance(method, str) or not table(method):
        if method is None:
            said = "the config has no peft_type"
        elif isinstance(method, str) and table(method.upper()):
            said = f"peft_type is {method!r}, which is a method only in upper case"
        else:
            said = f"peft_type is {str(method)[:60]!r}, which is no method of PEFT"
        yield UNKNOWN_METHOD(said, keys=("peft_type",), rejects=PEFT)
    elif method != "ADALORA":  # whose first releases have faults of their own: CD301
        missing = PEFT - knows(method, "peft_type")
        if missing:
            yield METHOD_OF_OTHER_RELEASES(f"not every PEFT release has {method}", keys=("peft_type",), rejects=missing)


@rule
def task_type(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """task_type is none that PEFT knows: "Invalid task type" from 0.14 on (PeftConfigMixin.__post_init__)."""
    task = (adapter.config or {}).get("task_type")
    if task is not None and task not in TASKS:
        message = f"task_type is {str(task)[:60]!r}, which is no task of PEFT"
        rejected = (record(adapter.peft_type) or Method("")).tasks_checked
        yield UNKNOWN_TASK(message, keys=("task_type",), rejects=rejected)


@rule
def not_judged_method(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """A method, or a release of it, that nobody looked at: nothing is said of it."""
    name = adapter.peft_type
    if name and table(name) and name not in LORAS:
        known = record(name)
        left = PEFT - known.reviewed if known else PEFT
        if left:
            where = "this version" if left == PEFT else "this version in every release"
            message = f"the method {name} is not judged by {where}"
            yield NOT_JUDGED(message, undecided=left, needs="a newer ckpt-doctor")


@of_methods
def rows(looked: Seen) -> Iterator[Finding]:
    """What a method's own rows say: whom something about it stops."""
    return chain.from_iterable(row.findings(looked) for row in looked.method.rows)


@of_methods
def config_value(looked: Seen) -> Iterator[Finding]:
    """A config value that is null where PEFT computes with one, of a type that its default is not, a word that is not
    known, or that nobody looked at what releases make of: a key off its default that neither the tensors nor a row nor
    a list of harmless keys of the method names.
    """
    method = looked.method
    for key in looked.keys:
        if key in looked.config and key != "runtime_config" and key not in KINDS_ELSEWHERE:
            yield from _value(looked, key, knows(method.name, key))
    strange = [
        key for key, value in looked.config.items()
        if key not in looked.keys and not neutral(method.name, key, value)
    ]  # fmt: skip
    if strange and written_by(looked.adapter):  # else CD203
        message = f"what {', '.join(strange)} means to a release is not known"
        yield ODD_VALUE(message, keys=strange, undecided=PEFT, needs="the meaning of the key")


KINDS_ELSEWHERE = ("peft_type", "task_type", "target_modules")
"""Keys whose types other rules look at: CD501, CD503, CD515."""


def _value(looked: Seen, key: str, ids: frozenset[str]) -> Iterator[Finding]:
    method, said, default = looked.method, looked.config[key], looked.keys[key]
    if said is None and default is not None and key not in method.nullable and type(default) is not bool:
        yield NULL_VALUE(f"{key} is null", keys=(key,), rejects=ids)
    elif key == "bias" and not is_of_its_kind(method, key, said, default):
        message = f"bias is {str(said)[:60]!r}, which is no word for {method.name}"
        rejected = ids & refusing_bias(said)
        yield ODD_VALUE(message, keys=(key,), rejects=rejected, undecided=ids - rejected, needs="a load")
    elif not is_of_its_kind(method, key, said, default):
        message = f"{key} is {str(said)[:60]!r}, and what a release makes of that is not known"
        yield ODD_VALUE(message, keys=(key,), undecided=ids, needs="a load")
    elif said != default and key not in followed(method):
        message = f"{key} is {str(said)[:60]!r}, and nobody looked at what releases make of a value that is not usual"
        yield ODD_VALUE(message, keys=(key,), undecided=ids, needs="a load")


def is_of_its_kind(method: Method, key: str, said: object, default: object) -> bool:
    """Whether a value is of the type of its default and in its range, or one of the words that are known."""
    if any(type(said) is type(word) and said == word for word in method.words.get(key, ())):
        return True
    if said is None:
        return default is None
    if default is None:
        return type(said) in {**KINDS, **method.kinds}.get(key, ())
    if isinstance(default, str):
        return said == default
    if type(default) in (int, float):
        kinds = (int, float) if isinstance(default, float) or key.endswith(("alpha", "lambda")) else (int,)
        share = key.endswith(("dropout", "_rate")) or key in ("sparsity", "weight_tying")
        return type(said) in kinds and not (share and isinstance(said, (int, float)) and not 0 <= said <= 1)
    return type(said) is type(default)


def followed(method: Method) -> frozenset[str]:
    """The keys of a method whose every value is followed to what a release makes of it."""
    named = {key for row in method.rows for key in row.keys}
    sized = {*words(method.tensors), *words(method.shared)}
    sized |= {pattern for key, pattern in method.patterns.items() if key in sized}
    return FOLLOWED | HARMLESS | named | sized | method.harmless.keys() | method.alike.keys()


@of_methods
def rank_zero(looked: Seen) -> Iterator[Finding]:
    """The config gives the layers no rank: ValueError while they are made, in every release."""
    method, r = looked.method, looked.value("r")
    zero_fits = "r~" in "".join(method.tensors) and not method.patterned(looked.config)
    if type(r) is int and r <= 0 and not zero_fits:
        yield RANK_ZERO(f"the config says r: {r}, so no layer has a rank", keys=("r",), rejects=PEFT)


@of_methods
def contradicting_sizes(looked: Seen) -> Iterator[Finding]:
    """Two keys that say the same are both set, or both 0 (BOFTConfig.__post_init__, OFTConfig.__post_init__)."""
    for first, second in looked.method.one_of:
        sizes = looked.value(first), looked.value(second)
        if second in looked.config and all(type(size) is int for size in sizes) and (sizes[0] != 0) is (sizes[1] != 0):
            message = f"just one of {first} and {second} may be other than 0, and they are {sizes[0]} and {sizes[1]}"
            yield CONTRADICTING_SIZES(message, keys=(first, second), rejects=PEFT)


from . import method_layers, method_tensors  # noqa: E402, F401 - importing the rules declares them
