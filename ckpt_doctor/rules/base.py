"""Rules that hold an adapter against the base model: which layers it has, of which sizes, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..adapter import Base, Layer
from ..adapter.codes import (
    ADALORA_CONVOLUTION,
    ADALORA_TARGET_KIND,
    ANOTHER_BASE,
    MISSING_LAYER,
    NOT_IN_BASE,
    OTHER_SIZE,
)
from ..adapter.findings import THE_BASE, Finding, counted, several
from ..adapter.runtimes import NONE, PEFT, since, upto
from ..facts.embeddings import ADAPTED, HEAD, SAVED, USUAL
from ..facts.layers import module_of
from ..facts.meaning import left_random, meant_era, without_layer
from ..facts.methods import LORAS, TIED
from ..facts.names import PREFIX, is_all_linear, stack
from ..facts.subject import Subject
from ..facts.targets import OUT_PROJ, targeted
from ..facts.tasks import CLASSES, has_head, is_bare, of_one_model
from .declared import rule
from .whole import has_module


@rule
def against_base(subject: Subject) -> Iterator[Finding]:
    """The layers that the config targets in the base model, against those of the file."""
    config, layers, keys = subject.config, subject.layers, ("target_modules",)
    meant = meant_era(subject) if subject.is_named else None
    if subject.question.base is None and _begins_with_a_block(subject):
        message = f"the layers are named as in a model without a head, and {_with_a_head(subject)} was adapted"
        yield NOT_IN_BASE(message, tensors=subject.keys_of(layers), undecided=PEFT, needs=THE_BASE)
    with_tied = subject.record is not None and subject.record.targets == TIED
    if subject.base is None or (meant is None and not with_tied):
        return
    hit = layers.keys() if meant is None else meant.hit
    none_left = subject.pruned if subject.method == "ADALORA" else set[str]()  # sized to nothing by the pattern
    weights = subject.base.weights
    if any(config.get(key) for key in ("layer_replication", "target_parameters", *OTHER_SIZES)):
        return  # other layers, or other sizes, than the base model's
    if _is_named_bare(subject):
        message = f"the layers are named as in a model without a head, and {_with_a_head(subject)} was adapted"
        needs = "how that class names its modules"
        yield NOT_IN_BASE(message, tensors=subject.keys_of(layers), undecided=PEFT, needs=needs)
    strange = absent(subject, [module for module in layers if module in hit])
    if strange:
        count = f"{counted(len(strange), 'layer')} of {len(layers)}"
        message = (
            f"the base model has no such module for {count}, whose tensors are ignored in silence: {several(strange)}"
        )
        some, new = len(strange) < len(hit), _are_of_a_head(subject, strange)
        if new and not some and not any(re.search(r"\.\d+\.", module) for module in strange):
            message = f"the files of the base model have no such module for {count}: {several(strange)}"
            needs = "the class that was adapted"
            yield NOT_IN_BASE(message, tensors=subject.keys_of(strange), undecided=PEFT, needs=needs)
        elif some and _stand_twice(subject, strange):
            message = (
                f"{count} are in the file under another name as well, which the base model has: {several(strange)}"
            )
            needs = "whether they are copies"
            yield NOT_IN_BASE(message, tensors=subject.keys_of(strange), undecided=PEFT, needs=needs)
        else:
            lost = NONE if some and (new or mean_nothing(strange)) else PEFT
            yield NOT_IN_BASE(message, tensors=subject.keys_of(strange), misloads=lost)
    if subject.method not in LORAS or meant is None:
        return
    whole = {module_of(key).rpartition(".")[0] for key in subject.tensors if ".lora_" not in key}
    missing = [
        module for module, shape in weights.items()
        if module not in layers and module not in none_left and module not in whole
        and len(shape) > 1 and targeted(config, module, meant.release)
    ]  # fmt: skip
    if subject.method == "ADALORA":
        yield from _no_layers(subject, missing)
        missing = [module for module in missing if not without_layer(subject, module)]
    tops = {module.partition(".")[0] for module in layers}
    outside = {module.rpartition(".")[0] for module in layers}
    heads = [
        module for module in missing
        if (module.partition(".")[0] not in tops and not _has_head(subject))
        or (not re.search(r"\.\d+\.", module) and module.rpartition(".")[0] not in outside and not _is_class(subject))
    ]  # fmt: skip
    left = {*heads}
    missing = [module for module in missing if module not in left]
    if subject.task in CLASSES or is_bare(subject.adapted_class):  # which have no head of another task
        heads = [module for module in heads if module.partition(".")[0] in tops]
    if is_all_linear(config.get("target_modules")):  # it takes what it finds
        heads = missing = []
    listed = config.get("target_modules")
    if isinstance(listed, list) and HEAD in listed and not heads and not missing and HEAD not in layers:
        heads = [HEAD] if has_module(subject, HEAD) is not False and HEAD not in weights else []
    # a LoRA's layer without tensors computes nothing, so that a head which was not there, or not trained, is no doubt
    if heads and not missing and (subject.method == "ADALORA" or config.get("init_lora_weights") is False):
        message = f"the config targets {several(heads)} of the base model, if the adapted class has such a head"
        needs = "the class that was adapted"
        yield MISSING_LAYER(message, keys=keys, undecided=left_random(subject), needs=needs)
    if missing:
        count = counted(len(missing), "layer")
        message = f"without tensors, though the config targets them in the base model: {count}, {several(missing)}"
        if {"", *map(stack, subject.sample)} & {*map(stack, missing)}:
            yield MISSING_LAYER(message, keys=keys, misloads=left_random(subject))
        else:  # a class may have one of two stacks, as BartForCausalLM has
            needs = "the class that was adapted"
            yield MISSING_LAYER(message, keys=keys, undecided=left_random(subject), needs=needs)
    sizes = {module: _weight_of(subject, subject.base, module) for module in layers if module in hit}
    unfit = [module for module, weight in sizes.items() if weight and not _has_size(subject, layers[module], weight)]
    if unfit:
        count = f"{counted(len(unfit), 'layer')} of {len(layers)}"
        message = f"the tensors do not have the size of the base model's weights in {count}: {several(unfit)}"
        yield OTHER_SIZE(message, tensors=subject.keys_of(unfit), rejects=subject.found(unfit))


def _stand_twice(subject: Subject, strange: list[str]) -> bool:
    """Whether each of some layers is in the file as well under the name that a model of text alone has for it, with the
    same shapes, as where a trainer writes both for a server (agentscope-ai/TuFT#134).
    """
    layers, others = subject.layers, {*strange}
    of_text = {_in_text(module): module for module in layers if module not in others}
    twins = [of_text.get(_in_text(module)) for module in strange]
    return all(
        twin and subject.shapes(layers[twin]) == subject.shapes(layers[module])
        for module, twin in zip(strange, twins, strict=True)
    )


def _in_text(module: str) -> str:
    """What follows the names of the model and of the language model in it."""
    return re.sub(r"^(?:(?:language_)?model\.)+", "", module)


def _no_layers(subject: Subject, missing: list[str]) -> Iterator[Finding]:
    """What AdaLoRA has no layer for, of the modules that are targeted and have no tensors."""
    if is_all_linear(subject.config.get("target_modules")):
        return
    assert subject.base is not None  # noqa: S101 - the caller looked
    for code, ids, before in (
        (ADALORA_TARGET_KIND, PEFT, ""),
        (ADALORA_CONVOLUTION, upto("0.19"), " before PEFT 0.20"),
    ):
        found = {
            module: len(subject.base.weights[module]) for module in missing if ids == without_layer(subject, module)
        }
        if found:
            named = several([f"{module} ({KINDS.get(sizes, 'Embedding')})" for module, sizes in found.items()])
            message = f"the config targets {named}, for which AdaLoRA has no layer{before}"
            yield code(message, keys=("target_modules",), rejects=ids)


KINDS = {3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}
"""What has a weight of so many dimensions."""


def _is_named_bare(subject: Subject) -> bool:
    """Whether the layers are named as the base model's files name them, which are those of a model without a head, and
    a class with one was adapted, which mostly puts a prefix before the names: files of such a class that begin with a
    block (`h.0`) are of a model without one whatever their config says, as GPT-2's own.
    """
    from ..files.base import class_prefixes

    base = subject.base
    if base is None or base is not subject.question.base or class_prefixes(base, subject.layers):
        return False
    saved_bare = bool(subject.saved_as) and all(map(is_bare, subject.saved_as))
    return (saved_bare and bool(_with_a_head(subject))) or _begins_with_a_block(subject)


def _begins_with_a_block(subject: Subject) -> bool:
    """Whether layers are named from a block on (`layers.0`, `decoder.layers.0`), though the class that was adapted has
    a head, and blocks within a model of its own, as all of transformers have.
    """
    return bool(_with_a_head(subject)) and any(re.match(_BLOCK, module) for module in subject.sample)


_BLOCK = r"(?:(?:en|de)coder\.layers?|[^.]+)\.\d+\.[^.]"
"""A block that is in no part of a model but a stack of them."""


def _with_a_head(subject: Subject) -> str:
    """What was adapted, if that has a head as far as the config tells, else ""."""
    if has_head(subject.adapted_class):
        return f"a {subject.adapted_class}"
    return f"one with a head, for {subject.task}," if subject.task in CLASSES else ""


def absent(subject: Subject, modules: Iterable[str]) -> list[str]:
    """Those of some layers that the base model does not have."""
    if subject.base is None:
        return []
    # the parts of a MultiheadAttention are no modules with a weight
    attention = {module.removesuffix(OUT_PROJ) for module in subject.layers if module.endswith(OUT_PROJ)}
    known = subject.base.weights.keys() | attention | {module + OUT_PROJ for module in attention}
    return [
        module for module in modules
        if module not in known and (module != HEAD or has_module(subject, HEAD) is False)  # a tied one is in no file
    ]  # fmt: skip


def _are_of_a_head(subject: Subject, strange: list[str]) -> bool:
    """Whether all of some layers that the base model's files lack may be of a head, which is in no file where it is new
    or tied: no part of these files is called as theirs is, and the class that was adapted is one of the same model, or
    is not known, and no layer has a number.
    """
    tops = {module.partition(".")[0] for module in (subject.base.weights if subject.base else ())}
    if any(module.partition(".")[0] in tops for module in strange):
        return False
    if subject.adapted_class and subject.saved_as:
        return any(of_one_model(subject.adapted_class, name) for name in subject.saved_as)
    return not any(re.search(r"\.\d+\.", module) for module in strange)


def mean_nothing(strange: Iterable[str]) -> bool:
    """Whether layers that the base model lacks were none of it, so that a load without them loses nothing: a head is
    not in every class, and a single stray layer means nothing. Several mean another model.
    """
    return sum(bool(re.search(r"\.\d+\.", module)) for module in strange) < 2


_QUANTISED = (
    r"(?i)[-_](?:unsloth[-_])?(?:bnb[-_][48]bit|[48]-?bit|int[48]|nf4|fp8|awq|gptq(?:[-_]int[48])?)(?:[-_].*)?$"
)
"""How a quantisation is said in the name of a model."""


@rule
def right_base(subject: Subject) -> Iterator[Finding]:
    """The base model is another one than base_model_name_or_path and revision say (huggingface/transformers#25215:
    nothing looks at it in a load by hand).
    """
    named, base = subject.config.get("base_model_name_or_path"), subject.question.base
    if base is None or not isinstance(named, str) or not named:
        return
    keys, needs = ("base_model_name_or_path",), "the model that it was trained on"
    from ..files.base import is_hub_id

    revision = subject.config.get("revision")
    is_commit = isinstance(revision, str) and re.fullmatch("[0-9a-f]{7,40}", revision)
    if base.name and is_hub_id(named) and _model(named) != _model(base.name):
        message = f"it was trained on {named}, and --base is {base.name}"
        yield ANOTHER_BASE(message, keys=keys, undecided=PEFT, needs=needs)
    elif is_commit and base.revision and not base.revision.startswith(str(revision)):
        message = f"it was trained on the commit {revision}, and --base is {base.revision}"
        yield ANOTHER_BASE(message, keys=("revision",), undecided=PEFT, needs=needs)
    elif re.search(_QUANTISED, named) and base.config and not base.config.get("quantization_config"):
        message = f"it was trained on quantised weights ({named}): on those of --base it computes nearly the same"
        yield ANOTHER_BASE(message, keys=keys)


def _model(name: str) -> str:
    """The model of a Hub id, without its owner, a quantisation, and what re-uploads add or leave out."""
    plain = re.sub(_QUANTISED, "", name.rpartition("/")[2]).lower()
    return plain.removeprefix("meta-").removesuffix("-hf")


@rule
def parameters(subject: Subject) -> Iterator[Finding]:
    """Parameters of the base model that are in the file whole, with another size (load_state_dict: "size mismatch").

    A head may have as many classes as the training had, and a vocabulary may have been resized before the load.
    """
    if subject.base is None:
        return
    heads = [f".{name}." for name in subject.saved_whole]
    resized, unfit, rejecting = [], [], NONE
    for key in subject.others:
        if subject.unread.get(key, NONE) >= PEFT or _is_its_own(subject, key):
            continue
        info = subject.tensors[key]
        name = re.sub(_WRAPPED, "", key.removeprefix(PREFIX))
        shape, module = subject.base.parameters.get(name) or tied(subject, name), name.rpartition(".")[0]
        if shape is None or shape == info.shape:
            continue
        if shape[1:] == info.shape[1:] and (re.search(SAVED, name) or any(head in f".{name}" for head in heads)):
            resized.append(key)
            continue
        unfit.append(key)
        wrapped = ".base_layer." in key
        rejecting |= since("0.7") if wrapped else upto("0.6") if module in subject.layers else PEFT
    if unfit:
        message = f"of another size than the base model's parameters: {several(unfit)}"
        yield OTHER_SIZE(message, tensors=unfit, rejects=rejecting)
    if resized:
        message = f"of another number of rows than the base model's parameters: {several(resized)}"
        needs = "whether the model is resized before the load"
        yield OTHER_SIZE(message, tensors=resized, undecided=PEFT, needs=needs)


def _is_its_own(subject: Subject, key: str) -> bool:
    """Whether a tensor is no parameter of the base model, or one that the method's own rules hold against it."""
    if subject.method in LORAS:
        return ".lora_" in key
    return ".base_layer." not in key and not re.search(SAVED, key)


def tied(subject: Subject, name: str) -> tuple[int, ...] | None:
    """The shape of a head that is tied to the embedding and so in no file: that of the one table of the vocabulary."""
    base, rows = subject.base, subject.base.config.get("vocab_size") if subject.base else None
    if base is None or name != f"{HEAD}.weight" or not has_module(subject, HEAD):
        return None
    tables = {shape for shape in base.parameters.values() if len(shape) == 2 and shape[0] == rows}
    return tables.pop() if len(tables) == 1 else None


@rule
def copies(subject: Subject) -> Iterator[Finding]:
    """Copies of weights that are adapted (utils/save_and_load.py: get_peft_model_state_dict, save_embedding_layers), of
    a size that their layer cannot have: each release since 0.7, which wraps the layer, has a size mismatch.

    Without the factors of a LoRA and without the base model only the ways of a table are known: it mostly has more rows
    than columns.
    """
    unfit, doubted = [], []
    for key in subject.tensors_where(lambda key: key.endswith(ADAPTED)):
        module, shape = module_of(key.removesuffix(ADAPTED)), subject.tensors[key].shape
        layer = subject.layers.get(module)
        if layer is None or len(shape) != 2 or subject.unread.get(key, NONE) >= PEFT:
            continue
        is_table = module.rpartition(".")[2] in USUAL  # a Linear or an Embedding in every class
        if subject.method in LORAS and not any(subject.config.get(key) for key in OTHER_SIZES):
            sizes = _sizes(subject, layer)
            either_way = subject.config.get("fan_in_fan_out") is True and not is_table  # a Conv1D's is `[in, out]`
            if sizes is None or (sizes == shape and not (either_way and shape[0] != shape[1])):
                continue
            if is_table or shape not in (sizes, sizes[::-1]):
                unfit.append(key)
            elif subject.base is None:
                doubted.append(key)
        elif is_table and shape[0] < shape[1] and subject.base is None:
            doubted.append(key)
    if unfit:
        message = f"of another size than the factors beside: {several(unfit)}"
        yield OTHER_SIZE(message, tensors=unfit, rejects=since("0.7"))
    if doubted:
        message = f"the sizes may be the wrong way round: {several(doubted)}"
        yield OTHER_SIZE(message, tensors=doubted, undecided=since("0.7"), needs=THE_BASE)


OTHER_SIZES = ("use_bdlora", "use_qalora")
"""Options with which factors have other sizes than the weight."""


def _sizes(subject: Subject, layer: Layer) -> tuple[int, int] | None:
    """The sizes of the Linear or Embedding that a layer with one pair of factors adapts, as its weight has them."""
    inner = [subject.tensors[key].shape[-1] for name, key in layer.factors.items() if name.endswith("A")]
    outer = [subject.tensors[key].shape[0] for name, key in layer.factors.items() if name.endswith("B")]
    if len(inner) != 1 or len(outer) != 1:
        return None
    embeds = any("embedding" in name for name in layer.factors)
    return (inner[0], outer[0]) if embeds else (outer[0], inner[0])


_WRAPPED = r"(?:base_layer|original_module|modules_to_save)\."


def _has_head(subject: Subject) -> bool:
    """Whether the class that was adapted has the head which is in the base model's files. One that is none of
    transformers' has the modules that its files name.
    """
    return not subject.saved_as or any(name.endswith(CLASSES.get(subject.task, ())) for name in subject.saved_as)


def _is_class(subject: Subject) -> bool:
    """Whether the class that was adapted is the one that the base model was saved as: not every one has a pooler."""
    return not subject.saved_as or subject.adapted_class in subject.saved_as


def _weight_of(subject: Subject, base: Base, module: str) -> tuple[int, ...] | None:
    """The shape of the weight that a layer adapts: a MultiheadAttention has two, of which one is a parameter of its own
    (tuners/lora/layer.py: MultiheadAttention), and a head may be tied to the embedding.
    """
    if module.endswith(OUT_PROJ):
        module = module.removesuffix(OUT_PROJ) + ".out_proj"
    weight = base.weights.get(module) or base.parameters.get(f"{module}.in_proj_weight")
    return weight or tied(subject, f"{module}.weight")


def _has_size(subject: Subject, layer: Layer, weight: tuple[int, ...]) -> bool:
    """Whether A and B fit a weight: Linear [out, in], Conv1D [in, out], convolution [out, in, …], Embedding [V, d]."""
    inner = [subject.tensors[key].shape[1:] for name, key in layer.factors.items() if name.endswith("A")]
    outer = [subject.tensors[key].shape[:1] for name, key in layer.factors.items() if name.endswith("B")]
    if len(inner) != 1 or len(outer) != 1 or not all((*inner, *outer)):
        return True
    count = 1
    for size in weight[1:]:
        count *= size
    first, last = inner[0][0], outer[0][0]
    dimensions = {len(subject.tensors[key].shape) for name, key in layer.factors.items() if name.endswith(("A", "B"))}
    if len(weight) == 2:
        sides = (first, last) if any("embedding" in name for name in layer.factors) else (last, first)
        return dimensions == {2} and (sides == weight or (sides == weight[::-1] and subject.may_have_conv1d))
    if len(inner[0]) == 1:  # AdaLoRA's A is flat
        return last == weight[0] and first == count
    groups = first // weight[1] if weight[1] and first % weight[1] == 0 else 0  # weight[1] is in / groups
    return last == weight[0] and inner[0][1:] == weight[2:] and groups > 0 and last % groups == 0
