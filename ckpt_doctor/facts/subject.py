"""An adapter under a question: what rules, repairs and comparisons read of it, each worked out once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from ..adapter import NOTHING_ASKED, Adapter, Base, Form, Layer, Question, forms
from ..adapter.runtimes import NONE, PEFT, Ids, upto
from . import config_keys
from .kinds import Kinds
from .layers import RANK_AXIS, layers, pattern_module
from .lookup import Lookup, Unread, look_up
from .methods import LORAS, NAMED, OPTIONAL, record
from .names import PREFIX, Names
from .patterns import once
from .targets import Gaps, gaps_beside
from .tasks import OF_CONV1D, is_bare, saved_whole

if TYPE_CHECKING:
    from ..files.numbers import Numbers
    from .forms import Config, Sizes
    from .meaning import Era
    from .record import Method

Shape = tuple[int, ...]


class Subject:
    """An adapter, what is asked of it, and what follows from both.

    `config` is {} where there is none, `method` the peft_type in upper case, `tensors` are those of the adapter.
    `saved_by` are the releases that may have saved it, `triplets` the ranks of all layers together, None where the
    shapes do not tell; of an adapter on the way of a repair those of the original, which is `original`, of whose
    numbers no repair makes others.
    """

    def __init__(
        self, adapter: Adapter, question: Question = NOTHING_ASKED, saved_by: frozenset[str] | None = None,
        original: Subject | None = None,
    ) -> None:  # fmt: skip
        self.adapter = adapter
        self.question = question
        self.config: dict[str, object] = adapter.config or {}
        self.method = adapter.peft_type
        self.tensors = adapter.tensors
        self._original = original  # itself would be a cycle, of which memory is freed late
        if saved_by is not None:
            self.saved_by = saved_by

    @property
    def original(self) -> Subject:
        """The adapter as it was before any repair."""
        return self._original or self

    def changed(self, adapter: Adapter) -> Subject:
        """The same question of an adapter that a repair made of this one."""
        subject = Subject(adapter, self.question, self.saved_by, self.original)
        subject.triplets = self.triplets
        return subject

    @cached_property
    def saved_by(self) -> frozenset[str]:
        return config_keys.saved_by(self.method or "", self.config, self.adapter.record)

    @cached_property
    def triplets(self) -> int | None:
        ranks = [layer.rank for layer in self.layers.values()]
        return None if None in ranks else sum(rank or 0 for rank in ranks)

    @cached_property
    def numbers(self) -> Mapping[str, Numbers]:
        """What tensors of a floating type hold, where their values may be read; else nothing. Raises AdapterError."""
        if not self.question.values:
            return {}
        from ..files.loader import steady
        from ..files.numbers import numbers

        with steady(self.adapter):
            return numbers(self.tensors)

    @cached_property
    def zero_factors(self) -> dict[str, str]:
        """The layers of which a factor has nothing but zeros, and the first such factor. Raises AdapterError."""
        zero = {key for key, one in self.numbers.items() if one.is_zero}
        layers = [layer for layer in self.layers.values() if not zero.isdisjoint(layer.factors.values())]
        return {layer.module: next(factor for factor, key in layer.factors.items() if key in zero) for layer in layers}

    @cached_property
    def bin_agrees(self) -> bool | None:
        """Whether both weight files hold the same, None where that was not compared, as large ones are only where
        values may be read. Raises AdapterError.
        """
        if self.adapter.bin_agrees is not None or self.adapter.beside or not self.question.values:
            return self.adapter.bin_agrees
        from ..files.loader import BIN, agree, read_weights, steady

        with steady(self.adapter):
            return agree(self.tensors, read_weights(f"{self.adapter.folder}/{BIN}"))

    @cached_property
    def written_by(self) -> frozenset[str]:
        """The releases that write just the config keys that are there, leaving out those that no release has."""
        return config_keys.written_by(self.method or "", self.config)

    @cached_property
    def _layers(self) -> tuple[Mapping[str, Layer], Kinds]:
        return layers(self.adapter)

    @cached_property
    def gaps(self) -> Gaps:
        """Modules that one would expect beside the layers and that are not there."""
        return once(self.tensors, f"gaps of {self.method}", lambda: gaps_beside(self.layers))

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The adapted layers, by module."""
        return self._layers[0]

    @property
    def kinds(self) -> Kinds:
        """The modules of the layers of each kind: nothing that is read of one of them is read otherwise of another."""
        return self._layers[1]

    @cached_property
    def sample(self) -> dict[str, Layer]:
        """One layer of each kind, by module."""
        return {modules[0]: self.layers[modules[0]] for modules in self.kinds}

    @cached_property
    def others(self) -> Names:
        """The tensors that are no factors of layers."""
        counts = (len(layer.factors) for layer in self.sample.values())
        if sum(count * len(modules) for count, modules in zip(counts, self.kinds, strict=True)) == len(self.tensors):
            return []
        factors = {key for layer in self.layers.values() for key in layer.factors.values()}
        return [key for key in self.tensors if key not in factors]

    @cached_property
    def names(self) -> Names:
        """The tensors of the sample, and those of no layer."""
        return [*(key for layer in self.sample.values() for key in layer.factors.values()), *self.others]

    def layers_where(self, is_so: Callable[[Layer], bool]) -> Names:
        """The layers of which something is so that hangs on no number in their names."""
        if not any(map(is_so, self.sample.values())):
            return []
        return [module for module, layer in self.layers.items() if is_so(layer)]

    def factors_where(self, is_so: Callable[[str], bool]) -> Names:
        """The factors of layers of which something is so that hangs on no number in their names."""
        sampled = any(is_so(key) for layer in self.sample.values() for key in layer.factors.values())
        layers = self.layers.values() if sampled else ()
        return [key for layer in layers for key in layer.factors.values() if is_so(key)]

    def tensors_where(self, is_so: Callable[[str], object]) -> Names:
        """The tensors of whose names something is so that hangs on no number in them."""
        return [key for key in self.tensors if is_so(key)] if any(map(is_so, self.names)) else []

    @cached_property
    def eras(self) -> list[Era]:
        """What the releases make of the config, oldest first."""
        from .meaning import eras

        return eras(self)

    @cached_property
    def lookup(self) -> Lookup:
        """The tensors that releases do not find, by what is wrong with their names."""
        method = self.method or ""
        sampled = look_up(method, self.config, self.sample, self.names)
        return look_up(method, self.config, self.layers, self.tensors) if any(sampled) else sampled

    @cached_property
    def unread(self) -> Unread:
        """Tensor → the releases that do not find it."""
        return self.lookup.unread

    def unread_of(self, module: str) -> Ids:
        """The releases that find no tensor of a layer."""
        ids = [self.unread.get(key, NONE) for key in self.layers[module].factors.values()]
        return ids[0].intersection(*ids[1:])

    def found(self, modules: Iterable[str]) -> Ids:
        """The releases that find a tensor of these layers, so that it meets a shape."""
        return NONE.union(*(PEFT - self.unread_of(module) for module in modules))

    @cached_property
    def base(self) -> Base | None:
        """The base model with its modules named as they are once transformers has loaded it; None without its weights,
        as of a config.json alone.
        """
        if self.question.base is None or not self.question.base.weights:
            return None
        from ..files.base import as_loaded

        bare = not self.adapted_class or is_bare(self.adapted_class)
        headless = self.task == "FEATURE_EXTRACTION" or (not self.task and bare)
        found = [module for module in self.layers if self.found([module])]
        named = self.masks if self.method == "ADALORA" else ()
        return as_loaded(self.question.base, named or found or self.layers, headless)

    @property
    def model_type(self) -> str:
        """The type of the base model, "" where it is not known."""
        return str((self.question.base.config if self.question.base else {}).get("model_type") or "")

    @cached_property
    def may_have_conv1d(self) -> bool:
        """Whether the base model's linear layers may be of transformers' Conv1D, whose weight is `[in, out]`: those of
        any type that transformers does not have may.
        """
        from .servers.architectures import line

        return self.model_type in OF_CONV1D or line("transformers", f":{self.model_type}") is None

    @property
    def task(self) -> str:
        """The task_type, "" where there is none."""
        task = self.config.get("task_type")
        return task if isinstance(task, str) else ""

    @cached_property
    def saved_whole(self) -> list[str]:
        """The names in modules_to_save: of modules that are trained and saved whole."""
        return saved_whole(self.config)

    @property
    def adapted_class(self) -> str:
        """The class of the model that was adapted, which PEFT writes where there is no task; else ""."""
        mapping = self.config.get("auto_mapping")
        return str(mapping.get("base_model_class") or "") if isinstance(mapping, dict) else ""

    @property
    def saved_as(self) -> list[str]:
        """The classes that the base model's files were saved as."""
        names = self.question.base.config.get("architectures") if self.question.base else None
        return [str(name) for name in names] if isinstance(names, list) else []

    @cached_property
    def record(self) -> Method | None:
        """What is known of the method, where it is not LoRA or AdaLoRA, which have rules of their own."""
        return record(self.method)

    @property
    def is_named(self) -> bool:
        """Whether the method adapts what target_modules names, as LoRA does (tuners/tuners_utils.py: BaseTuner)."""
        method = self.record
        if method is None or not method.tensors:
            return self.method in LORAS
        named = method.targets == OPTIONAL and self.config.get("target_modules") is not None
        return named or method.targets == NAMED

    @property
    def defaults(self) -> Config:
        """The config keys of the method, each with its default."""
        return config_keys.defaults(self.method or "")

    @cached_property
    def chosen(self) -> Config:
        """What the config has that is no default: of another value or type, or of a key that no release has."""
        defaults = self.defaults
        return {
            key: value
            for key, value in self.config.items()
            if key not in defaults or value != defaults[key] or type(value) is not type(defaults[key])
        }

    @cached_property
    def sizes(self) -> Sizes:
        """The config as the grammar of tensors reads it."""
        from .forms import Sizes

        patterns = self.record.patterns if self.record and self.record.patterned(self.config) else {}
        return Sizes(self.config, self.defaults, patterns)

    @cached_property
    def masks(self) -> dict[str, object]:
        """AdaLoRA's rank_pattern: module → which triplets it kept, a true or false for each. A key that has PEFT's
        prefix, by which no release finds a module, is of the one that it means.
        """
        pattern = self.config.get("rank_pattern")
        named = ((pattern_module(key), mask) for key, mask in (pattern if isinstance(pattern, dict) else {}).items())
        return {name if name in self.layers else name.removeprefix(PREFIX): mask for name, mask in named}

    @cached_property
    def pruned(self) -> set[str]:
        """The modules that AdaLoRA's rank_pattern leaves no triplet."""
        return {module for module, mask in self.masks.items() if isinstance(mask, list) and mask and not any(mask)}

    @property
    def gone(self) -> Names:
        """The modules that AdaLoRA's rank_pattern gives a rank, and that have no tensors."""
        return [
            module for module, mask in self.masks.items()
            if module not in self.layers and (not isinstance(mask, list) or any(mask))
        ]  # fmt: skip

    @property
    def changes_base(self) -> bool:
        """Whether the initialisation changes the base weights, or may have; a release that saved it may have taken the
        word for true (PEFT 0.6 and older).
        """
        init = self.config.get("init_lora_weights")
        changing = isinstance(init, str) and init.lower().startswith(config_keys.CHANGES_BASE)
        changing = changing and not config_keys.has_no_gradients(self.config)
        return self.method == "LORA" and changing and not (self.saved_by and self.saved_by <= upto("0.6"))

    def value(self, key: str) -> object:
        """A config value as the newest release that knows the key reads it."""
        return self.config[key] if key in self.config else self.defaults.get(key)

    @cached_property
    def forms(self) -> Mapping[str, Form]:
        """The dtype and the shape of every tensor."""
        return forms(self.tensors)

    @cached_property
    def tensor_shapes(self) -> dict[str, Shape]:
        """The shape of every tensor."""
        return {key: shape for key, (_, shape) in self.forms.items()}

    def shapes(self, layer: Layer) -> dict[str, Shape]:
        """The shape of each factor of a layer."""
        return {factor: self.forms[key][1] for factor, key in layer.factors.items()}

    def having(self, is_so: Callable[[Layer, dict[str, Shape]], bool]) -> Names:
        """The layers of which something is so, of their shapes by factor."""
        return [module for module, layer in self.layers.items() if is_so(layer, self.shapes(layer))]

    def keys_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """The tensors that are named, or are of the layers named."""
        factors = [self.layers[name].factors.values() if name in self.layers else (name,) for name in names]
        return tuple(key for keys in factors for key in keys if key in self.tensors)

    def is_empty(self, key: str) -> bool:
        """Whether a tensor has no element."""
        return 0 in self.forms[key][1]

    def has_zero_factor(self, layer: Layer) -> bool:
        """Whether a factor of the layer has no row (or column) on its rank axis."""
        shapes = [(self.forms[key][1], RANK_AXIS[factor]) for factor, key in layer.factors.items()]
        return any(len(shape) >= 2 and shape[axis] == 0 for shape, axis in shapes)
