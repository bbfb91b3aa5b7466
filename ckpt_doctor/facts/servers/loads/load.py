"""An adapter as a loader meets it: pairs of factors by the names in the file, and a model by its config."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from ....adapter import Base
from ...names import PREFIX, as_number, numbered
from ..architectures import causal, line, text_config
from ..record import Outcome

Shape = tuple[int, ...]
_FACTOR = re.compile(r"(?P<module>.+)\.(?P<factor>lora_[AB]|lora_embedding_[AB])(?:\.weight)?")
MOST = 1 << 12
"""More layers and experts than any model has."""
TRANSPOSED = ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")
"""Classes whose experts are input by output, as PEFT's ParamWrapper sees them."""


class Pair(NamedTuple):
    """The factors of a module: the shapes of A and B, None where one is missing, and the keys of both."""

    a: Shape | None
    b: Shape | None
    keys: tuple[str, ...]
    embedding: bool

    @property
    def sizes(self) -> tuple[int, int] | None:
        """Output and input of the delta, None where the shapes do not tell."""
        if self.a is None or self.b is None or len(self.a) != 2 or len(self.b) != 2:
            return None
        return self.b[0], self.a[1]


class Fate(NamedTuple):
    """What becomes of some modules of the file in a server, and a sentence that says why.

    `about` is what it is about: model, module, place, group, factor, experts, tensor, size. `option` is the option of
    the server that makes it take them.
    """

    outcome: Outcome
    about: str
    message: str
    modules: tuple[str, ...] = ()
    needs: str = "a load in that runtime"
    option: str = ""


