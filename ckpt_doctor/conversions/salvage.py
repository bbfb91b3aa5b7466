"""An adapter inside a whole model: what PEFT would have saved of it, tensor by tensor.

The state dict of a model that PEFT wrapped has the weights of the model and the tensors of each adapter, under the
adapter's name: `q_proj.base_layer.weight`, `q_proj.lora_A.default.weight`. What PEFT saves of them, and under which
names, is in its utils/save_and_load.py: get_peft_model_state_dict, tuners/tuners_utils.py:
BaseTuner._get_adapter_state_dict and utils/other.py: ModulesToSaveWrapper.adapter_state_dict. The methods are those of
which that was seen to hold in real releases (tests/test_salvage.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from ..adapter import Adapter, Joined, zeros
from ..adapter.findings import several
from ..adapter.runtimes import NEWEST_SERIES
from ..facts.embeddings import ADAPTED, HEADS, USUAL
from ..facts.layers import RANK_AXIS, WRAPPERS, pattern_module
from ..facts.method_layers import divide, groups
from ..facts.methods import LORAS
from ..facts.names import PREFIX, targets
from ..facts.subject import Subject
from ..facts.targets import targeted
from ..files.base import as_loaded
from ..files.foreign import TABLES
from ..repairs.cuts import cut
from . import Converted, Foreign, Refused, Tool, Wants
from .peft import CONFIG, hold, hold_method, no_config

if TYPE_CHECKING:
    from ..adapter import Base, TensorInfo

    Tensors = Mapping[str, TensorInfo]

FACTORS = {
    "LORA": {
        "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B",
        "lora_magnitude_vector", "lora_magnitude_vector.weight",
    },
    "ADALORA": {"lora_A", "lora_B", "lora_E", "ranknum"},
}  # fmt: skip
"""The tensors of a layer of LoRA and AdaLoRA in a model (tuners/lora/layer.py: LoraLayer.adapter_layer_names;
tuners/adalora/layer.py: AdaLoraLayer); those of other methods are in their records."""
SAVED = {"lora_magnitude_vector.weight": "lora_magnitude_vector", "ranknum": ""}
"""What is saved under another name than it has in the model, or not at all (tuners/lora/model.py:
LoraModel._get_adapter_state_dict; tuners/adalora/model.py: AdaLoraModel._get_adapter_state_dict)."""
METHODS = (
    "LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "LN_TUNING", "FOURIERFT", "MISS", "C3A", "DELORA",
    "GRALORA", "HIRA", "WAVEFT",
)  # fmt: skip
"""The methods that are taken out of a model."""
KEPT, ROWS = "modules_to_save", ".token_adapter.trainable_tokens_delta."
"""Where the tensors of a module are that is trained whole, and the rows of one of which some are (utils/other.py:
ModulesToSaveWrapper, TrainableTokensWrapper)."""


class _Factor(NamedTuple):
    """A tensor of a layer in a model, and the name of the adapter that it is of."""

    module: str
    factor: str
    adapter: str


def to_peft(foreign: Foreign) -> list[Converted]:
    """The adapters in the tensors of a model, each as PEFT saves it; `foreign.config` has their configs by name.

    One that is not inside a PeftModel is called as in the model that it was added to (transformers' add_adapter), so
    that `foreign.base` has to have its modules. Raises Refused.
    """
    tensors = _unwrapped(foreign.tensors)
    methods: dict[str, str] = {}
    factors: dict[str, _Factor] = {}
    for key in tensors:
        for method, found in _read(key):
            if methods.setdefault(found.adapter, method) != method:
                raise Refused(f"the adapter {found.adapter} has tensors of {methods[found.adapter]} and of {method}")
            factors[key] = found
    if not factors:
        raise Refused(
            "no tensor is a factor with the name of an adapter behind it, as in a model of PEFT, of a method that is "
            "taken out of one"
        )
    tensors, factors = _rooted(tensors, factors, foreign.base)
    return [
        Converted(
            name if len(methods) > 1 else "",
            *_Salvage(name, methods, foreign.config.get(name), tensors, factors, foreign.base).saved(),
        )
        for name in methods
    ]


def adapters(tensors: Iterable[str]) -> list[str]:
    """The names of the adapters in a model, by the names of its tensors."""
    return list(dict.fromkeys(found.adapter for key in tensors for _, found in _read(key)))


def _read(key: str) -> Iterator[tuple[str, _Factor]]:
    """What a tensor of a model is the factor of, with the method; nothing where it is none."""
    heads = _heads()
    for method in dict.fromkeys(method for part in key.split(".") for method in heads.get(part, ())):
        found = _lora(method, key) if method in LORAS else divide(method, key)
        if found is not None and found[2] is not None:
            yield method, _Factor(found[0], found[1], found[2])


@cache
def _heads() -> dict[str, list[str]]:
    """The first parts of the names of factors, with the methods that have them."""
    heads: dict[str, list[str]] = {}
    for method in METHODS:
        ways = (way for group in groups(method) for way in group.ways)
        factors = FACTORS.get(method) or {factor for way in ways for factor in way}
        for head in {factor.partition(".")[0] for factor in factors}:
            heads.setdefault(head, []).append(method)
    return heads


def _lora(method: str, key: str) -> tuple[str, str, str] | None:
    """As `method_layers.divide`, of LoRA and AdaLoRA."""
    parts = key.split(".")
    for at in range(len(parts) - 2, 0, -1):
        factor = ".".join([parts[at], *parts[at + 2 :]])
        if factor in FACTORS[method] and parts[at + 1] not in ("weight", "bias"):
            return ".".join(parts[:at]), factor, parts[at + 1]
    return None


def _unwrapped(tensors: Tensors) -> dict[str, TensorInfo]:
    """The tensors without what torch and the launchers put into the names (torch.compile, FSDP, activation
    checkpointing; DistributedDataParallel puts `module.` before all of them).
    """
    everywhere = all(key.startswith("module.") for key in tensors)
    named: dict[str, TensorInfo] = {}
    for key, info in tensors.items():
        name = key.removeprefix("module.") if everywhere else key
        for wrapper in WRAPPERS:
            name = name.replace(wrapper, "")
        if named.setdefault(name, info) is not info:
            raise Refused(f"two tensors would be called {name}")
    return named


def _rooted(
    tensors: dict[str, TensorInfo], factors: dict[str, _Factor], base: Base | None
) -> tuple[dict[str, TensorInfo], dict[str, _Factor]]:
    """The tensors of the model that was adapted, under PEFT's names: from `base_model.model.` on, which is put there
    where it is missing.
    """
    before = {key.partition(PREFIX)[0] if PREFIX in key else None for key in factors}
    if len(before) > 1:
        raise Refused("the layers are of several models, or only some have PEFT's prefix (base_model.model.)")
    root = before.pop()
    if root is None:
        _check_names([found.module for found in factors.values()], base)
        root, put = "", PREFIX
    else:
        root, put = root + PREFIX, PREFIX
    named = {put + key[len(root) :]: info for key, info in tensors.items() if key.startswith(root)}
    moved = {
        put + key[len(root) :]: found._replace(module=put + found.module[len(root) :])
        for key, found in factors.items()
    }  # fmt: skip
    return named, moved


def _check_names(modules: list[str], base: Base | None) -> None:
    """Raises Refused where the base model is not known to have modules of these names."""
    if base is None or not base.weights:
        raise Wants(
            "--base MODEL",
            "the adapter was added to the model without PeftModel, so that only the base model tells whether its "
            "layers have the names that they have here",
        )
    there = as_loaded(base, modules, headless=True).weights
    # what wraps a model may be called as the part of it that its class has
    twice = [module for module in modules if len(set(module.split(".")[:2])) == 1 and "." in module]
    strange = list(dict.fromkeys([module for module in modules if module not in there] + twice))
    if strange:
        raise Refused(f"the base model has no module called {several(strange)}: another program's names are before it")


class _Salvage(NamedTuple):
    """One adapter in a model. `methods` are those of all adapters by name, `tensors` are the model's under PEFT's
    names, and `factors` what those of them are that are adapters'.
    """

    name: str
    methods: dict[str, str]
    config: Any
    tensors: Tensors
    factors: dict[str, _Factor]
    base: Base | None

    @property
    def method(self) -> str:
        """The method of the adapter."""
        return self.methods[self.name]

    def saved(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        """The config and the tensors that PEFT writes. Raises Refused."""
        mine = {key: found for key, found in self.factors.items() if found.adapter == self.name}
        config = self._config(mine)
        saved: dict[str, TensorInfo] = {}
        for key, found in mine.items():
            if f".{KEPT}." in found.module:
                raise Refused(f"{found.module} is adapted and kept whole at once, of which releases save other tensors")
            factor = SAVED.get(found.factor, found.factor)
            if factor:
                saved[f"{found.module}.{factor}"] = self.tensors[key]
        if self.method == "ADALORA":
            saved = self._pruned(config, saved)
        for key in self._biases(config):
            saved[self._without_name(key)] = self.tensors[key]
        saved.update(self._kept(config))
        for key in self._embeddings(config):
            saved[key] = self.tensors[key]
        self._check(config, saved)
        return config, saved

    def _config(self, mine: dict[str, _Factor]) -> dict[str, Any]:
        """The config, its pattern without the adapter's name, as PEFT writes it. Raises Refused where there is none."""
        if not isinstance(self.config, dict):
            told = (
                f"{self.name} is {self._described(mine)}, and what scales it stands in its adapter_config.json alone, "
                "which is not there"
            )
            raise Wants(CONFIG, told if len(self.methods) == 1 else no_config([self.name]))
        hold_method(self.config, self.method)
        pattern = self.config.get("rank_pattern")
        if self.method == "ADALORA" and isinstance(pattern, dict):
            pattern = {key.replace(f".{self.name}", ""): mask for key, mask in pattern.items()}
            return {**self.config, "rank_pattern": pattern}
        return self.config

    def _described(self, mine: dict[str, _Factor]) -> str:
        """What the tensors tell of the adapter, for a sentence."""
        words = sorted({found.module.rpartition(".")[2] for found in mine.values()})
        ranks = sorted({self.tensors[key].shape[0] for key, found in mine.items() if found.factor.startswith("lora_A")})
        rank = f" of rank {' to '.join(map(str, sorted({ranks[0], ranks[-1]})))}" if ranks else ""
        return f"an adapter of {self.method}{rank} on {several(words)}"

    def _without_name(self, key: str) -> str:
        """A key as it is saved: without the adapter's name before its last part."""
        head, _, last = key.rpartition(".")
        return f"{head.removesuffix(f'.{self.name}')}.{last}"

    def _biases(self, config: dict[str, object]) -> Iterator[str]:
        """The biases of the model that are trained with the adapter (tuners/tuners_utils.py:
        BaseTuner._get_learnable_bias_state_dict; up to 0.20 those of the adapted layers alone were left out).
        """
        bias = config.get("bias", "none")
        others = [f".{name}." for name in self.methods if name != self.name]
        if bias == "all":
            ours = (key for key in self.tensors if key.endswith(".bias") and key not in self.factors)
            yield from (key for key in ours if not any(other in key for other in others))
        elif bias != "none":
            layers = dict.fromkeys(found.module for found in self.factors.values())
            keys = (f"{layer}{inner}.bias" for layer in layers for inner in (".base_layer", ""))
            yield from (key for key in keys if key in self.tensors)

    def _kept(self, config: dict[str, object]) -> Iterator[tuple[str, TensorInfo]]:
        """The tensors of modules that are trained whole, and the trained rows of others."""
        rows = {}
        self._check_kept(config.get(KEPT))
        for key, info in self.tensors.items():
            module, mark, rest = key.partition(f".{KEPT}.{self.name}.")
            if mark:
                yield f"{module}.{rest}", info
            module, mark, rest = key.partition(ROWS)
            if mark and rest == self.name:
                rows[module] = info
        for module in self._own_rows(config, list(rows)):
            yield f"{module}{ROWS[:-1]}", rows[module]

    def _check_kept(self, named: object) -> None:
        """Raises Refused for a module that the config has trained whole, and of which the model has only its own
        weights (utils/other.py: _set_trainable wraps what ends with such a name).
        """
        for name in named if isinstance(named, list) else ():
            inside = [key for key in self.tensors if f".{name}." in key]
            if inside and not any(f".{name}.{KEPT}.{self.name}." in key for key in inside):
                raise Refused(f"{name} is in modules_to_save, and was not trained in the model: it is another's config")

    def _own_rows(self, config: dict[str, object], modules: list[str]) -> list[str]:
        """Those of some modules whose trained rows are saved: not those that are tied to the embedding and share its
        rows (utils/other.py: TrainableTokensWrapper.adapter_state_dict).
        """
        named = config.get("trainable_token_indices")
        if isinstance(named, dict):
            return [module for module in modules if any(f".{module}".endswith(f".{name}") for name in named)]
        own = [module for module in modules if module.rpartition(".")[2] not in HEADS]
        if len(own) != bool(modules):
            raise Refused(f"nothing tells which of {several(modules)} is the embedding whose rows were trained")
        return own

    def _embeddings(self, config: dict[str, object]) -> list[str]:
        """The weights of embeddings that are saved though they are not trained: of those that are adapted where the
        config names one by its usual name, else of all where their number of rows is not the base model's
        (get_peft_model_state_dict: save_embedding_layers "auto").
        """
        named = config.get("target_modules")
        modules = {key.removeprefix(PREFIX).rpartition(".")[0] for key in self.tensors}
        modules |= {found.module.removeprefix(PREFIX) for found in self.factors.values()}
        if isinstance(named, str):
            usual = [module for module in modules if module.rpartition(".")[2] in USUAL]
            adapted = named != "all-linear" and any(targets(named, module) for module in usual)
        else:
            adapted = isinstance(named, list) and any(name in named for name in USUAL)
        by_rows = config.get("trainable_token_indices") is not None
        if adapted and not by_rows:
            layers = {found.module for found in self.factors.values() if found.adapter == self.name}
            ours = [layer for layer in layers if layer.rpartition(".")[2] in TABLES]
            last = [layer.rpartition(".")[2] for layer in ours]
            if len(set(last)) != len(last):
                raise Refused(f"nothing tells which of {several(sorted(ours))} is the model's own embedding")
            starts = tuple(f"{layer}.base_layer." for layer in ours)
            found = [key for key in self.tensors if key.startswith(starts)] if starts else []
            lost = [layer for layer in ours if layer + ADAPTED not in found]
            if lost:
                raise Refused(f"the weight of {lost[0]}, which PEFT saves with the adapter, is not in the file")
            return found
        if self.base is None:
            return []
        whole = [key for key in self.tensors if key.endswith(".weight") and key.split(".")[-2] in TABLES]
        resized = any(
            (shape := self.base.parameters.get(key.removeprefix(PREFIX))) and shape != self.tensors[key].shape
            for key in whole
        )
        return whole if resized and not by_rows else []

    def _wrapped(self) -> set[str]:
        """The modules that some adapter was put around, but for those of which rows alone are trained."""
        split = (key.removeprefix(PREFIX).partition(".base_layer.") for key in self.tensors)
        return {module for module, mark, _ in split if mark and not module.endswith(".token_adapter")}

    def _pruned(self, config: dict[str, object], saved: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
        """AdaLoRA's factors without the triplets that its rank_pattern leaves out (tuners/adalora/model.py:
        AdaLoraModel.resize_state_dict_by_rank_pattern).
        """
        pattern = config.get("rank_pattern")
        for key, mask in pattern.items() if isinstance(pattern, dict) else ():
            module = PREFIX + pattern_module(key)
            if not isinstance(mask, list) or any(type(kept) is not bool for kept in mask):
                raise Refused(f"the rank_pattern of {pattern_module(key)} is not a list of true and false")
            for factor in ("lora_E", "lora_A", "lora_B"):
                info, axis = saved.get(f"{module}.{factor}"), RANK_AXIS[factor]
                if info is None or len(info.shape) != 2:
                    raise Refused(f"rank_pattern names {pattern_module(key)}, whose {factor} is not in the model")
                if info.shape[axis] != sum(mask):
                    if info.shape[axis] != len(mask):
                        raise Refused(
                            f"rank_pattern has {len(mask)} triplets for {pattern_module(key)}, and the model "
                            f"{info.shape[axis]}: it is another checkpoint's"
                        )
                    saved[f"{module}.{factor}"] = _masked(info, mask, axis)
        return saved

    def _check(self, config: dict[str, object], saved: Tensors) -> None:
        """Raises Refused where the config is not of these tensors: it would give them another scale."""
        layers = Subject(Adapter("", "", config, saved)).layers
        if config.get("target_parameters") is None and config.get("target_modules") is not None:
            bare = [name for name in self._wrapped() - layers.keys() if targeted(config, name, NEWEST_SERIES)]
            if bare:
                raise Refused(f"{several(sorted(bare))} had an adapter, and its tensors are not in the file")
        hold(config, saved, self.method)


def _masked(info: TensorInfo, mask: list[bool], axis: int) -> TensorInfo:
    """The rows (axis 0) or columns (axis 1) of a matrix that a mask keeps, each with its bits."""
    height, width = info.shape
    runs: list[range] = []
    for kept, run in groupby(range(len(mask)), key=mask.__getitem__):
        if kept:
            places = list(run)
            runs.append(range(places[0], places[-1] + 1))
    parts = tuple(cut(info, run) if axis == 0 else cut(info, range(height), run) for run in runs)
    shape = (sum(map(len, runs)), width) if axis == 0 else (height, sum(map(len, runs)))
    if len(parts) < 2:
        return parts[0] if parts else zeros(info.dtype, shape)
    return info._replace(shape=shape, source=Joined(parts, axis))


TOOL = Tool("a model of PEFT", "", "", to_peft)
