"""What a LoRA or AdaLoRA means: the layers that a release adapts, and the scale that it gives each.

What an adapter means is what the release that saved it makes of it. Where that is not known, it is what each release
makes of it that may have saved it, and whoever relies on it has to be right for all of them.
"""

from collections.abc import Collection
from functools import cache
from itertools import chain
from typing import NamedTuple

from ..adapter import Layer
from ..adapter.runtimes import NONE, PEFT, between, minor, since, turns, upto
from .config_keys import INIT
from .embeddings import EMBEDDINGS
from .layers import RANK_AXIS
from .methods import LORAS
from .names import is_all_linear
from .subject import Subject
from .targets import OUT_PROJ, Reading, Release, ambiguous, hits, lora_reading


class Era(NamedTuple):
    """Releases that read a config alike, and what they make of it: the layers of the file that they adapt (`hit`), the
    rank and scale that they give one of each kind, and the layers whose tensors they find, and which do not have the
    rank that is built.
    """

    release: Release
    ids: frozenset[str]
    hit: frozenset[str]
    readings: dict[str, Reading]
    misfits: list[str]


class Meaning(NamedTuple):
    """The layers of the file that the releases `ids` adapt, by module, with the alpha and scale that they give them."""

    ids: frozenset[str]
    layers: dict[str, Layer]

    @property
    def scales(self) -> dict[str, float | None]:
        """The scale of each layer that has a delta: one of rank 0 has none."""
        return {module: layer.scaling for module, layer in self.layers.items() if layer.rank != 0}


def eras(subject: Subject) -> list[Era]:
    """What the releases make of a config, oldest first."""
    config = subject.config
    starts = ["0.2", "0.5", "0.6"]
    if config.get("layers_to_transform") is not None:
        starts += ["0.4", "0.8", "0.20", "0.21"]
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        starts += ["0.14", "0.15"]
    starts += ["0.8"] if config.get("use_rslora") or isinstance(config.get("target_modules"), str) else []
    starts += ["0.14"] if config.get("exclude_modules") else []
    starts += ["0.15"] if any(module.endswith(OUT_PROJ) for module in subject.sample) else []
    starts += ["0.16"] if config.get("modules_to_save") else []
    starts += ["0.19"] if config.get("ensure_weight_tying") else []
    starts += [start for ids in {*subject.unread.values()} for start in turns(ids)]
    ordered = sorted({minor(start) for start in starts})
    kinds = {modules[0]: modules for modules in subject.kinds}
    if is_all_linear(config.get("target_modules")):
        kinds = {module: modules for module, modules in kinds.items() if _is_linear(subject, module)}
    # before BaseTuner was shared IA3 read names as it does (tuners/ia3.py: _is_valid_match)
    firsts = [start if subject.method in LORAS else max(start, (0, 6)) for start in ordered]
    patterned = config.get("rank_pattern") or config.get("alpha_pattern")
    periods: list[Era] = []
    same: dict[tuple[str, ...], frozenset[str]] = {}
    for start, after, first, adapted in zip(
        ordered, [*ordered[1:], (99, 0)], firsts, hits(config, kinds, firsts), strict=True
    ):
        ids = _between(start, after)
        hit = same.get(adapted)
        if hit is None:
            hit = same[adapted] = frozenset(chain.from_iterable(map(kinds.__getitem__, adapted)))
        if subject.method != "LORA":
            readings = {}
        elif patterned:
            readings = {module: lora_reading(config, module, first) for module in adapted}
        else:
            readings = dict.fromkeys(adapted, lora_reading(config, "", first))
        if not periods or not _alike(readings, periods[-1].readings):
            unfit = [m for m, reading in readings.items() if not _fits(subject, subject.layers[m], reading.rank)]
        found = [kinds[module] for module in unfit if not ids <= subject.unread_of(module)]
        where = set(chain.from_iterable(found))
        misfits = [module for module in subject.layers if module in where] if where else []
        periods.append(Era(first, ids, hit, readings, misfits))
    return periods


def _alike(some: dict[str, Reading], others: dict[str, Reading]) -> bool:
    """Whether two releases make the same of a config: a rank of 4.0 is equal to 4, and no size of a tensor."""
    return some == others and all(type(some[module].rank) is type(other.rank) for module, other in others.items())


def _is_linear(subject: Subject, module: str) -> bool:
    """Whether a layer is none that "all-linear" leaves out: a convolution or an embedding (tuners/tuners_utils.py:
    _maybe_include_all_linear_layers).
    """
    factors = subject.layers[module].factors.items()
    return all(len(subject.forms[key][1]) <= 2 and "embedding" not in factor for factor, key in factors)


def taking(every: list[Era]) -> list[Era]:
    """Those that adapt layers of the file, and take the tensors of all that they adapt."""
    return [era for era in every if era.hit and not era.misfits]


def meant_era(subject: Subject) -> Era | None:
    """What was meant: what the newest release makes of it that may have saved it, or else that takes it."""
    if subject.config.get("target_modules") is None:
        return None
    whole = taking(subject.eras)
    return next((era for era in reversed(whole) if subject.saved_by & era.ids), whole[-1] if whole else None)