class Load:
    """What a loader reads: the adapter's config and tensors, and the config of the model with its weights, if known."""

    def __init__(self, config: dict[str, object], tensors: dict[str, Shape], base: Base) -> None:
        self.config, self.tensors, self.base = config, tensors, base
        self.model = base.config
        self.architecture = causal(base.config)
        self.text = text_config(base.config)
        self._named: dict[str, list[str]] = {}

    def named(self, key: str) -> list[str]:
        """The names in a list of the adapter's config; none where it is no list."""
        if key not in self._named:  # asked of each layer, and there may be 250,000
            value = self.config.get(key)
            self._named[key] = [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
        return self._named[key]

    @cached_property
    def patterns(self) -> list[str]:
        """The keys of rank_pattern and alpha_pattern."""
        tables = (self.config.get("rank_pattern"), self.config.get("alpha_pattern"))
        return [key for table in tables if isinstance(table, dict) for key in table]

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """The pairs of the file by the name of their module, without PEFT's prefix."""
        found: dict[str, dict[str, str]] = {}
        for key in self.tensors:
            match = _FACTOR.fullmatch(key)
            if match:
                found.setdefault(plain(match["module"]), {})[match["factor"]] = key
        return {module: self._pair(keys) for module, keys in found.items()}

    def _pair(self, keys: dict[str, str]) -> Pair:
        shapes = {factor[-1]: self.tensors[key] for factor, key in keys.items()}
        embedding = any("embedding" in factor for factor in keys)
        return Pair(shapes.get("A"), shapes.get("B"), tuple(keys.values()), embedding)

    @cached_property
    def others(self) -> list[str]:
        """The tensors that are no factor."""
        return [key for key in self.tensors if not _FACTOR.fullmatch(key)]

    @cached_property
    def layers(self) -> int | None:
        """How many layers the language model has."""
        for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
            count = self.text.get(key)
            if type(count) is int and 0 <= count < MOST:
                return count
        numbers = (re.search(r"\b(?:layers|h|blocks|layer)\.(\d+)\.", name) for name in self.base.weights)
        return max((as_number(match[1]) + 1 for match in numbers if match), default=None)

    @cached_property
    def beyond(self) -> frozenset[str]:
        """The modules of layers past the last, where the layers of the model have all of them as well, so that nothing
        is lost where they are dropped.
        """
        if self.layers is None:
            return frozenset()
        numbers: dict[str, set[int]] = {}
        found: dict[str, int] = {}
        for module in self.pairs:
            match = re.search(r"\b(?:layers|h|blocks|layer)\.(\d+)\.", module)
            if match:
                kind = numbered(module)
                numbers.setdefault(kind, set()).add(as_number(match[1]))
                found[module] = as_number(match[1])
        past = {module for module, number in found.items() if number >= self.layers}
        every = set(range(self.layers))
        return frozenset(module for module in past if every <= numbers[numbered(module)])

    @cached_property
    def experts(self) -> int | None:
        """How many experts a layer has."""
        for key in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
            count = self.text.get(key)
            if type(count) is int and 0 < count < MOST:
                return count
        return None

    @property
    def tied(self) -> bool | None:
        """Whether the head is the embedding: as the weights show, or the config says; None where neither does."""
        if self.base.weights:
            return not any(name.endswith(("lm_head", "embed_out")) or name == "output" for name in self.base.weights)
        value = self.model.get("tie_word_embeddings", self.text.get("tie_word_embeddings"))
        of_type = line("transformers", f":{self.model.get('model_type')}") or {}
        value = of_type.get("tied") if value is None else value
        return value if isinstance(value, bool) else None

    @cached_property
    def sizes(self) -> frozenset[int]:
        """The sizes that a module of the model may have, as its config tells them."""
        configs = [part for part in (self.model, *self.model.values()) if isinstance(part, dict)]
        labels = self.model.get("id2label")
        heads = (len(labels) if isinstance(labels, dict) else 2,) if "Classification" in str(self.architecture) else ()
        return frozenset((*heads, *(size for config in configs for size in _sizes(config))))


def plain(name: str) -> str:
    """A name without PEFT's prefix, however often it is there."""
    while name.startswith(PREFIX):
        name = name[len(PREFIX) :]
    return name


def several(names: Iterable[str]) -> str:
    """Names with numbers left out, each once: `layers.#.mlp.up_proj, lm_head and 3 more`."""
    kinds = list(dict.fromkeys(numbered(name) for name in names))
    return f"{', '.join(kinds[:3])} and {len(kinds) - 3} more" if len(kinds) > 4 else ", ".join(kinds)


def _sizes(config: dict[str, object]) -> Iterable[int]:
    """What a config's numbers multiply to where a model does so: heads, fused projections, experts that are shared."""
    plain_ = {key: value for key, value in config.items() if type(value) is int and 0 < value < 1 << 40}
    yield from plain_.values()
    hidden = plain_.get("hidden_size") or plain_.get("n_embd") or plain_.get("d_model")
    heads = plain_.get("num_attention_heads") or plain_.get("n_head")
    if hidden and heads:
        kv = plain_.get("num_key_value_heads") or plain_.get("num_kv_heads") or heads
        for head in {plain_.get("head_dim") or hidden // heads, hidden // heads}:
            yield from (heads * head, kv * head, (heads + 2 * kv) * head, 2 * heads * head, head)
            yield from ((heads // kv + 2) * kv * head, (heads + 2) * head)
        yield from (3 * hidden, 4 * hidden)
        for key in ("qk_nope_head_dim", "v_head_dim", "qk_rope_head_dim"):
            yield from (heads * plain_.get(key, 0), heads * (plain_.get("qk_nope_head_dim", 0) + plain_.get(key, 0)))
        if "kv_lora_rank" in plain_:
            yield plain_["kv_lora_rank"] + plain_.get("qk_rope_head_dim", 0)
    shared = plain_.get("n_shared_experts", 1)
    for key in [key for key in plain_ if key.endswith("intermediate_size") or key in ("ffn_dim", "n_inner")]:
        yield from (2 * plain_[key], shared * plain_[key])
    keys, values = plain_.get("linear_num_key_heads", 0), plain_.get("linear_num_value_heads", 0)
    if keys and values:
        width, height = keys * plain_.get("linear_key_head_dim", 0), values * plain_.get("linear_value_head_dim", 0)
        yield from (2 * width + height, 2 * width + 2 * height, height, values, 2 * values)
