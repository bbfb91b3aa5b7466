"""Which modules a config targets, and with which rank and alpha, as each PEFT release reads it."""

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from ..adapter import are_few, numbered_alike
from .embeddings import HEAD
from .kinds import reads_numbers, stacks
from .names import as_number, is_all_linear, tails
from .patterns import NEW, OLD, is_plain, matched, of_keys, once, pay, reaches, whole
from .tasks import saved_whole

Release = tuple[int, ...]
"""A minor series: (0, 13). No patch release changed how a config is read."""

_COMMON_LAYERS = ["layers", "h", "block", "blocks", "layer"]  # 0.4 – 0.8: utils/other.py, COMMON_LAYERS_PATTERN


OUT_PROJ = ".base_layer.out_proj"
"""How the output of a MultiheadAttention is named, which is adapted with it (tuners/lora/layer.py)."""


class Reading(NamedTuple):
    """What a release makes of a config for one module: the rank it builds, its alpha, and the scale of the delta."""

    rank: Any
    alpha: Any
    scaling: float | None


def targeted(config: dict[str, object], module: str, release: Release) -> bool:
    """Whether a release adapts a module of this name (tuners/tuners_utils.py: check_target_module_exists; before 0.6
    in tuners/lora.py).

    "all-linear" is taken to name every module that has factors.
    """
    target = config.get("target_modules")
    if release >= (0, 15):
        module = module.removesuffix(OUT_PROJ)
    if release >= (0, 14) and _named(config.get("exclude_modules"), module, release):
        return False
    if release >= (0, 16) and _is_saved_whole(config, module):
        return False
    if release >= (0, 19) and config.get("ensure_weight_tying") and module.rpartition(".")[2] == HEAD:
        return True  # adapted with the embedding that it is tied to (tuners/tuners_utils.py: inject_adapter)
    if isinstance(target, str):
        if release >= (0, 8) and is_all_linear(target):
            return True
        return reaches(target, module)
    if not _named(target, module, release):
        return False
    if release >= (0, 8) and isinstance(target, list) and module in _listed(target).names:
        return True
    return release < (0, 4) or _in_layers(config, module, release)


def hits(config: dict[str, object], modules: Iterable[str], releases: Iterable[Release]) -> list[tuple[str, ...]]:
    """Those of some modules that each release adapts; remembered where words name them, as others have the same, and
    else for what a repair makes of this adapter.
    """
    some, all_ = tuple(modules), tuple(releases)
    names = tuple(tuple(value) if isinstance(value, list) else value for value in map(config.get, _WORDS))
    tied = bool(config.get("ensure_weight_tying"))
    counted = config.get("layers_to_transform") is not None
    if not counted and are_few(some) and all(map(_are_words, names)):
        return _hits(names, tied, some, all_)
    values = _read(config)
    known: dict[Any, Any] = once(values[0], "hits", dict) if isinstance(values[0], (list, str)) else {}
    key = (*map(id, values), some, all_)
    if key not in known:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        hit = [tuple(module for module in some if targeted(config, module, release)) for release in all_]
        known[key] = hit, values  # which live as long as their ids
    found: list[tuple[str, ...]] = known[key][0]
    return found


_MOST_KNOWN = 4
"""Of how many configs with one list of targets, and modules, it is remembered."""


_WORDS = ("target_modules", "exclude_modules", "modules_to_save")


def _read(config: dict[str, object]) -> tuple[object, ...]:
    """The config values that `targeted` reads."""
    keys = (*_WORDS, "layers_to_transform", "layers_pattern")
    return (*map(config.get, keys), bool(config.get("ensure_weight_tying")))


def _are_words(names: object) -> bool:
    listed = names if isinstance(names, tuple) else (names,)
    return names is None or (all(isinstance(name, str) and name.isidentifier() for name in listed) and are_few(listed))


