"""Rules about the numbers in tensors, which find nothing where these are not read (`Subject.numbers`).

They speak of the adapter as it was read: a repair that computes the same leaves what they find as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter import Layer
from ..adapter.codes import DOES_NOTHING, FP16_OVERFLOW, LOST_SHARD, NON_FINITE, ZERO_LAYERS
from ..adapter.findings import Finding, counted, several
from ..adapter.runtimes import NONE, PEFT, SERVERS, between, since
from ..facts.methods import LORAS
from ..facts.subject import Subject
from .declared import rule
from .rank import scaled_to_zero

FP16_LIMIT = 65520
"""From here on a number becomes infinite when it is rounded to fp16, whose largest is 65504 (IEEE 754, binary16)."""
KEEPING_FP32 = between("0.6", "0.6") | since("0.13")
"""The releases that keep factors in fp32 whatever the model is in. 0.8 and 0.9 cast them to its type (loaded in 0.6.2,
0.8.2, 0.9.0, 0.13.2, 0.14.0 and 0.21.2, an fp16 model)."""


@rule
def non_finite(subject: Subject) -> Iterator[Finding]:
    """NaN and infinity are loaded as they stand, and whatever they are multiplied with is NaN or infinite as well: no
    release looks at them but in a merge with safe_merge (tuners/lora/layer.py: Linear.merge). LoRAX converts a .bin and
    compares, and NaN is not equal to itself (predibase/lorax#81).
    """
    numbers = subject.original.numbers
    wrong = [key for key, one in numbers.items() if one.nan or one.infinite]
    if wrong:
        nan, infinite = (sum(getattr(numbers[key], what) for key in wrong) for what in ("nan", "infinite"))
        what = " and ".join(word for word, count in (("NaN", nan), ("infinity", infinite)) if count)
        where = f"{counted(nan + infinite, 'number')} in {len(wrong)} of {counted(len(numbers), 'tensor')}"
        message = f"{what} in the weights: {where} ({several(wrong)}), and so in the outputs"
        yield NON_FINITE(message, tensors=wrong, misloads=PEFT | _servers(subject))


def _servers(subject: Subject) -> frozenset[str]:
    """The servers that were asked for, which load and compute what is there as PEFT does."""
    return SERVERS & (subject.question.runtimes or NONE)


@rule
def zero_factors(subject: Subject) -> Iterator[Finding]:
    """A delta is a product, and zero where a factor is: a LoRA begins with lora_B zero (tuners/lora/layer.py:
    LoraLayer.reset_lora_parameters), and has learned nothing where it still is.
    """
    subject = subject.original
    if not subject.numbers or subject.method not in LORAS:
        return
    layers = {module: layer for module, layer in subject.layers.items() if layer.rank != 0}
    zero = {module: factor for module, factor in subject.zero_factors.items() if module in layers}
    if not zero or scaled_to_zero(subject):
        return
    tensors = [layers[module].factors[factor] for module, factor in zero.items()]
    names = several(list(zero))
    if len(zero) == len(layers) and not subject.others and not subject.changes_base:
        factors = " or ".join(dict.fromkeys(zero.values()))
        message = f"{factors} of every layer is all zero ({names}): this adapter does nothing"
        remedy = "look whether the loss fell in training, and save from the model that was trained"
        yield DOES_NOTHING(message, tensors=tensors, remedy=remedy)
    else:
        message = f"a factor of {len(zero)} of {counted(len(layers), 'layer')} is all zero ({names})"
        yield ZERO_LAYERS(message, tensors=tensors)


@rule
def lost_shard(subject: Subject) -> Iterator[Finding]:
    """Of factors that were divided among processes only one part was saved, and the rest is as it was made, which for
    lora_B is zero: in each layer the same part of the rows of lora_B, or of the columns of lora_A where a layer divides
    its inputs (axolotl-ai-cloud/axolotl#3772, huggingface/accelerate#4206).

    A layer that is one of several in one (queries, keys and values) may be adapted in a part by intention, so one name
    of modules alone does not tell. Padding and masks of AdaLoRA are along the rank, the other axis of each factor.
    """
    servers, subject = _servers(subject), subject.original
    if not subject.numbers or subject.method not in LORAS:
        return
    zero = subject.zero_factors
    trained = [layer for layer in subject.layers.values() if layer.rank != 0 and layer.module not in zero]
    parts = [_part(subject, layer) for layer in trained]
    if len({layer.module.rpartition(".")[2] for layer in trained}) < 2 or None in parts:
        return
    shares = {part and (-(-part[0] // (part[2] - part[1])), part[1] // (part[2] - part[1])) for part in parts}
    if len(shares) > 1:
        return
    ((count, at),) = filter(None, shares)
    if all(part and part[1:] == _range(part[0], count, at) for part in parts):
        message = (
            f"in each of {counted(len(trained), 'layer')} only part {at + 1} of {count} of lora_B's rows, or of "
            f"lora_A's columns, is not zero, as where one of {count} processes saved what it had"
        )
        tensors, remedy = subject.keys_of(layer.module for layer in trained), LOST_SHARD.remedy
        needs = "what the other processes trained"
        yield LOST_SHARD(message, tensors=tensors, undecided=PEFT | servers, needs=needs, remedy=remedy)


def _part(subject: Subject, layer: Layer) -> tuple[int, int, int] | None:
    """The size of a side of a layer, and the first and one past the last of what alone is not zero there."""
    sides = (("lora_B", 0, "rows"), ("lora_A", 1, "columns"))
    for factor, axis, run in (*sides, ("lora_embedding_B", 0, "rows"), ("lora_embedding_A", 1, "columns")):
        key = layer.factors.get(factor, "")
        found = getattr(subject.numbers.get(key), run, None)
        if found:
            return (subject.forms[key][1][axis], *found)
    return None


def _range(size: int, count: int, at: int) -> tuple[int, int]:
    """The part of an axis that one of several processes has, as torch divides it (torch/distributed: Shard)."""
    most = -(-size // count)
    return at * most, min((at + 1) * most, size)


@rule
def fp16_overflow(subject: Subject) -> Iterator[Finding]:
    """A number that fp16 does not have becomes infinite where the adapter is cast to a model of that type
    (tuners/tuners_utils.py: cast_adapter_dtype). What a model is loaded in stands in no file of the adapter.
    """
    numbers = subject.original.numbers
    large = [key for key, one in numbers.items() if one.largest >= FP16_LIMIT]
    if large:
        kept = KEEPING_FP32 if not {*subject.original.others}.intersection(large) else NONE
        most = max(large, key=lambda key: numbers[key].largest)
        message = (
            f"{counted(len(large), 'tensor')} with numbers that are infinity in fp16, up to "
            f"{numbers[most].largest:.3g} ({most})"
        )
        needs, remedy = "the type that the model runs in", FP16_OVERFLOW.remedy
        undecided = (PEFT - kept) | _servers(subject)
        yield FP16_OVERFLOW(message, tensors=large, undecided=undecided, needs=needs, remedy=remedy)
