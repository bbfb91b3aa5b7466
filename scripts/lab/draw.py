"""A config by random draw: a method that the release has, and options of it that the release knows.

Runs inside the environment of a PEFT release. What is drawn may not fit together, and the release then says so: whoever
asks draws again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection
from random import Random
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers.pytorch_utils import Conv1D

CONFIGS = {getattr(method, "value", method): config for method, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
OFTEN = {"LORA": 40, "ADALORA": 6, "IA3": 6, "LOHA": 4, "LOKR": 4, "OFT": 3, "BOFT": 2, "VERA": 3, "PROMPT_TUNING": 2,
         "P_TUNING": 1, "PREFIX_TUNING": 2}  # fmt: skip
SELDOM = 0.6
NEVER = frozenset({"XLORA", "POLY", "MULTITASK_PROMPT_TUNING", "SHADOW", "CARTRIDGE", "CPT"})
"""They need adapters, tasks or texts of their own."""
METHODS = tuple(method for method in CONFIGS if method not in NEVER)
PROMPTS = frozenset({"PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT"})
HEADS = ("lm_head", "score", "classifier", "qa_outputs", "embed_out", "proj_out", "discriminator_predictions", "pooler",
         "classification_head", "decoder_lm")  # fmt: skip

Draw = Callable[[Random, "Model"], Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """What of a model can be named: module → its kind, and which of them is its head."""

    kinds: dict[str, str]
    parameters: dict[str, int]

    @property
    def bodies(self) -> list[str]:
        """Modules that are commonly adapted, in full."""
        return [name for name, kind in self.kinds.items() if kind in ("Linear", "Conv1D") and not self.is_head(name)]

    @property
    def heads(self) -> list[str]:
        """What is trained beside the adapter, commonly."""
        return sorted({part for name in self.kinds for part in name.split(".") if part in HEADS})

    def of(self, *kinds: str) -> list[str]:
        """The last names of all modules of some kinds."""
        return sorted({name.rpartition(".")[2] for name, kind in self.kinds.items() if kind in kinds})

    @staticmethod
    def is_head(name: str) -> bool:
        """Whether the module is (part of) a head."""
        return any(part in HEADS for part in name.split("."))


def looked_at(model: Any) -> Model:
    """What of a model can be named."""
    kinds = (torch.nn.Linear, Conv1D, torch.nn.Conv2d, torch.nn.Conv1d, torch.nn.Embedding, torch.nn.LayerNorm)
    named = {
        name: next((kind.__name__ for kind in kinds if isinstance(module, kind)), "") for name, module in model.named_modules()
    }  # fmt: skip
    parameters = {name: weight.dim() for name, weight in model.named_parameters()}
    return Model({name: kind for name, kind in named.items() if kind}, parameters)


def _leaves(rng: Random, model: Model) -> list[str]:
    leaves = sorted({name.rpartition(".")[2] for name in model.bodies})
    return sorted(rng.sample(leaves, min(len(leaves), rng.choice((1, 2, 2, 3)))))


FORMS = {"names": 9, "full": 2, "regex": 3, "tails": 2, "all": 1, "none": 2, "embedding": 2, "head": 1, "conv": 1}
"""How targets are named, and how often."""
EXPRESSIONS = (r".*\.({})", r".*(?:layers?|blocks?|h)\.[01]\..*\.?({})$", r"^.*\.1\..*({})")


def _targets(rng: Random, model: Model) -> Any:
    form = rng.choices(tuple(FORMS), tuple(FORMS.values()))[0]
    leaves = _leaves(rng, model)
    full = [name for name in model.bodies if name.rpartition(".")[2] in leaves]
    if form == "regex":
        return rng.choice(EXPRESSIONS).format("|".join(map(re.escape, leaves)))
    return {
        "names": leaves, "full": full, "tails": sorted({".".join(name.split(".")[-2:]) for name in full}),
        "all": "all-linear", "none": None, "embedding": [*leaves, rng.choice(model.of("Embedding") or leaves)],
        "head": [*leaves, *model.heads[:1]], "conv": model.of("Conv2d", "Conv1d") or leaves,
    }[form]  # fmt: skip


def _pattern(*values: Any) -> Draw:
    """A pattern by module: its key is a last name, a full one, or a regular expression."""

    def draw(rng: Random, model: Model) -> dict[str, Any]:
        name = rng.choice(model.bodies)
        tail = name.rpartition(".")[2]
        return {rng.choice((tail, tail, name, rf".*\.1\..*\.{re.escape(tail)}", rf"^.*{tail}$")): rng.choice(values)}

    return draw


def _one_of(*values: Any) -> Draw:
    return lambda rng, _: rng.choice(values)


def _extra(rng: Random, model: Model) -> Any:
    return rng.choice([[name] for name in (*model.heads, *model.of("Embedding", "LayerNorm"))])


def _parameters(rng: Random, model: Model) -> list[str]:
    stacked = [name for name, dims in model.parameters.items() if dims == 3]
    names = stacked or [f"{name}.weight" for name in model.bodies]
    return [".".join(rng.choice(names).split(".")[-rng.choice((2, 3, 9)) :])]


def _tokens(rng: Random, model: Model) -> Any:
    return rng.choice(([3, 5, 9], {rng.choice(model.of("Embedding") or ["embed_tokens"]): [4, 7]}))


def _layers(rng: Random, _: Model) -> Any:
    return rng.choice((0, [0], [1], [0, 1]))


def _excluded(rng: Random, model: Model) -> Any:
    name = rng.choice(model.bodies)
    return rng.choice(([name.rpartition(".")[2]], [name], rf".*\.0\..*{re.escape(name.rpartition('.')[2])}"))


RANKS = _one_of(1, 2, 4, 8)
OPTIONS: dict[str, tuple[float, Draw]] = {
    "target_modules": (0.93, _targets),
    "modules_to_save": (0.2, _extra), "exclude_modules": (0.1, _excluded), "layers_to_transform": (0.12, _layers),
    "rank_pattern": (0.2, _pattern(1, 3, 6)), "alpha_pattern": (0.2, _pattern(1, 5, 32)),
    "bias": (0.2, _one_of("all", "OWN_only")),
    "r": (0.9, RANKS), "lora_alpha": (0.8, _one_of(1, 4, 8, 16, 32)), "alpha": (0.7, _one_of(2, 4, 16)),
    "use_rslora": (0.15, _one_of(True)), "use_dora": (0.15, _one_of(True)), "lora_bias": (0.06, _one_of(True)),
    "target_parameters": (0.06, _parameters), "trainable_token_indices": (0.08, _tokens),
    "token_indices": (0.9, _one_of([3, 5, 9])), "fan_in_fan_out": (0.08, _one_of(True)),
    "init_lora_weights": (0.2, _one_of(True, False, "gaussian", "pissa", "pissa_niter_4", "olora", "orthogonal")),
    "layer_replication": (0.02, _one_of([[0, 2], [1, 2]])), "use_bdlora": (0.03, _one_of(None)),
    "lora_dropout": (0.3, _one_of(0.05, 0.1)),
    "target_r": (0.8, _one_of(1, 2, 4)), "init_r": (0.8, _one_of(4, 6, 8)), "total_step": (1, _one_of(10)),
    "tinit": (0.5, _one_of(0, 1)), "tfinal": (0.5, _one_of(1, 5)), "deltaT": (0.5, _one_of(1)),
    "use_effective_conv2d": (0.3, _one_of(True)), "decompose_both": (0.4, _one_of(True)),
    "decompose_factor": (0.4, _one_of(2, 4)), "rank_dropout_scale": (0.1, _one_of(True)),
    "oft_block_size": (0.5, _one_of(2, 4, 8)), "coft": (0.2, _one_of(True)), "block_share": (0.3, _one_of(True)),
    "use_cayley_neumann": (0.3, _one_of(True, False)), "boft_block_size": (0.9, _one_of(2, 4)),
    "boft_n_butterfly_factor": (0.3, _one_of(1, 2)), "projection_prng_key": (0.3, _one_of(1)),
    "save_projection": (0.3, _one_of(False)), "d_initial": (0.3, _one_of(0.5)), "n_frequency": (1, _one_of(20)),
    "num_vectors": (1, _one_of(8)), "vector_length": (1, _one_of(4, 8)), "block_size": (1, _one_of(4, 8)),
    "num_virtual_tokens": (1, _one_of(2, 5)), "encoder_hidden_size": (0.5, _one_of(8, 16)),
    "prefix_projection": (0.3, _one_of(True)), "adapter_len": (1, _one_of(4)), "adapter_layers": (1, _one_of(1, 2)),
    "encoder_reparameterization_type": (0.3, _one_of("MLP", "LSTM")), "group_size": (1, _one_of(4)),
    "u": (0.5, _one_of(4)), "effective_rank": (0.5, _one_of(4)), "theta_d_length": (1, _one_of(32)),
}  # fmt: skip
"""Option → how often it is drawn, and what it may be."""
PLAIN = ("target_modules", "target_parameters", "r", "lora_alpha")
NOT_OF_PROMPTS = ("target_modules", "modules_to_save")
"""What configs of prompts have as well, and the releases do not read."""


def drawn(
    rng: Random, model: Model, task: str | None, methods: Collection[str], plain: float
) -> tuple[str, dict[str, Any]]:
    """One of the methods and the arguments of its config; some are `plain`, with ranks and targets alone."""
    method = rng.choices(tuple(methods), [OFTEN.get(name, SELDOM) for name in methods])[0]
    fields = {field.name for field in dataclasses.fields(CONFIGS[method])}
    settings: dict[str, Any] = {"task_type": task if method in PROMPTS or rng.random() < 0.75 else None}
    asked = PLAIN if rng.random() < plain else OPTIONS
    for option, (chance, draw) in OPTIONS.items():
        if (
            option in asked
            and option in fields
            and rng.random() < chance
            and not (method in PROMPTS and option in NOT_OF_PROMPTS)
        ):
            settings[option] = draw(rng, model)
    if settings.get("bias") == "OWN_only":
        settings["bias"] = f"{'lora' if method == 'ADALORA' else method.lower()}_only"
    if method == "IA3" and settings.get("target_modules"):
        settings["feedforward_modules"] = _feedforward(rng, settings["target_modules"])
    if method == "TRAINABLE_TOKENS" and settings.get("target_modules"):
        settings["target_modules"] = model.of("Embedding")[:1]
    if "oft_block_size" in settings:
        settings["r"] = 0
    return method, settings


def _feedforward(rng: Random, targets: Any) -> Any:
    return [] if isinstance(targets, str) else rng.sample(targets, rng.randint(0, len(targets)))
