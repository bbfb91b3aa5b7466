"""Sizes of pairs against the model's: by its weights where they are there, else by what its config tells."""

from __future__ import annotations

from collections.abc import Iterator

from ..record import REJECTS, UNKNOWN, Outcome
from .load import Fate, Load, Pair, Shape

THE_WEIGHTS = "the model's weights (--base)"


def compared(
    load: Load, server: str, module: str, pair: Pair, smaller: Outcome, path: str = "", transposed: bool = False
) -> Iterator[Fate]:  # fmt: skip
    """A pair that is larger than the model's weight is rejected; what becomes of a `smaller` one is the server's. The
    weight of an embedding, and of a Conv1D (`transposed`), is input by output.
    """
    sizes = pair.sizes
    if sizes is None or module.endswith((".experts", ".base_layer")):
        return
    weight = weight_of(load, module, path)
    if weight is None:
        if not load.base.weights and not set(sizes) <= load.sizes:
            message = f"whether {module} has the model's size shows only with its weights"
            yield Fate(UNKNOWN, "size", message, (module,), THE_WEIGHTS)
        return
    true = weight[::-1] if pair.embedding or transposed else weight
    if sizes != true:
        larger = any(mine > size for mine, size in zip(sizes, true, strict=True))
        if server == "SGLang":  # which cuts the input to the model's (layers.py: slice_lora_a_weights)
            larger, smaller = sizes[0] != true[0], UNKNOWN
        message = f"{module} is {list(sizes)}, and {list(true)} in the model"
        yield Fate(REJECTS if larger else smaller, "size", f"{server}: {message}", (module,))


def weight_of(load: Load, module: str, path: str = "") -> Shape | None:
    """The shape of a module's weight in the model's files, where they name it."""
    shape = load.base.weights.get(module)
    if shape is not None or not load.base.weights:
        return shape if shape is not None and len(shape) == 2 else None
    bare = module.removeprefix("model.")
    names = [module, path, bare, f"model.{module}", module.removeprefix("transformer."), f"transformer.{module}"]
    names += [f"language_model.model.{bare.removeprefix('language_model.')}", f"model.language_model.{bare}"]
    names += [module.replace("model.language_model.", "language_model.model."), module.replace("model.", "", 1)]
    shape = next((load.base.weights[name] for name in names if name in load.base.weights), None)
    return shape if shape is not None and len(shape) == 2 else None
