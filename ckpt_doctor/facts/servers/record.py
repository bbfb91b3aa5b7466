"""What is known of a server: a record, whose fields follow its load. A field that is left out is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from ...adapter.runtimes import NAMED, ran

Outcome = Literal["takes", "rejects", "misloads", "unknown"]
TAKES: Outcome = "takes"
"""It computes what was meant; where it ignores something, nothing was meant by it."""
REJECTS: Outcome = "rejects"
MISLOADS: Outcome = "misloads"
"""It loads without an error and computes something else."""
UNKNOWN: Outcome = "unknown"
"""No fact speaks; or it loads what PEFT rejects, so that nothing tells what was meant."""

ANY = "*"
Table = Mapping[str, Outcome]
"""What becomes of each of several things by its name; `ANY` is every other, which is unknown where there is no such."""

NOTHING: Table = MappingProxyType({})


def outcome(table: Table, name: str) -> Outcome:
    """What a table says of a name."""
    return table.get(name, table.get(ANY, UNKNOWN))


class Scale(NamedTuple):
    """The formula of the scale: alpha over a rank, or over its root.

    `rank` is the config's `r`, or the first side of the layer's own A. `reads` are the config keys that are honoured
    beside `r` and `lora_alpha`: use_rslora, alpha_pattern, rank_pattern. `of_zero` is what a scale of 0 becomes.
    """

    rank: Literal["config", "tensor"]
    reads: frozenset[str] = frozenset()
    of_zero: float = 0.0


class Server(NamedTuple):
    """A server in one version: what it reads, needs, rejects, ignores, its scale, its ranks.

    `sources` names for each field that is filled where the fact comes from: "ran", or `file: symbol` of the server.
    """

    id: str
    """As in `runtimes`: name==version."""
    sources: Mapping[str, str] = MappingProxyType({})

    says: Mapping[str, str] = MappingProxyType({})
    """Field → the server's own words where it rejects, for whoever looks for them."""
    peft: str | None = None
    """The release of PEFT that it loads with; None: it has a loader of its own."""

    # files
    files: Table = NOTHING
    """Pattern of a file's name (fnmatch) → what becomes of the weights in it; ANY: no file is found."""
    shards: Outcome = UNKNOWN
    """Weights in several files, each of which `files` takes."""
    no_tensors: Outcome = UNKNOWN
    """A file of weights that holds none."""

    # config
    newer_keys: Outcome = UNKNOWN
    """Config keys that PEFT 0.4 did not have, by their names alone."""
    missing: Table = NOTHING
    """Config key → what becomes of a config without it."""
    r: Table = NOTHING
    """Kind of the config's r: int (above 0), float (a whole number above 0), other."""
    lora_alpha: Table = NOTHING
    """Kind of lora_alpha: int (0 or more), float (a whole number), fraction (any other number), text, null, other."""
    bias: Outcome = UNKNOWN
    """A `bias` in the config that is not "none"."""
    saved_modules: Table = NOTHING
    """Name in modules_to_save → what its being there does, whatever the tensors are."""
    odd_rank_pattern: Outcome = UNKNOWN
    """A value in rank_pattern that is no whole number above 0."""
    target_forms: Table = NOTHING
    """Form of target_modules: list, all-linear (or all), regex, null."""
    target_names: Table = NOTHING
    """Last part of a name in a list of target_modules."""

    # method and options
    methods: Table = NOTHING
    """peft_type → what becomes of the config; of factors that are none of LoRA's, `keys` says more."""
    no_factors: Outcome = UNKNOWN
    """LoRA by its config, without one factor of LoRA."""
    pruned: Outcome = UNKNOWN
    """An AdaLoRA with a layer whose rank is not init_r."""
    options: Table = NOTHING
    """Config key of LoRA that is set → what becomes of the adapter. use_dora is DoRA without its tensors,
    lora_magnitude_vector with them; `init_lora_weights=pissa` and others are ways to change the base."""

    # scale and ranks
    scale: Scale | None = None
    """The scale of a layer, None where it is unknown."""
    ranks: Table = NOTHING
    """Rank of a layer, as a text → what becomes of its scale and factors."""
    uneven_ranks: Outcome = UNKNOWN
    """Layers whose rank is not the config's r, as rank_pattern says."""
    over_limit: Outcome = UNKNOWN
    """A rank above the limit that the server was started with."""
    rank_flags: tuple[int, ...] = ()
    """The values that the limit may have, smallest first; none where any will do."""

    # modules
    modules: Table = NOTHING
    """Last part of an adapted module's name → what becomes of its factors, whatever the base model is."""
    fused: Mapping[str, tuple[str, ...]] | None = None
    """Module → those that an adapter needs beside it in the same layer, as the server fuses them; None: unknown."""
    partial_types: Outcome = UNKNOWN
    """A kind of module that only some of the adapted layers have."""

    # tensors
    keys: Table = NOTHING
    """Kind of a factor's key: plain, no prefix (or one too many), wrapped (by torch.compile, FSDP ...), other end (an
    adapter's name, no .weight, a factor of AdaLoRA or of another method)."""
    factors: Table = NOTHING
    """What is wrong with the factors of a layer: flat, A alone, B alone, B alone in a fused group, no rows, two ranks
    (A and B do not agree)."""
    dtypes: Table = NOTHING
    """Dtype of a factor, as safetensors names it."""
    tensors: Table = NOTHING
    """Kind of a tensor that is no factor: magnitude (where DoRA is not set), trainable tokens, bias, bias of none (the
    base has no such), norm, norm in a layer, embedding or head, factor of another tool, tensor of a layer, other."""
    saved_tensors: Outcome = UNKNOWN
    """Tensors of a module in modules_to_save, beside what `tensors` says."""

    # the base model
    way: frozenset[str] | None = None
    """What the load into the model's class has of that which not every release of the server has, by the names that
    its file in `loads/` gives it; None: nobody followed it. Servers of which one release is known have none."""
    largest_vocabulary: int | None = None
    """The most tokens that a model may have whose head has LoRA; None: any."""
    models: Table = NOTHING
    """model_type of the base model."""
    places: Table = NOTHING
    """Layers that the base has not under their path: unknown module (by its last part), elsewhere (that part is in
    another place), all elsewhere (not one layer is where it should be), beyond (a layer past the last)."""

    @property
    def ran(self) -> bool:
        """Whether its own loading code was run; else its source was read."""
        return ran(self.id)

    @property
    def name(self) -> str:
        """Its name without the release."""
        return self.id.partition("==")[0]

    @property
    def table(self) -> str:
        """The name of its table by architecture; that of an older release has the release in it."""
        plain = self.name.replace(".", "_")
        return plain if self.id == NAMED.get(self.name) else self.id.replace("==", "-").replace(self.name, plain)


FIELDS = tuple(field for field in Server._fields if field not in ("id", "sources", "says", "rank_flags"))
"""The fields that rules ask."""