def meanings(subject: Subject, ids: frozenset[str] = PEFT) -> list[Meaning]:
    """What the releases `ids` make of an subject, each meaning once; none of those that cannot take its tensors.

    Without target_modules, which each release then takes from a table of its own, and with target_parameters, every
    layer of the file is taken to be adapted.
    """
    config = subject.config
    unnamed = config.get("target_modules") is None or bool(config.get("target_parameters"))
    distinct: list[Meaning] = []
    for era in subject.eras:
        hit = subject.layers.keys() if unnamed else era.hit
        if not hit or era.misfits or not era.ids & ids:
            continue
        read = _as_read(subject, hit, era.release)
        alike = next((at for at, other in enumerate(distinct) if other.layers == read), None)
        if alike is None:
            distinct.append(Meaning(era.ids & ids, read))
        else:
            distinct[alike] = Meaning(distinct[alike].ids | (era.ids & ids), read)
    return distinct


def _as_read(subject: Subject, hit: Collection[str], release: Release) -> dict[str, Layer]:
    """The layers that are adapted, in the order of the file, each with the scale of the first of its kind."""
    scales: dict[str, tuple[int | None, float | None, float | None]] = {}
    for modules in subject.kinds:
        scales.update(dict.fromkeys(modules, _read(subject, subject.layers[modules[0]], release)[2:]))
    return {
        module: layer if layer[2:] == scales[module] else Layer(module, layer.factors, *scales[module])
        for module, layer in subject.layers.items() if module in hit
    }  # fmt: skip


def saved_meanings(subject: Subject) -> list[Meaning]:
    """What the releases make of an adapter that may have saved it; where none of these takes its tensors, the factors
    as they stand, by no release.
    """
    return meanings(subject, subject.saved_by) or [Meaning(NONE, dict(subject.layers))]


def _read(subject: Subject, layer: Layer, release: Release) -> Layer:
    if subject.method != "LORA" or layer.rank is None:
        return layer
    config = subject.config
    if release >= (0, 14) and ambiguous(config, layer.module):
        return layer._replace(alpha=None, scaling=None)
    reading = lora_reading(config, layer.module, release)
    return layer._replace(alpha=reading.alpha, scaling=reading.scaling if layer.rank else None)


@cache
def _between(first: Release, end: Release) -> frozenset[str]:
    """The releases from the one series on, up to the other, which is not of them."""
    return since(".".join(map(str, first))) - since(".".join(map(str, end)))


def _fits(subject: Subject, layer: Layer, rank: object) -> bool:
    """Whether a module of this rank takes the layer's tensors; rank 0 and flat tensors have rules of their own."""
    if type(rank) is int and rank <= 0:
        return True
    shapes = [(subject.forms[key][1], RANK_AXIS[factor]) for factor, key in layer.factors.items()]
    if not layer.rank and any(len(shape) < 2 or not shape[axis] for shape, axis in shapes):
        return True
    init = subject.config.get("init_lora_weights")
    cut = isinstance(init, str) and init.lower().startswith(("pissa", "olora"))
    if cut and type(rank) is int and "lora_A" in layer.factors:  # an embedding is not
        # what is cut from the base has no more rows than the base (tuners/lora/layer.py: LoraLayer.olora_init)
        sides = [size for shape, axis in shapes for at, size in enumerate(shape) if at != axis]
        rank = min(rank, *sides)
    return layer.rank is not None and type(rank) is int and layer.rank == rank


def without_layer(subject: Subject, module: str) -> frozenset[str]:
    """The releases in which AdaLoRA has no layer for a module of the base model: it has a Linear's and a Conv1D's, both
    with a weight of two dimensions, and from 0.20 on a Conv2d's (tuners/adalora/model.py:
    AdaLoraModel._create_new_module, "Target module … is not supported").
    """
    base = subject.base
    shape = base.weights.get(module, ()) if base else ()
    if len(shape) == 4:
        return upto("0.19")
    vocabulary = base.config.get("vocab_size") if base else None
    is_table = module.rpartition(".")[2] in EMBEDDINGS and shape[:1] == (vocabulary,)
    return PEFT if len(shape) > 2 or is_table else NONE


def left_random(subject: Subject) -> frozenset[str]:
    """The releases in which a layer without tensors is not what it was.

    A LoRA layer that nothing is loaded into computes nothing, as its B is zero: PEFT saves every layer that it adapts,
    so that the name was another model's, or the tensors were lost, which the files do not tell. By other
    initialisations it is random, or changes the base (tuners/lora/layer.py: LoraLayer.reset_lora_parameters). An
    AdaLoRA layer that neither the file nor its rank_pattern has was pruned: 0.12 and newer leave it at zero, 0.5 – 0.11
    at lora_E ~ N(0, 0.02), and with init_lora_weights false it is uninitialised from 0.5 on (tuners/adalora/layer.py:
    reset_lora_parameters).
    """
    config, method = subject.config, subject.record
    if method is not None:  # with its init flag off any method starts so (run with 28 in PEFT 0.21.2)
        flags = [key for key, why in method.harmless.items() if why is INIT]
        return PEFT if method.starts_random or any(config.get(flag) is False for flag in flags) else NONE
    if subject.method == "LORA" and config.get("init_lora_weights", True) in (True, "gaussian"):
        return frozenset()
    if subject.method != "ADALORA":
        return PEFT
    return since("0.5") if config.get("init_lora_weights") is False else between("0.5", "0.11")