@lru_cache(16)
def _hits(
    names: tuple[Any, ...], tied: bool, modules: tuple[str, ...], releases: tuple[Release, ...]
) -> list[tuple[str, ...]]:
    listed = [[*value] if isinstance(value, tuple) else value for value in names]
    config = dict(zip(_WORDS, listed, strict=True))
    told: dict[str, Any] = {**config, "ensure_weight_tying": tied}
    return [tuple(module for module in modules if targeted(told, module, release)) for release in releases]


def _named(names: Any, module: str, release: Release) -> bool:
    if isinstance(names, str):
        return whole(names, module)
    if not isinstance(names, list):
        return False
    listed = _listed(names)
    if release < (0, 5):
        return listed.is_end(module)
    if module in listed.names:
        return True
    if release < (0, 6):
        return bool(listed.every) and of_keys(listed.every, OLD).first(module) is not None
    return not listed.names.isdisjoint(tails(module))


def _listed(names: list[Any]) -> "_Listed":
    return once(names, "listed", lambda: _Listed(names))


def ends(names: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name ends with one of some, which may be many, as str.endswith has it."""
    return _Listed([*names]).is_end


class _Listed:
    """The names of a list of the config."""

    def __init__(self, names: list[Any]) -> None:
        self.every = tuple(name for name in names if isinstance(name, str))
        self.names = frozenset(self.every)
        self._lengths = {len(name) for name in self.names} if len(self.names) > 100 else set[int]()

    def is_end(self, module: str) -> bool:
        """Whether a module ends with one of the names."""
        if not self._lengths:
            return module.endswith(self.every)
        return any(module[len(module) - length :] in self.names for length in self._lengths if length <= len(module))


def _is_saved_whole(config: dict[str, object], module: str) -> bool:
    names = config.get("modules_to_save")
    if not isinstance(names, list) or not names:
        return False
    words, dotted, others = once(names, "saved", lambda: _divided(saved_whole(config)))
    if "\n" in module:  # which no dot of a pattern stands for
        words, dotted, others = frozenset(), [], saved_whole(config)
        pay("\n", len(others))
    parts = module.split(".")
    if not words.isdisjoint(parts):
        return True
    if dotted and any(of_keys(dotted).first(outer) is not None for outer in accumulate(parts, "{}.{}".format)):
        return True
    return any(matched(r"(^|.*\.){}($|\..*)", name, module) is not None for name in others)


def _divided(names: list[str]) -> tuple[frozenset[str], list[str], list[str]]:
    """Names that are one part of a module's, those that are several, and patterns."""
    others = [name for name in names if not name.isidentifier()]
    dotted = list(filter(is_plain, others))
    return frozenset(filter(str.isidentifier, names)), dotted, [name for name in others if not is_plain(name)]


def _in_layers(config: dict[str, object], module: str, release: Release) -> bool:
    """Whether a module is in one of the layers_to_transform, where these are given."""
    wanted = config.get("layers_to_transform")
    if wanted is None or (release >= (0, 8) and wanted == []):
        return True
    given = config.get("layers_pattern")
    patterns: Collection[Any] | None = None
    if isinstance(given, (str, list, dict)):
        patterns = [given] if isinstance(given, str) else given
    elif given:  # a number, say, which PEFT goes through in vain: "'int' object is not iterable"
        return False
    if release < (0, 8):
        form, patterns = r".*.{}\.(\d+)\.*", _COMMON_LAYERS if patterns is None else patterns
    elif not patterns:
        form, patterns = (r".*\.[^.]*\.(\d+)\." if release < (0, 20) else r".*?\.[^.]*\.(\d+)\."), [""]
    elif release < (0, 20):
        form = r".*\.{}\.(\d+)\."
    else:
        form = r".*?\.{}\.(\d+)\." if release < (0, 21) else r"(?:^|.*?\.){}\.(?P<idx>\d+)\."
    if len(patterns) > len(_COMMON_LAYERS):  # a list without end, asked of each module
        pay(str(next(iter(patterns))), len(patterns))
    for pattern in patterns:
        match = matched(form, str(pattern), module)
        if match:
            number = match.group("idx" if "<idx>" in form else 1)
            if number is None or not number.isdecimal():  # what a group of the pattern's own has: int() raises
                return False
            index = as_number(number)
            return index in _numbers(wanted) if isinstance(wanted, list) else index == wanted
    return False


def _numbers(listed: list[Any]) -> frozenset[Any]:
    return once(listed, "numbers", lambda: frozenset(number for number in listed if isinstance(number, (int, float))))


def lora_reading(config: dict[str, object], module: str, release: Release) -> Reading:
    """The rank and scale that a release gives a LoRA module (tuners/lora/model.py: _create_and_replace).

    Up to 0.5 there are no patterns; up to 0.13 one key serves both, the first of rank_pattern's and then
    alpha_pattern's that matches; from 0.14 each has its own; from 0.15 a key may also match from the start of the name,
    and be a regex.
    rsLoRA (Kalajdzievski 2023, arXiv:2312.03732; PEFT 0.8) divides alpha by the root of the rank.
    """
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    ranks, alphas = (config.get(key) or {} for key in ("rank_pattern", "alpha_pattern"))
    if release >= (0, 6) and isinstance(ranks, dict) and isinstance(alphas, dict):
        if release < (0, 14):
            key = _first(_both(ranks, alphas), module, release)
            rank, alpha = ranks.get(key, rank), alphas.get(key, alpha)
        else:
            rank = ranks.get(_first(ranks, module, release), rank)
            alpha = alphas.get(_first(alphas, module, release), alpha)
    if not isinstance(alpha, (int, float)) or not isinstance(rank, (int, float)) or rank <= 0:
        return Reading(rank, alpha, None)
    rooted = config.get("use_rslora") is True and release >= (0, 8)
    try:
        return Reading(rank, alpha, alpha / (rank**0.5 if rooted else rank))
    except OverflowError:  # JSON has whole numbers of any size
        return Reading(rank, alpha, None)


def _both(ranks: dict[str, Any], alphas: dict[str, Any]) -> Collection[str]:
    """The keys of both patterns, those of rank_pattern first."""
    if not ranks or not alphas:
        return ranks or alphas
    return once(ranks, f"and {id(alphas)}", lambda: ([*ranks, *alphas], alphas))[0]  # which lives as long as its id


def ambiguous(config: dict[str, object], module: str) -> bool:
    """Whether several keys of alpha_pattern name a module, as PEFT 0.14 and newer match them, with other values: which
    came first in training is lost, as PEFT sorts the keys when it saves them (config.py: save_pretrained).
    """
    alphas = config.get("alpha_pattern")
    if not isinstance(alphas, dict) or len(alphas) < 2:
        return False
    values = [alphas[key] for key in of_keys(alphas).all(module)]
    return any(value != values[0] for value in values)


def _first(keys: Collection[str], module: str, release: Release) -> str:
    if not keys:
        return module
    key = of_keys(keys, OLD if release < (0, 15) else NEW).first(module)
    return module if key is None else key


_MOST_HOLES = 1 << 12
"""As many more than there are modules are looked at; a number in a name is no count to work through."""


class Gaps(NamedTuple):
    """Modules that one would expect beside others and that are not there, and these names with 0 for each number."""

    names: list[str]
    alike: list[str]
    more: bool
    """Whether there may be others."""


def holes(gaps: Gaps, config: dict[str, object], release: Release) -> list[str]:
    """Those of the modules that one would expect that the config targets; remembered, as repairs change other keys."""
    read = _read(config)  # which live as long as their ids
    what = f"holes {release} {[*map(id, read)]}"
    return once(gaps.names, what, lambda: (_holes(gaps, config, release), read))[0]


def _holes(gaps: Gaps, config: dict[str, object], release: Release) -> list[str]:
    if reads_numbers(config):
        return [name for name in gaps.names if targeted(config, name, release)]
    hit = {kind for kind in dict.fromkeys(gaps.alike) if targeted(config, kind, release)}
    return [name for name, kind in zip(gaps.names, gaps.alike, strict=True) if kind in hit] if hit else []


def gaps_beside(modules: Iterable[str]) -> Gaps:
    """Modules that one would expect beside those given, targeted or not.

    Layers whose names differ in numbers only are expected to have the same modules, and no number to be left out; so
    are parts of one name ("attn") anywhere.
    """
    names = tuple(modules)
    return _missing(names) if are_few(names) else _missing.__wrapped__(names)


@lru_cache(8)
def _missing(modules: tuple[str, ...]) -> Gaps:
    present = dict.fromkeys(modules)
    alike = stacks(present)
    if alike and not _gaps(dict.fromkeys(alike.first))[0]:  # what is missing is so in every block, or in none
        return Gaps([], [], False)
    missing, more = _gaps(present)
    return Gaps(missing, numbered_alike(missing) if missing else [], more)


def _gaps(present: dict[str, None]) -> tuple[list[str], bool]:
    """What is not there, of whatever is expected, targeted or not; and whether there may be more."""
    leaves: dict[str, dict[str, None]] = {}
    parents: dict[str, dict[str, None]] = {}
    numbers: dict[tuple[str, str], int] = {}
    kinds: dict[str, str] = {}
    lying = set[str]()
    children: dict[str, int] = {}
    room = len(present) + _MOST_HOLES
    for module in present:
        parent, _, leaf = module.rpartition(".")
        if parent in kinds:
            leaves[kinds[parent]][leaf] = None
            children[parent] += 1
            continue
        children[parent] = 1
        kind = kinds[parent] = _kind(parent)
        leaves.setdefault(kind, {})[leaf] = None
        parents.setdefault(kind, {})[parent] = None
        parts = parent.split(".")
        # the numbered ones that it lies in; no model has a hundred thousand
        blocks = [at for at, part in enumerate(parts) if at and len(part) < 6 and part.isdecimal()]
        for at in blocks:
            block = ".".join(parts[: at + 1])
            if block not in lying:
                lying.add(block)
                parents.setdefault(_kind(block), {})[block] = None
        if blocks:
            at = blocks[0]
            before, after = ".".join(parts[:at]), "".join(f".{part}" for part in parts[at + 1 :])
            known, number = numbers.get((before, after), 0), int(parts[at])
            left_out = range(known, number)[:room]
            room -= len(left_out)
            parents[kind].update({f"{before}.{other}{after}": None for other in left_out})
            numbers[before, after] = max(known, number)
    missing = []
    for kind, siblings in parents.items():
        expected = leaves.get(kind, {})
        for parent in siblings:
            if children.get(parent) == len(expected):  # all of them
                continue
            names = [f"{parent}.{leaf}" for leaf in expected] if parent else []
            missing += [name for name in names if name not in present]
            if len(missing) > len(present) + _MOST_HOLES:
                return missing, True
    return missing, room <= 0


def _kind(name: str) -> str:
    """The last part of a name, without the numbers behind it."""
    return name.rstrip("0123456789.").rpartition(".")[2]


def _owners(parameters: list[Any]) -> set[str]:
    """The modules of parameters, "" where a name says none."""
    return {name.rpartition(".")[0] for name in parameters if isinstance(name, str)}


def of_parameter(module: str, parameters: object) -> bool:
    """Whether target_parameters names a parameter of a module, or may: a name alone is of any module that has such a
    parameter. PEFT wraps the module once for each (tuners/tuners_utils.py: BaseTuner._inject_parameters,
    tuners/lora/layer.py: ParamWrapper).
    """
    if not isinstance(parameters, list):
        return False
    while module.endswith(".base_layer"):
        module = module.removesuffix(".base_layer")
    owners = once(parameters, "owners", lambda: _owners(parameters))
    return "" in owners or not owners.isdisjoint(tails(module))
