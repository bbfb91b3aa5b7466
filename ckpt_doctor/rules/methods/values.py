"""Rules about the config values of methods: of which type, off their default, or in each other's way."""

from __future__ import annotations

from collections.abc import Iterator

from ...adapter.codes import CONTRADICTING_SIZES, NULL_VALUE, ODD_VALUE, RANK_ZERO
from ...adapter.findings import THE_BASE, Finding
from ...adapter.runtimes import PEFT
from ...facts.config_keys import knows, neutral, refusing_bias
from ...facts.forms import words
from ...facts.names import pattern_value, targets
from ...facts.record import Method
from ...facts.subject import Subject
from .review import of_methods

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


@of_methods
def config_value(subject: Subject, method: Method) -> Iterator[Finding]:
    """A config value that is null where PEFT computes with one, of a type that its default is not, a word that is not
    known, or that nobody looked at what releases make of: a key off its default that neither the tensors nor a row nor
    a list of harmless keys of the method names.
    """
    method = method
    for key in subject.defaults:
        if key in subject.config and key != "runtime_config" and key not in KINDS_ELSEWHERE:
            yield from _value(subject, method, key, knows(method.name, key))
    strange = [
        key for key, value in subject.config.items()
        if key not in subject.defaults and not neutral(method.name, key, value)
    ]  # fmt: skip
    if strange and subject.written_by:  # else CD203
        message = f"what {', '.join(strange)} means to a release is not known"
        yield ODD_VALUE(message, keys=strange, undecided=PEFT, needs="the meaning of the key")


KINDS_ELSEWHERE = ("peft_type", "task_type", "target_modules")
"""Keys whose types other rules look at: CD501, CD503, CD515."""


def _value(subject: Subject, method: Method, key: str, ids: frozenset[str]) -> Iterator[Finding]:
    value, default = subject.config[key], subject.defaults[key]
    if value is None and default is not None and key not in method.nullable and type(default) is not bool:
        yield NULL_VALUE(f"{key} is null", keys=(key,), rejects=ids)
    elif key == "bias" and not is_of_its_kind(method, key, value, default):
        message = f"bias is {str(value)[:60]!r}, which is no word for {method.name}"
        rejected = ids & refusing_bias(value)
        yield ODD_VALUE(message, keys=(key,), rejects=rejected, undecided=ids - rejected, needs="a load")
    elif not is_of_its_kind(method, key, value, default):
        message = f"{key} is {str(value)[:60]!r}, and what a release makes of that is not known"
        yield ODD_VALUE(message, keys=(key,), undecided=ids, needs="a load")
    elif value != default and key not in followed(method):
        message = f"{key} is {str(value)[:60]!r}, and nobody looked at what releases make of a value that is not usual"
        yield ODD_VALUE(message, keys=(key,), undecided=ids, needs="a load")


def is_of_its_kind(method: Method, key: str, value: object, default: object) -> bool:
    """Whether a value is of the type of its default and in its range, or one of the words that are known."""
    if any(type(value) is type(word) and value == word for word in method.words.get(key, ())):
        return True
    if value is None:
        return default is None
    if default is None:
        return type(value) in {**KINDS, **method.kinds}.get(key, ())
    if isinstance(default, str):
        return value == default
    if type(default) in (int, float):
        kinds = (int, float) if isinstance(default, float) or key.endswith(("alpha", "lambda")) else (int,)
        share = key.endswith(("dropout", "_rate")) or key in ("sparsity", "weight_tying")
        return type(value) in kinds and not (share and isinstance(value, (int, float)) and not 0 <= value <= 1)
    return type(value) is type(default)


def followed(method: Method) -> frozenset[str]:
    """The keys of a method whose every value is followed to what a release makes of it."""
    named = {key for row in method.rows for key in row.keys}
    sized = {*words(method.tensors), *words(method.shared)}
    sized |= {pattern for key, pattern in method.patterns.items() if key in sized}
    return FOLLOWED | HARMLESS | named | sized | method.harmless.keys() | method.alike.keys()


@of_methods
def rank_zero(subject: Subject, method: Method) -> Iterator[Finding]:
    """The config gives the layers no rank: ValueError while they are made, in every release. Where a pattern gives each
    one of the file a rank, the model may have others that are targeted.
    """
    r = subject.value("r")
    zero_fits = any("r" in pair for pair in method.one_of) and not method.patterned(subject.config)
    if type(r) is not int or r > 0 or zero_fits:
        return
    pattern, base = subject.config.get(method.patterns.get("r", "")), subject.base.weights if subject.base else {}
    target = subject.config.get("target_modules")
    modules = [*subject.layers, *(name for name, shape in base.items() if len(shape) > 1 and targets(target, name))]
    ranks = [pattern_value(pattern, module, r) for module in modules]
    if not all(type(rank) is int and rank > 0 for rank in ranks or [r]):
        yield RANK_ZERO(f"the config says r: {r}, so no layer has a rank", keys=("r",), rejects=PEFT)
    elif not base:
        message = f"the config says r: {r}, which layers have that are not in rank_pattern"
        yield RANK_ZERO(message, keys=("r",), undecided=PEFT, needs=THE_BASE)


@of_methods
def contradicting_sizes(subject: Subject, method: Method) -> Iterator[Finding]:
    """Two keys that say the same are both set, or both 0 (BOFTConfig.__post_init__, OFTConfig.__post_init__)."""
    for first, second in method.one_of:
        sizes = subject.value(first), subject.value(second)
        if second in subject.config and all(type(size) is int for size in sizes) and (sizes[0] != 0) is (sizes[1] != 0):
            message = f"just one of {first} and {second} may be other than 0, and they are {sizes[0]} and {sizes[1]}"
            yield CONTRADICTING_SIZES(message, keys=(first, second), rejects=PEFT)
